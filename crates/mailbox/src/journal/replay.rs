//! Reading the journal back: every intact batch in order, and a verdict on
//! what follows the last one.
//!
//! A bad frame is a torn tail, and may be cut, only when nothing proves that it
//! was durable: it is in the last segment, no intact frame behind it names a
//! `durable` position beyond its start, and the database has seen nothing
//! beyond it. Everything else is damage and stops the reader. Zeros up to the
//! end of the file are not a bad frame: the file was prepared with them.

use std::fs;
use std::path::{Path, PathBuf};

use super::frame::{self, FRAME_HEADER_BYTES};
use super::record::Record;
use super::segment::{self, FORMAT, HEADER_BYTES, Header, ParsedHeader};
use crate::codec::{DecodeError, Reader};
use crate::error::StoreError;
use crate::files::io_error;

/// One segment as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) number: u64,
    /// Position after its last intact byte.
    pub(crate) end: u64,
    /// Intact bytes.
    pub(crate) bytes: u64,
    pub(crate) records: u64,
}

/// What the scan came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct ScanEnd {
    /// The segments from the first needed one on.
    pub(crate) segments: Vec<Found>,
    /// Segments that are no longer needed but still there.
    pub(crate) outdated: Vec<u64>,
    /// Bytes of the torn tail, and the file length to cut back to.
    pub(crate) torn: Option<Torn>,
    /// A file that was prepared for a segment that was never begun.
    pub(crate) prepared: Option<PathBuf>,
    /// The last record says that the store was closed in order.
    pub(crate) closed: bool,
}

/// A tail that was being written when the process or the machine stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Torn {
    pub(crate) path: PathBuf,
    /// Intact bytes before it; 0: not even the header.
    pub(crate) keep: u64,
    pub(crate) bytes: u64,
}

/// Reads all segments from `first_needed` on and shows every record to `visit`
/// with its segment number and the position of its batch. `durable` is the
/// greatest position something else proves to have been synced.
///
/// # Errors
/// [`StoreError::Damaged`] for damage, a missing segment, or a journal that ends
/// below `durable`; [`StoreError::Version`] for what a later version wrote; what
/// `visit` returns.
pub(crate) fn scan(
    dir: &Path,
    first_needed: u64,
    durable: u64,
    mut visit: impl FnMut(u64, u64, Record) -> Result<(), StoreError>,
) -> Result<ScanEnd, StoreError> {
    let mut result = ScanEnd::default();
    let (outdated, mut numbers): (Vec<u64>, Vec<u64>) = segment::list(dir)?
        .into_iter()
        .partition(|number| *number < first_needed);
    result.outdated = outdated;
    let prepared = prepared_last(dir, &numbers)?;
    if prepared.is_some() {
        // The one before it is the last, then: it may have a torn tail.
        numbers.pop();
    }
    let mut base = None;
    // A store that never was checkpointed begins wherever its first segment does.
    let begin = first_needed.max(1);
    for (index, (number, expected)) in numbers.iter().copied().zip(begin..).enumerate() {
        if number != expected {
            return Err(missing(dir, expected, number));
        }
        let last = index + 1 == numbers.len();
        let path = segment::path(dir, number);
        let bytes = fs::read(&path).map_err(io_error("reading", &path))?;
        let mut segment = Segment {
            path,
            number,
            bytes: &bytes,
            last,
        };
        let Some(header) = segment.header(base)? else {
            result.torn = Some(segment.torn(0));
            break;
        };
        let found = segment.batches(header, &mut visit, &mut result)?;
        base = Some(found.end);
        result.segments.push(found);
    }
    let end = base.unwrap_or(0);
    if let Some((path, bytes)) = prepared {
        let frames = frame::find(&bytes[HEADER_BYTES..], end + HEADER_BYTES as u64);
        if frames.is_some() {
            return Err(StoreError::Damaged {
                file: path.display().to_string(),
                offset: 0,
                what: "the segment has lost its header: an intact batch follows".to_owned(),
            });
        }
        result.prepared = Some(path);
    }
    if numbers.is_empty() && first_needed > 0 {
        return Err(missing(dir, first_needed, first_needed));
    }
    if end < durable {
        return Err(StoreError::Damaged {
            file: dir.display().to_string(),
            offset: end,
            what: format!(
                "the journal ends at position {end}, but the database has seen it reach {durable}"
            ),
        });
    }
    Ok(result)
}

/// The last file with what is in it, if no segment was begun in it.
fn prepared_last(dir: &Path, numbers: &[u64]) -> Result<Option<(PathBuf, Vec<u8>)>, StoreError> {
    let Some(last) = numbers.last() else {
        return Ok(None);
    };
    let path = segment::path(dir, *last);
    let bytes = fs::read(&path).map_err(io_error("reading", &path))?;
    Ok(segment::is_prepared(&bytes).then_some((path, bytes)))
}

fn missing(dir: &Path, expected: u64, found: u64) -> StoreError {
    StoreError::Damaged {
        file: segment::path(dir, expected).display().to_string(),
        offset: 0,
        what: if expected == found {
            "the segment is missing".to_owned()
        } else {
            format!("the segment is missing; the next one there is {found:016x}")
        },
    }
}

/// Reads one segment from memory, the last one if `last`; what a fuzzer needs of [`scan`].
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn read_one(
    bytes: &[u8],
    number: u64,
    last: bool,
    mut visit: impl FnMut(u64, u64, Record) -> Result<(), StoreError>,
) -> Result<ScanEnd, StoreError> {
    let mut result = ScanEnd::default();
    let mut segment = Segment {
        path: PathBuf::from("segment"),
        number,
        bytes,
        last,
    };
    match segment.header(None)? {
        None => result.torn = Some(segment.torn(0)),
        Some(header) => {
            let found = segment.batches(header, &mut visit, &mut result)?;
            result.segments.push(found);
        }
    }
    Ok(result)
}

struct Segment<'a> {
    path: PathBuf,
    number: u64,
    bytes: &'a [u8],
    last: bool,
}

impl Segment<'_> {
    fn damaged(&self, offset: usize, what: impl Into<String>) -> StoreError {
        StoreError::Damaged {
            file: self.path.display().to_string(),
            offset: offset as u64,
            what: what.into(),
        }
    }

    fn torn(&self, keep: usize) -> Torn {
        Torn {
            path: self.path.clone(),
            keep: keep as u64,
            bytes: (self.bytes.len() - keep) as u64,
        }
    }

    /// `None`: creating the segment was interrupted; nothing can have been written to it.
    fn header(&self, base: Option<u64>) -> Result<Option<Header>, StoreError> {
        let header = match Header::parse(self.bytes) {
            ParsedHeader::Good(header) => header,
            ParsedHeader::Newer(found) => {
                return Err(StoreError::Version {
                    found,
                    supported: FORMAT,
                });
            }
            // The header is synced before the first frame: no frame, no use yet.
            ParsedHeader::Bad
                if self.last && self.bytes.get(HEADER_BYTES..).is_none_or(segment::is_zero) =>
            {
                return Ok(None);
            }
            ParsedHeader::Bad => {
                return Err(self.damaged(0, "the segment header does not fit its checksum"));
            }
        };
        if header.number != self.number || base.is_some_and(|base| base != header.base) {
            return Err(self.damaged(0, "the segment header does not follow the segment before"));
        }
        Ok(Some(header))
    }

    fn batches(
        &mut self,
        header: Header,
        visit: &mut impl FnMut(u64, u64, Record) -> Result<(), StoreError>,
        result: &mut ScanEnd,
    ) -> Result<Found, StoreError> {
        let mut at = HEADER_BYTES;
        let mut records = 0;
        while at < self.bytes.len() {
            let lsn = header.base + at as u64;
            let Some(frame) = frame::parse(&self.bytes[at..], lsn) else {
                // The rest of a prepared file. Should frames have been there, the next segment
                // does not begin where this one ends, or the database knows of them.
                if segment::is_zero(&self.bytes[at..]) {
                    break;
                }
                self.check_torn(at, lsn)?;
                result.torn = Some(self.torn(at));
                break;
            };
            let payload = &self.bytes[at + FRAME_HEADER_BYTES..at + frame.bytes()];
            let mut reader = Reader::new(payload);
            let mut count = 0;
            while !reader.is_empty() {
                let record = Record::take(&mut reader).map_err(|error| match error {
                    DecodeError::Newer(found) => StoreError::Version {
                        found,
                        supported: FORMAT,
                    },
                    DecodeError::Damaged(what) => self.damaged(at, what),
                })?;
                count += 1;
                result.closed = record == Record::Closed;
                visit(self.number, lsn, record)?;
            }
            if count != frame.records {
                return Err(self.damaged(at, "the batch does not hold the records it announces"));
            }
            records += u64::from(count);
            at += frame.bytes();
        }
        Ok(Found {
            number: self.number,
            end: header.base + at as u64,
            bytes: at as u64,
            records,
        })
    }

    /// Errors when the bad frame at `at` is proven to have been durable.
    fn check_torn(&self, at: usize, lsn: u64) -> Result<(), StoreError> {
        if !self.last {
            return Err(self.damaged(
                at,
                "a batch does not fit its checksum, and a later segment exists",
            ));
        }
        match frame::find(&self.bytes[at + 1..], lsn + 1) {
            Some((skipped, frame)) if frame.durable > lsn => Err(self.damaged(
                at,
                format!(
                    "a batch does not fit its checksum, and an intact one follows at byte {}",
                    at + 1 + skipped
                ),
            )),
            _ => Ok(()),
        }
    }
}
