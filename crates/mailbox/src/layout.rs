//! The data directory: its lock, its manifest, and where things are.
//!
//! ```text
//! LOCK                 held while a process has the directory open
//! MANIFEST             format and the database in use; replaced in one step
//! reserve              disk space set aside
//! journal/*.log        segments
//! journal/next.zeros   a segment's file being prepared
//! sled-<number>/       the database; others are left over from a compaction
//! RESTORING            a backup is being restored: nothing here can be used yet
//! ```

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::backup::BackupError;
use crate::error::StoreError;
use crate::files::{create_dir, io_error, remove_dir, replace, sync_dir};
use crate::journal::{FORMAT, UNNAMED};

pub(crate) const JOURNAL_DIR: &str = "journal";
pub(crate) const RESERVE_FILE: &str = "reserve";
/// There while a backup is being restored into the directory.
pub(crate) const RESTORING_FILE: &str = "RESTORING";
const LOCK_FILE: &str = "LOCK";
const MANIFEST_FILE: &str = "MANIFEST";
const DATABASE_PREFIX: &str = "sled-";

/// An open, locked data directory.
#[derive(Debug)]
pub(crate) struct Layout {
    dir: PathBuf,
    database: u64,
    /// Released when dropped.
    _lock: File,
}

impl Layout {
    /// Locks the directory, creating what is missing.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        create_dir(dir)?;
        not_restoring(dir)?;
        Self::locked(dir, true)
    }

    /// Locks an empty directory and marks it as one into which a backup is being restored.
    pub(crate) fn begin_restore(dir: &Path) -> Result<Self, StoreError> {
        create_dir(dir)?;
        not_restoring(dir)?;
        let mut entries = fs::read_dir(dir).map_err(io_error("listing", dir))?;
        if entries.next().is_some() {
            return Err(BackupError::NotEmpty(dir.to_owned()).into());
        }
        replace(
            &dir.join(RESTORING_FILE),
            b"restore again if this is still here\n",
        )?;
        Self::locked(dir, true)
    }

    /// Everything is restored and synced: the directory can be used.
    pub(crate) fn end_restore(&self) -> Result<(), StoreError> {
        sync_dir(&self.dir)?;
        let marker = self.dir.join(RESTORING_FILE);
        fs::remove_file(&marker).map_err(io_error("removing", &marker))?;
        sync_dir(&self.dir)
    }

    /// Locks a directory that must exist already.
    pub(crate) fn open_existing(dir: &Path) -> Result<Self, StoreError> {
        if !dir.join(MANIFEST_FILE).is_file() {
            return Err(StoreError::NotFound(format!(
                "store in {}: it has no {MANIFEST_FILE}",
                dir.display()
            )));
        }
        not_restoring(dir)?;
        Self::locked(dir, false)
    }

    fn locked(dir: &Path, create: bool) -> Result<Self, StoreError> {
        let lock = lock(dir)?;
        let manifest = dir.join(MANIFEST_FILE);
        let database = match fs::read_to_string(&manifest) {
            Ok(text) => parse_manifest(&manifest, &text)?,
            Err(error) if create && error.kind() == std::io::ErrorKind::NotFound => {
                let journal = dir.join(JOURNAL_DIR);
                if fs::read_dir(&journal).is_ok_and(|mut entries| entries.next().is_some()) {
                    return Err(StoreError::Damaged {
                        file: manifest.display().to_string(),
                        offset: 0,
                        what: "it is missing, but there is a journal".to_owned(),
                    });
                }
                write_manifest(dir, 1)?;
                1
            }
            Err(error) => return Err(io_error("reading", manifest)(error)),
        };
        let layout = Self {
            dir: dir.to_owned(),
            database,
            _lock: lock,
        };
        create_dir(&layout.journal())?;
        Ok(layout)
    }

    /// The journal's directory.
    pub(crate) fn journal(&self) -> PathBuf {
        self.dir.join(JOURNAL_DIR)
    }

    /// The reserve file.
    pub(crate) fn reserve(&self) -> PathBuf {
        self.dir.join(RESERVE_FILE)
    }

    /// The database in use.
    pub(crate) fn database(&self) -> PathBuf {
        self.database_dir(self.database)
    }

    /// Where the next database is built.
    pub(crate) fn next_database(&self) -> PathBuf {
        self.database_dir(self.database + 1)
    }

    fn database_dir(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{DATABASE_PREFIX}{number:06}"))
    }

    /// Makes the next database the one in use, in one step, and removes the old one.
    pub(crate) fn switch_database(&mut self) -> Result<(), StoreError> {
        write_manifest(&self.dir, self.database + 1)?;
        self.database += 1;
        self.remove_leftovers()
    }

    /// Removes databases that are not in use (a compaction was interrupted), and the file that
    /// was being prepared for the journal.
    pub(crate) fn remove_leftovers(&self) -> Result<(), StoreError> {
        let unnamed = self.journal().join(UNNAMED);
        if unnamed.exists() {
            fs::remove_file(&unnamed).map_err(io_error("removing", unnamed))?;
        }
        let current = self.database();
        let entries = fs::read_dir(&self.dir).map_err(io_error("listing", &self.dir))?;
        for entry in entries {
            let path = entry.map_err(io_error("listing", &self.dir))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name.starts_with(DATABASE_PREFIX)) && path != current {
                tracing::info!(path = %path.display(), "removing what an interrupted compaction left");
                remove_dir(&path)?;
            }
        }
        Ok(())
    }
}

fn not_restoring(dir: &Path) -> Result<(), StoreError> {
    if dir.join(RESTORING_FILE).exists() {
        return Err(BackupError::Interrupted(dir.to_owned()).into());
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io_error("opening", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(io_error("locking", path)(error)),
    }
}

fn write_manifest(dir: &Path, database: u64) -> Result<(), StoreError> {
    let text = format!("stonechat-data\nformat {FORMAT}\ndatabase {database}\n");
    replace(&dir.join(MANIFEST_FILE), text.as_bytes())
}

fn parse_manifest(path: &Path, text: &str) -> Result<u64, StoreError> {
    let damaged = || StoreError::Damaged {
        file: path.display().to_string(),
        offset: 0,
        what: "not a manifest of a Stonechat data directory".to_owned(),
    };
    let mut lines = text.lines();
    if lines.next() != Some("stonechat-data") {
        return Err(damaged());
    }
    let number = |line: Option<&str>, key: &str| {
        line.and_then(|line| line.strip_prefix(key))
            .and_then(|value| value.trim().parse::<u64>().ok())
            .ok_or_else(damaged)
    };
    let format = number(lines.next(), "format ")?;
    if format != u64::from(FORMAT) {
        return Err(StoreError::Version {
            found: u32::try_from(format).unwrap_or(u32::MAX),
            supported: FORMAT,
        });
    }
    number(lines.next(), "database ")
}
