//! What the checker found: kinds, counts, and the first of each kind with what it takes to trace it
//! in the server's log.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Violations of one kind that are kept with all they say; the others are counted.
pub const VIOLATIONS_MAX_EACH: usize = 20;

/// In which way the contract was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Accepted, and not delivered to a device that is to get it.
    Lost,
    /// Handed to the application twice, under two `seq`s.
    Doubled,
    /// Delivered after a later message of the same sender to the same recipient.
    OutOfOrder,
    /// Delivered, but never sent, not to this user, or refused.
    Phantom,
    /// Not as it was sent.
    Damaged,
    /// `seq` did not increase on a connection, and the message was not marked `redelivered`.
    Seq,
    /// Devices of one user got other messages, or the same under other `seq`s.
    Mailbox,
    /// An `accepted` that was not due.
    Answer,
    /// A send that was never answered, although the connection lasted.
    Unanswered,
    /// A receipt that went back, or ahead of what had happened.
    Receipt,
    /// A receipt that did not come.
    ReceiptMissing,
    /// Not a frame of the protocol, or one in the wrong place.
    Frame,
    /// An error in the log, or an end, of a server that the run started and that nothing explains.
    Server,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::OutOfOrder => "out of order",
            Self::Phantom => "phantom",
            Self::Damaged => "damaged",
            Self::Seq => "seq went back",
            Self::Mailbox => "mailboxes differ",
            Self::Answer => "wrong answer",
            Self::Unanswered => "unanswered",
            Self::Receipt => "wrong receipt",
            Self::ReceiptMissing => "missing receipt",
            Self::Frame => "bad frame",
            Self::Server => "unexplained",
        })
    }
}

/// One breach of the contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// In which way.
    pub kind: Kind,
    /// When it was noticed, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The user on whose side it was noticed.
    pub user: String,
    /// The device of that user.
    pub device: String,
    /// The other user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The other user's device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_device: Option<String>,
    /// The message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its place in the mailbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Which of the messages of that device to that user, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, user, device) = (self.kind, &self.user, &self.device);
        write!(f, "{kind}: {user}/{device}")?;
        if let Some(from) = &self.from {
            write!(f, " from {from}")?;
        }
        if let Some(device) = &self.from_device {
            write!(f, "/{device}")?;
        }
        if let Some(id) = &self.id {
            write!(f, " id {id}")?;
        }
        if let Some(seq) = self.seq {
            write!(f, " seq {seq}")?;
        }
        if let Some(number) = self.number {
            write!(f, " number {number}")?;
        }
        write!(f, " at_ms {}: {}", self.at_ms, self.what)
    }
}

/// Counts of all violations, and the first of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violations {
    /// How many of each kind.
    pub counts: BTreeMap<Kind, u64>,
    /// The first [`VIOLATIONS_MAX_EACH`] of each kind.
    pub first: Vec<Violation>,
}

impl Violations {
    /// How many there are.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// How many of one kind there are.
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    /// Adds what another process found.
    pub(crate) fn merge(&mut self, other: Self) {
        for (kind, count) in other.counts {
            *self.counts.entry(kind).or_default() += count;
        }
        for violation in other.first {
            let same = self.first.iter().filter(|own| own.kind == violation.kind);
            if same.count() < VIOLATIONS_MAX_EACH {
                self.first.push(violation);
            }
        }
    }

    pub(crate) fn add(&mut self, violation: Violation) {
        let count = self.counts.entry(violation.kind).or_default();
        *count += 1;
        if *count <= VIOLATIONS_MAX_EACH as u64 {
            self.first.push(violation);
        }
    }
}
