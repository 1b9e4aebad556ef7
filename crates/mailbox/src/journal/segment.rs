//! Segment files: names, headers, and the table of those on disk.
//!
//! A segment is `%016x.log`. Its header is synced, and so is the directory,
//! before the first frame is written: a segment that has a header proves that
//! everything in the segments before it was synced. What follows its last
//! frame are zeros, if its file was prepared (`spare`), or nothing.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::frame::{u32_at, u64_at};
use crate::error::StoreError;
use crate::files::{io_error, sync_dir};

/// Version of the journal's format this build writes.
pub(crate) const FORMAT: u32 = 1;
/// Bytes of a segment header.
pub(crate) const HEADER_BYTES: usize = 40;
const MAGIC: [u8; 8] = *b"STONEJRN";

/// A segment header: magic, format, zero, number, base, crc32c.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) number: u64,
    /// Position of the header's first byte.
    pub(crate) base: u64,
}

/// What a header turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ParsedHeader {
    Good(Header),
    Bad,
    /// Intact, but of a later format.
    Newer(u32),
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        out[16..24].copy_from_slice(&self.number.to_le_bytes());
        out[24..32].copy_from_slice(&self.base.to_le_bytes());
        let crc = crc32c::crc32c(&out[..32]);
        out[32..36].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn parse(bytes: &[u8]) -> ParsedHeader {
        let Some(bytes) = bytes.get(..HEADER_BYTES) else {
            return ParsedHeader::Bad;
        };
        if bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..32]) != u32_at(bytes, 32) {
            return ParsedHeader::Bad;
        }
        match u32_at(bytes, 8) {
            FORMAT => ParsedHeader::Good(Self {
                number: u64_at(bytes, 16),
                base: u64_at(bytes, 24),
            }),
            newer => ParsedHeader::Newer(newer),
        }
    }
}

/// The file of segment `number`.
pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.log"))
}

/// Numbers of the segments in `dir`, in order. Other names are left alone.
pub(crate) fn list(dir: &Path) -> Result<Vec<u64>, StoreError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error("listing", dir))? {
        let entry = entry.map_err(io_error("listing", dir))?;
        let name = entry.file_name();
        if let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".log"))
            && stem.len() == 16
            && let Ok(number) = u64::from_str_radix(stem, 16)
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Creates a segment, durable before it is used.
pub(crate) fn create(dir: &Path, header: Header) -> Result<File, StoreError> {
    let file = write_new(dir, header)?;
    sync_new(dir, header.number, &file)?;
    Ok(file)
}

/// Creates a segment's file and writes its header; neither is durable before `sync_new`.
pub(crate) fn write_new(dir: &Path, header: Header) -> Result<File, StoreError> {
    let path = path(dir, header.number);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .map_err(io_error("creating", &path))?;
    write_header(dir, header, &file)?;
    Ok(file)
}

/// Makes a new segment's header durable, and its name.
pub(crate) fn sync_new(dir: &Path, number: u64, file: &File) -> Result<(), StoreError> {
    file.sync_all()
        .map_err(io_error("syncing", path(dir, number)))?;
    sync_dir(dir)
}

/// Writes the header into a file of the segment's name; not durable before a sync.
pub(crate) fn write_header(dir: &Path, header: Header, file: &File) -> Result<(), StoreError> {
    use std::os::unix::fs::FileExt;

    file.write_all_at(&header.encode(), 0)
        .map_err(io_error("writing", path(dir, header.number)))
}

/// Makes the header in a prepared file durable: its name is already.
pub(crate) fn sync_header(dir: &Path, number: u64, file: &File) -> Result<(), StoreError> {
    file.sync_data()
        .map_err(io_error("syncing", path(dir, number)))
}

/// Whether a file was prepared, and no segment was begun in it: the header is synced before the
/// first frame.
pub(crate) fn is_prepared(bytes: &[u8]) -> bool {
    bytes.len() > HEADER_BYTES && is_zero(&bytes[..HEADER_BYTES])
}

/// Whether there is nothing but zeros.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// A segment on disk.
#[derive(Debug)]
struct Entry {
    number: u64,
    /// Position after its last byte.
    end: u64,
    bytes: u64,
    /// Recent messages (one for each mailbox) whose only durable copy is here.
    live: u64,
    /// When the first batch was written to it in this process.
    written_at: Option<Instant>,
    /// `None`: the one being written.
    closed_at: Option<Instant>,
    /// When the last message that depended on it left.
    left_at: Option<Instant>,
}

/// All segments on disk, the last one being the one written to.
#[derive(Debug, Default)]
pub(crate) struct SegmentTable(Mutex<VecDeque<Entry>>);

impl SegmentTable {
    /// A segment came into being, or was found at the start.
    pub(crate) fn add(&self, number: u64, end: u64, bytes: u64, closed_at: Option<Instant>) {
        let mut table = self.0.lock();
        debug_assert!(table.back().is_none_or(|last| last.number < number));
        table.push_back(Entry {
            number,
            end,
            bytes,
            live: 0,
            written_at: None,
            closed_at,
            left_at: None,
        });
    }

    /// The last segment grew.
    pub(crate) fn grew(&self, by: u64) {
        if let Some(last) = self.0.lock().back_mut() {
            last.end += by;
            last.bytes += by;
            last.written_at.get_or_insert_with(Instant::now);
        }
    }

    /// How long the last segment has held something.
    pub(crate) fn active_age(&self) -> Option<Duration> {
        let table = self.0.lock();
        table.back()?.written_at.map(|at| at.elapsed())
    }

    /// Bytes of the last segment.
    pub(crate) fn active_bytes(&self) -> u64 {
        self.0.lock().back().map_or(0, |entry| entry.bytes)
    }

    /// The last segment is complete.
    pub(crate) fn close_last(&self, now: Instant) {
        if let Some(last) = self.0.lock().back_mut() {
            last.closed_at = Some(now);
        }
    }

    /// Recent messages came to depend on a segment (`more`), or no longer do (`fewer`).
    pub(crate) fn live(&self, number: u64, more: u64, fewer: u64) {
        let mut table = self.0.lock();
        // Nearly always one of the last.
        if let Some(entry) = table.iter_mut().rev().find(|entry| entry.number == number) {
            entry.live = (entry.live + more).saturating_sub(fewer);
            if entry.live == 0 && entry.closed_at.is_some() {
                entry.left_at = Some(Instant::now());
            }
        }
    }

    /// Segments and bytes on disk.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let table = self.0.lock();
        let bytes = table.iter().map(|entry| entry.bytes).sum();
        (table.len() as u64, bytes)
    }

    /// The first segment that is still needed once everything below `position` is in
    /// the database. One that was closed, or whose last message left, after `left_before` is:
    /// receipts may follow from it that were not put yet.
    pub(crate) fn first_needed(&self, position: u64, left_before: Option<Instant>) -> u64 {
        let table = self.0.lock();
        let past = |at: Instant| left_before.is_some_and(|limit| at <= limit);
        let free = table.iter().take_while(|entry| {
            entry.live == 0
                && entry.end <= position
                && entry.closed_at.is_some_and(past)
                && entry.left_at.is_none_or(past)
        });
        let count = free.count();
        table
            .get(count)
            .or_else(|| table.back())
            .map_or(0, |entry| entry.number)
    }

    /// The segment that holds the byte at `position`: its number, the position of its first
    /// byte and that after its last.
    pub(crate) fn holding(&self, position: u64) -> Option<(u64, u64, u64)> {
        let table = self.0.lock();
        let entry = table.iter().find(|entry| position < entry.end)?;
        let base = entry.end - entry.bytes;
        (base <= position).then_some((entry.number, base, entry.end))
    }

    /// The oldest segment.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.0.lock().front().map(|entry| entry.number)
    }

    /// Forgets the segments below `first`; returns their numbers.
    pub(crate) fn release(&self, first: u64) -> Vec<u64> {
        let mut table = self.0.lock();
        let mut gone = Vec::new();
        while table.len() > 1
            && let Some(entry) = table.pop_front_if(|entry| entry.number < first)
        {
            gone.push(entry.number);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message may be acknowledged long after its segment was closed, and the receipt that follows
    /// from it takes its time as well.
    #[test]
    fn a_segment_is_kept_a_while_after_its_last_message_left() {
        let table = SegmentTable::default();
        let long_ago = Instant::now();
        let long_ago = long_ago
            .checked_sub(Duration::from_secs(10))
            .expect("a clock");
        table.add(1, 100, 100, None);
        table.live(1, 2, 0);
        table.close_last(long_ago);
        table.add(2, 140, 40, None);
        let later = |s| Some(long_ago + Duration::from_secs(s));
        assert_eq!(table.first_needed(100, later(3600)), 1, "two depend on it");
        table.live(1, 0, 1);
        assert_eq!(table.first_needed(100, later(3600)), 1, "one depends on it");
        table.live(1, 0, 1);
        assert_eq!(table.first_needed(100, later(1)), 1, "it left only now");
        assert_eq!(table.first_needed(100, None), 1, "nothing is forgotten");
        assert_eq!(table.first_needed(99, later(3600)), 1, "not all is stored");
        assert_eq!(table.first_needed(100, later(3600)), 2);
    }
}
