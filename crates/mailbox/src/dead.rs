//! Dead letters: messages whose handling kept failing, kept apart.
//!
//! Durable in the database before the mailbox lets go: a crash in between
//! leaves the message in both, never in none.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use stonechat_protocol::Seq;

use crate::api::{DeadLetter, Stored};
use crate::error::StoreError;
use crate::expire;
use crate::housekeeper::ask;
use crate::journal::Record;
use crate::mailbox::Mailbox;
use crate::queue::Job;
use crate::shared::Core;
use crate::sledstore::Database;

/// Name of the number of the last dead letter ever.
pub(crate) const LAST: &str = "dead_last";

/// How many there are.
pub(crate) fn count(database: &Database) -> Result<u64, StoreError> {
    let mut count = 0;
    for key in database.dead.iter().keys() {
        count += u64::from(key?.last() == Some(&0));
    }
    Ok(count)
}

/// Moves a message to the dead letters. Blocks until it is durable.
pub(crate) fn put(
    core: &Core,
    mailbox: &Arc<Mailbox>,
    seq: Seq,
    reason: String,
    now_ms: u64,
) -> Result<u64, StoreError> {
    let _one_at_a_time = core.dead_letters.lock();
    let database = core.database()?;
    let stored = message(core, mailbox, seq)?;
    let number = database.number(LAST)? + 1;
    let letter = DeadLetter {
        number,
        user: mailbox.user().clone(),
        stored,
        reason,
        ts_ms: now_ms,
    };
    database.set_number(LAST, number)?;
    database.put_dead(&letter)?;
    database.sync()?;
    core.totals.dead.fetch_add(1, Ordering::Relaxed);
    ask(core, |done| {
        let record = Record::RemoveMessage {
            user: mailbox.user().clone(),
            seq,
            expired: false,
        };
        Job::record(record, done)
    })?;
    expire::take_out(core, mailbox, seq)?;
    Ok(number)
}

/// The message at `seq`.
fn message(core: &Core, mailbox: &Mailbox, seq: Seq) -> Result<Stored, StoreError> {
    let missing = || {
        StoreError::NotFound(format!(
            "message {seq} in the mailbox of {}",
            mailbox.user()
        ))
    };
    let before = seq.checked_sub(1).ok_or_else(missing)?;
    let _maintenance = core.maintenance.lock();
    let chunk = {
        let state = mailbox.lock();
        if seq <= state.floor {
            return Err(missing());
        }
        if let Some(recent) = state.recent_from(before).next()
            && recent.seq == seq
        {
            return Ok(recent);
        }
        let mut chunks = state.chunks.iter();
        chunks
            .find(|chunk| (chunk.first..=chunk.last()).contains(&seq))
            .cloned()
    };
    let Some(chunk) = chunk else {
        return Err(missing());
    };
    let messages = core.database()?.get_chunk(mailbox.user(), &chunk)?;
    let mut messages = messages.into_iter().flatten();
    messages
        .find(|message| message.seq == seq)
        .ok_or_else(missing)
}

/// Removes a dead letter and returns it. Blocks until it is durable.
pub(crate) fn take(core: &Core, number: u64) -> Result<DeadLetter, StoreError> {
    let _one_at_a_time = core.dead_letters.lock();
    let database = core.database()?;
    let letter = database
        .get_dead(number, 1)?
        .into_iter()
        .find(|letter| letter.number == number)
        .ok_or_else(|| StoreError::NotFound(format!("dead letter {number}")))?;
    Database::put_parts(&database.dead, &number.to_be_bytes(), None)?;
    database.sync()?;
    core.totals.dead.fetch_sub(1, Ordering::Relaxed);
    Ok(letter)
}
