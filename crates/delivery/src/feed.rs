//! What one connected device is sent: live messages while it keeps up, reads
//! from the mailbox while it does not, and back without a gap or a duplicate
//! (contract D2, D4, D6).
//!
//! The machine stands at a *position*: everything up to there was sent, was the
//! device's own, or is no longer in the mailbox. Each committed message tells
//! the greatest `seq` committed before it (`prev`). A message is taken live only
//! if nothing can lie between position and message; otherwise the mailbox is
//! read from the position on. A lost notification therefore costs a read, never
//! a message.
//!
//! Not here: bodies (a message is its `seq` and size), connections, retry
//! timers. After [`Feed::read_failed`] the owner calls [`Feed::nudge`] when it
//! wants the read tried again.

use smallvec::SmallVec;
use stonechat_protocol::Seq;

/// How much may be sent and not yet acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedLimits {
    /// Messages; at least 1.
    pub window_messages_max: u32,
    /// Bytes. A single message above it is sent when nothing else is unacknowledged.
    pub window_bytes_max: u32,
}

/// Where a device stands when it connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedStart {
    /// Everything up to here is acknowledged.
    pub cursor: Seq,
    /// Everything up to here was (or may have been) sent before: it comes marked `redelivered`.
    /// When nobody remembers, as after a panic of the session, everything committed may have been.
    pub sent: Seq,
    /// Greatest `seq` committed in the mailbox, looked up in the same step in which the feed
    /// is made: later commits must reach [`Feed::committed`]. When in doubt, `Seq::MAX`
    /// makes the feed read first.
    pub last_seq: Seq,
}

/// A message as read from the mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadItem {
    /// Its place.
    pub seq: Seq,
    /// Bytes it takes in the window.
    pub size: u32,
    /// Sent by this very device: not sent back to it.
    pub own: bool,
}

/// What the owner has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Send this message to the device.
    Deliver {
        /// Its place.
        seq: Seq,
        /// It was (or may have been) sent to this device before.
        redelivered: bool,
    },
    /// Read from the mailbox, then call [`Feed::read_done`] or [`Feed::read_failed`].
    /// At most one is outstanding.
    Read {
        /// Messages after this place.
        after: Seq,
        /// At most so many.
        messages_max: u32,
        /// At most so many bytes, but at least one message.
        bytes_max: u32,
    },
    /// Acknowledge up to here in the device's name: there is nothing for it before that.
    AutoAck {
        /// The cursor's new place.
        upto: Seq,
    },
}

/// Effects, in the order in which they have to be carried out. As many as the window has
/// room for, and two.
pub type Effects = SmallVec<[Effect; 2]>;

/// An acknowledgement that was not possible. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// Above what was sent to the device.
    #[error("the acknowledged message was never sent; acknowledge at most {sent}")]
    NotSent {
        /// Greatest `seq` sent to the device.
        sent: Seq,
    },
}

/// What an acknowledgement did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AckStep {
    /// Tell the store; `None` when the cursor did not move.
    pub cursor: Option<Seq>,
    /// What else to do.
    pub effects: Effects,
}

#[derive(Debug, Clone, Copy)]
struct Unacked {
    seq: Seq,
    size: u32,
}

/// One connected device. No heap while at most one message is unacknowledged.
#[derive(Debug)]
pub struct Feed {
    cursor: Seq,
    position: Seq,
    sent: Seq,
    /// Greatest `seq` heard of. Above `position`: there is something to read.
    known: Seq,
    /// Sent and not acknowledged, in order. At most `window_messages_max`.
    unacked: SmallVec<[Unacked; 1]>,
    unacked_bytes: u32,
    limits: FeedLimits,
    reading: bool,
    /// There may be messages beyond `position` that nobody told of: read to find out.
    unsure: bool,
    /// The next message does not fit beside what is unacknowledged: reading it again is of no
    /// use before an acknowledgement.
    blocked: bool,
}

impl Feed {
    /// A device connected. Carry out [`Feed::start`] next.
    pub fn new(start: FeedStart, limits: FeedLimits) -> Self {
        Self {
            cursor: start.cursor,
            position: start.cursor,
            sent: start.sent.max(start.cursor),
            known: match start.last_seq {
                Seq::MAX => start.cursor,
                last_seq => last_seq,
            },
            unacked: SmallVec::new(),
            unacked_bytes: 0,
            limits: FeedLimits {
                window_messages_max: limits.window_messages_max.max(1),
                ..limits
            },
            reading: false,
            unsure: start.last_seq == Seq::MAX,
            blocked: false,
        }
    }

    /// What to do first: nothing for a device that has everything, else a read.
    pub fn start(&mut self) -> Effects {
        let mut effects = Effects::new();
        self.read_if_due(&mut effects);
        effects
    }

    /// A message was committed. `prev` is the greatest `seq` committed before it.
    pub fn committed(&mut self, prev: Seq, seq: Seq, size: u32, own: bool) -> Effects {
        let mut effects = Effects::new();
        if seq <= self.position {
            return effects;
        }
        // Only who has everything before it takes a message live. To whom is behind, a late
        // notification may tell of what has left the mailbox since: the read knows better.
        let behind = self.unsure || self.known > self.position || prev > self.position;
        if behind || !self.take(ReadItem { seq, size, own }, &mut effects) {
            self.known = self.known.max(seq);
        }
        self.settle(&mut effects);
        effects
    }

    /// The result of [`Effect::Read`]: messages in increasing order of `seq`, everything up
    /// to `upto` was looked at, `end` if nothing lies beyond.
    pub fn read_done(
        &mut self,
        messages: impl IntoIterator<Item = ReadItem>,
        upto: Seq,
        end: bool,
    ) -> Effects {
        let mut effects = Effects::new();
        self.reading = false;
        self.unsure = !end;
        let mut taken_all = true;
        for message in messages {
            self.known = self.known.max(message.seq);
            // What was acknowledged during the read is not sent again.
            if message.seq > self.position && !self.take(message, &mut effects) {
                taken_all = false;
                break;
            }
        }
        if taken_all {
            self.position = self.position.max(upto);
        }
        self.known = self.known.max(upto);
        self.settle(&mut effects);
        effects
    }

    /// The read failed. Nothing is read until [`Feed::nudge`], an acknowledgement or a commit.
    pub fn read_failed(&mut self) {
        self.reading = false;
    }

    /// Something may have been missed, or a failed read is to be tried again. `last_seq` is
    /// the greatest `seq` committed in the mailbox.
    pub fn nudge(&mut self, last_seq: Seq) -> Effects {
        let mut effects = Effects::new();
        self.known = self.known.max(last_seq);
        self.settle(&mut effects);
        effects
    }

    /// The device acknowledged everything up to `seq`.
    ///
    /// # Errors
    /// [`AckError::NotSent`] when it cannot have received `seq`; nothing changed then.
    pub fn ack(&mut self, seq: Seq) -> Result<AckStep, AckError> {
        if seq > self.sent {
            return Err(AckError::NotSent { sent: self.sent });
        }
        let mut step = AckStep::default();
        if seq <= self.cursor {
            return Ok(step);
        }
        let acked = self.unacked.partition_point(|entry| entry.seq <= seq);
        for entry in self.unacked.drain(..acked) {
            self.unacked_bytes -= entry.size;
        }
        if self.unacked.is_empty() {
            self.unacked = SmallVec::new();
        }
        // It may acknowledge what an earlier connection was sent and this one was not yet.
        self.position = self.position.max(seq);
        self.cursor = self.settled_upto();
        self.sent = self.sent.max(self.cursor);
        self.blocked = false;
        step.cursor = Some(self.cursor);
        self.read_if_due(&mut step.effects);
        Ok(step)
    }

    /// Everything up to here is acknowledged.
    pub fn cursor(&self) -> Seq {
        self.cursor
    }

    /// Everything up to here was (or may have been) sent to the device: what the store is
    /// told when it disconnects.
    pub fn sent(&self) -> Seq {
        self.sent
    }

    /// Messages sent and not acknowledged.
    pub fn unacked(&self) -> usize {
        self.unacked.len()
    }

    /// Bytes sent and not acknowledged.
    pub fn unacked_bytes(&self) -> u32 {
        self.unacked_bytes
    }

    /// A read is outstanding.
    pub fn is_reading(&self) -> bool {
        self.reading
    }

    /// Everything the machine has heard of was sent.
    pub fn is_caught_up(&self) -> bool {
        !self.reading && !self.unsure && self.known <= self.position
    }

    /// For the simulation's coverage.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn state(&self) -> crate::sim::FeedState {
        use crate::sim::FeedState;
        match (self.reading, self.is_caught_up(), self.blocked) {
            (true, ..) => FeedState::Reading,
            (false, true, _) if self.unacked.is_empty() => FeedState::Idle,
            (false, true, _) => FeedState::Live,
            (false, false, true) => FeedState::Blocked,
            (false, false, false) => FeedState::Behind,
        }
    }

    /// Moves past a message, sending it unless it is the device's own. `false`: no room.
    fn take(&mut self, message: ReadItem, effects: &mut Effects) -> bool {
        if !message.own {
            let bytes = self.unacked_bytes.saturating_add(message.size);
            let fits = self.unacked.len() < self.limits.window_messages_max as usize
                && bytes <= self.limits.window_bytes_max;
            if !(fits || self.unacked.is_empty()) {
                self.blocked = true;
                return false;
            }
            self.unacked.push(Unacked {
                seq: message.seq,
                size: message.size,
            });
            self.unacked_bytes = bytes;
            effects.push(Effect::Deliver {
                seq: message.seq,
                redelivered: message.seq <= self.sent,
            });
            self.sent = self.sent.max(message.seq);
        }
        self.position = message.seq;
        true
    }

    /// Everything up to here needs nothing from the device any more.
    fn settled_upto(&self) -> Seq {
        self.unacked
            .first()
            .map_or(self.position, |oldest| oldest.seq - 1)
    }

    fn settle(&mut self, effects: &mut Effects) {
        let upto = self.settled_upto();
        // Nothing to acknowledge in the device's name while it owes an acknowledgement itself:
        // that one will cover it.
        if self.unacked.is_empty() && upto > self.cursor {
            self.cursor = upto;
            self.sent = self.sent.max(upto);
            effects.push(Effect::AutoAck { upto });
        }
        self.read_if_due(effects);
    }

    /// Reads only when half the window is free, so that a slow device is not served by a
    /// read for each message.
    fn read_if_due(&mut self, effects: &mut Effects) {
        let room = self.unacked.len() <= self.limits.window_messages_max as usize / 2
            && self.unacked_bytes <= self.limits.window_bytes_max / 2;
        let wanted = self.unsure || self.known > self.position;
        if self.reading || self.blocked || !wanted || !room {
            return;
        }
        self.reading = true;
        effects.push(Effect::Read {
            after: self.position,
            messages_max: self.limits.window_messages_max - self.unacked.len() as u32,
            bytes_max: self.limits.window_bytes_max - self.unacked_bytes,
        });
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
