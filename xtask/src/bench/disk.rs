//! The floor of everything durable: what one `fdatasync` of this disk takes.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use stonechat_swarm::Latency;

const SYNCS: usize = 300;
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
