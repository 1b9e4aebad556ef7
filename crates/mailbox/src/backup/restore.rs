//! From a backup to a data directory. The file is read twice: once to see that
//! it is whole before anything is written, once to write.
//!
//! What was accepted after the backup is gone, but it happened: places and
//! revisions given then must not be given to something else, and devices may
//! have been sent anything. So places and starts go on far above the backup's,
//! and every device counts as one that was connected when the process died.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use stonechat_protocol::{Seq, UserId};

use super::BackupReport;
use super::error::BackupError;
use super::file::{BackupReader, End, Kind};
use super::journal::Stretch;
use crate::check;
use crate::checkpoint::{FIRST_SEGMENT, POSITION};
use crate::codec::{DecodeError, Reader};
use crate::config::Clock;
use crate::error::StoreError;
use crate::files::io_error;
use crate::journal::segment::{self, HEADER_BYTES, Header};
use crate::layout::Layout;
use crate::mailbox::Chunk;
use crate::migrate::minute_of;
use crate::sledstore::values::{self, Meta};
use crate::sledstore::{Database, TREES, Tree};

/// Name of the number all places are above.
pub(crate) const SEQ_BASE: &str = "seq_base";
/// Name of the position up to which it is not known what was sent.
pub(crate) const RESTORED_UPTO: &str = "restored_upto";

/// Places given to one mailbox in a second, at the very most: a restore starts its places
/// where the clock says, so that no two restores of one backup give the same ones either.
const PLACES_PER_S_SHIFT: u32 = 20;
/// Where the count of starts begins that a restore reads off the clock, seconds since the
/// Unix epoch (2020-01-01), one for each minute.
const STARTS_SINCE_S: u64 = 1_577_836_800;

/// Reads a backup to its end and holds every block against its checksum. Blocks.
///
/// # Errors
/// [`StoreError::Backup`]: it is not one, damaged, cut short or of a later version;
/// [`StoreError::Io`]: it cannot be read.
pub fn verify_backup(file: &Path) -> Result<BackupReport, StoreError> {
    let mut reader = BackupReader::open(file)?;
    while let Some((_, payload)) = reader.block()? {
        reader.reuse(payload);
    }
    let bytes = std::fs::metadata(file).map_err(io_error("reading", file))?;
    let end = reader.end.clone().unwrap_or_default();
    Ok(BackupReport::new(
        file.to_owned(),
        bytes.len(),
        reader.created_ms,
        &end,
    ))
}

/// Restores a backup into an empty or new directory, and checks what it made. Blocks.
///
/// # Errors
/// As [`verify_backup`], before anything is written; [`BackupError::NotEmpty`]; or what
/// writing came to, after which the directory has to be emptied.
pub fn restore(file: &Path, dir: &Path) -> Result<BackupReport, StoreError> {
    let report = verify_backup(file)?;
    let layout = Layout::begin_restore(dir)?;
    let mut reader = BackupReader::open(file)?;
    {
        let mut target = Target {
            database: Database::open(&layout.database(), 64 << 20)?,
            journal: Segments::new(layout.journal()),
            current: None,
        };
        while let Some((kind, payload)) = reader.block()? {
            match target.apply(kind, &payload) {
                Ok(()) => {}
                Err(Failed::Decode(error)) => return Err(undecodable(&reader, file, &error)),
                Err(Failed::Store(error)) => return Err(error),
            }
            reader.reuse(payload);
        }
        let end = reader.end.clone().unwrap_or_default();
        target.finish(&end, Clock::default().now_ms() / 1000)?;
    }
    // Opened once more: what closing it wrote last is synced by that, names included.
    Database::open(&layout.database(), 0)?.sync()?;
    let found = check::inspect(&layout)?;
    if let Some(problem) = found.problems.first() {
        return Err(reader.damaged(format!("what it restores to does not fit: {problem}")));
    }
    layout.end_restore()?;
    Ok(report)
}

/// A block that fits its checksum but cannot be read.
fn undecodable(reader: &BackupReader, file: &Path, error: &DecodeError) -> StoreError {
    match error {
        DecodeError::Damaged(what) => reader.damaged(*what),
        DecodeError::Newer(found) => BackupError::Newer {
            file: file.to_owned(),
            found: *found,
            supported: super::file::BACKUP_FORMAT,
        }
        .into(),
    }
}

/// What became of applying a block.
enum Failed {
    Decode(DecodeError),
    Store(StoreError),
}

impl From<DecodeError> for Failed {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn put(tree: &Tree, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    tree.insert(key, value)?;
    Ok(())
}

/// What is being built.
struct Target {
    database: Database,
    journal: Segments,
    /// The mailbox whose messages are coming.
    current: Option<(UserId, Vec<Chunk>)>,
}

impl Target {
    fn apply(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Failed> {
        let mut reader = Reader::new(payload);
        match kind {
            Kind::Chunk => {
                let user = reader.user()?;
                let first = reader.varint()?;
                self.chunk(user, first, reader.take(reader.left())?)
            }
            Kind::Mailbox => {
                let user = reader.user()?;
                let meta = Meta::decode(reader.take(reader.left())?)?;
                self.mailbox(&user, meta)
            }
            Kind::Receipt => {
                let user = reader.user()?;
                let with = reader.user()?;
                let key = values::receipt_key(&user, &with);
                Ok(put(
                    &self.database.receipts,
                    &key,
                    reader.take(reader.left())?,
                )?)
            }
            Kind::Entry => {
                let name = reader.text()?;
                if !TREES.contains(&name) {
                    return Err(DecodeError::Damaged("there is no such tree").into());
                }
                let key = reader.bytes()?;
                let tree = self.database.tree(name)?;
                Ok(put(&tree, key, reader.take(reader.left())?)?)
            }
            Kind::Journal => Ok(self.journal.stretch(&Stretch::decode(payload)?)?),
            Kind::End => Ok(()),
        }
    }

    fn chunk(&mut self, user: UserId, first: Seq, value: &[u8]) -> Result<(), Failed> {
        // Decoded in full: what cannot be read must not be found out by its recipient.
        values::decode_chunk(first, value)?;
        let chunk = values::decode_chunk_head(first, value)?;
        self.database.put_chunk(&user, &chunk, value)?;
        match &mut self.current {
            Some((current, chunks)) if *current == user => chunks.push(chunk),
            _ => self.current = Some((user, vec![chunk])),
        }
        Ok(())
    }

    fn mailbox(&mut self, user: &UserId, mut meta: Meta) -> Result<(), Failed> {
        let current = self.current.take();
        let mut chunks = match current {
            Some((current, chunks)) if current == *user => chunks,
            None => Vec::new(),
            Some(_) => {
                return Err(DecodeError::Damaged("messages without a mailbox").into());
            }
        };
        // Acknowledged while the mailbox was being read.
        for gone in chunks.extract_if(.., |chunk| chunk.last() <= meta.floor) {
            self.database.remove_chunk(user, gone.first, gone.parts)?;
        }
        meta.messages = chunks.iter().map(|chunk| chunk.above(meta.floor)).sum();
        meta.bytes = chunks.iter().map(|chunk| u64::from(chunk.body_bytes)).sum();
        let expires_ms = chunks.iter().map(|chunk| chunk.expires_ms_min).min();
        meta.expiry_minute = expires_ms.map_or(0, minute_of);
        if meta.expiry_minute != 0 {
            let key = values::expiry_key(meta.expiry_minute, user);
            put(&self.database.expiry, &key, &[])?;
        }
        Ok(put(
            &self.database.meta,
            user.as_str().as_bytes(),
            &meta.encode(),
        )?)
    }

    fn finish(self, end: &End, now_s: u64) -> Result<(), StoreError> {
        let database = &self.database;
        let first = self.journal.finish(end.position)?;
        database.set_number(FIRST_SEGMENT, first)?;
        database.set_number(POSITION, end.position)?;
        database.set_number(RESTORED_UPTO, end.position)?;
        let seq_base = database.number(SEQ_BASE)? + (1 << PLACES_PER_S_SHIFT);
        database.set_number(SEQ_BASE, seq_base.max(now_s << PLACES_PER_S_SHIFT))?;
        let epoch = database.number("epoch")? + 1;
        let minutes = now_s.saturating_sub(STARTS_SINCE_S) / 60;
        database.set_number("epoch", epoch.max(minutes))?;
        database.sync()
    }
}

/// The journal's segments as they are built: the same positions, so the same frames.
struct Segments {
    dir: PathBuf,
    first: Option<u64>,
    open: Option<(u64, PathBuf, File)>,
    /// Position after what was written.
    end: u64,
}

impl Segments {
    fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            first: None,
            open: None,
            end: 0,
        }
    }

    fn stretch(&mut self, stretch: &Stretch<'_>) -> Result<(), StoreError> {
        let same = self
            .open
            .as_ref()
            .is_some_and(|(number, _, _)| *number == stretch.segment);
        if !same {
            self.sync()?;
            let base = stretch.position - HEADER_BYTES as u64;
            let header = Header {
                number: stretch.segment,
                base,
            };
            segment::create(&self.dir, header)?;
            self.first.get_or_insert(stretch.segment);
            let path = segment::path(&self.dir, stretch.segment);
            let file = OpenOptions::new()
                .append(true)
                .open(&path)
                .map_err(io_error("opening", &path))?;
            self.open = Some((stretch.segment, path, file));
        }
        if let Some((_, path, file)) = &mut self.open {
            file.write_all(stretch.bytes)
                .map_err(io_error("writing", path.as_path()))?;
        }
        self.end = stretch.position + stretch.bytes.len() as u64;
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        match &self.open {
            Some((_, path, file)) => file.sync_all().map_err(io_error("syncing", path.as_path())),
            None => Ok(()),
        }
    }

    /// Ends the journal at `position`; returns the number of its first segment. The last one is
    /// empty: positions have to go on from here even if nothing was written meanwhile.
    fn finish(self, position: u64) -> Result<u64, StoreError> {
        self.sync()?;
        let number = self.open.as_ref().map_or(1, |(number, _, _)| number + 1);
        let header = Header {
            number,
            base: position,
        };
        segment::create(&self.dir, header)?;
        Ok(self.first.unwrap_or(number))
    }
}
