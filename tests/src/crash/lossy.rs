//! A device with a volatile cache: one file, shown through FUSE, for a loop device to lie on.
//!
//! What was flushed is in the medium, a sparse file; what was not is in memory, and a cut leaves of it
//! what the pure [`cache`](super::cache) says. The file is shown without the kernel's own cache, so every
//! write of the loop device comes as one, and each of its flushes as an `fsync`. Trimming and zeroing of
//! ranges are refused: the loop device writes zeros then.
//!
//! It serves from a thread of this process, never of the server's. Should the process be killed, another of
//! its threads may stand in the middle of a read of this very disk, which nobody answers any more: the
//! process could not end, and the kernel would keep the connection open for it. So each device has a
//! watchman, a shell that sees the serving thread go and ends the connection: whoever waits gets an error.
//!
//! It decides nothing, and knows nothing of file systems or servers.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use rand::Rng;

use super::cache::{Loss, SECTOR_BYTES, WriteCache, survivors};
use crate::POLL_EVERY;

/// Most that may be written without a flush.
const CACHE_BYTES_MAX: usize = 512 << 20;
/// Largest request.
const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Longest wait for whoever still has the file open.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// Attributes never change.
const FOREVER: Duration = Duration::from_secs(3600);
const NAME: &str = "device";
/// Waits for the thread `$0` to be gone, and ends what is shown at `$1`, whoever uses it, with the loop
/// device on it, whose file system would never let go of it.
const WATCHMAN: &str = r#"while [ -d "/proc/$0" ]; do sleep 1; done
umount -f "$1"
for of in /sys/block/loop*/loop/backing_file; do
    loop=${of#/sys/block/}
    [ "$(cat "$of")" = "$1/device" ] && umount -l "/dev/${loop%%/*}"
done
umount -l "$1""#;
const INODE: INodeNo = INodeNo(2);

/// The device. Dropping it takes it away.
#[derive(Debug)]
pub struct LossyDevice {
    shared: Arc<Shared>,
    at: PathBuf,
    medium: PathBuf,
    session: Option<BackgroundSession>,
    watchman: Option<Child>,
}

/// A device that answers nothing. Dropping this lets it answer again.
#[must_use = "the device answers again when this is dropped"]
#[derive(Debug)]
pub struct Held<'a>(&'a Shared);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        (state.hold_at, state.held) = (None, false);
        drop(state);
        self.0.changed.notify_all();
    }
}

/// What came of a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// What was lost.
    pub loss: Loss,
    /// Writes that were not flushed.
    pub writes: usize,
    /// Bytes of these.
    pub bytes: usize,
    /// Bytes of these that are on the medium all the same.
    pub bytes_left: usize,
}

impl Cut {
    /// For people.
    pub fn line(&self) -> String {
        format!(
            "{}: {} of {} bytes in {} writes left",
            self.loss.name(),
            self.bytes_left,
            self.bytes,
            self.writes
        )
    }
}

/// What the device was asked so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Writes.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
}

#[derive(Debug)]
struct Shared {
    bytes: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    medium: File,
    cache: WriteCache,
    requests: Requests,
    /// Once so many bytes are not flushed, nothing is answered any more.
    hold_at: Option<usize>,
    held: bool,
    /// Handles of the file.
    open: u32,
    /// The thread that serves, below /proc.
    thread: Option<PathBuf>,
    /// Why nothing this device did from then on means anything.
    fault: Option<String>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, as soon as requests are answered.
    fn answering(&self) -> MutexGuard<'_, State> {
        let state = self.state();
        let waited = self.changed.wait_while(state, |state| state.held);
        waited.unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.requests.writes += 1;
        self.cache.write(offset, data).map_err(io::Error::other)?;
        self.held = self.hold_at.is_some_and(|at| self.cache.bytes() >= at);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.requests.flushes += 1;
        for write in self.cache.writes() {
            self.medium.write_all_at(&write.data, write.offset)?;
        }
        self.cache.flushed();
        Ok(())
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.medium.read_exact_at(buffer, offset)?;
        self.cache.overlay(offset, buffer);
        Ok(())
    }

    /// Remembers what went wrong first; the answer to the kernel.
    fn failed(&mut self, error: &io::Error) -> Errno {
        self.fault.get_or_insert_with(|| error.to_string());
        Errno::EIO
    }
}

impl LossyDevice {
    /// Shows the medium, a file of whole sectors, as a device in the directory `at`.
    ///
    /// # Errors
    /// When there is no FUSE here, or no right to mount it.
    pub fn new(medium: PathBuf, at: PathBuf) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(&medium)?;
        let shared = Arc::new(Shared {
            bytes: file.metadata()?.len(),
            state: Mutex::new(State {
                medium: file,
                cache: WriteCache::new(CACHE_BYTES_MAX),
                requests: Requests::default(),
                hold_at: None,
                held: false,
                open: 0,
                thread: None,
                fault: None,
            }),
            changed: Condvar::new(),
        });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("stonechat-lossy".to_owned())];
        std::fs::create_dir(&at)?;
        let session = fuser::spawn_mount(Layer(Arc::clone(&shared)), &at, &config);
        let session = session.inspect_err(|_| {
            // Empty, and of no use to anybody.
            let _ = std::fs::remove_dir(&at);
        })?;
        let mut device = Self {
            shared,
            at,
            medium,
            session: Some(session),
            watchman: None,
        };
        // The first look at it tells which thread serves.
        std::fs::metadata(device.file())?;
        let thread = device.shared.state().thread.take();
        let thread = thread.ok_or_else(|| io::Error::other("nothing tells which thread serves"))?;
        let mut watchman = Command::new("sh");
        watchman.args(["-c", WATCHMAN]).arg(thread).arg(&device.at);
        // What ends this process by its group, as a terminal does, leaves him alone.
        watchman
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        device.watchman = Some(watchman.spawn()?);
        Ok(device)
    }

    /// The device, for a loop device to lie on.
    pub fn file(&self) -> PathBuf {
        self.at.join(NAME)
    }

    /// What it was asked so far.
    pub fn requests(&self) -> Requests {
        self.shared.state().requests
    }

    /// Lets it work until `bytes` are not flushed, or for as long as `patience` lasts; then, for as long
    /// again, until there is anything to lose. From then on it answers nothing, for as long as the result
    /// lives: nobody can take for durable what a cut may lose.
    pub fn hold(&self, bytes: usize, patience: Duration) -> Held<'_> {
        let mut state = self.shared.state();
        for bytes in [bytes, 1] {
            state.hold_at = Some(bytes);
            state.held |= state.cache.bytes() >= bytes;
            let waited = self
                .shared
                .changed
                .wait_timeout_while(state, patience, |state| !state.held);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.held = true;
        drop(state);
        Held(&self.shared)
    }

    /// Makes `image` what the medium would be after a power cut at this moment. The device itself goes
    /// on as it is.
    ///
    /// # Errors
    /// When the image cannot be made, or something went wrong in the device before.
    pub fn cut(
        &self,
        image: &Path,
        loss: Loss,
        random: &mut impl Rng,
        copy: impl FnOnce(&Path, &Path) -> io::Result<()>,
    ) -> io::Result<Cut> {
        let state = self.shared.state();
        if let Some(fault) = &state.fault {
            return Err(io::Error::other(format!("the device: {fault}")));
        }
        copy(&self.medium, image)?;
        let image = File::options().write(true).open(image)?;
        let writes = state.cache.writes();
        let mut cut = Cut {
            loss,
            writes: writes.len(),
            bytes: state.cache.bytes(),
            bytes_left: 0,
        };
        for survivor in survivors(writes, loss, random) {
            image.write_all_at(survivor.data, survivor.offset)?;
            cut.bytes_left += survivor.data.len();
        }
        Ok(cut)
    }

    /// Takes it away; the medium stays as it is.
    ///
    /// # Errors
    /// When somebody does not let go of it.
    pub fn close(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(session) = self.session.take() else {
            return Ok(());
        };
        // A loop device lets go of its file a moment after its file system is gone.
        let end = Instant::now() + CLOSE_MAX;
        while self.shared.state().open > 0 && Instant::now() < end {
            std::thread::sleep(POLL_EVERY);
        }
        session.umount_and_join()?;
        if let Some(mut watchman) = self.watchman.take() {
            watchman.kill()?;
            watchman.wait()?;
        }
        std::fs::remove_dir(&self.at)
    }
}

impl Drop for LossyDevice {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{} stays mounted: {error}", self.at.display());
        }
    }
}

/// The file system the kernel sees.
#[derive(Debug)]
struct Layer(Arc<Shared>);

impl Layer {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_device = inode == INODE;
        let bytes = if is_device { self.0.bytes } else { 0 };
        FileAttr {
            ino: inode,
            size: bytes,
            blocks: bytes / SECTOR_BYTES as u64,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_device {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: if is_device { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Layer {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // A kernel that takes less says how much.
        if let Err(most) = config.set_max_write(REQUEST_BYTES_MAX) {
            let _ = config.set_max_write(most);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.0.state().thread = std::fs::read_link("/proc/thread-self").ok();
        if parent == INodeNo::ROOT && name == NAME {
            reply.entry(&FOREVER, &self.attributes(INODE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.0.state().open += 1;
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.state().open -= 1;
        reply.ok();
    }

    /// Somebody closed a handle; that is no barrier.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut state = self.0.answering();
        let left = self.0.bytes.saturating_sub(offset);
        let len = usize::try_from(left).map_or(size as usize, |left| left.min(size as usize));
        let mut buffer = vec![0; len];
        match state.read(offset, &mut buffer) {
            Ok(()) => reply.data(&buffer),
            Err(error) => reply.error(state.failed(&error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.0.answering();
        if offset + data.len() as u64 > self.0.bytes {
            return reply.error(Errno::ENOSPC);
        }
        let written = state.write(offset, data);
        let failed = written.err().map(|error| state.failed(&error));
        drop(state);
        // Perhaps it was the write that fills it: it is answered when the rest is.
        self.0.changed.notify_all();
        drop(self.0.answering());
        match failed {
            None => reply.written(data.len() as u32),
            Some(error) => reply.error(error),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = self.0.answering();
        match state.flush() {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(state.failed(&error)),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EOPNOTSUPP);
    }
}
