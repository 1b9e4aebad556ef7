//! File system steps that must not be forgotten: syncing directories, replacing
//! a file in one step, and errors that name the file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// Turns an I/O error into one that says what was tried on which file.
pub(crate) fn io_error(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.into();
    move |source| StoreError::Io {
        action,
        path,
        source,
    }
}

/// Makes created, renamed and deleted names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir)
        .and_then(|handle| handle.sync_all())
        .map_err(io_error("syncing directory", dir))
}

/// Creates a directory and makes its name durable.
pub(crate) fn create_dir(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(io_error("creating directory", dir))?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => Ok(()),
    }
}

/// Replaces `path` by `content` so that a crash leaves the old or the new one.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(io_error("writing", &temporary))?;
    fs::rename(&temporary, path).map_err(io_error("replacing", path))?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Bytes this process may still write to the file system of `dir`.
pub(crate) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Removes a directory with all in it; one that is not there is fine.
pub(crate) fn remove_dir(dir: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("removing directory", dir)(error))
        }
        _ => Ok(()),
    }
}

/// Copies a directory with all in it; a file that goes away meanwhile is left out.
pub(crate) fn copy_dir(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(to).map_err(io_error("creating directory", to))?;
    for entry in fs::read_dir(from).map_err(io_error("listing", from))? {
        let path = entry.map_err(io_error("listing", from))?.path();
        let Some(name) = path.file_name() else {
            continue;
        };
        let target = to.join(name);
        if path.is_dir() {
            copy_dir(&path, &target)?;
        } else if let Err(error) = fs::copy(&path, &target)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(io_error("copying", path)(error));
        }
    }
    Ok(())
}
