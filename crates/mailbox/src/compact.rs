//! Giving disk space back: sled reuses space but does not return it, so a
//! stopped node's database is copied to a fresh one that replaces it.
//!
//! The copy is built beside the one in use, compared entry by entry, synced,
//! and put in use by replacing the manifest in one step. A crash before that
//! leaves the old database in use, after it the new one; the next start removes
//! the other.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::error::StoreError;
use crate::files::{create_dir, remove_dir, sync_dir};
use crate::layout::Layout;
use crate::sledstore::caught::caught;
use crate::sledstore::{Database, TREES, Tree};

/// What a compaction did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CompactReport {
    /// Entries copied.
    pub entries: u64,
    /// Bytes of the database before.
    pub bytes_before: u64,
    /// Bytes of the database after.
    pub bytes_after: u64,
}

impl fmt::Display for CompactReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} entries copied and compared, {} bytes before, {} bytes after",
            self.entries, self.bytes_before, self.bytes_after
        )
    }
}

/// Compacts the database of a stopped node. Blocks. Needs room for a second copy.
///
/// # Errors
/// [`StoreError`]: the directory is in use or not a data directory, or copying failed; the
/// old database stays in use then.
pub fn compact(dir: &Path) -> Result<CompactReport, StoreError> {
    let layout = Layout::open_existing(dir)?;
    caught(|| copy_all(dir, layout))
}

fn copy_all(dir: &Path, mut layout: Layout) -> Result<CompactReport, StoreError> {
    layout.remove_leftovers()?;
    let fresh = layout.next_database();
    remove_dir(&fresh)?;
    create_dir(&fresh)?;
    let mut report = CompactReport::default();
    {
        let old = Database::open(&layout.database(), 0)?;
        let new = Database::open(&fresh, 0)?;
        for name in TREES {
            report.entries += copy(&old.tree(name)?, &new.tree(name)?)?;
        }
        new.sync()?;
        for name in TREES {
            compare(name, &old.tree(name)?, &new.tree(name)?)?;
        }
        report.bytes_before = old.bytes();
    }
    {
        // Compared once more after a reopening: what counts is what is on disk. Closing wrote
        // the last of it, so the sync that opening does is what the switch relies on.
        let old = Database::open(&layout.database(), 0)?;
        let new = Database::open(&fresh, 0)?;
        for name in TREES {
            compare(name, &old.tree(name)?, &new.tree(name)?)?;
        }
        new.sync()?;
        report.bytes_after = new.bytes();
    }
    sync_dir(dir)?;
    layout.switch_database()?;
    Ok(report)
}

fn copy(from: &Tree, to: &Tree) -> Result<u64, StoreError> {
    let mut entries = 0;
    for entry in from {
        let (key, value) = entry?;
        to.insert(key, value)?;
        entries += 1;
    }
    Ok(entries)
}

fn compare(name: &str, old: &Tree, new: &Tree) -> Result<(), StoreError> {
    let differs = |what: &str| {
        Err(StoreError::Database(format!(
            "the copy of tree {name} {what}; the old database stays in use"
        )))
    };
    let mut copied = new.iter();
    for entry in old {
        let (key, value) = entry?;
        match copied.next().transpose()? {
            Some((other_key, other)) if other_key == key && other == value => {}
            Some(_) => return differs("differs from the original"),
            None => return differs("is too short"),
        }
    }
    match copied.next() {
        None => Ok(()),
        Some(_) => differs("is too long"),
    }
}
