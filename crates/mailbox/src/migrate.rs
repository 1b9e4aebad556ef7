//! Moving messages that were not acknowledged in time from memory (and the
//! journal) into the database, packed many to a value.
//!
//! Small chunks that pile up at the end of a mailbox are folded into one, so a
//! user who is away and gets a message now and then does not cost a value each.

use std::sync::Arc;

use smallvec::SmallVec;
use stonechat_protocol::{Seq, UserId};

use crate::api::Stored;
use crate::error::StoreError;
use crate::mailbox::{Chunk, Mailbox};
use crate::shared::Core;
use crate::sledstore::Database;
use crate::sledstore::values::{self, CHUNK_BYTES_MAX};

/// Chunks at the end of a mailbox that are folded into one when they fit.
const FOLD_CHUNKS: usize = 8;
/// Bytes an encoded envelope takes beside its body, at most: three names and numbers.
const ENVELOPE_OVERHEAD_BYTES: usize = 256;
/// Messages moved in one go, so that the maintenance lock is let go in between.
const MESSAGES_A_STEP: usize = 4096;
/// Their bytes, so that a step fits the free space that was looked at before it.
const BYTES_A_STEP: usize = 4 << 20;

/// Moves what is old enough; everything when room is needed.
pub(crate) fn due(core: &Core, pressed: bool) -> Result<(), StoreError> {
    let now_ms = core.uptime_ms();
    let after_ms = core.config.migrate_after.as_millis() as u64;
    let before_ms = if pressed {
        now_ms
    } else {
        match now_ms.checked_sub(after_ms) {
            Some(before_ms) => before_ms,
            None => return Ok(()),
        }
    };
    // Messages that came a little later go along: one value instead of two.
    let along_ms = (before_ms + after_ms / 2).min(now_ms);
    while let Some(mailbox) = core.upkeep.pop_aging(before_ms) {
        if core.abandoned() {
            return Ok(());
        }
        let result = one(core, &mailbox, before_ms, along_ms);
        let mut state = mailbox.lock();
        match state.recent.front().map(|recent| recent.at_ms) {
            Some(at_ms) => core.upkeep.aging(&mailbox, at_ms),
            None => state.aging = false,
        }
        drop(state);
        result?;
    }
    Ok(())
}

/// Moves the recent messages of one mailbox that came up to `along_ms`, if the first
/// came up to `before_ms`.
fn one(
    core: &Core,
    mailbox: &Arc<Mailbox>,
    before_ms: u64,
    along_ms: u64,
) -> Result<(), StoreError> {
    loop {
        core.check_headroom()?;
        let _maintenance = core.maintenance.lock();
        let messages: Vec<Stored> = {
            let state = mailbox.lock();
            if state
                .recent
                .front()
                .is_none_or(|recent| recent.at_ms > before_ms)
            {
                return Ok(());
            }
            let recent = state.recent.iter().take(MESSAGES_A_STEP);
            let mut bytes = 0;
            let recent = recent.take_while(|recent| {
                let first = bytes == 0;
                bytes += recent.envelope.body.len() + ENVELOPE_OVERHEAD_BYTES;
                first || bytes <= BYTES_A_STEP
            });
            recent
                .take_while(|recent| recent.at_ms <= along_ms)
                .map(|recent| Stored {
                    seq: recent.seq,
                    envelope: Arc::clone(&recent.envelope),
                })
                .collect()
        };
        move_messages(core, mailbox, &messages)?;
    }
}

/// Stores messages, the first ones of the mailbox's recent ones. Under the maintenance lock.
fn move_messages(
    core: &Core,
    mailbox: &Arc<Mailbox>,
    messages: &[Stored],
) -> Result<(), StoreError> {
    let Some(last) = messages.last() else {
        return Ok(());
    };
    let database = core.database()?;
    let mut chunks = Vec::new();
    for run in pack(messages) {
        let (chunk, value) = values::encode_chunk(run);
        database.put_chunk(mailbox.user(), &chunk, &value)?;
        chunks.push(chunk);
    }
    register_expiry(core, &database, mailbox, &chunks)?;
    let freed = core.update(mailbox, |state| {
        core.mark_dirty(mailbox, state);
        state.migrated(last.seq, chunks)
    });
    core.freed(mailbox, freed);
    fold(core, &database, mailbox)
}

/// Splits messages into runs without gaps that fit a chunk. One that fits none is alone.
pub(crate) fn pack(messages: &[Stored]) -> Vec<&[Stored]> {
    let mut runs = Vec::new();
    let mut from = 0;
    let mut bytes = 0;
    for (index, message) in messages.iter().enumerate() {
        let size = message.envelope.body.len() + ENVELOPE_OVERHEAD_BYTES;
        let gap = index > from && messages[index - 1].seq + 1 != message.seq;
        if index > from && (gap || bytes + size > CHUNK_BYTES_MAX) {
            runs.push(&messages[from..index]);
            from = index;
            bytes = 0;
        }
        bytes += size;
    }
    if from < messages.len() {
        runs.push(&messages[from..]);
    }
    runs
}

/// Makes sure that the expiry index leads to the mailbox in time.
fn register_expiry(
    core: &Core,
    database: &Database,
    mailbox: &Arc<Mailbox>,
    chunks: &[Chunk],
) -> Result<(), StoreError> {
    let Some(expires_ms) = chunks.iter().map(|chunk| chunk.expires_ms_min).min() else {
        return Ok(());
    };
    let minute = minute_of(expires_ms);
    let before = {
        let mut state = mailbox.lock();
        if state.expiry_minute != 0 && state.expiry_minute <= minute {
            return Ok(());
        }
        core.mark_dirty(mailbox, &mut state);
        std::mem::replace(&mut state.expiry_minute, minute)
    };
    let user = mailbox.user();
    database
        .expiry
        .insert(values::expiry_key(minute, user), &[])?;
    if before != 0 {
        database.expiry.remove(values::expiry_key(before, user))?;
    }
    Ok(())
}

/// The index's bucket for an expiry; never 0, which stands for "not registered".
pub(crate) fn minute_of(expires_ms: u64) -> u64 {
    (expires_ms / 60_000).max(1)
}

/// Joins the last few chunks when they have become many and are small.
fn fold(core: &Core, database: &Database, mailbox: &Arc<Mailbox>) -> Result<(), StoreError> {
    let (tail, floor): (SmallVec<[Chunk; FOLD_CHUNKS]>, Seq) = {
        let state = mailbox.lock();
        let Some(from) = state.chunks.len().checked_sub(FOLD_CHUNKS) else {
            return Ok(());
        };
        let tail = &state.chunks[from..];
        let bytes: u64 = tail.iter().map(|chunk| u64::from(chunk.value_bytes)).sum();
        let gaps = tail
            .windows(2)
            .any(|pair| pair[0].last() + 1 != pair[1].first);
        if gaps || bytes > CHUNK_BYTES_MAX as u64 {
            return Ok(());
        }
        (tail.iter().cloned().collect(), state.floor)
    };
    // What is being left behind anyway is not worth rewriting.
    if tail[0].first <= floor {
        return Ok(());
    }
    let user = mailbox.user();
    let mut messages = Vec::new();
    for chunk in &tail {
        match database.get_chunk(user, chunk)? {
            Some(part) => messages.extend(part),
            None => return Ok(()),
        }
    }
    let (joined, value) = values::encode_chunk(&messages);
    // The joined chunk replaces the first one; should a crash leave the others behind,
    // they overlap it and do not count.
    database.put_chunk(user, &joined, &value)?;
    let replaced = core.update(mailbox, |state| {
        let at = state
            .chunks
            .partition_point(|chunk| chunk.first < joined.first);
        // Some may have been acknowledged meanwhile and count as garbage under their old
        // keys: then everything stays as it was.
        if state.chunks.get(at..at + tail.len()) != Some(&tail[..]) {
            return false;
        }
        state.chunks.splice(at..at + tail.len(), [joined]);
        true
    });
    if replaced {
        remove_chunks(database, user, &tail[1..])?;
    }
    Ok(())
}

/// Removes chunks from the database at once.
pub(crate) fn remove_chunks(
    database: &Database,
    user: &UserId,
    chunks: &[Chunk],
) -> Result<(), StoreError> {
    for chunk in chunks {
        database.remove_chunk(user, chunk.first, chunk.parts)?;
    }
    Ok(())
}
