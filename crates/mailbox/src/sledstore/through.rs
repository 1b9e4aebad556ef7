//! Writing through: what sled writes to its file is on the medium before sled goes on.
//!
//! sled takes a buffer for stable once `pwrite` and `sync_file_range` have returned, and then writes over
//! segments whose content that buffer replaced. But `sync_file_range` only hands the data to the device; it
//! asks for no flush of the device's cache and tells the file system nothing of a longer file. What was
//! written over can be there after a power cut when what replaced it is not.
//!
//! sled offers no place to sync in between. The file system does: a file with the attribute that `chattr +S`
//! sets is synced by each write to it, whoever writes, from whichever thread. Here that attribute is set,
//! and nothing else is done.

use std::fs::File;
use std::path::Path;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use crate::error::StoreError;
use crate::files::io_error;

/// Makes sure that the file is there and written through, before sled opens it. Whether it is: not every
/// file system has the attribute.
pub(super) fn write_through(path: &Path) -> Result<bool, StoreError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(io_error("opening", path))?;
    if let Err(error) = set(&file) {
        tracing::warn!(
            file = %path.display(),
            %error,
            "the database's file cannot be synced with each write (chattr +S): a power cut could damage \
             the database if the disk has a volatile cache. A file system that has this attribute, such \
             as ext4 or XFS, mends that"
        );
        return Ok(false);
    }
    Ok(true)
}

fn set(file: &File) -> rustix::io::Result<()> {
    let flags = ioctl_getflags(file)?;
    if flags.contains(IFlags::SYNC) {
        return Ok(());
    }
    ioctl_setflags(file, flags | IFlags::SYNC)
}
