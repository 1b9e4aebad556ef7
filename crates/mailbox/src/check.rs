//! Verifying a stopped node's data directory: every checksum, every record,
//! and the figures against each other.
//!
//! Opening the database lets sled recover its own log first, as a start would;
//! beyond that nothing is changed, and the journal is only read.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;

use serde::Serialize;
use stonechat_protocol::{Seq, UserId};

use crate::checkpoint::{FIRST_SEGMENT, POSITION};
use crate::error::StoreError;
use crate::journal::{FORMAT, Record, scan};
use crate::layout::Layout;
use crate::migrate::minute_of;
use crate::overlap;
use crate::sledstore::Database;
use crate::sledstore::caught::caught;
use crate::sledstore::values::{self, Meta};

/// Problems listed in a report; more are only counted.
const PROBLEMS_MAX: usize = 1000;

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Version of the data directory's format.
    pub format: u32,
    /// Segments of the journal.
    pub journal_segments: u64,
    /// Intact bytes in them.
    pub journal_bytes: u64,
    /// Records in them.
    pub journal_records: u64,
    /// Bytes after the last intact batch: what was being written when the process stopped.
    /// The next start cuts them; nobody was told of it.
    pub journal_torn_bytes: u64,
    /// Mailboxes in the database.
    pub mailboxes: u64,
    /// Messages stored in the database and not acknowledged.
    pub messages: u64,
    /// Values they are packed into.
    pub chunks: u64,
    /// Accounts.
    pub accounts: u64,
    /// Receipts.
    pub receipts: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// What does not fit; empty in a sound store.
    pub problems: Vec<String>,
    /// Problems found, those not listed included.
    pub problems_total: u64,
}

impl CheckReport {
    /// Nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems_total == 0
    }

    fn problem(&mut self, problem: impl fmt::Display) {
        self.problems_total += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem.to_string());
        }
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "format         {}", self.format)?;
        writeln!(
            f,
            "journal        {} segments, {} bytes, {} records, {} bytes torn at the end",
            self.journal_segments,
            self.journal_bytes,
            self.journal_records,
            self.journal_torn_bytes
        )?;
        writeln!(
            f,
            "database       {} mailboxes, {} messages in {} values, {} receipts, {} accounts, {} dead letters",
            self.mailboxes,
            self.messages,
            self.chunks,
            self.receipts,
            self.accounts,
            self.dead_letters
        )?;
        for problem in &self.problems {
            writeln!(f, "problem        {problem}")?;
        }
        let unlisted = self.problems_total - self.problems.len() as u64;
        if unlisted > 0 {
            writeln!(f, "problem        and {unlisted} more")?;
        }
        let verdict = if self.is_sound() {
            "sound"
        } else {
            "DAMAGED, see docs/operations.md#damaged-data"
        };
        write!(f, "verdict        {verdict}")
    }
}

/// Checks the data directory of a stopped node. Blocks.
///
/// # Errors
/// [`StoreError`] when the check cannot be carried out: the directory is in use, is not a
/// data directory, or the database does not open. Damage is in the report.
pub fn check(dir: &Path) -> Result<CheckReport, StoreError> {
    let layout = Layout::open_existing(dir)?;
    caught(|| inspect(&layout))
}

/// [`check`] of a directory that is locked already.
pub(crate) fn inspect(layout: &Layout) -> Result<CheckReport, StoreError> {
    let database = Database::open(&layout.database(), 0)?;
    let mut report = CheckReport {
        format: FORMAT,
        ..CheckReport::default()
    };
    let touched = journal(layout, &database, &mut report)?;
    let stored = chunks(&database, &mut report)?;
    let index = expiry_index(&database, &mut report)?;
    mailboxes(&database, &touched, &stored, &index, &mut report)?;
    others(&database, &mut report)?;
    Ok(report)
}

/// Reads the journal; returns the users it speaks of.
fn journal(
    layout: &Layout,
    database: &Database,
    report: &mut CheckReport,
) -> Result<HashSet<UserId>, StoreError> {
    let first = database.number(FIRST_SEGMENT)?;
    let position = database.number(POSITION)?;
    let mut touched = HashSet::new();
    let mut records = 0;
    let end = scan(&layout.journal(), first, position, |_, _, record| {
        records += 1;
        match record {
            Record::Message { envelope, places } => {
                touched.extend(places.into_iter().map(|(user, _)| user));
                touched.insert(envelope.from.user.clone());
            }
            Record::Device(device) => {
                touched.insert(device.user);
            }
            Record::Receipt { user, .. }
            | Record::RemoveMessage { user, .. }
            | Record::RemoveDevice { user, .. }
            | Record::RemoveUser { user, .. }
            | Record::Purge { user, .. } => {
                touched.insert(user);
            }
            Record::Account(_) | Record::Value { .. } | Record::Closed => {}
        }
        Ok(())
    });
    report.journal_records = records;
    match end {
        Ok(end) => {
            report.journal_segments = end.segments.len() as u64;
            report.journal_bytes = end.segments.iter().map(|segment| segment.bytes).sum();
            report.journal_torn_bytes = end.torn.map_or(0, |torn| torn.bytes);
        }
        Err(error @ (StoreError::Damaged { .. } | StoreError::Version { .. })) => {
            report.problem(error);
        }
        Err(error) => return Err(error),
    }
    Ok(touched)
}

/// Where the messages of a stored chunk are, and when the first of them expires.
struct StoredChunk {
    places: RangeInclusive<Seq>,
    expires_ms_min: u64,
}

/// Decodes every stored message.
fn chunks(
    database: &Database,
    report: &mut CheckReport,
) -> Result<HashMap<UserId, Vec<StoredChunk>>, StoreError> {
    let mut stored: HashMap<UserId, Vec<StoredChunk>> = HashMap::new();
    for entry in &database.messages {
        let (key, value) = entry?;
        let (user, first, part) = match values::parse_chunk_key(&key) {
            Ok(parts) => parts,
            Err(error) => {
                report.problem(database.damaged("messages", &key, &error));
                continue;
            }
        };
        if part > 0 {
            continue;
        }
        let messages = values::decode_chunk_head(first, &value)
            .map_err(|error| database.damaged("messages", &key, &error))
            .and_then(|chunk| database.get_chunk(&user, &chunk));
        match messages {
            Ok(Some(messages)) => {
                let expiries = messages.iter().map(|message| message.envelope.expires_ms);
                stored.entry(user).or_default().push(StoredChunk {
                    expires_ms_min: expiries.min().unwrap_or(u64::MAX),
                    places: first..=first + messages.len() as u64 - 1,
                });
            }
            Ok(None) => report.problem(format!(
                "messages of {user} from {first} on are not complete"
            )),
            Err(error) => report.problem(error),
        }
    }
    Ok(stored)
}

/// The first minute for which the expiry index names each user.
fn expiry_index(
    database: &Database,
    report: &mut CheckReport,
) -> Result<HashMap<UserId, u64>, StoreError> {
    let mut index = HashMap::new();
    for entry in database.expiry.iter().keys() {
        let key = entry?;
        match values::parse_expiry_key(&key) {
            // In order of the minute: the first one counts.
            Ok((minute, user)) => {
                index.entry(user).or_insert(minute);
            }
            Err(error) => report.problem(database.damaged("expiry", &key, &error)),
        }
    }
    Ok(index)
}

/// Decodes every mailbox's bookkeeping and compares it with its messages.
fn mailboxes(
    database: &Database,
    touched: &HashSet<UserId>,
    stored: &HashMap<UserId, Vec<StoredChunk>>,
    index: &HashMap<UserId, u64>,
    report: &mut CheckReport,
) -> Result<(), StoreError> {
    for entry in &database.meta {
        let (key, value) = entry?;
        report.mailboxes += 1;
        let user = std::str::from_utf8(&key)
            .ok()
            .and_then(|name| UserId::new(name).ok());
        let meta = Meta::decode(&value).map_err(|error| database.damaged("meta", &key, &error));
        let (user, meta) = match (user, meta) {
            (Some(user), Ok(meta)) => (user, meta),
            (None, _) => {
                report.problem(format!("{} is not a user name", key.escape_ascii()));
                continue;
            }
            (_, Err(error)) => {
                report.problem(error);
                continue;
            }
        };
        positions(&user, &meta, report);
        let mut held = 0;
        let mut last = 0;
        let mut overlap = false;
        let mut expires_ms_min = u64::MAX;
        for chunk in stored.get(&user).into_iter().flatten() {
            // What lies within another or beyond what was migrated is left over from a crash
            // and removed by the next start.
            let (first, upto) = (*chunk.places.start(), *chunk.places.end());
            if upto > last && first <= meta.migrated_upto {
                report.chunks += 1;
                overlap |= first <= last;
                let first = first.max(last + 1);
                last = upto;
                let above = (upto + 1 - first).min(upto.saturating_sub(meta.floor));
                held += above;
                if above > 0 {
                    expires_ms_min = expires_ms_min.min(chunk.expires_ms_min);
                }
            }
        }
        report.messages += held;
        // The next start puts it right, if they agree about what they both hold.
        if overlap
            && let Err(error) = database
                .chunks(&user, meta.migrated_upto)
                .and_then(|found| overlap::plan(database, &user, &found.chunks))
        {
            report.problem(error);
        }
        // The journal may still move those it speaks of.
        if !touched.contains(&user) && held != meta.messages {
            report.problem(format!(
                "{user} counts {} messages, but {held} are stored and the journal has none",
                meta.messages
            ));
        }
        let minute = index.get(&user).copied().unwrap_or(u64::MAX);
        if held > 0 && minute > minute_of(expires_ms_min) && !touched.contains(&user) {
            report.problem(format!("messages of {user} would never expire"));
        }
    }
    Ok(())
}

fn positions(user: &UserId, meta: &Meta, report: &mut CheckReport) {
    if meta.floor > meta.last_seq
        || meta.migrated_upto > meta.last_seq
        || meta.first_cursor > meta.last_seq
    {
        report.problem(format!(
            "positions of {user} lie beyond its last message {}",
            meta.last_seq
        ));
    }
    for device in &meta.devices {
        if device.state.cursor > meta.first_cursor {
            report.problem(format!(
                "device {} of {user} is ahead of the first cursor",
                device.id
            ));
        }
    }
}

/// Decodes receipts, accounts and dead letters.
fn others(database: &Database, report: &mut CheckReport) -> Result<(), StoreError> {
    let mut last = None;
    for entry in &database.receipts {
        let (key, _) = entry?;
        report.receipts += 1;
        let user = key.split(|byte| *byte == 0).next().unwrap_or_default();
        let user = std::str::from_utf8(user)
            .ok()
            .and_then(|name| UserId::new(name).ok());
        match user {
            None => report.problem(format!("{} is not a receipt's key", key.escape_ascii())),
            Some(user) if last.as_ref() != Some(&user) => {
                if let Err(error) = database.get_receipts(&user) {
                    report.problem(error);
                }
                last = Some(user);
            }
            Some(_) => {}
        }
    }
    for entry in &database.accounts {
        let (key, value) = entry?;
        report.accounts += 1;
        match database.account(&key, &value) {
            Ok(account) if account.user.as_str().as_bytes() == &key[..] => {}
            Ok(account) => {
                report.problem(format!("the account of {} has another key", account.user));
            }
            Err(error) => report.problem(error),
        }
    }
    let mut after = 0;
    loop {
        match database.get_dead(after, 256) {
            Ok(letters) => {
                report.dead_letters += letters.len() as u64;
                match letters.last() {
                    Some(letter) => after = letter.number + 1,
                    None => return Ok(()),
                }
            }
            Err(error) => {
                report.problem(error);
                return Ok(());
            }
        }
    }
}
