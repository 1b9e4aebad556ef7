//! What a process uses, read from `/proc`.

use std::fs;

use anyhow::{Context, Result};

/// Ticks of `/proc/PID/stat` in a second; Linux tells user space 100 on every platform it runs on.
const TICKS_PER_S: f64 = 100.0;

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// User and system time of all threads, seconds.
    pub(crate) cpu_s: f64,
    /// The system's part of it.
    pub(crate) system_s: f64,
    /// Times a thread of it went to sleep.
    pub(crate) sleeps: u64,
    /// Bytes of it in memory.
    pub(crate) rss_bytes: u64,
}

impl Usage {
    /// Reads what process `pid` has used.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = read(pid, "stat")?;
        // The name of the program, in parentheses, may contain anything.
        let (_, fields) = stat.rsplit_once(')').context("a stat line has a name")?;
        let ticks = |place: usize| -> Result<f64> {
            let field = fields.split_whitespace().nth(place);
            Ok(field
                .context("a stat line has 52 fields")?
                .parse::<u32>()?
                .into())
        };
        let (user, system) = (ticks(11)?, ticks(12)?);
        let mut sleeps = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end while it is looked at.
            if let Ok(status) = fs::read_to_string(task?.path().join("status")) {
                sleeps += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
            }
        }
        let status = read(pid, "status")?;
        Ok(Self {
            cpu_s: (user + system) / TICKS_PER_S,
            system_s: system / TICKS_PER_S,
            sleeps,
            rss_bytes: field(&status, "VmRSS:").context("a process has memory")? * 1024,
        })
    }

    /// Reads what this process has used.
    pub(crate) fn own() -> Result<Self> {
        Self::of(std::process::id())
    }

    /// What was used since `before`; memory as it is now.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu_s: self.cpu_s - before.cpu_s,
            system_s: self.system_s - before.system_s,
            sleeps: self.sleeps.saturating_sub(before.sleeps),
            rss_bytes: self.rss_bytes,
        }
    }
}

fn read(pid: u32, file: &str) -> Result<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}"))
        .with_context(|| format!("process {pid} has ended; see its log"))
}

fn field(status: &str, name: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}
