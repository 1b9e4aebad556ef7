//! A file system of the server's own, so that filling it up hurts nobody else: ext4 on a loop device
//! over a sparse file. Or the one the data directory is on, when it is a mount of its own.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Room for what a run stores, and for the headroom that the server keeps.
const IMAGE_BYTES: u64 = 768 << 20;
/// The ballast is made of pieces so small that it can fill what is left.
const PIECE_BYTES: u64 = 1 << 16;

/// A file system that may be filled up.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    /// It was mounted here.
    mounted: bool,
}

impl Disk {
    /// Makes and mounts one below `dir`.
    ///
    /// # Errors
    /// What is missing, as a sentence.
    pub(crate) fn make(dir: &Path) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("to mount a small disk takes root".to_owned());
        }
        let (image, root) = (dir.join("disk.img"), dir.join("disk"));
        let made = File::create(&image).and_then(|file| file.set_len(IMAGE_BYTES));
        made.and_then(|()| std::fs::create_dir(&root))
            .map_err(|e| format!("no image for a small disk: {e}"))?;
        // All is laid out at once, and nothing is kept for root.
        let options = "lazy_itable_init=0,lazy_journal_init=0";
        let layout = ["-q", "-F", "-m", "0", "-E", options];
        run(Command::new("mkfs.ext4").args(layout).arg(&image))?;
        run(Command::new("mount")
            .args(["-o", "loop"])
            .args([&image, &root]))?;
        Ok(Self {
            root,
            mounted: true,
        })
    }

    /// The one of a directory, when that is where it is mounted.
    ///
    /// # Errors
    /// It is not: others may need its room.
    pub(crate) fn of(dir: &Path) -> Result<Self, String> {
        let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev());
        let own = device(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let above = dir.canonicalize().ok();
        let above = above.as_deref().and_then(Path::parent).map(device);
        match above {
            Some(Ok(above)) if above != own => Ok(Self {
                root: dir.to_owned(),
                mounted: false,
            }),
            _ => Err(format!(
                "{} is not a file system of its own, and others may need the room",
                dir.display()
            )),
        }
    }

    /// Where the data directory can be.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Takes all but `left` bytes.
    ///
    /// # Errors
    /// When the file system does not do what was asked, other than being full.
    pub(crate) fn fill(&self, left: u64) -> io::Result<()> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.ballast())?;
        let mut at = file.metadata()?.len();
        let mut most = IMAGE_BYTES;
        loop {
            let free = statvfs(&self.root)?;
            let free = free.f_bavail * free.f_frsize;
            // Half of what is left each time, to end near what was asked for.
            let next = (free.saturating_sub(left) / 2).clamp(PIECE_BYTES, most);
            if free < left + PIECE_BYTES {
                return Ok(());
            }
            match fallocate(&file, FallocateFlags::empty(), at, next) {
                Ok(()) => at += next,
                Err(rustix::io::Errno::NOSPC) if next == PIECE_BYTES => return Ok(()),
                Err(rustix::io::Errno::NOSPC) => most = (next / 2).max(PIECE_BYTES),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Gives it back.
    ///
    /// # Errors
    /// When the ballast cannot be removed.
    pub(crate) fn relieve(&self) -> io::Result<()> {
        match std::fs::remove_file(self.ballast()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Nothing more can be done about it here than to try; `umount` says what is wrong.
        let _ = self.relieve();
        if self.mounted {
            let _ = Command::new("umount").arg(&self.root).status();
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let done = command
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::null())
        .output();
    let name = command.get_program().to_string_lossy().into_owned();
    match done {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{name} cannot make a small disk: {}", said.trim()))
        }
        Err(e) => Err(format!("to make a small disk takes {name}: {e}")),
    }
}
