//! Writing batches: one write and one data sync each, and what happens when
//! either fails.
//!
//! A failed write is undone (the file is cut back to the batch's start), so the
//! journal stays usable. A failed sync, of a batch or of a new segment's header, is
//! final: what the kernel still holds is unknown then, so the writer refuses
//! everything after it.
//!
//! A segment is begun in a file that was prepared (`spare`) if there is one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::frame;
use super::segment::{self, HEADER_BYTES, Header, SegmentTable};
use super::spare::{Prepared, Spare};
use crate::config::{Faults, WriteFault};
use crate::error::StoreError;
use crate::files::io_error;

/// Why a batch is not durable.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// Nothing of it is in the file; later batches may succeed.
    Undone(StoreError),
    /// The journal cannot be trusted any more in this process.
    Final(StoreError),
}

/// When the next segment's file is prepared, and how long it may get.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PrepareLimits {
    /// Bytes in a segment before the next one is prepared; 0: never.
    pub(crate) from_bytes: u64,
    pub(crate) bytes_max: u64,
}

/// The journal's only writer.
pub(crate) struct JournalWriter {
    dir: PathBuf,
    faults: Option<Arc<dyn Faults>>,
    table: Arc<SegmentTable>,
    file: File,
    header: Header,
    /// Bytes of the file that are written and synced.
    bytes: u64,
    /// Bytes of the file that were zeros on the disk before it was used: up to there a sync has
    /// no length to write down.
    prepared_bytes: u64,
    spare: Arc<Spare>,
    /// Bytes of the segment at which the next one's file is asked for, or a longer one.
    ask_at_bytes: u64,
    limits: PrepareLimits,
    /// When the first batch was written to this segment.
    first_write: Option<Instant>,
}

impl JournalWriter {
    /// Starts segment `header.number`, which does not exist yet.
    pub(crate) fn start(
        dir: PathBuf,
        header: Header,
        table: Arc<SegmentTable>,
        faults: Option<Arc<dyn Faults>>,
        spare: Arc<Spare>,
        limits: PrepareLimits,
    ) -> Result<Self, StoreError> {
        let file = segment::create(&dir, header)?;
        let bytes = HEADER_BYTES as u64;
        table.add(header.number, header.base + bytes, bytes, None);
        Ok(Self {
            dir,
            faults,
            table,
            file,
            header,
            bytes,
            prepared_bytes: 0,
            spare,
            ask_at_bytes: limits.from_bytes,
            limits,
            first_write: None,
        })
    }

    /// Number of the segment being written.
    pub(crate) fn number(&self) -> u64 {
        self.header.number
    }

    /// Position after everything written, all of it synced.
    pub(crate) fn end(&self) -> u64 {
        self.header.base + self.bytes
    }

    /// Bytes of the segment being written.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.bytes
    }

    /// How long the segment has held something.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.first_write.map(|at| at.elapsed())
    }

    /// Writes and syncs the frame begun in `buffer`; returns how long the sync took.
    pub(crate) fn write(
        &mut self,
        buffer: &mut [u8],
        records: u32,
    ) -> Result<Duration, WriteError> {
        let lsn = self.end();
        frame::finish(buffer, lsn, lsn, records);
        if let Err(error) = self.write_at_end(buffer) {
            return Err(self.undo(error));
        }
        let start = Instant::now();
        let injected = self.faults.as_ref().and_then(|faults| faults.sync());
        if let Err(source) = injected.map_or_else(|| self.file.sync_data(), Err) {
            return Err(WriteError::Final(self.error("syncing", source)));
        }
        let took = start.elapsed();
        self.bytes += buffer.len() as u64;
        self.first_write.get_or_insert(start);
        self.table.grew(buffer.len() as u64);
        self.ask_for_next();
        Ok(took)
    }

    /// Asks for twice what this segment holds, so that under a steady load the next one needs no
    /// more than is prepared, and at most half of it is zeros for nothing.
    fn ask_for_next(&mut self) {
        if self.limits.from_bytes == 0 || self.bytes < self.ask_at_bytes {
            return;
        }
        while self.ask_at_bytes <= self.bytes {
            self.ask_at_bytes *= 2;
        }
        let bytes = self.ask_at_bytes.min(self.limits.bytes_max);
        self.spare.want(self.header.number + 1, bytes);
    }

    /// This segment grows as it is written, and a better one is ready.
    pub(crate) fn is_outdone(&self) -> bool {
        self.limits.from_bytes != 0
            && self.bytes >= self.prepared_bytes
            && self.spare.ready_bytes() >= self.ask_at_bytes.min(self.limits.bytes_max)
            && self.first_write.is_some()
    }

    fn write_at_end(&self, buffer: &[u8]) -> io::Result<()> {
        match self
            .faults
            .as_ref()
            .map(|faults| faults.write(buffer.len()))
        {
            None | Some(WriteFault::None) => self.file.write_all_at(buffer, self.bytes),
            Some(WriteFault::Fail(error)) => Err(error),
            Some(WriteFault::Short(bytes, error)) => {
                let part = &buffer[..bytes.min(buffer.len())];
                self.file.write_all_at(part, self.bytes)?;
                Err(error)
            }
        }
    }

    /// Cuts a half-written batch away, so that nothing can take it for a whole one later.
    fn undo(&mut self, error: io::Error) -> WriteError {
        self.prepared_bytes = 0;
        match self.file.set_len(self.bytes) {
            Ok(()) => WriteError::Undone(self.error("writing", error)),
            Err(cut) => WriteError::Final(self.error("cutting back", cut)),
        }
    }

    fn error(&self, action: &'static str, source: io::Error) -> StoreError {
        io_error(action, segment::path(&self.dir, self.number()))(source)
    }

    /// Ends this segment and starts the next. On an error that is `Undone` the old one stays.
    pub(crate) fn rotate(&mut self) -> Result<(), WriteError> {
        let header = Header {
            number: self.header.number + 1,
            base: self.end(),
        };
        if let Some(WriteFault::Fail(error) | WriteFault::Short(_, error)) = self
            .faults
            .as_ref()
            .map(|faults| faults.write(HEADER_BYTES))
        {
            return Err(WriteError::Undone(self.error("writing", error)));
        }
        let number = header.number;
        let prepared = self.spare.take(number);
        let is_named = prepared.is_some();
        let written = match prepared {
            Some(Prepared { file, bytes }) => {
                segment::write_header(&self.dir, header, &file).map(|()| (file, bytes))
            }
            None => segment::write_new(&self.dir, header).map(|file| (file, 0)),
        };
        let (file, prepared_bytes) = written.map_err(|error| self.undo_rotate(number, error))?;
        let synced = match self.faults.as_ref().and_then(|faults| faults.sync()) {
            Some(source) => Err(io_error("syncing", segment::path(&self.dir, number))(
                source,
            )),
            None if is_named => segment::sync_header(&self.dir, number, &file),
            None => segment::sync_new(&self.dir, number, &file),
        };
        // Final as for a batch: taken back in vain, the header could come up again after a power
        // cut, and prove that the segment before, which had gone on, ended here.
        synced.map_err(WriteError::Final)?;
        self.table.close_last(Instant::now());
        let bytes = HEADER_BYTES as u64;
        self.table
            .add(header.number, header.base + bytes, bytes, None);
        self.file = file;
        self.header = header;
        self.bytes = bytes;
        self.prepared_bytes = prepared_bytes;
        self.ask_at_bytes = self.limits.from_bytes;
        self.first_write = None;
        Ok(())
    }

    /// A segment whose header is not whole must not be taken for one: it goes, or all ends.
    fn undo_rotate(&self, number: u64, error: StoreError) -> WriteError {
        let path = segment::path(&self.dir, number);
        match std::fs::remove_file(&path) {
            Ok(()) => WriteError::Undone(error),
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => WriteError::Undone(error),
            Err(stays) => WriteError::Final(io_error("removing", path)(stays)),
        }
    }
}
