//! Reading the store for a backup. Takes a mailbox's lock for as long as its
//! bookkeeping is copied and no other lock of the serving path, keeps about a
//! mebibyte in memory, and does not write faster than a bound.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use stonechat_protocol::{Seq, UserId};

use super::file::{BackupWriter, End, Kind};
use super::journal::{Hold, JournalCopy};
use super::{BackupError, BackupProgress, BackupReport};
use crate::api::{Receipt, Stored};
use crate::checkpoint;
use crate::codec::{put_bytes, put_varint};
use crate::error::StoreError;
use crate::housekeeper::flush;
use crate::journal::record;
use crate::mailbox::{Chunk, Mailbox};
use crate::migrate::pack;
use crate::reads::{chunk_messages, next_chunk};
use crate::shared::Core;
use crate::sledstore::Database;
use crate::sledstore::values::{self, Meta};

/// Written a second at most, so that commits get their share of the disk.
const BYTES_PER_S_MAX: u64 = 64 << 20;
/// Users looked up in one go.
const USERS: usize = 256;
/// Recent messages taken under a mailbox's lock in one go, and their bytes.
const RECENT_MESSAGES: usize = 1024;
const RECENT_BYTES: usize = 1 << 20;
/// The journal is copied when it has grown by this.
const BEHIND_BYTES: u64 = 1 << 20;
/// Entries of other trees written between two looks at the journal.
const ENTRIES: usize = 256;
/// Longest sleep without a look at whether the store closes.
const NAP: Duration = Duration::from_millis(20);

/// Trees copied entry by entry before the receipts, whose changes the journal repeats.
const JOURNALED_TREES: [&str; 2] = ["accounts", "values"];
/// Dead letters are in no journal: copied last, while none can come or go.
const DEAD_TREE: &str = "dead";
/// Numbers that have to survive: which start this is, the last dead letter, the lowest place.
const NUMBERS: [&str; 3] = ["epoch", crate::dead::LAST, super::restore::SEQ_BASE];

/// What is left to be read of a mailbox.
enum Next {
    /// These stored messages.
    Chunk(Chunk),
    /// These in memory, and more.
    Recent(Vec<Stored>),
    /// These in memory; and this is its bookkeeping after them.
    Last(Vec<Stored>, Box<Meta>),
}

struct Capture<'a> {
    core: &'a Core,
    database: Arc<Database>,
    out: BackupWriter,
    journal: JournalCopy,
    progress: &'a BackupProgress,
    end: End,
    begun: Instant,
}

/// Writes a backup to `to`. Blocks for as long as that takes.
pub(crate) fn run(
    core: &Core,
    to: &Path,
    progress: &BackupProgress,
) -> Result<BackupReport, StoreError> {
    let Some(_one_at_a_time) = core.backing_up.try_lock() else {
        return Err(BackupError::Busy.into());
    };
    let created_ms = core.config.clock.now_ms();
    let out = BackupWriter::create(to, created_ms)?;
    let (_hold, position) = Hold::begin(core);
    // From here on the database knows every mailbox there was: later ones are in the journal.
    checkpoint::run(core, core.config.receipt_grace)?;
    let mut capture = Capture {
        core,
        database: core.database()?,
        out,
        journal: JournalCopy::new(position),
        progress,
        end: End::default(),
        begun: Instant::now(),
    };
    capture.mailboxes()?;
    for tree in JOURNALED_TREES {
        capture.entries(tree)?;
    }
    capture.receipts()?;
    capture.rest()?;
    let Capture { out, end, .. } = capture;
    let bytes = out.finish(&end)?;
    progress.bytes.store(bytes, Ordering::Relaxed);
    Ok(BackupReport::new(to.to_owned(), bytes, created_ms, &end))
}

impl Capture<'_> {
    /// Called between any two steps: keeps up with the journal, keeps to the bound, and
    /// notices that the store closes.
    fn breathe(&mut self) -> Result<(), StoreError> {
        if let Some(why) = self.core.unavailable() {
            return Err(why.into());
        }
        if self.core.abandoned() {
            return Err(crate::error::Unavailable::Closing.into());
        }
        if self.journal.behind(self.core) >= BEHIND_BYTES {
            let upto = self.core.applied.load(Ordering::Acquire);
            self.journal.copy(self.core, &mut self.out, upto)?;
        }
        self.progress
            .bytes
            .store(self.out.bytes(), Ordering::Relaxed);
        let due = Duration::from_millis(self.out.bytes() * 1000 / BYTES_PER_S_MAX);
        if let Some(ahead) = due.checked_sub(self.begun.elapsed()) {
            std::thread::sleep(ahead.min(NAP));
        }
        Ok(())
    }

    /// Users above `after` in order, those whose account is gone included.
    fn users(&self, after: Option<&UserId>) -> Result<Vec<UserId>, StoreError> {
        let from = after.map_or(Bound::Unbounded, |user| {
            Bound::Excluded(user.as_str().as_bytes().to_vec())
        });
        let mut names = Vec::with_capacity(2 * USERS);
        for tree in [&self.database.meta, &self.database.accounts] {
            for key in tree
                .range((from.clone(), Bound::Unbounded))
                .keys()
                .take(USERS)
            {
                names.push(key?);
            }
        }
        names.sort_unstable();
        names.dedup();
        // Beyond the first so many of both there may be gaps.
        names.truncate(USERS);
        let parsed = names.iter().map(|name| {
            let text = std::str::from_utf8(name).ok();
            text.and_then(|text| UserId::new(text).ok()).ok_or_else(|| {
                let error = crate::codec::DecodeError::Damaged("not a user's name");
                self.database.damaged("meta", name, &error)
            })
        });
        parsed.collect()
    }

    fn each_user(
        &mut self,
        mut visit: impl FnMut(&mut Self, &UserId) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let users = self.users(after.as_ref())?;
            for user in &users {
                self.breathe()?;
                visit(self, user)?;
            }
            match users.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    fn mailboxes(&mut self) -> Result<(), StoreError> {
        self.each_user(|capture, user| {
            let (mailbox, loaded) = capture.core.load(user)?;
            let result = capture.mailbox(&mailbox);
            drop(mailbox);
            if loaded.is_some() {
                // A pass over everybody must not fill the memory.
                capture.core.drop_idle(user);
            }
            result
        })
    }

    /// Messages first, the bookkeeping that counts them after the last one.
    fn mailbox(&mut self, mailbox: &Mailbox) -> Result<(), StoreError> {
        let mut upto: Seq = 0;
        loop {
            self.breathe()?;
            let messages = match self.next(mailbox, &mut upto) {
                Next::Chunk(chunk) => {
                    match chunk_messages(self.core, mailbox, &self.database, &chunk)? {
                        Some(messages) => messages,
                        // It was rewritten or has left: look again.
                        None => continue,
                    }
                }
                Next::Recent(messages) => messages,
                Next::Last(messages, meta) => {
                    self.messages(mailbox.user(), &messages)?;
                    let mut payload = Vec::new();
                    put_bytes(&mut payload, mailbox.user().as_str().as_bytes());
                    payload.extend(meta.encode());
                    self.out.block(Kind::Mailbox, &payload)?;
                    self.end.mailboxes += 1;
                    self.progress.mailboxes.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
            };
            let new = messages.partition_point(|message| message.seq <= upto);
            self.messages(mailbox.user(), &messages[new..])?;
            upto = messages.last().map_or(upto, |last| last.seq.max(upto));
        }
    }

    fn next(&self, mailbox: &Mailbox, upto: &mut Seq) -> Next {
        // Before the lock: all that lies below is in what is seen under it.
        let position = self.core.applied.load(Ordering::Acquire);
        let state = mailbox.lock();
        *upto = state.floor.max(*upto);
        if let Some(chunk) = next_chunk(&state, *upto) {
            return Next::Chunk(chunk.clone());
        }
        let mut bytes = 0;
        let recent: Vec<Stored> = state
            .recent_from(*upto)
            .take(RECENT_MESSAGES)
            .take_while(|message| {
                let first = bytes == 0;
                bytes += message.envelope.body.len() + 1;
                first || bytes <= RECENT_BYTES
            })
            .collect();
        let read = recent.last().map_or(*upto, |last| last.seq);
        if state.recent_from(read).next().is_some() {
            return Next::Recent(recent);
        }
        let mut meta = state.meta(position);
        // Whatever is held is among the stored messages of the backup.
        meta.migrated_upto = meta.last_seq;
        Next::Last(recent, Box::new(meta))
    }

    fn messages(&mut self, user: &UserId, messages: &[Stored]) -> Result<(), StoreError> {
        for run in pack(messages) {
            let (chunk, value) = values::encode_chunk(run);
            let mut payload = Vec::with_capacity(value.len() + 80);
            put_bytes(&mut payload, user.as_str().as_bytes());
            put_varint(&mut payload, chunk.first);
            payload.extend(value);
            self.out.block(Kind::Chunk, &payload)?;
        }
        self.end.messages += messages.len() as u64;
        self.progress
            .messages
            .fetch_add(messages.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// All entries of a tree.
    fn entries(&mut self, name: &str) -> Result<(), StoreError> {
        let tree = self.database.tree(name)?;
        for (index, entry) in tree.iter().enumerate() {
            let (key, value) = entry?;
            self.entry(name, &key, &value)?;
            if index % ENTRIES == 0 {
                self.breathe()?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, tree: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let mut payload = Vec::with_capacity(tree.len() + key.len() + value.len() + 8);
        put_bytes(&mut payload, tree.as_bytes());
        put_bytes(&mut payload, key);
        payload.extend_from_slice(value);
        self.end.entries += 1;
        self.out.block(Kind::Entry, &payload)
    }

    /// Receipts, once those that follow from what the mailboxes showed as acknowledged have
    /// been stored; later acknowledgements are in the journal with the messages they are of.
    fn receipts(&mut self) -> Result<(), StoreError> {
        // They are stored after the flush of the acknowledgements they follow from; twenty of
        // those are plenty.
        let config = &self.core.config;
        let grace = Instant::now() + config.receipt_grace.min(config.lazy_flush * 20);
        while let Some(left) = grace.checked_duration_since(Instant::now())
            && !left.is_zero()
        {
            std::thread::sleep(left.min(NAP));
            self.breathe()?;
        }
        self.each_user(|capture, user| {
            for receipt in capture.receipts_of(user)? {
                let mut payload = Vec::with_capacity(160);
                put_bytes(&mut payload, user.as_str().as_bytes());
                put_bytes(&mut payload, receipt.with.as_str().as_bytes());
                record::put_receipt_body(&mut payload, &receipt);
                capture.out.block(Kind::Receipt, &payload)?;
                capture.end.receipts += 1;
            }
            Ok(())
        })
    }

    fn receipts_of(&self, user: &UserId) -> Result<Vec<Receipt>, StoreError> {
        // What is in memory is complete; what is not was written down before it was let go.
        let resident = self.core.resident_untouched(user);
        if let Some(mailbox) = resident
            && let Some(receipts) = &mailbox.lock().receipts
        {
            return Ok(receipts.after(0, usize::MAX));
        }
        self.database.get_receipts(user)
    }

    /// Dead letters and the rest of the journal. A message on its way to the dead letters is
    /// stored there first and taken from its mailbox by a record after that: none of them may
    /// come between reading the letters and the position up to which records count.
    fn rest(&mut self) -> Result<(), StoreError> {
        let position = {
            let _none_moves = self.core.dead_letters.lock();
            self.entries(DEAD_TREE)?;
            for name in NUMBERS {
                let value = self.database.number(name)?;
                self.entry("global", name.as_bytes(), &value.to_le_bytes())?;
            }
            // What was acknowledged and seen above becomes durable, so that nothing in the
            // backup is ahead of the journal in it.
            flush(self.core)?;
            self.core.applied.load(Ordering::Acquire)
        };
        self.journal.copy(self.core, &mut self.out, position)?;
        if let Some(why) = self.core.unavailable() {
            return Err(why.into());
        }
        self.end.position = position;
        self.end.journal_bytes = self.journal.bytes;
        Ok(())
    }
}
