//! Senders that fill the mailboxes of users who are away, and those users coming back to drain them.
//!
//! What was accepted for a recipient is kept as a count and a sum of fingerprints; so is what the
//! recipient gets. Equal count and sum, with `seq` strictly increasing, is each message exactly once.

use std::ops::Range;

use crate::behaviour::{Behaviour, Incoming, Sent};
use crate::mark::Mark;
use crate::{Latency, User};

/// Count and fingerprint of a set of messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    sum: u64,
}

impl Tally {
    fn add(&mut self, sender: u32, number: u64) {
        // A mixing step, so that sums of different sets differ.
        let mixed = (u64::from(sender) << 40 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.sum = self
            .sum
            .wrapping_add((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9));
        self.count += 1;
    }
}

/// How senders are paced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// So many unanswered each, always.
    Window(usize),
    /// One message each in every interval, microseconds, at most 64 unanswered.
    EveryUs(u64),
}

#[derive(Debug, Clone, Copy, Default)]
struct Sender {
    number: u64,
    due_us: u64,
}

/// Senders that fill mailboxes.
#[derive(Debug)]
pub struct Flood {
    /// From due to `accepted`.
    pub accepted: Latency,
    recipients: Range<u32>,
    tallies: Vec<Tally>,
    senders: Vec<Sender>,
    body_bytes: usize,
    pace: Pace,
    stopping: bool,
    budget: u64,
    sent: u64,
    answered: u64,
}

/// Coprime to any number of recipients that is not a multiple of it, so that all get the same.
const STRIDE: u64 = 7919;

impl Flood {
    /// Users 0 to `senders` send to `recipients`, in turn.
    pub fn new(senders: usize, recipients: Range<u32>, body_bytes: usize) -> Self {
        Self {
            accepted: Latency::default(),
            tallies: vec![Tally::default(); recipients.len()],
            recipients,
            senders: vec![Sender::default(); senders],
            body_bytes,
            pace: Pace::Window(1),
            stopping: true,
            budget: u64::MAX,
            sent: 0,
            answered: 0,
        }
    }

    /// Sets the pace; senders have to be started anew.
    pub fn pace(&mut self, pace: Pace) {
        self.pace = pace;
        self.stopping = false;
    }

    /// Stops after `messages` more.
    pub fn limit(&mut self, messages: u64) {
        self.budget = self.sent + messages;
    }

    /// Sends nothing more.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Starts a sender.
    ///
    /// # Errors
    /// When it cannot send.
    pub fn start(&mut self, user: &mut User<'_>) -> Result<(), String> {
        match self.pace {
            Pace::Window(window) => {
                for _ in 0..window {
                    let now_us = user.now_us();
                    self.send(user, now_us)?;
                }
            }
            Pace::EveryUs(interval_us) => {
                let index = user.index() as usize;
                let offset_us = interval_us * index as u64 / self.senders.len() as u64;
                self.senders[index].due_us = user.now_us() + offset_us;
                user.wake_at(self.senders[index].due_us);
            }
        }
        Ok(())
    }

    /// Messages accepted.
    pub fn accepted_total(&self) -> u64 {
        self.answered
    }

    /// What was accepted for each recipient.
    pub fn tallies(&self) -> &[Tally] {
        &self.tallies
    }

    fn send(&mut self, user: &mut User<'_>, at_us: u64) -> Result<(), String> {
        if self.stopping || self.sent >= self.budget {
            return Ok(());
        }
        let sender = &mut self.senders[user.index() as usize];
        let turn = u64::from(user.index()) * 31 + sender.number * STRIDE;
        let place = turn % self.recipients.len() as u64;
        let to = self.recipients.start + u32::try_from(place).unwrap_or(0);
        user.send(to, sender.number, at_us, self.body_bytes)?;
        sender.number += 1;
        self.sent += 1;
        Ok(())
    }
}

impl Behaviour for Flood {
    fn on_accepted(&mut self, user: &mut User<'_>, sent: &Sent) -> Result<(), String> {
        self.answered += 1;
        let now_us = user.now_us();
        self.accepted.record_us(now_us.saturating_sub(sent.at_us));
        let place = sent.to - self.recipients.start;
        self.tallies[place as usize].add(user.index(), sent.number);
        match self.pace {
            Pace::Window(_) => self.send(user, now_us),
            Pace::EveryUs(_) if self.senders[user.index() as usize].due_us <= now_us => {
                self.on_timer(user)
            }
            Pace::EveryUs(_) => Ok(()),
        }
    }

    fn on_timer(&mut self, user: &mut User<'_>) -> Result<(), String> {
        let Pace::EveryUs(interval_us) = self.pace else {
            return Ok(());
        };
        let index = user.index() as usize;
        while self.senders[index].due_us <= user.now_us() && user.may_send() && !self.stopping {
            let due_us = self.senders[index].due_us;
            self.send(user, due_us)?;
            self.senders[index].due_us += interval_us;
        }
        // What is due already waits for an answer, not for the clock.
        if !self.stopping && self.senders[index].due_us > user.now_us() {
            user.wake_at(self.senders[index].due_us);
        }
        Ok(())
    }

    /// All that was sent is answered, and nothing more is to be sent.
    fn finished(&mut self) -> bool {
        (self.stopping || self.sent >= self.budget) && self.answered == self.sent
    }
}

/// Users who come back and take what has waited for them.
#[derive(Debug)]
pub struct Drain {
    first: u32,
    expected: Vec<Tally>,
    got: Vec<Tally>,
    left: u64,
}

impl Drain {
    /// Users from `first` on expect these.
    pub fn new(first: u32, expected: &[Tally]) -> Self {
        Self {
            first,
            expected: expected.to_vec(),
            got: vec![Tally::default(); expected.len()],
            left: expected.iter().map(|tally| tally.count).sum(),
        }
    }

    /// Messages that have yet to arrive.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Holds what arrived against what was accepted.
    ///
    /// # Errors
    /// Names the first user whose messages are not exactly those accepted for it.
    pub fn verify(&self) -> Result<(), String> {
        for (place, (expected, got)) in self.expected.iter().zip(&self.got).enumerate() {
            if expected != got {
                return Err(format!(
                    "user {} was to get {} messages and got {}: {expected:?}, {got:?}",
                    self.first as usize + place,
                    expected.count,
                    got.count
                ));
            }
        }
        Ok(())
    }
}

impl Behaviour for Drain {
    fn on_message(&mut self, user: &mut User<'_>, message: &Incoming<'_>) -> Result<(), String> {
        let place = (user.index() - self.first) as usize;
        let mark = Mark::read(message.body).ok_or("a message that nobody sent")?;
        self.got[place].add(mark.sender, mark.number);
        self.left = self
            .left
            .checked_sub(1)
            .ok_or("more messages than were accepted")?;
        if self.got[place].count == self.expected[place].count {
            user.ack_now();
        }
        Ok(())
    }

    fn finished(&mut self) -> bool {
        self.left == 0
    }
}

/// Users who do nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Behaviour for Quiet {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_tell_sets_apart_and_do_not_mind_the_order() {
        let tally = |messages: &[(u32, u64)]| {
            let mut tally = Tally::default();
            for &(sender, number) in messages {
                tally.add(sender, number);
            }
            tally
        };
        let all = tally(&[(1, 1), (2, 1), (1, 2)]);
        assert_eq!(all, tally(&[(1, 2), (1, 1), (2, 1)]));
        for other in [
            &[(1, 1), (2, 1), (1, 1)][..],
            &[(1, 1), (2, 1)],
            &[(1, 1), (2, 2), (1, 1)],
            &[(2, 2), (1, 1), (1, 1)],
        ] {
            assert_ne!(all, tally(other), "{other:?}");
        }
    }
}
