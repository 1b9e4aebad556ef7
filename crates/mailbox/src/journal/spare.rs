//! The next segment's file, filled with zeros before it is needed.
//!
//! A data sync of a file that has grown must also commit the file's new length and blocks
//! through the file system's own journal, and waits there for whatever others have put into
//! it: the database's writes above all. A sync of bytes written over zeros that are on the disk
//! already needs none of that: measured on ext4, half the time and half the processor's. So a
//! thread of its own writes the zeros, a part at a time, while the segment before is in use.
//!
//! A prepared file already has its segment's name and an empty header, so that starting it takes no
//! step but the first batch's write and sync. It is a convenience: whatever goes wrong with it
//! is told in the log, and the next segment grows as it is written.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use super::segment;
use crate::error::StoreError;
use crate::files::{io_error, sync_dir};

/// Where a file is prepared before it gets its name.
pub(crate) const UNNAMED: &str = "next.zeros";

/// Written and synced at a time, bytes: whoever wants the file meanwhile waits for no more.
const PART_BYTES: u64 = 1 << 20;

/// Written over and over. Memory that nobody has touched yet would be found page by page by the
/// kernel, in the middle of each write: that was three quarters of what preparing a file cost.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A prepared file, handed over.
pub(crate) struct Prepared {
    pub(crate) file: File,
    /// Zeros in it, all of them on the disk.
    pub(crate) bytes: u64,
}

/// What the writer and the preparing thread share.
pub(crate) struct Spare {
    dir: PathBuf,
    state: Mutex<State>,
    wake: Condvar,
    /// Zeros that are ready; a copy for those who only look.
    ready_bytes: AtomicU64,
}

#[derive(Default)]
struct State {
    ready: Option<(u64, Prepared)>,
    /// Number and length of the file that is wanted.
    wanted: Option<(u64, u64)>,
    ended: bool,
}

impl Spare {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            state: Mutex::default(),
            wake: Condvar::new(),
            ready_bytes: AtomicU64::new(0),
        }
    }

    /// Asks for segment `number` to be prepared with so many bytes, or to be extended to them.
    pub(crate) fn want(&self, number: u64, bytes: u64) {
        self.state.lock().wanted = Some((number, bytes));
        self.wake.notify_one();
    }

    /// Zeros that are ready now.
    pub(crate) fn ready_bytes(&self) -> u64 {
        self.ready_bytes.load(Ordering::Acquire)
    }

    /// Hands over segment `number`, if it is prepared. After that nobody else touches its name.
    pub(crate) fn take(&self, number: u64) -> Option<Prepared> {
        let mut state = self.state.lock();
        state.wanted = None;
        self.ready_bytes.store(0, Ordering::Release);
        match state.ready.take() {
            Some((found, prepared)) if found == number => Some(prepared),
            other => {
                other.inspect(|(number, _)| self.remove(*number));
                None
            }
        }
    }

    /// Frees the space of what is prepared, until something is wanted again.
    pub(crate) fn give_up(&self) {
        self.take(0);
    }

    /// Ends the thread. What is prepared goes, unless `keep`: a crash would have left it.
    pub(crate) fn end(&self, keep: bool) {
        self.state.lock().ended = true;
        self.wake.notify_one();
        if !keep {
            self.give_up();
        }
    }

    /// The thread's body. `room` says whether so many bytes more may be used.
    pub(crate) fn run(&self, room: impl Fn(u64) -> bool) {
        while let Some((number, bytes)) = self.next_wanted() {
            let made = if room(bytes) {
                self.prepare(number, bytes)
            } else {
                self.give_up();
                Ok(())
            };
            if let Err(error) = made {
                tracing::warn!(%error, "cannot prepare a journal segment; it will grow as it is written");
                self.give_up();
            }
        }
    }

    fn next_wanted(&self) -> Option<(u64, u64)> {
        let mut state = self.state.lock();
        loop {
            if state.ended {
                return None;
            }
            let ready = state.ready.as_ref().map_or(0, |(_, ready)| ready.bytes);
            match state.wanted {
                Some(wanted) if wanted.1 > ready => return Some(wanted),
                _ => self.wake.wait(&mut state),
            }
        }
    }

    /// Makes the file, or what it lacks.
    fn prepare(&self, number: u64, bytes: u64) -> Result<(), StoreError> {
        if self.state.lock().ready.is_none() {
            let path = self.dir.join(UNNAMED);
            let first =
                zeros(&path, PART_BYTES.min(bytes)).map_err(io_error("preparing", &path))?;
            self.name(number, first)?;
        }
        let path = segment::path(&self.dir, number);
        loop {
            // Held while a part is written: the writer must not start the file meanwhile.
            let mut state = self.state.lock();
            if state.ended {
                return Ok(());
            }
            let Some((_, ready)) = state
                .ready
                .as_mut()
                .filter(|(found, ready)| *found == number && ready.bytes < bytes)
            else {
                return Ok(());
            };
            let part = PART_BYTES.min(bytes - ready.bytes);
            extend(ready, part).map_err(io_error("preparing", &path))?;
            self.ready_bytes.store(ready.bytes, Ordering::Release);
        }
    }

    /// Gives the file its segment's name, unless that was started without it meanwhile.
    fn name(&self, number: u64, prepared: Prepared) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let unnamed = self.dir.join(UNNAMED);
        if state.wanted.is_none_or(|(wanted, _)| wanted != number) {
            return fs::remove_file(&unnamed).map_err(io_error("removing", unnamed));
        }
        let path = segment::path(&self.dir, number);
        fs::rename(&unnamed, &path).map_err(io_error("naming", path))?;
        let bytes = prepared.bytes;
        state.ready = Some((number, prepared));
        sync_dir(&self.dir)?;
        self.ready_bytes.store(bytes, Ordering::Release);
        Ok(())
    }

    fn remove(&self, number: u64) {
        let path = segment::path(&self.dir, number);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "cannot remove a prepared journal segment");
        }
    }
}

/// A file with its first part of zeros on the disk.
fn zeros(path: &Path, bytes: u64) -> io::Result<Prepared> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    let mut prepared = Prepared { file, bytes: 0 };
    extend(&mut prepared, bytes)?;
    Ok(prepared)
}

fn extend(prepared: &mut Prepared, bytes: u64) -> io::Result<()> {
    let end = prepared.bytes + bytes;
    let mut at = prepared.bytes;
    while at < end {
        let piece = &ZEROS[..ZEROS.len().min((end - at) as usize)];
        prepared.file.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    prepared.file.sync_all()?;
    prepared.bytes = end;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    struct Running {
        dir: tempfile::TempDir,
        spare: Arc<Spare>,
        thread: Option<thread::JoinHandle<()>>,
    }

    impl Running {
        fn start(room: bool) -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let spare = Arc::new(Spare::new(dir.path().to_owned()));
            let runs = Arc::clone(&spare);
            let thread = Some(thread::spawn(move || runs.run(|_| room)));
            Self { dir, spare, thread }
        }

        fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
            let deadline = Instant::now() + Duration::from_secs(20);
            while !condition(self) {
                assert!(Instant::now() < deadline, "never happened: {what}");
                thread::yield_now();
            }
        }

        fn files(&self) -> usize {
            fs::read_dir(self.dir.path()).expect("a directory").count()
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.spare.end(false);
            if let Some(thread) = self.thread.take() {
                thread.join().expect("the thread ends in order");
            }
        }
    }

    #[test]
    fn a_file_is_made_extended_and_handed_over_once() {
        let running = Running::start(true);
        running.spare.want(2, 3 * PART_BYTES);
        running.until("ready", |r| r.spare.ready_bytes() == 3 * PART_BYTES);
        running.spare.want(2, 4 * PART_BYTES + 5);
        running.until("longer", |r| r.spare.ready_bytes() == 4 * PART_BYTES + 5);
        let prepared = running.spare.take(2).expect("it is ready");
        assert_eq!(prepared.bytes, 4 * PART_BYTES + 5);
        let bytes = fs::read(segment::path(running.dir.path(), 2)).expect("it has its name");
        assert_eq!(bytes.len() as u64, prepared.bytes);
        assert!(segment::is_prepared(&bytes));
        assert!(running.spare.take(2).is_none());
        assert_eq!(running.files(), 1);
    }

    #[test]
    fn what_was_prepared_for_another_number_goes() {
        let running = Running::start(true);
        running.spare.want(2, PART_BYTES);
        running.until("ready", |r| r.spare.ready_bytes() > 0);
        assert!(running.spare.take(3).is_none());
        assert_eq!(running.files(), 0);
        // Taken in the middle of the work, it is not there afterwards either.
        running.spare.want(3, 64 * PART_BYTES);
        assert!(running.spare.take(4).is_none());
        running.spare.want(5, PART_BYTES);
        running.until("the next", |r| r.spare.ready_bytes() == PART_BYTES);
        running.until("one file", |r| r.files() == 1);
        assert!(running.spare.take(5).is_some());
    }

    #[test]
    fn without_room_nothing_is_made_and_what_was_is_freed() {
        let running = Running::start(false);
        running.spare.want(2, PART_BYTES);
        running.until("heard", |r| r.spare.state.lock().wanted.is_none());
        assert_eq!((running.files(), running.spare.ready_bytes()), (0, 0));
    }
}
