//! What a server uses with all the processes it has started.

use std::collections::HashMap;
use std::fs;

use anyhow::Result;

use crate::bench::process::Usage;

/// A process and everything below it, the process first.
pub(super) fn below(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // It may have ended meanwhile.
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, fields)| fields.split_whitespace().nth(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut all = vec![root];
    let mut at = 0;
    while let Some(&pid) = all.get(at) {
        all.extend(children.get(&pid).into_iter().flatten());
        at += 1;
    }
    all
}

/// What they have used together. The process itself has to be there; others may have ended.
pub(super) fn usage(root: u32) -> Result<Usage> {
    let mut sum = Usage::of(root)?;
    for pid in below(root).into_iter().skip(1) {
        if let Ok(usage) = Usage::of(pid) {
            sum.cpu_s += usage.cpu_s;
            sum.system_s += usage.system_s;
            sum.sleeps += usage.sleeps;
            sum.rss_bytes += usage.rss_bytes;
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn children_of_children_count() {
        let mut shell = Command::new("sh")
            .args(["-c", "sh -c 'sh -c \"echo; read x\"; true'; true"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // The line says that all of them are there.
        let mut line = String::new();
        let stdout = shell.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        let all = below(shell.id());
        assert_eq!(all[0], shell.id());
        assert!(all.len() >= 3, "{all:?}");
        let sum = usage(shell.id()).unwrap();
        assert!(sum.rss_bytes > Usage::of(shell.id()).unwrap().rss_bytes);
        drop(shell.stdin.take());
        shell.wait().unwrap();
    }
}
