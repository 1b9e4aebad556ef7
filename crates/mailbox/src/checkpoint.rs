//! Checkpoints: bookkeeping goes to the database, the journal forgets.
//!
//! The order is what makes a crash at any step harmless:
//!
//! 1. take what changed (every record below `position` is in it),
//! 2. have the journal make durable what that already reflects, so that the
//!    database is never ahead of it,
//! 3. write bookkeeping and receipts, then remove chunks that left,
//! 4. note which segment is the first one still needed,
//! 5. sync the database, and only then delete segments.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stonechat_protocol::UserId;

use crate::api::Receipt;
use crate::error::StoreError;
use crate::files::{io_error, sync_dir};
use crate::housekeeper::flush;
use crate::journal::{record, segment};
use crate::mailbox::Mailbox;
use crate::shared::Core;
use crate::sledstore::Database;
use crate::sledstore::values::{Meta, receipt_key};

/// Name of the number of the first segment still needed.
pub(crate) const FIRST_SEGMENT: &str = "first_segment";
/// Name of a position the journal is known to have reached.
pub(crate) const POSITION: &str = "position";

/// Mailboxes taken and written in one go, so that their copies take little memory.
const GROUP: usize = 1024;

/// One mailbox as it is to be written.
struct Snapshot {
    user: UserId,
    meta: Meta,
    receipts: Vec<Receipt>,
}

/// Writes down everything changed, and releases what was closed or left for at least `grace`.
pub(crate) fn run(core: &Core, grace: Duration) -> Result<(), StoreError> {
    let _one_at_a_time = core.checkpointing.lock();
    let old_enough = core.forgets_before(grace);
    let database = core.database()?;
    let position = core.applied.load(Ordering::Acquire);
    let first = core.first_needed(position, old_enough);
    let dirty = core.upkeep.take_dirty();
    let written = dirty.len();
    for group in dirty.chunks(GROUP) {
        let result = write(core, &database, position, take(group, position));
        if let Err(error) = result {
            restore(core, dirty);
            return Err(error);
        }
    }
    drop(dirty);
    if let Some(limit) = old_enough {
        while let Some(garbage) = core.upkeep.pop_garbage(limit) {
            for (first, parts) in garbage.chunks {
                database.remove_chunk(&garbage.user, first, parts)?;
            }
        }
    }
    let releases = core.table.oldest().is_some_and(|oldest| oldest < first);
    if !releases {
        return Ok(());
    }
    database.set_number(FIRST_SEGMENT, first)?;
    database.sync()?;
    if core.abandoned() {
        return Ok(());
    }
    let gone = release(core, first)?;
    tracing::debug!(mailboxes = written, segments = gone, "checkpoint");
    Ok(())
}

/// The state of every mailbox in the list, which reflects all records below `position`.
fn take(dirty: &[Arc<Mailbox>], position: u64) -> Vec<Snapshot> {
    dirty
        .iter()
        .map(|mailbox| {
            let mut state = mailbox.lock();
            state.dirty = false;
            let receipts = state.receipts.as_mut();
            Snapshot {
                user: mailbox.user().clone(),
                receipts: receipts
                    .map(|receipts| receipts.take_dirty())
                    .unwrap_or_default(),
                meta: state.meta(position),
            }
        })
        .collect()
}

fn write(
    core: &Core,
    database: &Database,
    position: u64,
    snapshots: Vec<Snapshot>,
) -> Result<(), StoreError> {
    flush(core)?;
    if let Some(why) = core.unavailable().filter(|_| !core.is_closing()) {
        return Err(why.into());
    }
    // First of all, so that whatever else of this is found after a crash, it is known how
    // far the journal had come.
    database.set_number(POSITION, position)?;
    for snapshot in snapshots {
        for receipt in &snapshot.receipts {
            let mut value = Vec::with_capacity(48);
            record::put_receipt_body(&mut value, receipt);
            let key = receipt_key(&snapshot.user, &receipt.with);
            database.receipts.insert(key, value)?;
        }
        database
            .meta
            .insert(snapshot.user.as_str(), snapshot.meta.encode())?;
        database.keep_up()?;
    }
    Ok(())
}

/// What was taken could not be written, or only in part: all of it is still to be written.
fn restore(core: &Core, dirty: Vec<Arc<Mailbox>>) {
    for mailbox in dirty {
        let mut state = mailbox.lock();
        if let Some(receipts) = &mut state.receipts {
            receipts.mark_all_dirty();
        }
        state.dirty = false;
        core.mark_dirty(&mailbox, &mut state);
    }
}

/// Deletes the segments below `first`.
fn release(core: &Core, first: u64) -> Result<usize, StoreError> {
    let dir = core.config.dir.join(crate::layout::JOURNAL_DIR);
    let gone = core.table.release(first);
    for number in &gone {
        let path = segment::path(&dir, *number);
        std::fs::remove_file(&path).map_err(io_error("removing", &path))?;
    }
    if !gone.is_empty() {
        sync_dir(&dir)?;
    }
    Ok(gone.len())
}
