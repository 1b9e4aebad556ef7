//! Packs of one mailbox that overlap, put right.
//!
//! Nothing makes them any more. An earlier version did, over two crashes: one
//! kept messages that had been joined into one pack but not how far it reached,
//! and its end was moved a second time, together with what came later. Both
//! packs hold what is in both, so the later one is cut to what only it holds.
//! A pack that lies within the one before it is another thing, a leftover of a
//! crash, and not dealt with here.

use std::collections::HashMap;

use stonechat_protocol::{MessageId, Seq, UserId};

use crate::api::Stored;
use crate::error::StoreError;
use crate::mailbox::Chunk;
use crate::sledstore::{Database, Found, values};

/// What replaces the packs that begin within the one before them.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    gone: Vec<Chunk>,
    new: Vec<(Chunk, Vec<u8>)>,
}

/// Finds out what is to be done about `chunks`, all that count of a user, in order.
///
/// # Errors
/// [`StoreError::Damaged`] when two packs hold different messages at one place.
pub(crate) fn plan(
    database: &Database,
    user: &UserId,
    chunks: &[Chunk],
) -> Result<Plan, StoreError> {
    let mut plan = Plan::default();
    let mut upto = 0;
    let mut before: Option<&Chunk> = None;
    let mut held: HashMap<Seq, MessageId> = HashMap::new();
    for chunk in chunks {
        if chunk.first > upto {
            held.clear();
        } else {
            if let Some(before) = before.filter(|_| held.is_empty()) {
                held.extend(ids(&read(database, user, before)?));
            }
            let messages = read(database, user, chunk)?;
            for (seq, id) in ids(&messages) {
                if held.insert(seq, id).is_some_and(|other| other != id) {
                    return Err(damaged(user, chunk, "other messages at the same places"));
                }
            }
            let begin = messages.partition_point(|message| message.seq <= upto);
            plan.gone.push(chunk.clone());
            plan.new.push(values::encode_chunk(&messages[begin..]));
        }
        upto = chunk.last();
        before = Some(chunk);
    }
    Ok(plan)
}

/// The chunks of a user, none of which overlaps another.
pub(crate) fn settled(
    database: &Database,
    user: &UserId,
    migrated_upto: Seq,
) -> Result<Found, StoreError> {
    let found = database.chunks(user, migrated_upto)?;
    if !found.overlap {
        return Ok(found);
    }
    let plan = plan(database, user, &found.chunks)?;
    // In one step: a crash leaves either all as it was or all as it is to be.
    database.replace_chunks(user, &plan.gone, &plan.new)?;
    tracing::warn!(
        %user, packs = plan.gone.len(),
        "packs of messages overlapped, as an earlier version could leave them after two crashes; \
         each message is held once now and none was left out"
    );
    database.chunks(user, migrated_upto)
}

fn ids(messages: &[Stored]) -> impl Iterator<Item = (Seq, MessageId)> {
    let messages = messages.iter();
    messages.map(|message| (message.seq, message.envelope.id))
}

fn read(database: &Database, user: &UserId, chunk: &Chunk) -> Result<Vec<Stored>, StoreError> {
    let messages = database.get_chunk(user, chunk)?;
    messages.ok_or_else(|| damaged(user, chunk, "not all of its parts"))
}

fn damaged(user: &UserId, chunk: &Chunk, has: &str) -> StoreError {
    StoreError::Damaged {
        file: "the mailbox database (tree messages)".to_owned(),
        offset: 0,
        what: format!(
            "the pack with messages {} to {} of {user} overlaps the one before it and has {has}",
            chunk.first,
            chunk.last()
        ),
    }
}
