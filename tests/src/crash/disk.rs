//! A disk that can lose its power: ext4 on a loop device over a file.
//!
//! The file holds only what reached the device. What the file system above still keeps in memory is
//! not in it, so a copy of the file is the disk as a power cut would have left it. The copy is
//! mounted like any disk after a power cut; ext4 replays its own journal first.
//!
//! What it does not show: writes torn or reordered within the device.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::POLL_EVERY;

/// Programs needed, with the Debian package that has them.
const PROGRAMS: [(&str, &str); 4] = [
    ("mkfs.ext4", "e2fsprogs"),
    ("mount", "mount"),
    ("umount", "mount"),
    ("cp", "coreutils"),
];

/// Runs a command as root, by `sudo` when this process is not.
fn as_root(program: &str) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

fn status_line(name: &str) -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.to_owned())
}

fn is_root() -> bool {
    status_line("Uid:").as_deref() == Some("0")
}

/// Runs it; an error has its last words.
fn run(mut command: Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{command:?}: {}: {}",
        output.status,
        said.trim()
    )))
}

/// A mounted image. Dropping it unmounts.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
    mounted: bool,
}

/// Where disks and their mount points are kept.
#[derive(Debug)]
pub struct DiskShelf {
    dir: TempDir,
    next: u32,
}

impl DiskShelf {
    /// A new directory under `parent`, or under the directory for temporary files. A disk is made
    /// and mounted once to see whether that is possible here.
    ///
    /// # Errors
    /// What is missing, and what can be done about it.
    pub fn new(parent: Option<&Path>) -> Result<Self, String> {
        for (program, package) in PROGRAMS {
            let found = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
                .iter()
                .any(|dir| Path::new(dir).join(program).exists());
            if !found {
                return Err(format!(
                    "{program} is missing; install the package {package}"
                ));
            }
        }
        if !is_root() && run(as_root("true")).is_err() {
            return Err("mounting needs root; run as root, or allow sudo without password".into());
        }
        if !Path::new("/dev/loop-control").exists() {
            return Err(
                "there is no /dev/loop-control: the kernel, or the container, has no \
                        loop devices; run where it has"
                    .into(),
            );
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix("stonechat-disk-");
        let dir = match parent {
            Some(parent) => builder.tempdir_in(parent),
            None => builder.tempdir(),
        };
        let dir = dir.map_err(|error| format!("no temporary directory: {error}"))?;
        let mut shelf = Self { dir, next: 0 };
        let probe = shelf.make(16 << 20).map_err(|error| {
            format!(
                "an image cannot be mounted here ({error}); it takes root with the right to \
                 mount, and a free loop device"
            )
        })?;
        probe
            .remove()
            .map_err(|error| format!("an image cannot be unmounted: {error}"))?;
        Ok(shelf)
    }

    fn place(&mut self) -> (PathBuf, PathBuf) {
        self.next += 1;
        let at = |kind: &str| self.dir.path().join(format!("{kind}{}", self.next));
        (at("image"), at("mount"))
    }

    /// A new disk of `bytes`, empty and mounted.
    ///
    /// # Errors
    /// What failed.
    pub fn make(&mut self, bytes: u64) -> io::Result<Disk> {
        let (image, mount) = self.place();
        std::fs::File::create(&image)?.set_len(bytes)?;
        let owner = |name| status_line(name).unwrap_or_else(|| "0".to_owned());
        // All is laid out at once: nothing is written behind our back later.
        let options = format!(
            "lazy_itable_init=0,lazy_journal_init=0,root_owner={}:{}",
            owner("Uid:"),
            owner("Gid:")
        );
        let mut mkfs = Command::new("mkfs.ext4");
        let path = std::env::var("PATH").unwrap_or_default();
        mkfs.env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .args(["-q", "-F", "-m", "0", "-E", &options])
            .arg(&image);
        run(mkfs)?;
        Disk::mount(image, mount)
    }

    /// A disk that holds what has reached the given one by now. It is not mounted yet.
    ///
    /// # Errors
    /// What failed.
    pub fn copy(&mut self, disk: &Disk) -> io::Result<Copied> {
        let (image, mount) = self.place();
        let mut cp = Command::new("cp");
        cp.args(["--reflink=auto", "--sparse=always"])
            .arg(&disk.image)
            .arg(&image);
        run(cp)?;
        Ok(Copied { image, mount })
    }
}

/// An image that was copied.
#[derive(Debug)]
pub struct Copied {
    image: PathBuf,
    mount: PathBuf,
}

impl Copied {
    /// Mounts it.
    ///
    /// # Errors
    /// What failed.
    pub fn mount(self) -> io::Result<Disk> {
        Disk::mount(self.image, self.mount)
    }
}

impl Disk {
    fn mount(image: PathBuf, mount: PathBuf) -> io::Result<Self> {
        std::fs::create_dir(&mount)?;
        let mut command = as_root("mount");
        // The file system's own timer would make more durable than the server asked for.
        command
            .args(["-o", "loop,commit=300"])
            .arg(&image)
            .arg(&mount);
        run(command)?;
        Ok(Self {
            image,
            mount,
            mounted: true,
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    fn unmount(&mut self) -> io::Result<()> {
        let end = Instant::now() + Duration::from_secs(10);
        while self.mounted {
            let mut command = as_root("umount");
            command.arg(&self.mount);
            match run(command) {
                Ok(()) => self.mounted = false,
                // The process that was killed a moment ago may still hold a file.
                Err(error) if Instant::now() >= end => return Err(error),
                Err(_) => std::thread::sleep(POLL_EVERY),
            }
        }
        Ok(())
    }

    /// Unmounts and deletes it.
    ///
    /// # Errors
    /// What failed.
    pub fn remove(mut self) -> io::Result<()> {
        self.unmount()?;
        std::fs::remove_file(&self.image)?;
        std::fs::remove_dir(&self.mount)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            eprintln!("{} stays mounted: {error}", self.mount.display());
        }
    }
}
