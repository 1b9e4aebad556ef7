//! The checker's view of receipts: watermarks by place, never back, never ahead of what was
//! acknowledged or read, and there in the end.

use uuid::Uuid;

use super::facts::Breach;
use super::truth::{Devices, Truth, numbers};

impl Truth {
    /// A device is told a receipt.
    pub fn told(&mut self, device: usize, with: &str, delivered: Option<Uuid>, read: Option<Uuid>) {
        self.counts.receipts += 1;
        if let Err(what) = self.tell(device, with, delivered, read) {
            let who = self.label(device);
            self.breach(Breach::Receipt, || {
                format!("{who}: with {with}: {what}: {delivered:?} {read:?}")
            });
        }
    }

    fn tell(
        &mut self,
        device: usize,
        with: &str,
        delivered: Option<Uuid>,
        read: Option<Uuid>,
    ) -> Result<(), String> {
        let other = *self.user_numbers.get(with).ok_or("an unknown user")?;
        let user = self.devices[device].user;
        let mailbox = &self.mailboxes[other];
        let place = |id: Option<Uuid>| {
            let Some(id) = id else { return Ok(0) };
            let sent = self.sends.get(&id).ok_or("a message never sent")?;
            if sent.to != other || self.devices[sent.device].user != user {
                return Err("a message of another conversation");
            }
            if sent.place == 0 {
                return Err("nobody got this message yet");
            }
            Ok(sent.place)
        };
        let (delivered, read) = (place(delivered)?, place(read)?);
        let read_said = mailbox.read_said.get(&user).copied().unwrap_or(0);
        if delivered > mailbox.acked.max(read_said) {
            return Err(format!("acknowledged up to {} only", mailbox.acked));
        }
        if read > read_said {
            return Err(format!("read up to {read_said} only"));
        }
        if read > delivered {
            return Err(format!("read {read} is ahead of delivered {delivered}"));
        }
        let told = self.devices[device].told.entry(other).or_default();
        let before = std::mem::replace(told, (delivered, read));
        if delivered < before.0 || read < before.1 {
            return Err(format!(
                "{before:?} was told before {:?}",
                (delivered, read)
            ));
        }
        Ok(())
    }

    /// The first receipt that these devices should have been told and were not.
    pub(super) fn late_receipt(&self, due: Devices) -> Option<String> {
        for (other, mailbox) in self.mailboxes.iter().enumerate() {
            if self.devices_of(other) & due == 0 {
                continue;
            }
            for (user, last) in &mailbox.last_of {
                for number in numbers(self.devices_of(*user) & due) {
                    let told = self.devices[number].told.get(&other);
                    let told = told.map_or(0, |told| told.0);
                    if told < *last {
                        let (who, with) = (self.label(number), &self.users[other]);
                        return Some(format!("{who}: told {told} of {last} with {with}"));
                    }
                }
            }
        }
        None
    }
}
