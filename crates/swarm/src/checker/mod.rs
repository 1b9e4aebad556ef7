//! The checker: knows what was sent, accepted, delivered and read, and decides whether the server
//! kept its word.
//!
//! It is fed by whoever drives the users, asks nobody, does no IO and has no clock. What it finds at
//! once it notes at once: messages that come twice, out of order, damaged, from nobody, receipts that
//! go back or ahead. What is missing it can only know at the end, after all devices have taken
//! everything: [`Checker::verdict`].
//!
//! **Memory.** No list of messages. Messages of one device to one user are numbered without gaps;
//! of each such **pair** it keeps how many were sent, accepted and refused, and for each device that
//! is to get them how many came, the next number and a sum of fingerprints. Equal count and sum, with
//! numbers that only increase, is each message exactly once and in order. That, and the state of
//! receipts, is at most 450 bytes for a pair between users with one device, however many messages (up
//! to 2^32 a pair) go through it. Numbers that were skipped and numbers that were refused are kept
//! while they are few ([`GAPS_MAX`], [`REFUSALS_MAX`]); beyond that the counts still tell that
//! something is missing, but not which.
//!
//! It deliberately does not check ephemeral messages and messages to oneself: swarms send none.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use ahash::RandomState;
use stonechat_protocol::MessageId;

use crate::behaviour::{Breach, Incoming, Receipt};
use crate::frames::user_and_device;
use crate::mark::{Mark, mix};
use crate::roster::Names;

mod verdict;
mod violation;

pub use verdict::{Outcome, Verdict};
pub use violation::{Kind, VIOLATIONS_MAX_EACH, Violation, Violations};

/// Ranges of numbers that were skipped, kept at a time.
pub const GAPS_MAX: usize = 10_000;
/// Refused sends kept by number.
pub const REFUSALS_MAX: usize = 100_000;

type Map<K, V> = HashMap<K, V, RandomState>;
/// Receiving device, sending device, user it was sent to.
type Way = (u32, u32, u32);

/// What one device sent to one user, and what it was told about it.
#[derive(Debug, Clone, Copy, Default)]
struct Outgoing {
    next: u32,
    accepted: u32,
    refused: u32,
    sum: u64,
    delivered: u128,
    read: u128,
}

impl Outgoing {
    /// Sent, and neither accepted nor refused.
    fn in_doubt(&self) -> u32 {
        self.next - self.accepted - self.refused
    }
}

/// What came of it at one device.
#[derive(Debug, Clone, Copy, Default)]
struct Arrived {
    next: u32,
    count: u32,
    sum: u64,
}

/// What a user got from another, on whichever device was first.
#[derive(Debug, Clone, Copy, Default)]
struct Conversation {
    last_seq: u64,
    last_id: u128,
    max_id: u128,
    read_seq: u64,
    read_id: u128,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Totals {
    /// Sends, each counted once however often it was repeated.
    pub sent: u64,
    /// Of them accepted.
    pub accepted: u64,
    /// Of them refused.
    pub refused: u64,
    /// Messages handed to the application, on all devices.
    pub delivered: u64,
    /// Messages that came again on the wire, were marked so, and were dropped. Allowed.
    pub redelivered: u64,
    /// Receipts.
    pub receipts: u64,
}

fn fingerprint(number: u32) -> u64 {
    mix(0x1319_8a2e_0370_7344, u64::from(number))
}

fn number_of(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Knows what was sent and what came, and judges.
#[derive(Debug)]
pub struct Checker {
    names: Names,
    pairs: Map<(u32, u32), Outgoing>,
    arrived: Map<Way, Arrived>,
    conversations: Map<(u32, u32), Conversation>,
    /// For each device a sum over what it got for its user: `seq` and id. Equal for all devices of one.
    mailboxes: Vec<u64>,
    gaps: Map<Way, Vec<Range<u32>>>,
    gaps_kept: usize,
    refusals: HashSet<(u32, u32, u32), RandomState>,
    totals: Totals,
    violations: Violations,
    at_us: u64,
}

impl Checker {
    /// A checker for users that are called so, with so many devices in all.
    pub fn new(names: Names, devices: usize) -> Self {
        Self {
            names,
            pairs: Map::default(),
            arrived: Map::default(),
            conversations: Map::default(),
            mailboxes: vec![0; devices],
            gaps: Map::default(),
            gaps_kept: 0,
            refusals: HashSet::default(),
            totals: Totals::default(),
            violations: Violations::default(),
            at_us: 0,
        }
    }

    /// The time for what follows, microseconds since the Unix epoch.
    pub fn tick(&mut self, now_us: u64) {
        self.at_us = now_us;
    }

    /// What was counted so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// What was found so far.
    pub fn violations(&self) -> &Violations {
        &self.violations
    }

    /// `device` is about to send to the user `to`: the number for its [`Mark`].
    pub fn sending(&mut self, device: u32, to: u32) -> u64 {
        let pair = self.pairs.entry((device, to)).or_default();
        pair.next += 1;
        self.totals.sent += 1;
        u64::from(pair.next - 1)
    }

    /// The send was accepted.
    pub fn accepted(&mut self, device: u32, to: u32, number: u64) {
        let pair = self.pairs.entry((device, to)).or_default();
        pair.accepted += 1;
        pair.sum = pair.sum.wrapping_add(fingerprint(number_of(number)));
        self.totals.accepted += 1;
    }

    /// The send was refused, and will not be repeated under this number.
    pub fn refused(&mut self, device: u32, to: u32, number: u64) {
        self.pairs.entry((device, to)).or_default().refused += 1;
        self.totals.refused += 1;
        if self.refusals.len() < REFUSALS_MAX {
            self.refusals.insert((device, to, number_of(number)));
        }
    }

    /// `device` hands a message to its application. The mark, when it counts as delivered: it is what
    /// was sent, it is for this device, and it is there for the first time.
    pub fn delivered(&mut self, device: u32, message: &Incoming<'_>) -> Option<Mark> {
        let own = self.names.user_of(device);
        let to = if message.to.is_empty() {
            Some(own)
        } else {
            self.names.index(user_and_device(message.to).0)
        };
        let Some(mark) = Mark::read(message.body) else {
            self.note(Kind::Phantom, device, message, "nobody of this run sent it");
            return None;
        };
        let whole = to.and_then(|to| Some((to, Mark::read_sealed(message.body, to, message.id)?)));
        let Some((to, _)) = whole else {
            let what = "body, id or recipient is not what was sent";
            self.note(Kind::Damaged, device, message, what);
            return None;
        };
        let by = self.names.user_of(mark.sender);
        let (user, name) = user_and_device(message.from);
        if self.names.index(user) != Some(by) || !self.names.is_device(mark.sender, name) {
            self.note(Kind::Damaged, device, message, "from is not who sent it");
            return None;
        }
        // The recipient's devices get it without `to`, the sender's other devices with it.
        let fits = if by == own {
            mark.sender != device && !message.to.is_empty()
        } else {
            message.to.is_empty()
        };
        let number = number_of(mark.number);
        let known = self.pairs.get(&(mark.sender, to));
        if !fits || known.is_none_or(|pair| number >= pair.next) {
            self.note(Kind::Phantom, device, message, "it was not sent to it");
            return None;
        }
        if self.refusals.contains(&(mark.sender, to, number)) {
            self.note(Kind::Phantom, device, message, "its send was refused");
            return None;
        }
        self.take((device, mark.sender, to), number, message)?;
        self.totals.delivered += 1;
        if to == own {
            let mailbox = &mut self.mailboxes[device as usize];
            *mailbox = mailbox.wrapping_add(mix(message.seq, message.id.to_u128() as u64));
            let conversation = self.conversations.entry((by, to)).or_default();
            let id = message.id.to_u128();
            conversation.max_id = conversation.max_id.max(id);
            if message.seq > conversation.last_seq {
                (conversation.last_seq, conversation.last_id) = (message.seq, id);
            }
        }
        Some(mark)
    }

    /// Counts a message in, unless it came before.
    fn take(&mut self, way: Way, number: u32, message: &Incoming<'_>) -> Option<()> {
        let arrived = self.arrived.entry(way).or_default();
        if number < arrived.next && !self.fill_gap(way, number) {
            let what = "the application has it already";
            self.note(Kind::Doubled, way.0, message, what);
            return None;
        }
        let arrived = self.arrived.entry(way).or_default();
        arrived.count += 1;
        arrived.sum = arrived.sum.wrapping_add(fingerprint(number));
        let next = arrived.next;
        arrived.next = next.max(number + 1);
        if number < next {
            let what = format!("came after number {}", next - 1);
            self.note(Kind::OutOfOrder, way.0, message, &what);
        } else if number > next && self.gaps_kept < GAPS_MAX {
            self.gaps_kept += 1;
            self.gaps.entry(way).or_default().push(next..number);
        }
        Some(())
    }

    /// Whether the number was skipped; then it is not any more.
    fn fill_gap(&mut self, way: Way, number: u32) -> bool {
        let Some(gaps) = self.gaps.get_mut(&way) else {
            return false;
        };
        let Some(place) = gaps.iter().position(|gap| gap.contains(&number)) else {
            return false;
        };
        let gap = gaps.swap_remove(place);
        let rest = [gap.start..number, number + 1..gap.end];
        gaps.extend(rest.into_iter().filter(|gap| !gap.is_empty()));
        true
    }

    /// A message came again, marked so, and was dropped. It must have been there before: one that was
    /// not is as good as lost, and this is where it happens.
    pub fn redelivered(&mut self, device: u32, message: &Incoming<'_>) {
        self.totals.redelivered += 1;
        let own = self.names.user_of(device);
        let to = match message.to {
            [] => Some(own),
            to => self.names.index(user_and_device(to).0),
        };
        let (Some(mark), Some(to)) = (Mark::read(message.body), to) else {
            return;
        };
        let (way, number) = ((device, mark.sender, to), number_of(mark.number));
        let next = self.arrived.get(&way).map_or(0, |arrived| arrived.next);
        let gaps = self.gaps.get(&way);
        let skipped = gaps.is_some_and(|gaps| gaps.iter().any(|gap| gap.contains(&number)));
        if number >= next || skipped {
            let what = "marked redelivered, below what came before, and it never came";
            self.note(Kind::Seq, device, message, what);
        }
    }

    /// What the user said last to have read of `from`.
    pub fn read_said(&self, user: u32, from: u32) -> Option<MessageId> {
        let said = self.conversations.get(&(from, user))?.read_id;
        (said > 0).then(|| MessageId::from_u128(said))
    }

    /// The user says that it has read up to the message `id` in its place `seq`.
    pub fn reading(&mut self, user: u32, from: u32, seq: u64, id: MessageId) {
        let conversation = self.conversations.entry((from, user)).or_default();
        if seq > conversation.read_seq {
            (conversation.read_seq, conversation.read_id) = (seq, id.to_u128());
        }
    }

    /// `device` got a receipt.
    pub fn receipt(&mut self, device: u32, receipt: &Receipt) {
        self.totals.receipts += 1;
        let user = self.names.user_of(device);
        let delivered = receipt.delivered.map_or(0, MessageId::to_u128);
        let read = receipt.read.map_or(0, MessageId::to_u128);
        let Some(with) = receipt.with else {
            self.note_receipt(device, None, receipt, "of somebody who is not of this run");
            return;
        };
        let conversation = self.conversations.get(&(user, with)).copied();
        let conversation = conversation.unwrap_or_default();
        let pair = self.pairs.entry((device, with)).or_default();
        let before = *pair;
        (pair.delivered, pair.read) = (delivered, read);
        // Ids of several sending devices are in no order.
        let ordered = self.names.devices_each() == 1;
        let read_max = if ordered {
            conversation.read_id
        } else {
            conversation.max_id
        };
        let wrong = if delivered > conversation.max_id {
            "delivered is ahead of what was delivered"
        } else if read > read_max {
            "read is ahead of what was read"
        } else if ordered && (delivered < before.delivered || read < before.read) {
            "it went back"
        } else if ordered && read > delivered {
            "read is ahead of delivered"
        } else {
            return;
        };
        self.note_receipt(device, Some(with), receipt, wrong);
    }

    /// The server broke the protocol on the wire.
    pub fn breach(&mut self, device: u32, breach: &Breach<'_>) {
        let kind = match breach {
            Breach::Seq { .. } => Kind::Seq,
            Breach::Answer { .. } => Kind::Answer,
            Breach::Frame { .. } => Kind::Frame,
        };
        let (seq, id) = match breach {
            Breach::Seq { message, .. } => (Some(message.seq), Some(message.id)),
            Breach::Answer { id, .. } => (None, Some(*id)),
            Breach::Frame { .. } => (None, None),
        };
        let violation = Violation {
            seq,
            id: id.map(|id| id.to_string()),
            ..self.about(kind, device, breach.to_string())
        };
        self.violations.add(violation);
    }

    /// The server's process or its log shows something that nothing explains.
    pub(crate) fn server(&mut self, what: String) {
        let violation = Violation {
            user: "server".to_owned(),
            device: "log".to_owned(),
            ..self.about(Kind::Server, 0, what)
        };
        self.violations.add(violation);
    }

    fn about(&self, kind: Kind, device: u32, what: String) -> Violation {
        Violation {
            kind,
            at_ms: self.at_us / 1000,
            user: self.names.user(self.names.user_of(device)),
            device: self.names.device(device),
            from: None,
            from_device: None,
            id: None,
            seq: None,
            number: None,
            what,
        }
    }

    fn note(&mut self, kind: Kind, device: u32, message: &Incoming<'_>, what: &str) {
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            (!text.is_empty()).then_some(text)
        };
        let (user, name) = user_and_device(message.from);
        let violation = Violation {
            from: text(user),
            from_device: text(name),
            id: Some(message.id.to_string()),
            seq: Some(message.seq),
            number: Mark::read(message.body).map(|mark| mark.number),
            ..self.about(kind, device, what.to_owned())
        };
        self.violations.add(violation);
    }

    fn note_receipt(&mut self, device: u32, with: Option<u32>, receipt: &Receipt, what: &str) {
        let Receipt {
            delivered, read, ..
        } = receipt;
        let shown = |id: &Option<MessageId>| id.map_or("nothing".to_owned(), |id| id.to_string());
        let (delivered, read) = (shown(delivered), shown(read));
        let what = format!("{what}: delivered {delivered}, read {read}");
        let violation = Violation {
            from: with.map(|with| self.names.user(with)),
            ..self.about(Kind::Receipt, device, what)
        };
        self.violations.add(violation);
    }
}

#[cfg(test)]
mod checker_tests;
