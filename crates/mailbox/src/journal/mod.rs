//! The journal: segment files of checksummed batches, written by one thread.
//!
//! It knows files, frames and records. It does not know mailboxes: what a
//! record means is `recover`'s business, and when a segment may go is
//! `checkpoint`'s.
//!
//! Positions are **log sequence numbers** (`lsn`): logical byte offsets that
//! run on from segment to segment and are never reused for other durable bytes.

pub(crate) mod frame;
pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod segment;
pub(crate) mod spare;
pub(crate) mod writer;

pub(crate) use frame::{u32_at, u64_at};
pub(crate) use record::Record;
pub(crate) use replay::{ScanEnd, scan};
pub(crate) use segment::FORMAT;
pub(crate) use spare::{Spare, UNNAMED};
pub(crate) use writer::{JournalWriter, PrepareLimits, WriteError};
