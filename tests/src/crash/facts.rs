//! The words of the checker: what a device got, what was counted, which promise was broken.

use uuid::Uuid;

/// Which promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Breach {
    /// Accepted, and missing from a device that was there to get it (D1).
    Lost,
    /// Handed to an application twice (D3).
    Doubled,
    /// Against the order of its sending device, or of the mailbox, or a place used again (D2).
    Disordered,
    /// Delivered, but never sent like that, or refused (D1).
    Phantom,
    /// A receipt that steps back, claims too much, or never comes (D8).
    Receipt,
    /// Against the protocol, or the server said ERROR or did not start.
    Other,
}

impl Breach {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 6] = [
        Self::Lost,
        Self::Doubled,
        Self::Disordered,
        Self::Phantom,
        Self::Receipt,
        Self::Other,
    ];

    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Disordered => "out_of_order",
            Self::Phantom => "phantom",
            Self::Receipt => "receipt",
            Self::Other => "other",
        }
    }
}

/// A message as a device got it.
#[derive(Debug)]
pub struct Got<'a> {
    /// Its place in the mailbox.
    pub seq: u64,
    /// Its id.
    pub id: Uuid,
    /// Author's user and device.
    pub from: (&'a str, &'a str),
    /// Recipient, on what another device of this user sent.
    pub to: Option<&'a str>,
    /// Hash of the body as it came.
    pub body_hash: u64,
}

/// Figures of a run or a part of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages sent, each once.
    pub sent: u64,
    /// Of these accepted.
    pub accepted: u64,
    /// Of these answered as duplicates after a resend.
    pub duplicates: u64,
    /// Refused for good.
    pub refused: u64,
    /// Refusals for want of a disk.
    pub put_off: u64,
    /// Handed to an application, summed over devices.
    pub delivered: u64,
    /// Came again after a reconnect and were dropped.
    pub redelivered: u64,
    /// Receipts told.
    pub receipts: u64,
}

impl Counts {
    /// What came since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            sent: self.sent - before.sent,
            accepted: self.accepted - before.accepted,
            duplicates: self.duplicates - before.duplicates,
            refused: self.refused - before.refused,
            put_off: self.put_off - before.put_off,
            delivered: self.delivered - before.delivered,
            redelivered: self.redelivered - before.redelivered,
            receipts: self.receipts - before.receipts,
        }
    }
}
