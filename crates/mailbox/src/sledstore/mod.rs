//! All use of sled: which trees there are, what syncs them, and values in parts.
//!
//! sled's `flush` is not an fsync, and its own sync thread only logs failures,
//! so [`Database::sync`] syncs through a descriptor of our own. Writes of one
//! thread reach sled's log in order and a crash keeps a prefix of that log:
//! what callers rely on when they write one thing before another, and what
//! holds in a power cut only because the file is [written through](through).
//!
//! It decides nothing: what is written when is `migrate`'s and `checkpoint`'s.

pub(crate) mod caught;
mod through;
pub(crate) mod values;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sled::Db;
pub(crate) use sled::Tree;
use stonechat_protocol::{Seq, UserId};

use self::values::{Meta, PART_BYTES_MAX};
use crate::api::{Account, DeadLetter, Receipt, Stored};
use crate::codec::{DecodeError, Reader};
use crate::error::StoreError;
use crate::files::{io_error, sync_dir};
use crate::journal::{FORMAT, record};
use crate::mailbox::Chunk;

/// A quarter of this is what sled takes for one leaf before it resorts to files it never syncs.
const SLED_SEGMENT_BYTES: usize = 2 << 20;
/// Longest wait for a database this process has just closed.
const UNLOCK_MAX: Duration = Duration::from_secs(10);

impl From<sled::Error> for StoreError {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Corruption { at, .. } => Self::DamagedDatabase(match at {
                Some(at) => format!("at {at:?}"),
                None => "at a place it does not tell".to_owned(),
            }),
            other => Self::Database(other.to_string()),
        }
    }
}

/// A key and its value.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

/// The chunks of one user.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Those that count, in order.
    pub(crate) chunks: Vec<Chunk>,
    /// Keys of those that must not count.
    pub(crate) void: Vec<Vec<u8>>,
    /// Some of those that count begin within the one before.
    pub(crate) overlap: bool,
}

/// The open database.
#[derive(Debug)]
pub(crate) struct Database {
    dir: PathBuf,
    db: Db,
    file: File,
    /// Each write to the file is synced by the file system.
    written_through: bool,
    /// How long the file is known to be on the device, where it is not written through.
    durable_bytes: AtomicU64,
    pub(crate) meta: Tree,
    pub(crate) messages: Tree,
    pub(crate) receipts: Tree,
    pub(crate) accounts: Tree,
    pub(crate) dead: Tree,
    pub(crate) values: Tree,
    pub(crate) expiry: Tree,
    pub(crate) global: Tree,
}

/// Opens sled, waiting for its own file lock: a database that this process has just closed
/// holds it until sled's background threads are done. Ours keeps other processes away.
fn open_unlocked(config: &sled::Config) -> Result<Db, StoreError> {
    let deadline = Instant::now() + UNLOCK_MAX;
    loop {
        match config.open() {
            Err(sled::Error::Io(error))
                if error.to_string().contains("acquire lock") && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return Ok(other?),
        }
    }
}

/// Names of the trees, in the order they are copied and checked.
pub(crate) const TREES: [&str; 8] = [
    "meta", "messages", "receipts", "accounts", "dead", "values", "expiry", "global",
];

impl Database {
    /// Opens or creates the database in `dir`.
    pub(crate) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(cache_bytes.max(1 << 20))
            .segment_size(SLED_SEGMENT_BYTES)
            .flush_every_ms(None);
        let path = dir.join("db");
        std::fs::create_dir_all(dir).map_err(io_error("creating directory", dir))?;
        // Before sled opens it: opening writes, too.
        let written_through = through::write_through(&path)?;
        let db = open_unlocked(&config)?;
        let file = File::open(&path).map_err(io_error("opening", &path))?;
        let tree = |name: &str| db.open_tree(name);
        let database = Self {
            dir: dir.to_owned(),
            file,
            written_through,
            durable_bytes: AtomicU64::new(0),
            meta: tree("meta")?,
            messages: tree("messages")?,
            receipts: tree("receipts")?,
            accounts: tree("accounts")?,
            dead: tree("dead")?,
            values: tree("values")?,
            expiry: tree("expiry")?,
            global: tree("global")?,
            db,
        };
        database.sync_all()?;
        Ok(database)
    }

    /// Syncs everything sled made in its directory, names included. Once, after opening.
    fn sync_all(&self) -> Result<(), StoreError> {
        self.db.flush()?;
        let entries = std::fs::read_dir(&self.dir).map_err(io_error("listing", &self.dir))?;
        for entry in entries {
            let path = entry.map_err(io_error("listing", &self.dir))?.path();
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(io_error("syncing", &path))?;
        }
        sync_dir(&self.dir)
    }

    /// Makes durable that the database's file has grown, or shrunk, if it has. Nothing to do where it is
    /// written through; elsewhere this is the little that can be done.
    ///
    /// sled hands what it writes to the device itself, but not that there is more of the file. What it
    /// overwrites is durable before that is. A power cut in between leaves new content where pages
    /// were that had moved to the end of the file, and no end of the file: sled finds the old places
    /// damaged and does not open. So a longer file is made durable before much else is written.
    pub(crate) fn keep_up(&self) -> Result<(), StoreError> {
        if self.written_through {
            return Ok(());
        }
        let length = self.length()?;
        if length == self.durable_bytes.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.sync_file(length)
    }

    /// Makes everything written before durable.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.db.flush()?;
        self.sync_file(self.length()?)
    }

    fn length(&self) -> Result<u64, StoreError> {
        let about = self.file.metadata();
        let about = about.map_err(io_error("looking at", self.dir.join("db")))?;
        Ok(about.len())
    }

    /// `length` is what the file had before.
    fn sync_file(&self, length: u64) -> Result<(), StoreError> {
        let synced = self.file.sync_data();
        synced.map_err(io_error("syncing", self.dir.join("db")))?;
        self.durable_bytes.store(length, Ordering::Relaxed);
        Ok(())
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }

    /// The tree called `name`.
    pub(crate) fn tree(&self, name: &str) -> Result<Tree, StoreError> {
        Ok(self.db.open_tree(name)?)
    }

    /// An error that names the tree and the key.
    pub(crate) fn damaged(&self, tree: &str, key: &[u8], error: &DecodeError) -> StoreError {
        match error {
            DecodeError::Newer(found) => StoreError::Version {
                found: *found,
                supported: FORMAT,
            },
            DecodeError::Damaged(what) => StoreError::Damaged {
                file: format!("{} (tree {tree})", self.dir.display()),
                offset: 0,
                what: format!("key {}: {what}", key.escape_ascii()),
            },
        }
    }

    /// A number of the store.
    pub(crate) fn number(&self, name: &str) -> Result<u64, StoreError> {
        let value = self.global.get(name)?;
        Ok(value.map_or(0, |bytes| {
            let mut word = [0; 8];
            let len = bytes.len().min(8);
            word[..len].copy_from_slice(&bytes[..len]);
            u64::from_le_bytes(word)
        }))
    }

    /// Sets a number of the store.
    pub(crate) fn set_number(&self, name: &str, value: u64) -> Result<(), StoreError> {
        self.global.insert(name, &value.to_le_bytes())?;
        Ok(())
    }

    /// A mailbox's bookkeeping.
    pub(crate) fn get_meta(&self, user: &UserId) -> Result<Option<Meta>, StoreError> {
        let key = user.as_str().as_bytes();
        self.meta
            .get(key)?
            .map(|bytes| Meta::decode(&bytes).map_err(|error| self.damaged("meta", key, &error)))
            .transpose()
    }

    /// Writes a chunk: its later parts first, so that the first one proves it whole.
    pub(crate) fn put_chunk(
        &self,
        user: &UserId,
        chunk: &Chunk,
        value: &[u8],
    ) -> Result<(), StoreError> {
        for (part, bytes) in value.chunks(PART_BYTES_MAX).enumerate().rev() {
            let key = values::chunk_key(user, chunk.first, part as u8);
            self.messages.insert(key, bytes)?;
        }
        self.keep_up()
    }

    /// Removes a chunk: its first part first.
    pub(crate) fn remove_chunk(
        &self,
        user: &UserId,
        first: Seq,
        parts: u8,
    ) -> Result<(), StoreError> {
        for part in 0..parts {
            self.messages.remove(values::chunk_key(user, first, part))?;
        }
        self.keep_up()
    }

    /// Puts chunks in the place of others, in one step.
    pub(crate) fn replace_chunks(
        &self,
        user: &UserId,
        gone: &[Chunk],
        new: &[(Chunk, Vec<u8>)],
    ) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for chunk in gone {
            for part in 0..chunk.parts {
                batch.remove(values::chunk_key(user, chunk.first, part));
            }
        }
        // After the removals: a new one may have the key of one that goes.
        for (chunk, value) in new {
            for (part, bytes) in value.chunks(PART_BYTES_MAX).enumerate() {
                batch.insert(values::chunk_key(user, chunk.first, part as u8), bytes);
            }
        }
        self.messages.apply_batch(batch)?;
        self.keep_up()
    }

    /// The messages of a chunk; `None` when it is gone or was rewritten.
    pub(crate) fn get_chunk(
        &self,
        user: &UserId,
        chunk: &Chunk,
    ) -> Result<Option<Vec<Stored>>, StoreError> {
        let mut value = Vec::with_capacity(chunk.value_bytes as usize);
        for part in 0..chunk.parts {
            let key = values::chunk_key(user, chunk.first, part);
            match self.messages.get(&key)? {
                Some(bytes) => value.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
        if value.len() != chunk.value_bytes as usize {
            return Ok(None);
        }
        let key = values::chunk_key(user, chunk.first, 0);
        values::decode_chunk(chunk.first, &value)
            .map(Some)
            .map_err(|error| self.damaged("messages", &key, &error))
    }

    /// The chunks of a user in order, and those that must not count: within one before,
    /// beyond `migrated_upto`, or without their first part. They are left over
    /// from a crash between two writes.
    pub(crate) fn chunks(&self, user: &UserId, migrated_upto: Seq) -> Result<Found, StoreError> {
        let mut found = Found::default();
        let mut upto = 0;
        let mut parts_of = None;
        for entry in self.messages.scan_prefix(values::user_prefix(user)) {
            let (key, value) = entry?;
            let damaged = |error| self.damaged("messages", &key, &error);
            let (_, first, part) = values::parse_chunk_key(&key).map_err(damaged)?;
            if part > 0 {
                if parts_of.is_none_or(|(of, parts)| of != first || part >= parts) {
                    found.void.push(key.to_vec());
                }
                continue;
            }
            let chunk = values::decode_chunk_head(first, &value)
                .map_err(|error| self.damaged("messages", &key, &error))?;
            if chunk.last() <= upto || chunk.first > migrated_upto {
                found.void.push(key.to_vec());
                parts_of = None;
            } else {
                parts_of = Some((first, chunk.parts));
                found.overlap |= chunk.first <= upto;
                upto = chunk.last();
                found.chunks.push(chunk);
            }
        }
        Ok(found)
    }

    /// A user's receipts.
    pub(crate) fn get_receipts(&self, user: &UserId) -> Result<Vec<Receipt>, StoreError> {
        let prefix = values::user_prefix(user);
        let mut receipts = Vec::new();
        for entry in self.receipts.scan_prefix(&prefix) {
            let (key, value) = entry?;
            let receipt = std::str::from_utf8(&key[prefix.len()..])
                .ok()
                .and_then(|name| UserId::new(name).ok())
                .ok_or(DecodeError::Damaged("not a receipt's key"))
                .and_then(|with| record::receipt_body(with, &mut Reader::new(&value)))
                .map_err(|error| self.damaged("receipts", &key, &error))?;
            receipts.push(receipt);
        }
        Ok(receipts)
    }

    /// Stores an account.
    pub(crate) fn put_account(&self, account: &Account) -> Result<(), StoreError> {
        let mut value = Vec::new();
        record::put_account_body(&mut value, account);
        self.accounts.insert(account.user.as_str(), value)?;
        Ok(())
    }

    /// Decodes a stored account.
    pub(crate) fn account(&self, key: &[u8], value: &[u8]) -> Result<Account, StoreError> {
        record::account_body(&mut Reader::new(value))
            .map_err(|error| self.damaged("accounts", key, &error))
    }

    /// An account.
    pub(crate) fn get_account(&self, user: &UserId) -> Result<Option<Account>, StoreError> {
        let key = user.as_str();
        self.accounts
            .get(key)?
            .map(|value| self.account(key.as_bytes(), &value))
            .transpose()
    }

    /// Stores `value` under `key 0x00 part`, replacing what was there; `None` removes it.
    pub(crate) fn put_parts(
        tree: &Tree,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let mut prefix = key.to_vec();
        prefix.push(0);
        let mut batch = sled::Batch::default();
        for old in tree.scan_prefix(&prefix).keys() {
            batch.remove(old?);
        }
        if let Some(value) = value {
            // An empty value still needs its first part.
            for part in 0..value.len().div_ceil(PART_BYTES_MAX).max(1) {
                let from = part * PART_BYTES_MAX;
                let to = value.len().min(from + PART_BYTES_MAX);
                let mut part_key = prefix.clone();
                part_key.push(part as u8);
                batch.insert(part_key, &value[from..to]);
            }
        }
        tree.apply_batch(batch)?;
        Ok(())
    }

    /// Joins the parts of every value whose key starts with `prefix`, from `start` on.
    pub(crate) fn get_parts(
        tree: &Tree,
        prefix: &[u8],
        start: &[u8],
        max: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut found: Vec<Entry> = Vec::new();
        for entry in tree.range(start..) {
            let (key, value) = entry?;
            if !key.starts_with(prefix) {
                break;
            }
            let Some((name, _)) = key.split_at_checked(key.len().saturating_sub(2)) else {
                continue;
            };
            let count = found.len();
            match found.last_mut() {
                Some((last, joined)) if last == name => joined.extend_from_slice(&value),
                _ if count == max => break,
                _ => found.push((name.to_vec(), value.to_vec())),
            }
        }
        Ok(found)
    }

    /// Small values whose names start with `prefix`.
    pub(crate) fn values(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, StoreError> {
        let prefix = prefix.as_bytes();
        let found = Self::get_parts(&self.values, prefix, prefix, usize::MAX)?;
        let named = found.into_iter().map(|(key, value)| {
            let name = String::from_utf8_lossy(&key).into_owned();
            (name, Bytes::from(value))
        });
        Ok(named.collect())
    }

    /// When the first message stored for a user was accepted.
    pub(crate) fn oldest_ms(&self, user: &UserId) -> Result<Option<u64>, StoreError> {
        let first = self.messages.scan_prefix(values::user_prefix(user)).next();
        let Some((key, value)) = first.transpose()? else {
            return Ok(None);
        };
        values::parse_chunk_key(&key)
            .and_then(|(_, first, _)| values::decode_chunk_head(first, &value))
            .map(|chunk| Some(chunk.ts_ms_first))
            .map_err(|error| self.damaged("messages", &key, &error))
    }

    /// Stores a dead letter.
    pub(crate) fn put_dead(&self, letter: &DeadLetter) -> Result<(), StoreError> {
        let value = values::encode_dead(letter);
        Self::put_parts(&self.dead, &letter.number.to_be_bytes(), Some(&value))
    }

    /// Dead letters from number `from` on.
    pub(crate) fn get_dead(&self, from: u64, max: usize) -> Result<Vec<DeadLetter>, StoreError> {
        Self::get_parts(&self.dead, &[], &from.to_be_bytes(), max)?
            .into_iter()
            .map(|(key, value)| {
                let number = <[u8; 8]>::try_from(key.as_slice())
                    .map(u64::from_be_bytes)
                    .map_err(|_| DecodeError::Damaged("not a dead letter's key"));
                number
                    .and_then(|number| values::decode_dead(number, &value))
                    .map_err(|error| self.damaged("dead", &key, &error))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
