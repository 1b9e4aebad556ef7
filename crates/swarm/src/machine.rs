//! What a run ran on, in a sentence: without it figures cannot be compared.

use std::fs;

/// Processors, memory, system, and how busy it was. What cannot be read is left out.
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let model = value(&cpus, "model name").unwrap_or_else(|| "processors".to_owned());
    let mut text = format!("{count} × {model}");
    if let Some(total) = value(&read("/proc/meminfo"), "MemTotal")
        && let Some(kib) = total
            .strip_suffix(" kB")
            .and_then(|kib| kib.parse::<u64>().ok())
    {
        text.push_str(&format!(", {} GiB", (kib + (1 << 19)) >> 20));
    }
    let kernel = read("/proc/sys/kernel/osrelease");
    text.push_str(&format!(", {} {}", std::env::consts::OS, kernel.trim()));
    if let Some(load) = read("/proc/loadavg")
        .split(' ')
        .next()
        .filter(|load| !load.is_empty())
    {
        text.push_str(&format!(", load average {load}"));
    }
    text.trim_end().to_owned()
}
