//! The words of the simulated world: devices, messages, frames, notes.

use std::collections::VecDeque;

use smallvec::SmallVec;
use stonechat_protocol::{ErrorCode, MessageId, Seq};

use super::plan::DEVICES_MAX;
use crate::{Coalescer, Feed, Watermarks};

/// One device of one user, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dev {
    pub(super) user: usize,
    pub(super) dev: usize,
}

impl Dev {
    pub(super) fn index(self) -> usize {
        self.user * DEVICES_MAX + self.dev
    }
}

/// Bits of a message id that say which message it is; the rest is the sending device's clock.
const INDEX_BITS: u32 = 32;

pub(super) fn message_id(clock_ms: u64, index: usize) -> MessageId {
    MessageId::from_u128((u128::from(clock_ms) << INDEX_BITS) | index as u128)
}

pub(super) fn index_of(id: MessageId) -> usize {
    (id.to_u128() & ((1 << INDEX_BITS) - 1)) as usize
}

/// A message and the truth about it, which no part of the simulated server may ask for.
#[derive(Debug, Clone)]
pub(super) struct Msg {
    pub(super) id: MessageId,
    pub(super) from: Dev,
    /// `None`: there is no such user.
    pub(super) to: Option<usize>,
    pub(super) size: u32,
    pub(super) ttl_ms: u64,
    pub(super) ephemeral: bool,
    pub(super) poison: bool,
    /// Set when the server appends it.
    pub(super) ts_ms: u64,
    pub(super) expires_ms: u64,
    /// Places once durable, in the recipient's mailbox and in the sender's own; 0: none.
    pub(super) places: [Seq; 2],
    pub(super) durable: bool,
    /// The sender was told.
    pub(super) accepted: bool,
    /// The sender was told that it was not accepted.
    pub(super) refused: bool,
    /// How often it was sent.
    pub(super) sends: u32,
    /// The sender asked twice on one connection: a refusal of one says nothing about the other.
    pub(super) asked_twice: bool,
    /// `accepted` without `duplicate` was answered.
    pub(super) answered_first: bool,
    /// Left the mailbox by its time, recipient's and own.
    pub(super) expired: [bool; 2],
    pub(super) dead: [bool; 2],
    /// Devices that handed it to their application, recipient's and own.
    pub(super) handled: [u8; 2],
    /// A device of the recipient said it was read.
    pub(super) read: bool,
}

impl Msg {
    /// Which of its two places is in this mailbox.
    pub(super) fn side(&self, mailbox: usize) -> usize {
        usize::from(self.to != Some(mailbox))
    }
}

#[derive(Debug, Clone)]
pub(super) enum Up {
    Hello { ack: Option<Seq>, rev: Option<u64> },
    Send { msg: usize },
    Ack { seq: Seq, rev: Option<u64> },
    Read { from: usize, id: MessageId },
}

#[derive(Debug, Clone)]
pub(super) enum Down {
    Accepted {
        id: MessageId,
        duplicate: bool,
    },
    Error {
        code: ErrorCode,
        id: Option<MessageId>,
    },
    Message {
        seq: Seq,
        msg: usize,
        redelivered: bool,
    },
    Receipt {
        with: usize,
        rev: u64,
        marks: Watermarks,
    },
}

/// What a session is told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Note {
    Committed {
        prev: Seq,
        seq: Seq,
        msg: usize,
    },
    Accepted {
        msg: usize,
    },
    /// Of a send that this session, by number, handed on.
    Refused {
        msg: usize,
        code: ErrorCode,
        session: u64,
    },
    Abandoned {
        msg: usize,
        session: u64,
    },
}

/// Messages with their places.
pub(super) type Placed = SmallVec<[(Seq, usize); 4]>;

#[derive(Debug, Clone, Default)]
pub(super) struct Batch {
    pub(super) items: Placed,
    pub(super) upto: Seq,
    pub(super) end: bool,
}

#[derive(Debug)]
pub(super) struct PendingRead {
    pub(super) after: Seq,
    pub(super) messages_max: u32,
    pub(super) bytes_max: u32,
    /// The store has read; the result is on its way.
    pub(super) batch: Option<Batch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The `hello` is on its way.
    New,
    /// Waits until its registration is durable.
    Attaching {
        lsn: usize,
        ack: Option<Seq>,
        rev: Option<u64>,
    },
    Attached,
    /// The server is done with it.
    Closed,
}

/// One connection: two pipes and the server's state for it.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) dev: Dev,
    pub(super) up: VecDeque<Up>,
    pub(super) down: VecDeque<Down>,
    /// Nothing more passes; both ends find out in their own time.
    pub(super) cut: bool,
    pub(super) stage: Stage,
    pub(super) feed: Option<Feed>,
    pub(super) read: Option<PendingRead>,
    pub(super) coalescer: Coalescer<(u64, usize, Watermarks)>,
    /// Sends taken minus answers given: what a session that restarts could not answer.
    pub(super) unanswered: usize,
    /// The client did not say, or the server forgot, which receipts it has seen.
    pub(super) receipts_may_repeat: bool,
    /// Truth: sent on this connection (or still counted from before a restart) and not acknowledged.
    pub(super) outstanding: VecDeque<(Seq, u32)>,
}

/// A message on its way to the journal.
#[derive(Debug, Clone)]
pub(super) struct Append {
    pub(super) msg: usize,
    pub(super) mailboxes: SmallVec<[usize; 2]>,
    /// Number of the session that handed it on.
    pub(super) session: u64,
}
