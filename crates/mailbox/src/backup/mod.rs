//! A backup of the whole store in one file, written while the store serves,
//! and the way back into an empty directory.
//!
//! Nothing is paused. The way is that of a checkpoint followed by a crash:
//!
//! 1. from a position of the journal on, nothing of it is released that is not
//!    copied yet (`Hold`),
//! 2. every mailbox is read as any reader reads it, and its bookkeeping taken
//!    under its lock after its last message, with the position it reflects,
//! 3. accounts, small values and dead letters follow, and, after the time in
//!    which receipts follow from acknowledgements, the receipts,
//! 4. the journal written meanwhile is in the same file, up to the position at
//!    which the last of them was read.
//!
//! Restoring puts 2 and 3 into a database and 4 into a journal; the next start
//! replays the one over the other as after a crash. So a backup stands for one
//! moment, its last, although it took minutes to write. What keeps a message
//! that moves meanwhile from slipping through is the replay: it was in its
//! mailbox when that was read, or its record is in the copy of the journal, or
//! it had left for good.
//!
//! It does not know where backups are kept, how many, or who asked for one.

mod capture;
mod error;
mod file;
mod journal;
mod restore;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

pub(crate) use capture::run;
pub use error::BackupError;
pub(crate) use restore::{RESTORED_UPTO, SEQ_BASE};
pub use restore::{restore, verify_backup};

/// Ends the name of a backup that is being written, or was when the server ended.
pub const BACKUP_PARTIAL_SUFFIX: &str = file::PARTIAL_SUFFIX;

/// How far a backup has come; read by whoever waits for it.
#[derive(Debug, Default)]
pub struct BackupProgress {
    mailboxes: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl BackupProgress {
    /// Mailboxes read.
    pub fn mailboxes(&self) -> u64 {
        self.mailboxes.load(Ordering::Relaxed)
    }

    /// Messages written.
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// Bytes written.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What a backup holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BackupReport {
    /// The file.
    pub file: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// When it was begun, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Mailboxes in it.
    pub mailboxes: u64,
    /// Messages in them; those in `journal_bytes` alone are not counted.
    pub messages: u64,
    /// Conversations' receipts.
    pub receipts: u64,
    /// Accounts, small values and dead letters, in parts.
    pub entries: u64,
    /// Bytes of the journal written while the backup was.
    pub journal_bytes: u64,
}

impl BackupReport {
    fn new(file: PathBuf, bytes: u64, created_ms: u64, end: &file::End) -> Self {
        Self {
            file,
            bytes,
            created_ms,
            mailboxes: end.mailboxes,
            messages: end.messages,
            receipts: end.receipts,
            entries: end.entries,
            journal_bytes: end.journal_bytes,
        }
    }
}

impl std::fmt::Display for BackupReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {} bytes, {} mailboxes, {} messages, {} receipts, {} other entries, {} bytes of journal",
            self.file.display(),
            self.bytes,
            self.mailboxes,
            self.messages,
            self.receipts,
            self.entries,
            self.journal_bytes
        )
    }
}
