//! What a process on this machine uses, read from `/proc`; nothing where there is none.

use std::fs;

/// Ticks of `/proc/PID/stat` in a second; Linux tells programs 100 on every platform it runs on.
const TICKS_PER_S: f64 = 100.0;

/// What a process uses at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Usage {
    /// User and system time of all threads since it started, seconds.
    pub(super) cpu_s: f64,
    pub(super) rss_bytes: u64,
    pub(super) threads: u64,
    /// Open descriptors, where the kernel tells (since 6.2) or they may be counted.
    pub(super) fds: Option<u64>,
}

/// Memory of this process, 0 where that cannot be read.
pub fn own_rss_bytes() -> u64 {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| field(&status, "VmRSS:"))
        .map_or(0, |kib| kib * 1024)
}

/// Of the process `pid`; `None` when there is none, or nothing may be read of it.
pub(super) fn usage(pid: u32) -> Option<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(Usage {
        cpu_s: cpu_s(&stat)?,
        rss_bytes: field(&status, "VmRSS:")? * 1024,
        threads: field(&status, "Threads:")?,
        fds: fds(pid),
    })
}

fn fds(pid: u32) -> Option<u64> {
    let path = format!("/proc/{pid}/fd");
    match fs::metadata(&path).ok()?.len() {
        0 => Some(fs::read_dir(&path).ok()?.count() as u64),
        told => Some(told),
    }
}

fn cpu_s(stat: &str) -> Option<f64> {
    // The name of the program, in parentheses, may contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).take(2);
    let mut next = || ticks.next()?.parse::<f64>().ok();
    Some((next()? + next()?) / TICKS_PER_S)
}

fn field(status: &str, name: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_are_read_behind_the_name() {
        let stat = "7 (a ) 3 4) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 5";
        assert_eq!(cpu_s(stat), Some(2.0));
        assert_eq!(cpu_s("7 (name"), None);
        let status = "Name:\tx\nVmRSS:\t  1234 kB\nThreads:\t9\n";
        assert_eq!(field(status, "VmRSS:"), Some(1234));
        assert_eq!(field(status, "Threads:"), Some(9));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_something() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 100_000 && usage.threads >= 1);
        assert!(usage.fds.unwrap() >= 3, "{usage:?}");
        assert!(own_rss_bytes() > 100_000);
    }
}
