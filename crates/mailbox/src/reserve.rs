//! Space set aside on disk: given up when the disk is full, so that what is
//! under way can end in order, and taken back as the test that there is room.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{Faults, WriteFault};
use crate::error::StoreError;
use crate::files::io_error;

/// The reserve file.
pub(crate) struct Reserve {
    path: PathBuf,
    bytes: u64,
    faults: Option<Arc<dyn Faults>>,
}

impl Reserve {
    pub(crate) fn new(path: PathBuf, bytes: u64, faults: Option<Arc<dyn Faults>>) -> Self {
        Self {
            path,
            bytes,
            faults,
        }
    }

    /// Writes the file in full unless it is there; an error means that the disk is full.
    pub(crate) fn take(&self) -> Result<(), StoreError> {
        if fs::metadata(&self.path).is_ok_and(|found| found.len() == self.bytes) {
            return Ok(());
        }
        self.write().map_err(|error| {
            self.give_up();
            io_error("reserving", &self.path)(error)
        })
    }

    fn write(&self) -> io::Result<()> {
        if let Some(WriteFault::Fail(error) | WriteFault::Short(_, error)) = self
            .faults
            .as_ref()
            .map(|faults| faults.write(self.bytes as usize))
        {
            return Err(error);
        }
        let mut file = File::create(&self.path)?;
        // Not zeros: a file system that compresses or keeps holes would reserve nothing.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut block = [0u8; 4096];
        let mut left = self.bytes as usize;
        while left > 0 {
            for word in block.chunks_exact_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&state.to_le_bytes());
            }
            let part = left.min(block.len());
            file.write_all(&block[..part])?;
            left -= part;
        }
        file.sync_all()
    }

    /// Frees the space.
    pub(crate) fn give_up(&self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "cannot free the reserved disk space");
        }
    }
}
