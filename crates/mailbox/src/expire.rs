//! Removing what has expired, and taking single messages out of stored chunks.
//!
//! Reads never return an expired message, whenever this runs; here its space
//! comes back and it is counted (contract D5).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use stonechat_protocol::{Seq, UserId};
use tokio::sync::oneshot;

use crate::api::{Append, Stored};
use crate::error::StoreError;
use crate::journal::Record;
use crate::mailbox::{Chunk, Mailbox};
use crate::migrate::{minute_of, pack};
use crate::queue::Job;
use crate::shared::Core;
use crate::sledstore::Database;
use crate::sledstore::values::{self, encode_chunk};
use crate::workers::Workers;

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

/// Messages removed by a sweep that a refusal asked for.
const ASKED_FOR_MAX: u64 = 10_000;

/// A send was refused because a mailbox is full: if some of what fills it has expired, it is
/// swept out now, and not when the next sweep is due. One such sweep at a time.
pub(crate) fn soon(core: &Core, workers: &Workers, append: &Append) {
    let now_ms = core.config.clock.now_ms();
    let is_due = append.recipients.iter().any(|mailbox| {
        let state = mailbox.lock();
        let mut chunks = state.chunks.iter();
        state.recent_expires_ms_min <= now_ms || chunks.any(|chunk| chunk.expires_ms_min <= now_ms)
    });
    if !is_due || core.sweeping.swap(true, Ordering::AcqRel) {
        return;
    }
    let asked = Asked(Arc::clone(&core.sweeping));
    // Nobody waits for it: whoever was refused tries again.
    drop(workers.run(move |core| {
        let _asked = asked;
        run(core, now_ms, ASKED_FOR_MAX)
    }));
}

/// A sweep that was asked for. Dropped when it is done, or was not taken on.
struct Asked(Arc<AtomicBool>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
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
            let mut gone = Vec::new();
            let freed = state.remove_recent(|recent| {
                let goes = left > 0 && recent.envelope.expires_ms <= now_ms;
                if goes {
                    left -= 1;
                    gone.push(recent.seq);
                }
                goes
            });
            state.expired_total += freed.messages;
            core.mark_dirty(&mailbox, state);
            Some((freed, gone))
        });
        if let Some((freed, gone)) = freed {
            note(core, &mailbox, &gone);
            expired += freed.messages;
            core.freed(&mailbox, freed);
        }
    }
    expired
}

/// Notes in the journal what expired, nobody waiting for it: a replay must not take it for
/// delivered because something behind it was acknowledged.
fn note(core: &Core, mailbox: &Mailbox, gone: &[Seq]) {
    for seq in gone {
        let (done, _) = oneshot::channel();
        let record = Record::RemoveMessage {
            user: mailbox.user().clone(),
            seq: *seq,
            expired: true,
        };
        core.queue.push_job(Job::record(record, done));
    }
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

/// The entry `minute` was worked off: the index gets the next one, if there is one, before
/// this one goes, so that a crash in between leaves one too many rather than none.
fn refresh_index(
    core: &Core,
    database: &Database,
    mailbox: &Arc<Mailbox>,
    minute: u64,
) -> Result<(), StoreError> {
    let _maintenance = core.maintenance.lock();
    let user = mailbox.user();
    let (registered, chunks) = {
        let state = mailbox.lock();
        (state.expiry_minute, state.chunks.clone())
    };
    let earliest = chunks
        .iter()
        .map(|chunk| minute_of(chunk.expires_ms_min))
        .min();
    let next = match earliest {
        Some(earliest) if registered == 0 || registered == minute => earliest,
        Some(earliest) => earliest.min(registered),
        None if registered == minute => 0,
        None => registered,
    };
    if next != 0 {
        database
            .expiry
            .insert(values::expiry_key(next, user), &[])?;
    }
    if next != registered {
        let mut state = mailbox.lock();
        state.expiry_minute = next;
        core.mark_dirty(mailbox, &mut state);
    }
    if next != minute {
        database.expiry.remove(values::expiry_key(minute, user))?;
    }
    Ok(())
}

/// The entry of the index that leads to a mailbox being loaded. What is stored of it may be
/// from before an entry was worked off and replaced; the index itself is believed, and mended.
pub(crate) fn registered(
    database: &Database,
    user: &UserId,
    minute: u64,
    chunks: &[Chunk],
) -> Result<u64, StoreError> {
    if minute != 0
        && database
            .expiry
            .contains_key(values::expiry_key(minute, user))?
    {
        return Ok(minute);
    }
    let earliest = chunks
        .iter()
        .map(|chunk| minute_of(chunk.expires_ms_min))
        .min();
    if let Some(earliest) = earliest {
        database
            .expiry
            .insert(values::expiry_key(earliest, user), &[])?;
    }
    Ok(earliest.unwrap_or(0))
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
    let mut gone = Vec::new();
    let mut kept = messages;
    kept.retain(|message| {
        let goes = message.seq > floor && goes(message);
        if goes {
            gone.push(message.seq);
        }
        // What was acknowledged stays for as long as receipts may have to be derived from it.
        !goes
    });
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
    if expired && left.is_some() {
        note(core, mailbox, &gone);
    }
    let Some((left, floor)) = left else {
        let unknown = new.iter().filter(|new| new.first != chunk.first);
        core.upkeep
            .garbage(user, unknown.map(|new| (new.first, new.parts)).collect());
        return Ok(0);
    };
    let kept_parts = if stays { new[0].parts } else { 0 };
    for part in kept_parts..chunk.parts {
        database
            .messages
            .remove(values::chunk_key(user, chunk.first, part))?;
    }
    let passed = new.iter().filter(|new| new.last() <= floor);
    let passed: Vec<(Seq, u8)> = passed.map(|new| (new.first, new.parts)).collect();
    if !passed.is_empty() {
        core.upkeep.garbage(user, passed);
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
