//! Removing what has expired, and taking single messages out of stored chunks.
//!
//! Reads never return an expired message, whenever this runs; here its space
//! comes back and it is counted (contract D5).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use stonechat_protocol::Seq;

use crate::api::{StoreError, Stored};
use crate::mailbox::{Chunk, Mailbox};
use crate::migrate::{minute_of, pack, register_expiry};
use crate::shared::Core;
use crate::sledstore::Database;
use crate::sledstore::values::{self, encode_chunk};

/// Removes up to about `messages_max` expired messages; returns how many.
pub(crate) fn run(core: &Core, now_ms: u64, messages_max: u64) -> Result<u64, StoreError> {
    let mut expired = recent(core, now_ms, messages_max);
    if expired < messages_max {
        expired += stored(core, now_ms, messages_max - expired)?;
    }
    if expired > 0 {
        core.totals.expired.fetch_add(expired, Ordering::Relaxed);
        core.telemetry.expired(expired);
        tracing::info!(
            messages = expired,
            "messages expired before they were fetched"
        );
    }
    Ok(expired)
}

/// Of those in memory.
fn recent(core: &Core, now_ms: u64, messages_max: u64) -> u64 {
    let mut expired = 0;
    for mailbox in core.upkeep.with_recent() {
        if expired >= messages_max {
            break;
        }
        let _maintenance = core.maintenance.lock();
        let freed = core.update(&mailbox, |state| {
            if state.recent_expires_ms_min > now_ms {
                return None;
            }
            let mut left = messages_max - expired;
            let freed = state.remove_recent(|recent| {
                let goes = left > 0 && recent.envelope.expires_ms <= now_ms;
                left -= u64::from(goes);
                goes
            });
            state.expired_total += freed.messages;
            core.mark_dirty(&mailbox, state);
            Some(freed)
        });
        if let Some(freed) = freed {
            expired += freed.messages;
            core.freed(&mailbox, freed);
        }
    }
    expired
}

/// Of those in the database, mailbox by mailbox as the index names them.
fn stored(core: &Core, now_ms: u64, messages_max: u64) -> Result<u64, StoreError> {
    let database = core.database()?;
    let end = (minute_of(now_ms) + 1).to_be_bytes();
    let mut expired = 0;
    let due: Vec<_> = database
        .expiry
        .range(..end)
        .keys()
        .collect::<Result<_, _>>()?;
    for key in due {
        if expired >= messages_max || core.abandoned() {
            break;
        }
        let (minute, user) = values::parse_expiry_key(&key)
            .map_err(|error| database.damaged("expiry", &key, &error))?;
        let (mailbox, _) = core.load(&user)?;
        expired += one(core, &database, &mailbox, now_ms, messages_max - expired)?;
        refresh_index(core, &database, &mailbox, minute)?;
    }
    Ok(expired)
}

/// Removes expired messages from the chunks of one mailbox.
fn one(
    core: &Core,
    database: &Database,
    mailbox: &Arc<Mailbox>,
    now_ms: u64,
    messages_max: u64,
) -> Result<u64, StoreError> {
    let due: Vec<Chunk> = {
        let state = mailbox.lock();
        let chunks = state.chunks.iter();
        chunks
            .filter(|chunk| chunk.expires_ms_min <= now_ms)
            .cloned()
            .collect()
    };
    let mut expired = 0;
    for chunk in due {
        if expired >= messages_max {
            break;
        }
        let mut left = messages_max - expired;
        let goes = |message: &Stored| {
            let goes = left > 0 && message.envelope.expires_ms <= now_ms;
            left -= u64::from(goes);
            goes
        };
        expired += rewrite(core, database, mailbox, &chunk, goes, true)?;
    }
    Ok(expired)
}

/// The entry `minute` was worked off: the index gets the next one, if there is one.
fn refresh_index(
    core: &Core,
    database: &Database,
    mailbox: &Arc<Mailbox>,
    minute: u64,
) -> Result<(), StoreError> {
    let _maintenance = core.maintenance.lock();
    let chunks = {
        let mut state = mailbox.lock();
        if state.expiry_minute == minute {
            state.expiry_minute = 0;
            core.mark_dirty(mailbox, &mut state);
        }
        state.chunks.clone()
    };
    database
        .expiry
        .remove(values::expiry_key(minute, mailbox.user()))?;
    register_expiry(core, database, mailbox, &chunks)
}

/// Rewrites a chunk without the messages that go; returns how many of them were still held.
pub(crate) fn rewrite(
    core: &Core,
    database: &Database,
    mailbox: &Arc<Mailbox>,
    chunk: &Chunk,
    mut goes: impl FnMut(&Stored) -> bool,
    expired: bool,
) -> Result<u64, StoreError> {
    let _maintenance = core.maintenance.lock();
    let user = mailbox.user();
    if !mailbox.lock().chunks.contains(chunk) {
        return Ok(0);
    }
    let Some(messages) = database.get_chunk(user, chunk)? else {
        return Ok(0);
    };
    let floor = mailbox.lock().floor;
    let kept: Vec<Stored> = messages
        .into_iter()
        .filter(|message| message.seq > floor && !goes(message))
        .collect();
    if kept.len() == chunk.span as usize {
        return Ok(0);
    }
    let runs: Vec<(Chunk, Vec<u8>)> = pack(&kept).into_iter().map(encode_chunk).collect();
    // From the back: until the old chunk is replaced or removed, the new ones lie within it
    // and do not count.
    for (new, value) in runs.iter().rev() {
        database.put_chunk(user, new, value)?;
    }
    let new: Vec<Chunk> = runs.into_iter().map(|(chunk, _)| chunk).collect();
    let stays = new.first().map(|new| new.first) == Some(chunk.first);
    let left = core.update(mailbox, |state| {
        let Some(at) = state.chunks.iter().position(|other| other == chunk) else {
            // It was acknowledged meanwhile: its key is garbage, the new keys are not known yet.
            return None;
        };
        let before = state.messages;
        let held_before = chunk.above(state.floor);
        let held_after: u64 = new.iter().map(|new| new.above(state.floor)).sum();
        state.chunks.splice(at..=at, new.iter().cloned());
        state.chunks.retain(|chunk| chunk.last() > state.floor);
        state.messages = before - (held_before - held_after);
        state.recount_bytes();
        if expired {
            state.expired_total += held_before - held_after;
        }
        core.mark_dirty(mailbox, state);
        Some((held_before - held_after, state.floor))
    });
    let Some((left, floor)) = left else {
        for new in new.iter().filter(|new| new.first != chunk.first) {
            database.remove_chunk(user, new.first, new.parts)?;
        }
        return Ok(0);
    };
    let kept_parts = if stays { new[0].parts } else { 0 };
    for part in kept_parts..chunk.parts {
        database
            .messages
            .remove(values::chunk_key(user, chunk.first, part))?;
    }
    for passed in new.iter().filter(|new| new.last() <= floor) {
        database.remove_chunk(user, passed.first, passed.parts)?;
    }
    Ok(left)
}

/// Takes one message out of a mailbox, wherever it is.
pub(crate) fn take_out(core: &Core, mailbox: &Arc<Mailbox>, seq: Seq) -> Result<(), StoreError> {
    let freed = {
        let _maintenance = core.maintenance.lock();
        core.update(mailbox, |state| {
            core.mark_dirty(mailbox, state);
            state.remove_recent(|recent| recent.seq == seq)
        })
    };
    let found = freed.messages > 0;
    core.freed(mailbox, freed);
    if found {
        return Ok(());
    }
    let chunk = {
        let state = mailbox.lock();
        let mut chunks = state.chunks.iter();
        chunks
            .find(|chunk| (chunk.first..=chunk.last()).contains(&seq))
            .cloned()
    };
    if let Some(chunk) = chunk {
        let database = core.database()?;
        rewrite(
            core,
            &database,
            mailbox,
            &chunk,
            |message| message.seq == seq,
            false,
        )?;
    }
    Ok(())
}
