//! The floor of everything durable: what one `fdatasync` of this disk takes.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use stonechat_swarm::Latency;

const SYNCS: usize = 300;
const APPEND_FOR: Duration = Duration::from_secs(2);
const BLOCK: [u8; 4096] = [7; 4096];

/// Appends blocks of 4 KiB to a file in `dir`, each with an `fdatasync`, as a journal does.
pub(crate) fn sync_floor(dir: &Path) -> Result<Latency> {
    let path = dir.join("sync-floor");
    let mut file = File::create(&path)?;
    let mut latency = Latency::default();
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        latency.record_us(u64::try_from(began.elapsed().as_micros())?);
    }
    std::fs::remove_file(path)?;
    Ok(latency)
}

/// Refuses a file system in memory, where a sync costs nothing and proves nothing.
pub(crate) fn check_real(dir: &Path) -> Result<()> {
    let dir = dir.canonicalize()?;
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    let kind = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(at, _)| dir.starts_with(at))
        .max_by_key(|(at, _)| at.len())
        .map(|(_, kind)| kind);
    ensure!(
        kind != Some("tmpfs") && kind != Some("ramfs"),
        "{} is in memory; choose a real disk with --data-dir",
        dir.display()
    );
    Ok(())
}

/// Milliseconds as a fraction.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Records of 300 bytes a second, appended to a file with one `fdatasync` for each 1,024.
pub(crate) fn append_floor(dir: &Path) -> Result<f64> {
    let path = dir.join("append-floor");
    let mut file = File::create(&path)?;
    let batch = vec![7; 300 * 1024];
    let began = Instant::now();
    let mut records = 0_u32;
    while began.elapsed() < APPEND_FOR {
        file.write_all(&batch)?;
        file.sync_data()?;
        records += 1024;
    }
    let rate = f64::from(records) / began.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}

/// Bytes a server's data takes on disk.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DataBytes {
    /// The journal.
    pub(crate) journal: u64,
    /// Everything else but the reserve: the database above all.
    pub(crate) database: u64,
}

/// Measures a data directory. Files come and go meanwhile; those are left out.
pub(crate) fn data_bytes(data: &Path) -> DataBytes {
    let mut bytes = DataBytes::default();
    for (path, length) in files(data) {
        let inside = path.strip_prefix(data).unwrap_or(&path);
        if inside.starts_with("journal") {
            bytes.journal += length;
        } else if !inside.starts_with("reserve") {
            bytes.database += length;
        }
    }
    bytes
}

/// How long it takes to read all files of a directory.
pub(crate) fn read_all(data: &Path) -> Result<Duration> {
    let began = Instant::now();
    for (path, _) in files(data) {
        std::fs::read(path)?;
    }
    Ok(began.elapsed())
}

fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => dirs.push(entry.path()),
                Ok(meta) => found.push((entry.path(), meta.len())),
                Err(_) => {}
            }
        }
    }
    found
}
