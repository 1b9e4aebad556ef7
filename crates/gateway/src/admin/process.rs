//! Figures of this process, read from `/proc`. Where there is none (not Linux)
//! they are absent.

use std::fs;

/// What is known; `None`: cannot be read here.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) resident_bytes: Option<u64>,
    pub(super) cpu_seconds: Option<f64>,
    pub(super) open_fds: Option<u64>,
    pub(super) fds_max: Option<u64>,
}

/// Clock ticks a second as `/proc` counts them: fixed at 100 in what Linux shows to programs.
const TICKS_PER_S: f64 = 100.0;

pub(super) fn read() -> Process {
    let text = |path| fs::read_to_string(path).ok();
    Process {
        resident_bytes: text("/proc/self/status").and_then(|text| resident_bytes(&text)),
        cpu_seconds: text("/proc/self/stat").and_then(|text| cpu_seconds(&text)),
        open_fds: open_fds(),
        fds_max: text("/proc/self/limits").and_then(|text| fds_max(&text)),
    }
}

/// Linux 6.2 and later tell it as the directory's size. Before, that is 0 and they have to be walked,
/// which at 19,000 connections takes milliseconds of processor time, each time.
fn open_fds() -> Option<u64> {
    const DIRECTORY: &str = "/proc/self/fd";
    match fs::metadata(DIRECTORY).ok()?.len() {
        0 => walked_fds(DIRECTORY),
        open => Some(open),
    }
}

fn walked_fds(directory: &str) -> Option<u64> {
    // The descriptor that reads the directory is counted too: take it off.
    let entries = fs::read_dir(directory).ok()?;
    Some(entries.count().saturating_sub(1) as u64)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name in parentheses may hold anything, also spaces: start after it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_S)
}

fn fds_max(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_read_as_they_are() {
        assert_eq!(
            resident_bytes("Name:\tx\nVmRSS:\t    1234 kB\n"),
            Some(1234 * 1024)
        );
        let stat = "1 (a ) b) S 0 1 2 3 4 5 6 7 8 9 150 50 0 0 20";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        let limits = "Limit  Soft Limit  Hard\nMax open files            1024                 4096                 files\n";
        assert_eq!(fds_max(limits), Some(1024));
        assert_eq!(fds_max("Max open files unlimited unlimited files"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_all_of_them() {
        let process = read();
        assert!(process.resident_bytes.unwrap() > 100_000);
        assert!(process.cpu_seconds.is_some());
        assert!(process.open_fds.unwrap() >= 3);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn descriptors_are_counted_by_either_way() {
        let before = (open_fds().unwrap(), walked_fds("/proc/self/fd").unwrap());
        let held: Vec<_> = (0..500)
            .map(|_| fs::File::open("/dev/null").unwrap())
            .collect();
        let after = (open_fds().unwrap(), walked_fds("/proc/self/fd").unwrap());
        drop(held);
        // Other tests of this process open and close some meanwhile.
        assert!(after.0 >= before.0 + 400, "{before:?} {after:?}");
        assert!(after.1 >= before.1 + 400, "{before:?} {after:?}");
    }
}
