//! Whether a conversation's watermarks move (contract D8). Kept with the
//! sender, one for each user written to.
//!
//! A watermark means "everything up to this message, in the order of
//! acceptance". That order is the order of places (`seq`) in the reader's
//! mailbox; ids follow it only as long as they come from one device, because
//! devices have clocks of their own. So places decide wherever they are known,
//! and ids only where one device makes them as good as places.
//!
//! What it cannot know: the place of a message that every device has
//! acknowledged, for it has left the mailbox. A `read` of such a message that
//! is not the delivered watermark itself is believed if one device sent
//! everything and its id lies between the two watermarks; if several devices
//! sent, it changes nothing until the reader reads on. Either way a reader
//! never pushes a watermark beyond what was delivered or is in the mailbox.
//!
//! A store that keeps the places with the watermarks makes this exact across
//! restarts ([`Receipts::restore`]). Without them it is still safe for
//! `delivered` as long as the store makes acknowledgements durable before the
//! watermarks derived from them: what is derived later is then never older.
//!
//! A watermark may be told only when what it derives from is durable, or a
//! crash would take back what a sender has seen.

use stonechat_protocol::{MessageId, Seq};

/// Both watermarks of a conversation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// Last message acknowledged by one of the peer's devices.
    pub delivered: Option<MessageId>,
    /// Last message the peer said was read.
    pub read: Option<MessageId>,
}

/// How many devices of the sender this conversation's messages may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SenderDevices {
    /// One: the order of ids is the order of acceptance.
    One,
    /// Several: ids alone say nothing about order.
    Several,
}

/// A `read` that was not believed. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Neither delivered nor in the reader's mailbox.
    #[error("no such message was delivered to the reader; read only what was received")]
    UnknownMessage,
}

/// One conversation's watermarks and, as far as known, their places in the
/// reader's mailbox (0: not known).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receipts {
    marks: Watermarks,
    delivered_at: Seq,
    read_at: Seq,
}

impl Receipts {
    /// Starts from what is stored.
    pub fn new(marks: Watermarks) -> Self {
        Self {
            marks,
            delivered_at: 0,
            read_at: 0,
        }
    }

    /// Starts from what is stored and the places of the watermarks in the reader's mailbox; 0 is
    /// not known. Of one that has left the mailbox any place before all that is in it will do.
    pub fn at(marks: Watermarks, delivered_at: Seq, read_at: Seq) -> Self {
        Self {
            marks,
            delivered_at,
            read_at,
        }
    }

    /// Takes over a change that was stored with its places (0: not known), as a replayed
    /// journal brings them: `read` as it was decided, `delivered` only forward, because the
    /// acknowledgements it also derives from are replayed beside it.
    pub fn restore(&mut self, stored: Watermarks, delivered_at: Seq, read_at: Seq) {
        if delivered_at > self.delivered_at || self.marks.delivered.is_none() {
            self.marks.delivered = stored.delivered;
            self.delivered_at = delivered_at;
        }
        self.marks.read = stored.read;
        self.read_at = read_at;
    }

    /// Places of `delivered` and `read` in the reader's mailbox, for the store; 0: not known.
    pub fn places(&self) -> (Seq, Seq) {
        (self.delivered_at, self.read_at)
    }

    /// The watermarks as they are.
    pub fn watermarks(&self) -> Watermarks {
        self.marks
    }

    /// A first device of the peer acknowledged this sender's messages up to `id`, which is at
    /// place `at` of the peer's mailbox: that orders such events even when they arrive
    /// repeated or out of order. Returns the new watermarks if they moved.
    ///
    /// The acknowledged cursor instead of the place would nearly do; it errs when a message
    /// that was read but not acknowledged has expired.
    pub fn delivered(&mut self, id: MessageId, at: Seq) -> Option<Watermarks> {
        if at <= self.delivered_at {
            return None;
        }
        self.delivered_at = at;
        if self.marks.delivered == Some(id) {
            return None;
        }
        self.marks.delivered = Some(id);
        Some(self.marks)
    }

    /// The peer says it has read up to `id`. `found` is the message's place if it is still in
    /// the peer's mailbox. Returns the new watermarks if they moved.
    ///
    /// # Errors
    /// [`ReadError::UnknownMessage`] when the message is neither delivered nor in the mailbox.
    pub fn read(
        &mut self,
        id: MessageId,
        found: Option<Seq>,
        devices: SenderDevices,
    ) -> Result<Option<Watermarks>, ReadError> {
        let before = self.marks;
        if let Some(seq) = found {
            self.read_found(id, seq);
        } else if self.marks.delivered == Some(id) {
            self.marks.read = Some(id);
            self.read_at = self.delivered_at;
        } else if devices == SenderDevices::Several {
            // Before anything was delivered there is nothing to have been read.
            if self.marks.delivered.is_none() {
                return Err(ReadError::UnknownMessage);
            }
        } else if self.marks.delivered.is_none_or(|delivered| id > delivered) {
            return Err(ReadError::UnknownMessage);
        } else if self.marks.read.is_none_or(|read| id > read) {
            self.marks.read = Some(id);
            self.read_at = 0;
        }
        Ok((self.marks != before).then_some(self.marks))
    }

    /// A message in the mailbox has a place, and so has every watermark that moved since the
    /// start. Where one has none, ids have to do.
    fn read_found(&mut self, id: MessageId, seq: Seq) {
        let beyond = |mark: Option<MessageId>, at: Seq| match mark {
            None => true,
            Some(_) if at > 0 => seq > at,
            Some(mark) => id > mark,
        };
        // What was read was delivered, even if the acknowledgement is still on its way.
        if beyond(self.marks.delivered, self.delivered_at) {
            self.marks.delivered = Some(id);
            self.delivered_at = seq;
        }
        if beyond(self.marks.read, self.read_at) {
            self.marks.read = Some(id);
            self.read_at = seq;
        }
    }
}

#[cfg(test)]
#[path = "receipts_tests.rs"]
mod tests;
