//! The journal while a backup is written: kept until it is copied, and copied
//! as it grows. It interprets no record.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use super::file::{BackupWriter, Kind};
use crate::codec::{DecodeError, Reader, put_varint};
use crate::error::StoreError;
use crate::files::io_error;
use crate::journal::segment::{self, HEADER_BYTES};
use crate::shared::Core;

/// Bytes of the journal in one block.
const STRETCH_BYTES: usize = 1 << 20;

/// Keeps the journal from a position on. Lets go of it when dropped.
pub(super) struct Hold<'a> {
    core: &'a Core,
}

impl<'a> Hold<'a> {
    /// Returns the hold and the position from which on everything is kept.
    pub(super) fn begin(core: &'a Core) -> (Self, u64) {
        // Not while segments are being released.
        let _checkpointing = core.checkpointing.lock();
        let position = core.applied.load(Ordering::Acquire);
        core.journal_held.store(position, Ordering::Release);
        (Self { core }, position)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.core.journal_held.store(u64::MAX, Ordering::Release);
    }
}

/// Copies the journal into the backup.
pub(super) struct JournalCopy {
    /// Everything below is copied.
    position: u64,
    file: Option<(u64, File)>,
    pub(super) bytes: u64,
}

/// A stretch of the journal: consecutive frames, not necessarily whole ones.
pub(super) struct Stretch<'a> {
    pub(super) segment: u64,
    pub(super) position: u64,
    pub(super) bytes: &'a [u8],
}

impl<'a> Stretch<'a> {
    pub(super) fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        Ok(Self {
            segment: reader.varint()?,
            position: reader.varint()?,
            bytes: reader.take(reader.left())?,
        })
    }
}

impl JournalCopy {
    pub(super) fn new(position: u64) -> Self {
        Self {
            position,
            file: None,
            bytes: 0,
        }
    }

    /// Bytes of the journal that are not copied yet.
    pub(super) fn behind(&self, core: &Core) -> u64 {
        core.applied.load(Ordering::Acquire) - self.position
    }

    /// Copies up to `upto`, a position below which everything is durable.
    pub(super) fn copy(
        &mut self,
        core: &Core,
        out: &mut BackupWriter,
        upto: u64,
    ) -> Result<(), StoreError> {
        while self.position < upto {
            let Some((number, base, end)) = core.table.holding(self.position) else {
                return Err(StoreError::Damaged {
                    file: core.config.dir.display().to_string(),
                    offset: self.position,
                    what: "the journal from this position on is gone".to_owned(),
                });
            };
            let from = self.position.max(base + HEADER_BYTES as u64);
            let bytes = end.min(upto).saturating_sub(from);
            let bytes = (bytes as usize).min(STRETCH_BYTES);
            let path = || segment::path(&core.config.dir.join(crate::layout::JOURNAL_DIR), number);
            if self.file.as_ref().is_none_or(|(open, _)| *open != number) {
                let file = File::open(path()).map_err(io_error("opening", path()))?;
                self.file = Some((number, file));
            }
            let mut payload = Vec::with_capacity(bytes + 20);
            put_varint(&mut payload, number);
            put_varint(&mut payload, from);
            let begin = payload.len();
            payload.resize(begin + bytes, 0);
            if let Some((_, file)) = &self.file {
                file.read_exact_at(&mut payload[begin..], from - base)
                    .map_err(io_error("reading", path()))?;
            }
            out.block(Kind::Journal, &payload)?;
            self.bytes += bytes as u64;
            self.position = from + bytes as u64;
            core.journal_held.store(self.position, Ordering::Release);
        }
        Ok(())
    }
}
