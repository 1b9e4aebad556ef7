//! A disk that can lose its power: ext4 on a loop device over a file.
//!
//! The file holds only what reached the device. What the file system above still keeps in memory is
//! not in it, so a copy of the file is the disk as a power cut would have left it. The copy is
//! mounted like any disk after a power cut; ext4 replays its own journal first.
//!
//! That device keeps all it was handed. A disk of a lossy shelf lies on a [`LossyDevice`] instead: it
//! keeps what was flushed, and what was not comes about in any mixture, reordered and torn.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tempfile::TempDir;

use super::cache::Loss;
use super::lossy::{Cut, LossyDevice};
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
    device: Option<LossyDevice>,
    mount: PathBuf,
    mounted: bool,
    /// What is mounted is not swept away with the shelf.
    _dir: Arc<TempDir>,
}

/// Where disks and their mount points are kept.
#[derive(Debug)]
pub struct DiskShelf {
    dir: Arc<TempDir>,
    next: u32,
    /// What decides what a cut leaves, where disks have a cache.
    losses: Option<SmallRng>,
}

impl DiskShelf {
    /// A new directory under `parent`, or under the directory for temporary files. A disk is made
    /// and mounted once to see whether that is possible here.
    ///
    /// # Errors
    /// What is missing, and what can be done about it.
    pub fn new(parent: Option<&Path>) -> Result<Self, String> {
        Self::probed(parent, None)
    }

    /// The same with disks that have a volatile cache, and lose of it what `seed` says.
    ///
    /// # Errors
    /// What is missing, and what can be done about it.
    pub fn lossy(parent: Option<&Path>, seed: u64) -> Result<Self, String> {
        if !is_root() {
            return Err("a disk with a cache needs root itself, not sudo: run as root".into());
        }
        if !Path::new("/dev/fuse").exists() {
            return Err(
                "there is no /dev/fuse: the kernel, or the container, has no FUSE; run \
                        where it has"
                    .into(),
            );
        }
        Self::probed(parent, Some(SmallRng::seed_from_u64(seed)))
    }

    fn probed(parent: Option<&Path>, losses: Option<SmallRng>) -> Result<Self, String> {
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
        let mut shelf = Self {
            dir: Arc::new(dir),
            next: 0,
            losses,
        };
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

    fn place(&mut self) -> Place {
        self.next += 1;
        let at = |kind: &str| self.dir.path().join(format!("{kind}{}", self.next));
        Place {
            image: at("image"),
            device: self.losses.is_some().then(|| at("device")),
            mount: at("mount"),
            dir: Arc::clone(&self.dir),
        }
    }

    /// A new disk of `bytes`, empty and mounted.
    ///
    /// # Errors
    /// What failed.
    pub fn make(&mut self, bytes: u64) -> io::Result<Disk> {
        let place = self.place();
        std::fs::File::create(&place.image)?.set_len(bytes)?;
        let owner = |name| status_line(name).unwrap_or_else(|| "0".to_owned());
        // All is laid out at once: nothing is written behind our back later.
        let options = format!(
            "nodiscard,lazy_itable_init=0,lazy_journal_init=0,root_owner={}:{}",
            owner("Uid:"),
            owner("Gid:")
        );
        let mut mkfs = Command::new("mkfs.ext4");
        let path = std::env::var("PATH").unwrap_or_default();
        mkfs.env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .args(["-q", "-F", "-m", "0", "-E", &options])
            .arg(&place.image);
        run(mkfs)?;
        Disk::mount(place)
    }

    /// A disk that holds what the given one would after a power cut at this moment: what has reached it
    /// by now, less what was lost of its cache. It is not mounted yet.
    ///
    /// # Errors
    /// What failed.
    pub fn copy(&mut self, disk: &Disk) -> io::Result<Copied> {
        let loss = self.losses.as_mut().map_or(Loss::None, Loss::draw);
        self.copy_with(disk, loss)
    }

    /// The same with this loss, if the disk can lose anything.
    ///
    /// # Errors
    /// What failed.
    pub fn copy_with(&mut self, disk: &Disk, loss: Loss) -> io::Result<Copied> {
        let place = self.place();
        let cut = match (&disk.device, &mut self.losses) {
            (Some(device), Some(random)) => {
                Some(device.cut(&place.image, loss, random, copy_image)?)
            }
            _ => {
                copy_image(&disk.image, &place.image)?;
                None
            }
        };
        Ok(Copied { place, cut })
    }
}

/// Copies an image, holes and all.
///
/// # Errors
/// What failed.
pub fn copy_image(from: &Path, to: &Path) -> io::Result<()> {
    let mut cp = Command::new("cp");
    cp.args(["--reflink=auto", "--sparse=always"])
        .args([from, to]);
    run(cp)
}

/// Where the parts of a disk are.
#[derive(Debug)]
struct Place {
    image: PathBuf,
    /// Where its device is shown, if it has one of its own.
    device: Option<PathBuf>,
    mount: PathBuf,
    dir: Arc<TempDir>,
}

/// An image that was copied.
#[derive(Debug)]
pub struct Copied {
    place: Place,
    cut: Option<Cut>,
}

impl Copied {
    /// The image.
    pub fn image(&self) -> &Path {
        &self.place.image
    }

    /// What was lost, where something can be.
    pub fn cut(&self) -> Option<Cut> {
        self.cut
    }

    /// Mounts it.
    ///
    /// # Errors
    /// What failed.
    pub fn mount(self) -> io::Result<Disk> {
        Disk::mount(self.place)
    }
}

impl Disk {
    fn mount(place: Place) -> io::Result<Self> {
        let Place {
            image,
            device,
            mount,
            dir,
        } = place;
        let device = device.map(|at| LossyDevice::new(image.clone(), at));
        let device = device.transpose()?;
        let lies_on = device.as_ref().map_or(image.clone(), LossyDevice::file);
        std::fs::create_dir(&mount)?;
        let mut command = as_root("mount");
        // The file system's own timer would make more durable than the server asked for.
        command
            .args(["-o", "loop,commit=300"])
            .args([&lies_on, &mount]);
        run(command)?;
        Ok(Self {
            image,
            device,
            mount,
            mounted: true,
            _dir: dir,
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Its device, if it has a cache.
    pub fn device(&self) -> Option<&LossyDevice> {
        self.device.as_ref()
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
        if let Some(device) = self.device.take() {
            device.close()?;
        }
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
