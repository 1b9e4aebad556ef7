//! Everything sent, accepted, delivered, acknowledged and told, and what of it broke a promise.
//!
//! All devices report here as things happen, so a violation is noted with what was known at that
//! moment. Nothing is ever forgotten over the rounds of a run: a place or an id used again a
//! hundred crashes later is found. It knows no connection and no time.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use uuid::Uuid;

use super::facts::{Breach, Counts, Got};

/// Violations kept in words; more are only counted.
const NOTES_MAX: usize = 50;

/// A set of devices, by number.
pub type Devices = u64;

/// What became of a send, as its sender knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Unanswered,
    Accepted,
    Refused,
}

#[derive(Debug)]
pub(super) struct Sent {
    pub(super) device: usize,
    pub(super) to: usize,
    /// Its place among the sends of its device.
    pub(super) nth: u64,
    pub(super) body_hash: u64,
    pub(super) fate: Fate,
    /// Greatest place known in the recipient's mailbox when it was sent first.
    pub(super) floor: u64,
    /// Its place in the recipient's mailbox; 0: not known.
    pub(super) place: u64,
    /// Its place in the sender's own mailbox, for the sender's other devices.
    pub(super) copy_place: u64,
    pub(super) expected: Devices,
    pub(super) delivered: Devices,
}

/// What is known of one device.
#[derive(Debug, Default)]
pub(super) struct DeviceTruth {
    pub(super) user: usize,
    pub(super) name: String,
    pub(super) sends: u64,
    pub(super) unanswered: usize,
    /// Accepted messages it has yet to get.
    pub(super) missing: usize,
    /// For each sending device the place of the last one delivered among its sends.
    pub(super) last_from: HashMap<usize, u64>,
    /// For each other user the places told as delivered and as read.
    pub(super) told: HashMap<usize, (u64, u64)>,
}

/// What is known of one mailbox.
#[derive(Debug, Default)]
pub(super) struct MailboxTruth {
    pub(super) places: BTreeMap<u64, Uuid>,
    /// Greatest place one of its devices said it acknowledges.
    pub(super) acked: u64,
    /// For each sender the greatest place one of the user's devices said was read.
    pub(super) read_said: HashMap<usize, u64>,
    /// For each sender the greatest place of a message of theirs.
    pub(super) last_of: HashMap<usize, u64>,
}

/// The whole truth.
#[derive(Debug, Default)]
pub struct Truth {
    pub(super) users: Vec<String>,
    pub(super) user_numbers: HashMap<String, usize>,
    pub(super) devices: Vec<DeviceTruth>,
    pub(super) mailboxes: Vec<MailboxTruth>,
    pub(super) sends: HashMap<Uuid, Sent>,
    pub(super) counts: Counts,
    pub(super) breaches: BTreeMap<Breach, u64>,
    pub(super) notes: Vec<String>,
}

impl Truth {
    /// Of these users, each with these devices. Devices are numbered in this order.
    ///
    /// # Panics
    /// With more than 64 devices.
    pub fn new(users: &[(String, Vec<&'static str>)]) -> Self {
        let mut truth = Self::default();
        for (number, (user, devices)) in users.iter().enumerate() {
            truth.users.push(user.clone());
            truth.user_numbers.insert(user.clone(), number);
            truth.mailboxes.push(MailboxTruth::default());
            truth.devices.extend(devices.iter().map(|name| DeviceTruth {
                user: number,
                name: (*name).to_owned(),
                ..DeviceTruth::default()
            }));
        }
        assert!(truth.devices.len() <= 64, "a set of devices is 64 bits");
        truth
    }

    /// The devices of a user.
    pub fn devices_of(&self, user: usize) -> Devices {
        self.devices
            .iter()
            .enumerate()
            .filter(|(_, device)| device.user == user)
            .fold(0, |set, (number, _)| set | 1 << number)
    }

    /// Notes a breach.
    pub fn breach(&mut self, breach: Breach, what: impl FnOnce() -> String) {
        *self.breaches.entry(breach).or_default() += 1;
        if self.notes.len() < NOTES_MAX {
            self.notes.push(format!("{}: {}", breach.name(), what()));
        }
    }

    pub(super) fn label(&self, device: usize) -> String {
        let device = &self.devices[device];
        format!("{}/{}", self.users[device.user], device.name)
    }

    // --- what a sender does and hears

    /// A device sends a message for the first time.
    pub fn sends(&mut self, device: usize, id: Uuid, to: usize, body_hash: u64) {
        let user = self.devices[device].user;
        let own = self.devices_of(user) & !(1 << device);
        let expected = own | self.devices_of(to);
        let floor = self.mailboxes[to].places.last_key_value();
        let floor = floor.map_or(0, |(place, _)| *place);
        let sender = &mut self.devices[device];
        sender.sends += 1;
        sender.unanswered += 1;
        self.counts.sent += 1;
        let sent = Sent {
            device,
            to,
            nth: sender.sends,
            body_hash,
            fate: Fate::Unanswered,
            floor,
            place: 0,
            copy_place: 0,
            expected,
            delivered: 0,
        };
        self.sends.insert(id, sent);
    }

    /// A device hears `accepted`; `awaited` is the oldest of its unanswered sends.
    pub fn accepted(
        &mut self,
        device: usize,
        id: Uuid,
        awaited: Option<Uuid>,
        duplicate: bool,
        resent: bool,
    ) {
        if awaited != Some(id) {
            let who = self.label(device);
            self.breach(Breach::Other, || {
                format!("{who}: answer to {id}, awaited {awaited:?}")
            });
            return;
        }
        if duplicate && !resent {
            let who = self.label(device);
            self.breach(Breach::Other, || {
                format!("{who}: {id} was sent once and called a duplicate")
            });
        }
        self.counts.duplicates += u64::from(duplicate);
        self.counts.accepted += 1;
        self.devices[device].unanswered -= 1;
        let sent = self.sends.get_mut(&id).expect("what is awaited was sent");
        sent.fate = Fate::Accepted;
        for number in numbers(sent.expected & !sent.delivered) {
            self.devices[number].missing += 1;
        }
    }

    /// A send is refused for good: it will not go again under its id.
    pub fn refused(&mut self, device: usize, id: Uuid) {
        if let Some(sent) = self.sends.get_mut(&id) {
            sent.fate = Fate::Refused;
            self.devices[device].unanswered -= 1;
            self.counts.refused += 1;
            if sent.delivered != 0 {
                self.breach(Breach::Phantom, || {
                    format!("{id} was delivered, then refused")
                });
            }
        }
    }

    /// A send is refused for want of a disk; it may go again.
    pub fn put_off(&mut self) {
        self.counts.put_off += 1;
    }

    // --- what a recipient gets and says

    /// A device gets a message it hands to its application.
    pub fn delivered(&mut self, device: usize, got: &Got<'_>) {
        self.counts.delivered += 1;
        if let Err((breach, what)) = self.take(device, got) {
            let who = self.label(device);
            self.breach(breach, || format!("{who}: {what}: {got:?}"));
        }
    }

    fn take(&mut self, device: usize, got: &Got<'_>) -> Result<(), (Breach, String)> {
        let user = self.devices[device].user;
        let bit = 1 << device;
        let Some(sent) = self.sends.get_mut(&got.id) else {
            return Err((Breach::Phantom, "never sent".to_owned()));
        };
        let sender = &self.devices[sent.device];
        let author = (self.users[sender.user].as_str(), sender.name.as_str());
        let author_number = sender.user;
        let copy = author_number == user;
        let to = copy.then(|| self.users[sent.to].as_str());
        if got.from != author || got.to != to || sent.expected & bit == 0 {
            return Err((
                Breach::Phantom,
                "not sent by them to this device".to_owned(),
            ));
        }
        if got.body_hash != sent.body_hash {
            return Err((Breach::Phantom, "not the body that was sent".to_owned()));
        }
        if sent.fate == Fate::Refused {
            return Err((Breach::Phantom, "it was refused".to_owned()));
        }
        if sent.delivered & bit != 0 {
            return Err((Breach::Doubled, "the application has it already".to_owned()));
        }
        sent.delivered |= bit;
        if sent.fate == Fate::Accepted {
            self.devices[device].missing -= 1;
        }
        let place = if copy {
            &mut sent.copy_place
        } else {
            &mut sent.place
        };
        if *place != 0 && *place != got.seq {
            let what = format!("another device got it at {place}");
            return Err((Breach::Doubled, what));
        }
        *place = got.seq;
        let mailbox = &mut self.mailboxes[user];
        if let Some(other) = mailbox.places.insert(got.seq, got.id)
            && other != got.id
        {
            let what = format!("{other} had this place before");
            return Err((Breach::Disordered, what));
        }
        if !copy && got.seq <= sent.floor {
            let what = format!("{} was in use before it was sent", sent.floor);
            return Err((Breach::Disordered, what));
        }
        if !copy {
            let last = mailbox.last_of.entry(author_number).or_default();
            *last = got.seq.max(*last);
        }
        let (from, nth) = (sent.device, sent.nth);
        let last = self.devices[device].last_from.entry(from).or_default();
        if *last >= nth {
            let what = format!("number {nth} of its device after number {last}");
            return Err((Breach::Disordered, what));
        }
        *last = nth;
        Ok(())
    }

    /// Whether a device has got this message.
    pub fn has_got(&self, device: usize, id: Uuid) -> bool {
        let sent = self.sends.get(&id);
        sent.is_some_and(|sent| sent.delivered & 1 << device != 0)
    }

    /// A device gets a message whose place it has passed, and drops it.
    pub fn dropped(&mut self, device: usize, seq: u64, id: Uuid, marked: bool) {
        self.counts.redelivered += 1;
        let user = self.devices[device].user;
        let who = self.label(device);
        match self.mailboxes[user].places.get(&seq) {
            Some(known) if *known != id => {
                let known = *known;
                self.breach(Breach::Disordered, || {
                    format!("{who}: {id} at {seq}, the place of {known}")
                });
            }
            _ => {}
        }
        if !marked {
            self.breach(Breach::Other, || {
                format!("{who}: {id} at {seq} came again, not marked redelivered")
            });
        }
    }

    /// A device is about to acknowledge.
    pub fn acknowledges(&mut self, device: usize, seq: u64) {
        let mailbox = &mut self.mailboxes[self.devices[device].user];
        mailbox.acked = mailbox.acked.max(seq);
    }

    /// A device is about to say that it has read a message.
    pub fn reads(&mut self, device: usize, from: usize, seq: u64) {
        let mailbox = &mut self.mailboxes[self.devices[device].user];
        let said = mailbox.read_said.entry(from).or_default();
        *said = seq.max(*said);
    }

    // --- judging

    /// What these devices still wait for, in words; `None` when they have everything and know it.
    pub fn awaited(&self, due: Devices) -> Option<String> {
        for number in numbers(due) {
            let device = &self.devices[number];
            if device.unanswered > 0 {
                let n = device.unanswered;
                return Some(format!("{}: {n} sends unanswered", self.label(number)));
            }
            if device.missing > 0 {
                let n = device.missing;
                return Some(format!("{}: {n} messages missing", self.label(number)));
            }
        }
        self.late_receipt(due)
    }

    /// Whether any of these devices has yet to get an accepted message.
    pub fn is_missing_any(&self, due: Devices) -> bool {
        numbers(due).any(|number| self.devices[number].missing > 0)
    }

    /// The devices had their time: what they still lack is lost.
    pub fn settle(&mut self, due: Devices) {
        let mut lost = Vec::new();
        for (id, sent) in &mut self.sends {
            let lacking = sent.expected & due & !sent.delivered;
            if sent.fate == Fate::Accepted && lacking != 0 {
                // Once is enough: it is not expected any more.
                sent.expected &= !lacking;
                lost.push((*id, sent.to, lacking));
            }
        }
        for (id, to, lacking) in lost {
            for number in numbers(lacking) {
                self.devices[number].missing -= 1;
            }
            let at: Vec<String> = numbers(lacking).map(|number| self.label(number)).collect();
            let to = self.users[to].clone();
            self.breach(Breach::Lost, || {
                format!("{id} to {to} was accepted and is missing at {at:?}")
            });
        }
        for number in numbers(due) {
            if self.devices[number].unanswered > 0 {
                let who = self.label(number);
                self.breach(Breach::Other, || format!("{who}: sends stay unanswered"));
            }
        }
        if let Some(late) = self.late_receipt(due) {
            self.breach(Breach::Receipt, || format!("never came: {late}"));
        }
    }

    /// Figures so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How often each promise was broken so far.
    pub fn breaches(&self, breach: Breach) -> u64 {
        self.breaches.get(&breach).copied().unwrap_or(0)
    }

    /// Breaches of all kinds so far.
    pub fn breaches_total(&self) -> u64 {
        self.breaches.values().sum()
    }

    /// The first breaches in words.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Breaches by name.
    pub fn breaches_json(&self) -> Value {
        Breach::ALL
            .into_iter()
            .map(|breach| (breach.name().to_owned(), Value::from(self.breaches(breach))))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

/// Numbers of the devices in a set.
pub(super) fn numbers(mut set: Devices) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let number = set.trailing_zeros() as usize;
        (set != 0).then(|| {
            set &= set - 1;
            number
        })
    })
}

#[cfg(test)]
#[path = "truth_tests.rs"]
mod tests;
