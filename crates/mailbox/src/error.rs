//! What can go wrong in a store, and what to do about it.
//!
//! How an error reaches a client is not said here: that is the broker's business.

use stonechat_protocol::UserId;

use crate::backup::BackupError;

/// Why an append was not even queued. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The recipient's mailbox is at its limit of messages or bytes.
    #[error("the mailbox is full; its owner has to fetch or the operator to raise mailbox limits")]
    MailboxFull,
    /// Journal or memory are at their limit: wait for [`Store::ready`](crate::Store::ready), then try again.
    #[error("the journal is at its limit; wait until the store has caught up")]
    Busy,
    /// A write or sync failed, or the store is closing. Nothing will be accepted any more
    /// (sticky), or not until space returns.
    #[error("the store accepts nothing: {0}")]
    Unavailable(Unavailable),
}

/// Why the store accepts nothing at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The disk is full; service resumes by itself when space returns.
    #[error("the disk is full; free space, service resumes by itself")]
    DiskFull,
    /// A write or sync failed; the process has to be restarted after the disk was looked at.
    #[error("a write or sync failed; check the disk, then restart the server")]
    Failed,
    /// The store is closing.
    #[error("the store is closing; connect again after the restart")]
    Closing,
}

/// What went wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the data directory open.
    #[error(
        "the data directory {0} is in use by another process; stop that one first or choose another --data-dir"
    )]
    InUse(std::path::PathBuf),
    /// A file operation failed.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// sled failed.
    #[error("the mailbox database failed: {0}")]
    Database(String),
    /// sled found damage in its own file.
    #[error("damaged data in the mailbox database {0}; see docs/operations.md#damaged-data")]
    DamagedDatabase(String),
    /// Stored bytes are damaged. The message names file and offset and the documented way out.
    #[error("damaged data in {file} at byte {offset}: {what}; see docs/operations.md#damaged-data")]
    Damaged {
        /// The file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What does not fit.
        what: String,
    },
    /// Written by a later version.
    #[error(
        "the data directory has format {found}, this build reads up to {supported}; use a newer stonechat"
    )]
    Version {
        /// Format found.
        found: u32,
        /// Latest format this build reads.
        supported: u32,
    },
    /// A setting is out of bounds.
    #[error("store configuration: {0}")]
    Config(String),
    /// The user has as many devices as are allowed.
    #[error("user {user} has {devices_max} devices already; remove one first")]
    TooManyDevices {
        /// The user.
        user: UserId,
        /// How many are allowed.
        devices_max: usize,
    },
    /// Too many reads wait for the database.
    #[error("too many reads wait for the database; try again in a moment")]
    Overloaded,
    /// A value or its name is too long.
    #[error("{0}")]
    TooLarge(&'static str),
    /// A backup or a restore did not happen.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// There is no such user.
    #[error("there is no user {0}")]
    UnknownUser(UserId),
    /// There is no such device or dead letter.
    #[error("there is no {0}")]
    NotFound(String),
    /// The store accepts nothing.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
