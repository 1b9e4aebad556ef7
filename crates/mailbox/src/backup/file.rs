//! The file of a backup: a header, blocks with a checksum each, and a last
//! block that says that all of them are there. Bytes only.
//!
//! ```text
//! "STONEBAK" · format u32 · zero u32 · created_ms u64 · crc32c u32 · zero u32
//! kind u8 · zero u8 3 · payload length u32 · crc32c of both u32 · payload
//! ```
//!
//! It is written under another name and takes its own only when it is complete
//! and synced: a file that has its name is a whole one.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::BackupError;
use crate::codec::{DecodeError, Reader, put_varint};
use crate::error::StoreError;
use crate::files::{io_error, sync_dir};
use crate::journal::{u32_at, u64_at};

/// Version of the format this build writes.
pub(crate) const BACKUP_FORMAT: u32 = 1;
/// Ends the name of a backup that is not finished.
pub(crate) const PARTIAL_SUFFIX: &str = ".partial";
const MAGIC: [u8; 8] = *b"STONEBAK";
const HEADER_BYTES: usize = 32;
const BLOCK_HEADER_BYTES: usize = 12;
/// No block is longer; a length beyond is damage and not worth the memory.
const BLOCK_BYTES_MAX: usize = 16 << 20;
/// Written between two syncs, so that a backup never leaves the disk a long queue of writes
/// that a commit would have to wait for.
const SYNC_EVERY_BYTES: u64 = 4 << 20;
const BUFFER_BYTES: usize = 256 << 10;

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Consecutive messages of one mailbox, packed as the database has them.
    Chunk,
    /// One mailbox's bookkeeping, after its messages.
    Mailbox,
    /// One conversation's watermarks.
    Receipt,
    /// An entry of another tree: accounts, small values, dead letters, numbers.
    Entry,
    /// A stretch of the journal.
    Journal,
    /// Everything is there.
    End,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Chunk => 1,
            Self::Mailbox => 2,
            Self::Receipt => 3,
            Self::Entry => 4,
            Self::Journal => 5,
            Self::End => 6,
        }
    }

    fn of(code: u8) -> Option<Self> {
        [
            Self::Chunk,
            Self::Mailbox,
            Self::Receipt,
            Self::Entry,
            Self::Journal,
            Self::End,
        ]
        .into_iter()
        .find(|kind| kind.code() == code)
    }
}

/// What the last block says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct End {
    /// Position of the journal the backup stands for.
    pub(crate) position: u64,
    pub(crate) mailboxes: u64,
    pub(crate) messages: u64,
    pub(crate) receipts: u64,
    pub(crate) entries: u64,
    pub(crate) journal_bytes: u64,
}

impl End {
    fn numbers(&self) -> [u64; 6] {
        [
            self.position,
            self.mailboxes,
            self.messages,
            self.receipts,
            self.entries,
            self.journal_bytes,
        ]
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            position: reader.varint()?,
            mailboxes: reader.varint()?,
            messages: reader.varint()?,
            receipts: reader.varint()?,
            entries: reader.varint()?,
            journal_bytes: reader.varint()?,
        })
    }
}

/// The name of a backup while it is written.
pub(crate) fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PARTIAL_SUFFIX);
    PathBuf::from(name)
}

/// Writes a backup. Dropped before [`BackupWriter::finish`] it leaves nothing.
pub(crate) struct BackupWriter {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    synced: u64,
    blocks: u64,
    /// Over the checksums of all blocks: none is missing, none changed its place.
    chain: u32,
    finished: bool,
}

impl BackupWriter {
    pub(crate) fn create(path: &Path, created_ms: u64) -> Result<Self, StoreError> {
        if path.exists() {
            return Err(BackupError::Exists(path.to_owned()).into());
        }
        let partial = partial(path);
        // What is in it is nobody else's business.
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)
            .map_err(io_error("creating", &partial))?;
        let mut writer = Self {
            path: path.to_owned(),
            partial,
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            bytes: 0,
            synced: 0,
            blocks: 0,
            chain: 0,
            finished: false,
        };
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&BACKUP_FORMAT.to_le_bytes());
        header[16..24].copy_from_slice(&created_ms.to_le_bytes());
        let crc = crc32c::crc32c(&header[..24]);
        header[24..28].copy_from_slice(&crc.to_le_bytes());
        writer.put(&header)?;
        Ok(writer)
    }

    /// Bytes written so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file
            .write_all(bytes)
            .map_err(io_error("writing", &self.partial))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Writes a block.
    pub(crate) fn block(&mut self, kind: Kind, payload: &[u8]) -> Result<(), StoreError> {
        let mut header = [0; BLOCK_HEADER_BYTES];
        header[0] = kind.code();
        header[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..8]), payload);
        header[8..].copy_from_slice(&crc.to_le_bytes());
        self.put(&header)?;
        self.put(payload)?;
        self.blocks += 1;
        self.chain = crc32c::crc32c_append(self.chain, &crc.to_le_bytes());
        if self.bytes - self.synced >= SYNC_EVERY_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.file
            .flush()
            .and_then(|()| self.file.get_ref().sync_data())
            .map_err(io_error("syncing", &self.partial))?;
        self.synced = self.bytes;
        Ok(())
    }

    /// Says that everything is there, and gives the file its name. Returns its length.
    pub(crate) fn finish(mut self, end: &End) -> Result<u64, StoreError> {
        let mut payload = Vec::new();
        put_varint(&mut payload, self.blocks);
        put_varint(&mut payload, u64::from(self.chain));
        for number in end.numbers() {
            put_varint(&mut payload, number);
        }
        self.block(Kind::End, &payload)?;
        self.file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all())
            .map_err(io_error("syncing", &self.partial))?;
        if self.path.exists() {
            return Err(BackupError::Exists(self.path.clone()).into());
        }
        fs::rename(&self.partial, &self.path).map_err(io_error("renaming", &self.partial))?;
        self.finished = true;
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty());
        sync_dir(dir.unwrap_or(Path::new(".")))?;
        Ok(self.bytes)
    }
}

impl Drop for BackupWriter {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = fs::remove_file(&self.partial)
        {
            tracing::warn!(path = %self.partial.display(), %error, "an unfinished backup stays behind; remove it");
        }
    }
}

/// Reads a backup block by block.
pub(crate) struct BackupReader {
    path: PathBuf,
    file: BufReader<File>,
    at: u64,
    blocks: u64,
    chain: u32,
    payload: Vec<u8>,
    pub(crate) created_ms: u64,
    /// What the last block said, once it was read.
    pub(crate) end: Option<End>,
}

impl BackupReader {
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(io_error("opening", path))?;
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        let mut header = [0; HEADER_BYTES];
        let foreign = || BackupError::NotABackup(path.to_owned());
        match file.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(foreign().into());
            }
            other => other.map_err(io_error("reading", path))?,
        }
        if header[..8] != MAGIC {
            return Err(foreign().into());
        }
        if crc32c::crc32c(&header[..24]) != u32_at(&header, 24) {
            return Err(BackupError::Damaged {
                file: path.to_owned(),
                offset: 0,
                what: "the header does not fit its checksum".to_owned(),
            }
            .into());
        }
        let found = u32_at(&header, 8);
        if found != BACKUP_FORMAT {
            return Err(BackupError::Newer {
                file: path.to_owned(),
                found,
                supported: BACKUP_FORMAT,
            }
            .into());
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            at: HEADER_BYTES as u64,
            blocks: 0,
            chain: 0,
            payload: Vec::new(),
            created_ms: u64_at(&header, 16),
            end: None,
        })
    }

    /// An error at the block read last.
    pub(crate) fn damaged(&self, what: impl Into<String>) -> StoreError {
        BackupError::Damaged {
            file: self.path.clone(),
            offset: self.at,
            what: what.into(),
        }
        .into()
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<(), StoreError> {
        match self.file.read_exact(into) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(BackupError::Incomplete(self.path.clone()).into())
            }
            other => other.map_err(io_error("reading", &self.path)),
        }
    }

    /// The next block; `None` after the last one, when everything was there.
    pub(crate) fn block(&mut self) -> Result<Option<(Kind, Vec<u8>)>, StoreError> {
        if self.end.is_some() {
            return Ok(None);
        }
        let mut header = [0; BLOCK_HEADER_BYTES];
        self.fill(&mut header)?;
        let len = u32_at(&header, 4) as usize;
        if len > BLOCK_BYTES_MAX {
            return Err(self.damaged("a block is longer than any can be"));
        }
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        payload.resize(len, 0);
        self.fill(&mut payload)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..8]), &payload);
        if crc != u32_at(&header, 8) {
            return Err(self.damaged("a block does not fit its checksum"));
        }
        let Some(kind) = Kind::of(header[0]) else {
            // Its checksum is right: only a later version can have written it.
            return Err(BackupError::Newer {
                file: self.path.clone(),
                found: BACKUP_FORMAT + 1,
                supported: BACKUP_FORMAT,
            }
            .into());
        };
        if kind == Kind::End {
            self.take_end(&payload)?;
            return Ok(None);
        }
        self.blocks += 1;
        self.chain = crc32c::crc32c_append(self.chain, &crc.to_le_bytes());
        self.at += (BLOCK_HEADER_BYTES + len) as u64;
        Ok(Some((kind, payload)))
    }

    /// Gives a block's memory back for the next one.
    pub(crate) fn reuse(&mut self, payload: Vec<u8>) {
        self.payload = payload;
    }

    fn take_end(&mut self, payload: &[u8]) -> Result<(), StoreError> {
        let mut reader = Reader::new(payload);
        let decoded = reader
            .varint()
            .and_then(|blocks| Ok((blocks, reader.varint()?, End::decode(&mut reader)?)));
        let Ok((blocks, chain, end)) = decoded else {
            return Err(self.damaged("the last block cannot be read"));
        };
        if blocks != self.blocks || chain != u64::from(self.chain) {
            return Err(self.damaged("blocks are missing or out of place"));
        }
        let mut more = [0];
        if self
            .file
            .read(&mut more)
            .map_err(io_error("reading", &self.path))?
            > 0
        {
            return Err(self.damaged("something follows the last block"));
        }
        self.end = Some(end);
        Ok(())
    }
}
