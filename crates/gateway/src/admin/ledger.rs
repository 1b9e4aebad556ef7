//! Numbered entries, newest in memory, all of them in a bounded file.
//!
//! One entry is one line of JSON. The file is closed at a size and kept under
//! another name until three newer ones are full: `audit.ndjson`, then
//! `audit.ndjson.1` to `.3`. What was appended survives the end of the process,
//! however it ends; whether each line is synced as well, so that it survives a
//! power cut, is a matter of the ledger. A disk that refuses is told to the log
//! once and to whoever appends; the entry is then in memory only.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use metrics::counter;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Older files kept beside the one written to.
const OLDER_FILES: u32 = 3;

/// Something with a number of its own.
pub(super) trait Numbered {
    fn number(&self) -> u64;
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Entries in memory.
    pub(super) entries_max: usize,
    /// Bytes of one file; there are four.
    pub(super) file_bytes_max: u64,
    /// Whether an entry counts as written only once it is synced to the disk.
    pub(super) synced: bool,
}

struct Recent<T> {
    entries: VecDeque<Arc<T>>,
    number_next: u64,
}

/// Where lines go.
#[derive(Default)]
struct Output {
    file: Option<File>,
    bytes: u64,
    failing: bool,
}

/// Entries, oldest first.
pub(super) struct Ledger<T> {
    name: &'static str,
    path: PathBuf,
    bounds: Bounds,
    recent: Mutex<Recent<T>>,
    /// Apart, so that whoever reads does not wait for the disk. Taken first where both are.
    output: Mutex<Output>,
}

impl<T: Numbered + Serialize + DeserializeOwned> Ledger<T> {
    /// Goes on with the file `name` in `dir`, or begins it.
    pub(super) fn open(dir: &Path, name: &'static str, bounds: Bounds) -> Self {
        let path = dir.join(name);
        let mut recent = VecDeque::new();
        // Older files only as far as they are wanted, newest first.
        for n in 0..=OLDER_FILES {
            if recent.len() >= bounds.entries_max {
                break;
            }
            for entry in read(&older(&path, n)).into_iter().rev() {
                if recent.len() < bounds.entries_max {
                    recent.push_front(Arc::new(entry));
                }
            }
        }
        let number_next = recent.back().map_or(1, |last: &Arc<T>| last.number() + 1);
        let ledger = Self {
            name,
            path,
            bounds,
            recent: Mutex::new(Recent {
                entries: recent,
                number_next,
            }),
            output: Mutex::default(),
        };
        // Begun now, so that a directory that cannot be written to is told at the start.
        let mut output = ledger.output.lock();
        let opened = ledger.reopen(&mut output);
        ledger.tell(&mut output, &opened);
        drop(output);
        ledger
    }

    /// Adds what `make` makes of its number, and what came of writing it to the file. Waits for
    /// the disk.
    pub(super) fn append(&self, make: impl FnOnce(u64) -> T) -> (Arc<T>, io::Result<()>) {
        // Until the line is written: lines are in the order of their numbers.
        let mut output = self.output.lock();
        let entry = self.recent.lock().push(make, self.bounds.entries_max);
        let written = self.write(&mut output, &entry);
        self.tell(&mut output, &written);
        (entry, written)
    }

    /// Entries in memory with numbers below `before`, newest first, and whether there are more.
    pub(super) fn newest(&self, before: Option<u64>, limit: usize) -> (Vec<Arc<T>>, bool) {
        let recent = self.recent.lock();
        let mut older = recent
            .entries
            .iter()
            .rev()
            .filter(|entry| before.is_none_or(|before| entry.number() < before));
        let entries = older.by_ref().take(limit).cloned().collect();
        (entries, older.next().is_some())
    }

    /// One entry in memory.
    pub(super) fn get(&self, number: u64) -> Option<Arc<T>> {
        let recent = self.recent.lock();
        let found = recent
            .entries
            .binary_search_by_key(&number, |entry| entry.number());
        found.ok().map(|index| Arc::clone(&recent.entries[index]))
    }

    fn write(&self, output: &mut Output, entry: &T) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let full =
            output.bytes > 0 && output.bytes + line.len() as u64 > self.bounds.file_bytes_max;
        if full || output.file.is_none() {
            if full {
                self.rotate(output)?;
            }
            self.reopen(output)?;
        }
        let Some(file) = &mut output.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut written = file.write_all(&line);
        if self.bounds.synced && written.is_ok() {
            written = file.sync_data();
        }
        match written {
            Ok(()) => output.bytes += line.len() as u64,
            // Perhaps half a line is there: the next one begins a line of its own.
            Err(_) => output.file = None,
        }
        written
    }

    fn reopen(&self, output: &mut Output) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)?;
        output.bytes = file.metadata()?.len();
        if output.bytes > 0 && !ends_with_newline(&self.path)? {
            file.write_all(b"\n")?;
            output.bytes += 1;
        }
        if let Some(dir) = self.path.parent().filter(|_| self.bounds.synced) {
            // It may be new, and others renamed.
            File::open(dir)?.sync_all()?;
        }
        output.file = Some(file);
        Ok(())
    }

    fn rotate(&self, output: &mut Output) -> io::Result<()> {
        output.file = None;
        for n in (0..OLDER_FILES).rev() {
            match std::fs::rename(older(&self.path, n), older(&self.path, n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Logs when it begins to fail and when it works again.
    fn tell(&self, output: &mut Output, outcome: &io::Result<()>) {
        match outcome {
            Ok(()) if output.failing => {
                output.failing = false;
                tracing::info!(file = self.name, "written again");
            }
            Ok(()) => {}
            Err(error) => {
                counter!("stonechat_admin_ledger_failures_total", "file" => self.name).increment(1);
                if !output.failing {
                    output.failing = true;
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "cannot be written: entries are in memory only; make space or mend permissions");
                }
            }
        }
    }
}

impl<T> Recent<T> {
    fn push(&mut self, make: impl FnOnce(u64) -> T, entries_max: usize) -> Arc<T> {
        let entry = Arc::new(make(self.number_next));
        self.number_next += 1;
        if self.entries.len() >= entries_max {
            self.entries.pop_front();
        }
        self.entries.push_back(Arc::clone(&entry));
        entry
    }
}

/// The file itself, or the `n`th older one.
fn older(path: &Path, n: u32) -> PathBuf {
    if n == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    PathBuf::from(name)
}

/// The entries of a file; lines that are none (cut off by a crash) are passed over.
fn read<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let bytes = std::fs::read(path).unwrap_or_default();
    bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

fn ends_with_newline(path: &Path) -> io::Result<bool> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Line {
        number: u64,
        text: String,
    }

    impl Numbered for Line {
        fn number(&self) -> u64 {
            self.number
        }
    }

    const NAME: &str = "test.ndjson";
    const BOUNDS: Bounds = Bounds {
        entries_max: 5,
        file_bytes_max: 100,
        synced: true,
    };

    fn open(dir: &Path) -> Ledger<Line> {
        Ledger::open(dir, NAME, BOUNDS)
    }

    fn append(ledger: &Ledger<Line>, text: &str) -> u64 {
        let text = text.to_owned();
        ledger.append(|number| Line { number, text }).0.number
    }

    fn numbers(ledger: &Ledger<Line>, before: Option<u64>, limit: usize) -> (Vec<u64>, bool) {
        let (entries, more) = ledger.newest(before, limit);
        (entries.iter().map(|entry| entry.number).collect(), more)
    }

    #[test]
    fn numbers_go_on_after_a_restart_and_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path());
        assert_eq!(numbers(&ledger, None, 9), (vec![], false));
        assert_eq!(append(&ledger, "a\nb\u{2028}\"c"), 1);
        assert_eq!(append(&ledger, "two"), 2);
        drop(ledger);
        let path = dir.path().join(NAME);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2, "one entry, one line: {text}");
        std::fs::write(&path, format!("{text}{{\"number\":3,\"te")).unwrap();
        let ledger = open(dir.path());
        assert_eq!(append(&ledger, "three"), 3);
        assert_eq!(numbers(&ledger, None, 9), (vec![3, 2, 1], false));
        assert_eq!(numbers(&ledger, Some(3), 1), (vec![2], true));
        assert_eq!(ledger.get(1).unwrap().text, "a\nb\u{2028}\"c");
        assert_eq!(ledger.get(4), None);
        drop(ledger);
        assert_eq!(numbers(&open(dir.path()), None, 9).0, [3, 2, 1]);
    }

    #[test]
    fn memory_and_files_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path());
        for _ in 0..100 {
            append(&ledger, "a line of some twenty characters");
        }
        assert_eq!(
            numbers(&ledger, None, 99),
            (vec![100, 99, 98, 97, 96], false)
        );
        let sizes: Vec<u64> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(sizes.len(), 4, "{sizes:?}");
        assert!(sizes.iter().all(|size| *size <= 100), "{sizes:?}");
        drop(ledger);
        // One line in each file: the older ones fill up what the newest does not have.
        let ledger = open(dir.path());
        assert_eq!(numbers(&ledger, None, 99).0, [100, 99, 98, 97]);
        assert_eq!(append(&ledger, "x"), 101);
    }

    #[test]
    fn a_file_that_cannot_be_written_costs_only_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        std::fs::create_dir(&path).unwrap();
        let ledger = open(dir.path());
        let text = "kept in memory".to_owned();
        let (entry, written) = ledger.append(|number| Line { number, text });
        assert!(written.is_err(), "whoever appends is told");
        assert_eq!(entry.number, 1);
        assert_eq!(numbers(&ledger, None, 9).0, [1]);
        std::fs::remove_dir(&path).unwrap();
        assert_eq!(append(&ledger, "written"), 2);
        drop(ledger);
        assert_eq!(numbers(&open(dir.path()), None, 9).0, [2]);
    }
}
