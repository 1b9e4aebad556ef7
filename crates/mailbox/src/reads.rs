//! Reading a mailbox and moving its cursors: from memory when it can be, from
//! the database (on a reader thread) when it must.
//!
//! Memory and database change places under a reader: messages migrate, chunks
//! are folded and removed. A reader therefore takes a plan under the lock, reads
//! the chunks without it, and plans anew when one has changed meanwhile.

use std::sync::Arc;

use ahash::HashMap;
use stonechat_protocol::{DeviceId, MessageId, Seq, UserId};

use crate::api::{AckOutcome, ReadBatch, Stored};
use crate::error::StoreError;
use crate::mailbox::{Chunk, Mailbox, State};
use crate::shared::Core;

/// A read in progress.
struct Reading {
    batch: ReadBatch,
    bytes: usize,
    messages_max: usize,
    bytes_max: usize,
    now_ms: u64,
}

impl Reading {
    /// Takes a message if it fits; `false`: the batch is full.
    fn take(&mut self, message: Stored) -> bool {
        if message.envelope.expires_ms <= self.now_ms {
            self.batch.upto = message.seq;
            return true;
        }
        let size = message.envelope.body.len();
        let messages = &mut self.batch.messages;
        let full = messages.len() >= self.messages_max || self.bytes + size > self.bytes_max;
        if full && !messages.is_empty() {
            return false;
        }
        self.bytes += size;
        self.batch.upto = message.seq;
        messages.push(message);
        true
    }

    /// Takes what is in memory above what was read; the chunks were read to their end.
    fn recent(&mut self, state: &State) {
        for message in state.recent_from(self.batch.upto) {
            if !self.take(message) {
                return;
            }
        }
        self.batch.upto = self.batch.upto.max(state.last_seq);
        self.batch.end = true;
    }
}

/// The first chunk with something above `after`.
pub(crate) fn next_chunk(state: &State, after: Seq) -> Option<&Chunk> {
    state
        .chunks
        .get(state.chunks.partition_point(|chunk| chunk.last() <= after))
}

/// Reads from memory alone; `None` when the database is needed.
pub(crate) fn from_memory(
    mailbox: &Mailbox,
    after: Seq,
    messages_max: usize,
    bytes_max: usize,
    now_ms: u64,
) -> Option<ReadBatch> {
    let state = mailbox.lock();
    let after = after.max(state.floor);
    if next_chunk(&state, after).is_some() {
        return None;
    }
    let mut reading = Reading {
        batch: ReadBatch {
            upto: after,
            ..ReadBatch::default()
        },
        bytes: 0,
        messages_max,
        bytes_max,
        now_ms,
    };
    reading.recent(&state);
    Some(reading.batch)
}

/// Reads from the database and memory. Blocks.
pub(crate) fn from_database(
    core: &Core,
    mailbox: &Mailbox,
    after: Seq,
    messages_max: usize,
    bytes_max: usize,
) -> Result<ReadBatch, StoreError> {
    let database = core.database()?;
    let mut reading = Reading {
        batch: ReadBatch {
            upto: after,
            ..ReadBatch::default()
        },
        bytes: 0,
        messages_max,
        bytes_max,
        now_ms: core.config.clock.now_ms(),
    };
    loop {
        let chunk = {
            let state = mailbox.lock();
            reading.batch.upto = reading.batch.upto.max(state.floor);
            match next_chunk(&state, reading.batch.upto) {
                Some(chunk) => chunk.clone(),
                None => {
                    reading.recent(&state);
                    return Ok(reading.batch);
                }
            }
        };
        let Some(messages) = chunk_messages(core, mailbox, &database, &chunk)? else {
            continue;
        };
        for message in messages {
            if message.seq > reading.batch.upto && !reading.take(message) {
                return Ok(reading.batch);
            }
        }
        if reading.batch.messages.len() >= messages_max {
            // Not another look at the disk for what cannot be taken.
            let state = mailbox.lock();
            let rest = next_chunk(&state, reading.batch.upto).is_some();
            if rest {
                return Ok(reading.batch);
            }
        }
    }
}

/// The messages of a chunk, or `None` when the index has changed. Waits for a change
/// that is under way, so that trying again makes progress.
pub(crate) fn chunk_messages(
    core: &Core,
    mailbox: &Mailbox,
    database: &crate::sledstore::Database,
    chunk: &Chunk,
) -> Result<Option<Vec<Stored>>, StoreError> {
    if let Some(messages) = database.get_chunk(mailbox.user(), chunk)? {
        return Ok(Some(messages));
    }
    let _maintenance = core.maintenance.lock();
    if let Some(messages) = database.get_chunk(mailbox.user(), chunk)? {
        return Ok(Some(messages));
    }
    if mailbox.lock().chunks.contains(chunk) {
        return Err(StoreError::Damaged {
            file: "the mailbox database (tree messages)".to_owned(),
            offset: 0,
            what: format!(
                "messages {} to {} of {} are missing",
                chunk.first,
                chunk.last(),
                mailbox.user()
            ),
        });
    }
    Ok(None)
}

/// Senders and the last message of each among what a first device acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    /// Everything up to here is in `last`.
    upto: Option<Seq>,
    last: HashMap<UserId, (Seq, MessageId)>,
}

impl Delivered {
    fn note(&mut self, own: &UserId, seq: Seq, from: &UserId, id: MessageId) {
        if from != own {
            self.last.insert(from.clone(), (seq, id));
        }
    }

    fn into_outcome(self, cursor: Seq) -> AckOutcome {
        let mut last: Vec<_> = self.last.into_iter().collect();
        last.sort_unstable_by_key(|(_, (seq, _))| *seq);
        AckOutcome {
            cursor,
            delivered: last.into_iter().map(|(from, (_, id))| (from, id)).collect(),
        }
    }
}

/// What came of trying to acknowledge.
pub(crate) enum Ack {
    /// Done.
    Done(AckOutcome),
    /// This chunk has to be read first.
    Needs(Chunk, Delivered),
    /// There is no such device.
    Unknown,
}

/// Acknowledges if everything needed is in memory or in `delivered`.
pub(crate) fn acknowledge(
    core: &Core,
    mailbox: &Arc<Mailbox>,
    device: &DeviceId,
    upto: Seq,
    mut delivered: Delivered,
) -> Ack {
    let (outcome, freed) = {
        let mut needs = None;
        let result = core.update(mailbox, |state| {
            let upto = upto.min(state.last_seq);
            let first_cursor = state.first_cursor;
            let Some(cursor) = state.device(device).map(|device| device.state.cursor) else {
                return Err(Ack::Unknown);
            };
            if upto <= cursor {
                return Err(Ack::Done(AckOutcome {
                    cursor,
                    delivered: Vec::new(),
                }));
            }
            if upto > first_cursor {
                let from = first_cursor.max(state.floor);
                let read_upto = delivered.upto.unwrap_or(from).max(from);
                if let Some(chunk) = next_chunk(state, read_upto)
                    && chunk.first <= upto
                {
                    needs = Some(chunk.clone());
                    return Err(Ack::Unknown);
                }
                let begin = state.recent_after(from);
                for recent in state
                    .recent
                    .range(begin..)
                    .take_while(|recent| recent.seq <= upto)
                {
                    delivered.note(
                        mailbox.user(),
                        recent.seq,
                        &recent.envelope.from.user,
                        recent.envelope.id,
                    );
                }
                state.first_cursor = upto;
            }
            if let Some(device) = state.device_mut(device) {
                device.state.cursor = upto;
                device.state.sent = device.state.sent.max(upto);
                device.unjournaled.get_or_insert(first_cursor);
            }
            core.mark_lazy(mailbox, state);
            Ok((upto, state.advance_floor()))
        });
        match result {
            Ok((cursor, freed)) => {
                // What another device acknowledged while chunks were read is not new.
                (delivered.into_outcome(cursor), freed)
            }
            Err(Ack::Unknown) => {
                return match needs {
                    Some(chunk) => Ack::Needs(chunk, delivered),
                    None => Ack::Unknown,
                };
            }
            Err(other) => return other,
        }
    };
    core.freed(mailbox, freed);
    Ack::Done(outcome)
}

/// Acknowledges messages of which some have to be read for their senders. Blocks.
pub(crate) fn acknowledge_stored(
    core: &Core,
    mailbox: &Arc<Mailbox>,
    device: &DeviceId,
    upto: Seq,
) -> Result<AckOutcome, StoreError> {
    let database = core.database()?;
    let mut delivered = Delivered::default();
    loop {
        match acknowledge(core, mailbox, device, upto, delivered) {
            Ack::Done(outcome) => return Ok(outcome),
            Ack::Unknown => {
                return Err(StoreError::NotFound(format!(
                    "device {device} of {}",
                    mailbox.user()
                )));
            }
            Ack::Needs(chunk, so_far) => {
                delivered = so_far;
                let Some(messages) = chunk_messages(core, mailbox, &database, &chunk)? else {
                    continue;
                };
                let (floor, first_cursor) = {
                    let state = mailbox.lock();
                    (state.floor, state.first_cursor)
                };
                for message in messages {
                    if message.seq > floor.max(first_cursor) && message.seq <= upto {
                        let envelope = &message.envelope;
                        delivered.note(
                            mailbox.user(),
                            message.seq,
                            &envelope.from.user,
                            envelope.id,
                        );
                    }
                }
                delivered.upto = Some(chunk.last());
            }
        }
    }
}

/// Looks for a message among the newest in memory; also how many were looked at, and
/// whether there are older ones.
pub(crate) fn find_recent(
    mailbox: &Mailbox,
    from: &UserId,
    id: MessageId,
    scan_max: usize,
) -> (Option<Seq>, usize, bool) {
    let state = mailbox.lock();
    let mut seen = 0;
    for recent in state.recent.iter().rev().take(scan_max) {
        seen += 1;
        if recent.envelope.id == id && recent.envelope.from.user == *from {
            return (Some(recent.seq), seen, false);
        }
    }
    (None, seen, !state.chunks.is_empty())
}

/// Looks for a message in memory and then in the database. Blocks.
pub(crate) fn find(
    core: &Core,
    mailbox: &Mailbox,
    from: &UserId,
    id: MessageId,
    scan_max: usize,
) -> Result<Option<Seq>, StoreError> {
    let database = core.database()?;
    let (found, mut seen, _) = find_recent(mailbox, from, id, scan_max);
    if found.is_some() {
        return Ok(found);
    }
    let mut below = Seq::MAX;
    while seen < scan_max {
        let (chunk, floor) = {
            let state = mailbox.lock();
            let at = state.chunks.partition_point(|chunk| chunk.first < below);
            let Some(chunk) = at.checked_sub(1).and_then(|at| state.chunks.get(at)) else {
                return Ok(None);
            };
            (chunk.clone(), state.floor)
        };
        let Some(messages) = chunk_messages(core, mailbox, &database, &chunk)? else {
            continue;
        };
        for message in messages.iter().rev() {
            if seen == scan_max || message.seq <= floor {
                return Ok(None);
            }
            if message.seq >= below {
                continue;
            }
            seen += 1;
            if message.envelope.id == id && message.envelope.from.user == *from {
                return Ok(Some(message.seq));
            }
        }
        below = chunk.first;
    }
    Ok(None)
}
