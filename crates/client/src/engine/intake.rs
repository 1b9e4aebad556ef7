//! Events waiting for the application, and what it has handled of them.
//!
//! Three positions in the mailbox, each at or below the one before: received
//! from the server, handed to the application, acknowledged. What is received
//! again is dropped by the first; what the server may forget is the last.

use std::collections::VecDeque;

use stonechat_protocol::{Limits, Message, Receipt, Seq};

use super::frames::Riding;
use crate::error::{AckError, Terminal};
use crate::event::Event;
use crate::tuning::Tuning;

/// The application took too few events; the connection has to end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overrun;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Intake {
    events: VecDeque<Event>,
    bytes: usize,
    dropped: u64,
    terminal: Option<Terminal>,
    /// The application gave up its `Events`.
    muted: bool,
    received_seq: Seq,
    handed_seq: Seq,
    acked_seq: Seq,
    /// The greatest that came on this connection, new or not. What the application handles
    /// from an earlier connection is acknowledged only once it came again: a server may
    /// refuse an acknowledgement of what it has not sent on this one.
    seen_seq: Seq,
    /// Told to the server on this connection.
    told_seq: Seq,
    /// The server did not know of an acknowledgement: tell it again.
    tell_again: bool,
    handed_rev: u64,
    confirmed_rev: u64,
    told_rev: u64,
    ack_due_ms: Option<u64>,
    rev_due_ms: Option<u64>,
}

impl Intake {
    pub(super) fn new(last_seq: Seq, last_rev: u64) -> Self {
        Self {
            received_seq: last_seq,
            handed_seq: last_seq,
            acked_seq: last_seq,
            handed_rev: last_rev,
            confirmed_rev: last_rev,
            ..Self::default()
        }
    }

    pub(super) fn acked_seq(&self) -> Seq {
        self.acked_seq
    }

    /// What may be told to the server now.
    pub(super) fn tellable_seq(&self) -> Seq {
        self.acked_seq.min(self.seen_seq)
    }

    pub(super) fn confirmed_rev(&self) -> u64 {
        self.confirmed_rev
    }

    /// A message came.
    pub(super) fn message(
        &mut self,
        message: Message,
        now_ms: u64,
        tuning: &Tuning,
    ) -> Result<(), Overrun> {
        if self.muted {
            return Ok(());
        }
        let stored = message.seq != 0;
        self.seen_seq = self.seen_seq.max(message.seq);
        if stored && message.seq <= self.received_seq {
            if message.seq <= self.acked_seq {
                self.tell_again |= message.seq <= self.told_seq;
                self.ack_due_ms
                    .get_or_insert(now_ms.saturating_add(tuning.ack_delay_ms));
            }
            return Ok(());
        }
        let bytes = message.body.get().len();
        if self.events.len() >= tuning.events_max
            || self.bytes.saturating_add(bytes) > tuning.event_bytes_max
        {
            if stored {
                return Err(Overrun);
            }
            self.dropped += 1;
            return Ok(());
        }
        if stored {
            self.received_seq = message.seq;
        }
        self.bytes += bytes;
        self.events.push_back(Event::Message(message));
        Ok(())
    }

    /// A receipt came: it replaces one of the same conversation that still waits.
    pub(super) fn receipt(&mut self, receipt: Receipt, tuning: &Tuning) -> Result<(), Overrun> {
        if self.muted {
            return Ok(());
        }
        let waiting = self
            .events
            .iter()
            .position(|event| matches!(event, Event::Receipt(old) if old.with == receipt.with));
        if let Some(at) = waiting {
            // To the end, not in its place: a revision taken early would confirm others that still wait.
            self.events.remove(at);
        } else if self.events.len() >= tuning.events_max {
            return Err(Overrun);
        }
        self.events.push_back(Event::Receipt(receipt));
        Ok(())
    }

    /// Something about the connection; counted, not kept, when nobody takes events.
    pub(super) fn notice(&mut self, event: Event, tuning: &Tuning) {
        if self.muted {
            return;
        }
        if self.events.len() >= tuning.events_max {
            self.dropped += 1;
            return;
        }
        self.events.push_back(event);
    }

    /// The answer to a restored send; there are at most 64, so they are always kept.
    pub(super) fn settled(&mut self, event: Event) {
        if !self.muted {
            self.events.push_back(event);
        }
    }

    pub(super) fn end(&mut self, terminal: Terminal) {
        if !self.muted {
            self.terminal = Some(terminal);
        }
    }

    /// The application wants no more events.
    pub(super) fn mute(&mut self) {
        self.muted = true;
        self.events.clear();
        self.bytes = 0;
        self.terminal = None;
    }

    pub(super) fn has_event(&self) -> bool {
        !self.events.is_empty() || self.terminal.is_some() || self.dropped > 0
    }

    /// Hands out the next event.
    pub(super) fn take(&mut self) -> Option<Event> {
        let Some(event) = self.events.pop_front() else {
            if self.dropped > 0 {
                let dropped = std::mem::take(&mut self.dropped);
                return Some(Event::Lagged { dropped });
            }
            return self.terminal.take().map(Event::Terminal);
        };
        match &event {
            Event::Message(message) => {
                self.bytes -= message.body.get().len();
                if message.seq != 0 {
                    self.handed_seq = message.seq;
                }
            }
            Event::Receipt(receipt) => self.handed_rev = self.handed_rev.max(receipt.rev),
            _ => {}
        }
        Some(event)
    }

    /// The application has handled everything up to `seq`.
    pub(super) fn ack(
        &mut self,
        seq: Seq,
        now_ms: u64,
        limits: &Limits,
        tuning: &Tuning,
    ) -> Result<(), AckError> {
        if seq > self.handed_seq {
            return Err(AckError {
                seq,
                last: self.handed_seq,
            });
        }
        if seq <= self.acked_seq {
            return Ok(());
        }
        self.acked_seq = seq;
        // Half a window at most: the server must not come to a halt over our patience.
        let half_window = (limits.unacked_max as u64 / 2).max(1);
        let delay_ms = if seq - self.told_seq.min(seq) >= tuning.ack_every.min(half_window) {
            0
        } else {
            tuning.ack_delay_ms
        };
        let due = now_ms.saturating_add(delay_ms);
        self.ack_due_ms = Some(self.ack_due_ms.map_or(due, |earlier| earlier.min(due)));
        Ok(())
    }

    /// The application has handled the receipts it took.
    pub(super) fn confirm_receipts(&mut self, now_ms: u64, tuning: &Tuning) -> bool {
        let is_news = self.handed_rev > self.confirmed_rev;
        if is_news {
            self.confirmed_rev = self.handed_rev;
            self.rev_due_ms
                .get_or_insert(now_ms.saturating_add(tuning.rev_delay_ms));
        }
        is_news
    }

    fn ack_untold(&self) -> bool {
        self.tell_again || self.tellable_seq() > self.told_seq
    }

    /// Something is not told to the server yet.
    pub(super) fn is_dirty(&self) -> bool {
        self.ack_untold() || self.confirmed_rev > self.told_rev
    }

    /// When something has to be told, even without another frame to ride on.
    pub(super) fn due_ms(&self) -> Option<u64> {
        let ack = self.ack_due_ms.filter(|_| self.ack_untold());
        let rev = self
            .rev_due_ms
            .filter(|_| self.confirmed_rev > self.told_rev);
        match (ack, rev) {
            (Some(ack), Some(rev)) => Some(ack.min(rev)),
            (one, other) => one.or(other),
        }
    }

    /// What the next frame carries; from here on it counts as told.
    pub(super) fn riding(&mut self) -> Riding {
        let rev = (self.confirmed_rev > self.told_rev).then_some(self.confirmed_rev);
        // A revision is read beside an acknowledgement, so it brings one along.
        let seq = self.tellable_seq();
        let ack = (self.ack_untold() || rev.is_some() && seq > 0).then_some(seq);
        self.told();
        Riding { ack, rev }
    }

    /// What `hello` carries: where this client stands.
    pub(super) fn standing(&mut self) -> Riding {
        self.seen_seq = self.acked_seq;
        self.told();
        Riding {
            ack: (self.acked_seq > 0).then_some(self.acked_seq),
            rev: (self.confirmed_rev > 0).then_some(self.confirmed_rev),
        }
    }

    fn told(&mut self) {
        self.told_seq = self.tellable_seq();
        self.told_rev = self.confirmed_rev;
        self.tell_again = false;
        self.ack_due_ms = None;
        self.rev_due_ms = None;
    }
}
