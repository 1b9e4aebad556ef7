//! The server of a run, what it stands on, and how that is taken from under it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cache::Loss;
use super::disk::{Copied, Disk, DiskShelf, copy_image};
use super::rounds::{Crash, RunOptions};
use crate::{Node, NodeOptions};

/// Bytes of a disk.
const DISK_BYTES: u64 = 2 << 30;

/// When to cut the power of a disk with a cache.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// As soon as so many bytes are not flushed,
    pub(super) bytes: usize,
    /// but not later than this.
    pub(super) patience: Duration,
    /// What is lost, if not what the disk's own seed says.
    pub(super) loss: Option<Loss>,
}

/// The server, and the disk it stands on when that can lose its power.
pub(super) struct Rig {
    // Dropped in this order: nothing is unmounted under a node, nothing mounted is deleted.
    pub(super) node: Node,
    disk: Option<(Disk, DiskShelf)>,
    kept: Option<Kept>,
}

impl Rig {
    pub(super) fn new(options: &RunOptions, node: NodeOptions) -> Result<Self, String> {
        let mut node = Node::prepared(node);
        let dir = options.dir.as_deref();
        let shelf = match options.crash {
            Crash::Kill => None,
            Crash::PowerCut => Some(DiskShelf::new(dir)?),
            Crash::LossyPowerCut => Some(DiskShelf::lossy(dir, options.seed)?),
        };
        let words = |error: io::Error| error.to_string();
        let disk = match shelf {
            None => None,
            Some(mut shelf) => {
                let disk = shelf.make(DISK_BYTES).map_err(words)?;
                node.move_data(disk.path().join("data"));
                Some((disk, shelf))
            }
        };
        let kept = options.keep.clone().map(Kept::new);
        let kept = kept.transpose().map_err(words)?;
        Ok(Self { node, disk, kept })
    }

    /// Ends the server in this run's way; the next start finds what that left. In words, what that was.
    pub(super) fn crash(&mut self, moment: Moment) -> io::Result<Option<String>> {
        let Some((disk, shelf)) = &mut self.disk else {
            self.node.kill9();
            return Ok(None);
        };
        // A disk that is held answers nothing, so nothing is said that the cut could belie: the server need
        // not stand still.
        let device = disk.device();
        let held = device.map(|device| device.hold(moment.bytes, moment.patience));
        if held.is_none() {
            self.node.freeze();
        }
        let copied = match moment.loss {
            Some(loss) => shelf.copy_with(disk, loss)?,
            None => shelf.copy(disk)?,
        };
        let cut = copied.cut().map(|cut| cut.line());
        if let Some(kept) = &mut self.kept {
            kept.take(&copied, cut.as_deref())?;
        }
        self.node.kill9_with(|| drop(held));
        let left = copied.mount()?;
        self.node.move_data(left.path().join("data"));
        std::mem::replace(disk, left).remove()?;
        Ok(cut)
    }

    /// A round went well: what was kept of it is of no use.
    pub(super) fn went_well(&mut self) -> io::Result<()> {
        self.kept.as_mut().map_or(Ok(()), Kept::clear)
    }

    /// Where everything is that tells what went wrong, with the log beside it.
    pub(super) fn evidence(&self) -> io::Result<Option<PathBuf>> {
        let Some(kept) = &self.kept else {
            return Ok(None);
        };
        std::fs::write(kept.dir.join("node.log"), self.node.log())?;
        std::fs::copy(self.node.config_file(), kept.dir.join("stonechat.toml"))?;
        Ok(Some(kept.dir.clone()))
    }
}

/// What the last crashes left, untouched by the starts after them.
struct Kept {
    dir: PathBuf,
    crashes: Vec<PathBuf>,
}

impl Kept {
    fn new(dir: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        Ok(Self {
            dir,
            crashes: Vec::new(),
        })
    }

    fn take(&mut self, copied: &Copied, cut: Option<&str>) -> io::Result<()> {
        let number = self.crashes.len() + 1;
        let image = self.dir.join(format!("crash-{number}.ext4"));
        copy_image(copied.image(), &image)?;
        std::fs::write(
            about(&image),
            cut.unwrap_or("everything handed over is there"),
        )?;
        self.crashes.push(image);
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        for image in self.crashes.drain(..) {
            std::fs::remove_file(about(&image))?;
            std::fs::remove_file(image)?;
        }
        Ok(())
    }
}

/// The file that says what an image is.
fn about(image: &Path) -> PathBuf {
    image.with_extension("txt")
}
