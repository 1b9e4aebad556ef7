//! Why a backup or a restore did not happen, and what to do next.

use std::path::PathBuf;

/// What went wrong with a backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// One at a time.
    #[error("a backup is under way already; wait until it has finished")]
    Busy,
    /// A file of that name is there.
    #[error("{0} exists already; remove it or choose another name")]
    Exists(PathBuf),
    /// Not a file this program wrote.
    #[error("{0} is not a backup of a Stonechat store; name the file `stonechat backup` wrote")]
    NotABackup(PathBuf),
    /// Written by a later version.
    #[error(
        "the backup {file} has format {found}, this build reads up to {supported}; restore it with a newer stonechat"
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// Format found.
        found: u32,
        /// Latest format this build reads.
        supported: u32,
    },
    /// The file ends before the backup does.
    #[error("the backup {0} is cut short; restore an earlier one")]
    Incomplete(PathBuf),
    /// A checksum does not fit.
    #[error("the backup {file} is damaged at byte {offset}: {what}; restore another one")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What does not fit.
        what: String,
    },
    /// There is something where the backup is to be restored.
    #[error(
        "{0} is not empty; restore into a new or empty directory (--data-dir), then start the server on it"
    )]
    NotEmpty(PathBuf),
    /// A restore into the directory did not come to its end.
    #[error("a restore into {0} was interrupted; empty the directory and restore again")]
    Interrupted(PathBuf),
}
