//! The server's log: lines that say that something is wrong.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Lines that are shown.
const SHOWN_MAX: usize = 20;
const SHOWN_CHARS: usize = 600;

#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
}

#[derive(Deserialize)]
struct Line {
    level: String,
}

/// An error, or a panic that was printed past the log.
fn is_error(line: &str) -> bool {
    let logged = serde_json::from_str::<Line>(line).is_ok_and(|line| line.level == "ERROR");
    logged || line.contains("panicked at")
}

impl Log {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn errors(&self, explained: impl Fn(&str) -> bool) -> (Vec<String>, u64) {
        let (mut shown, mut count) = (Vec::new(), 0);
        let Ok(file) = File::open(&self.path) else {
            return (vec![format!("{} cannot be read", self.path.display())], 1);
        };
        // A line may be cut by a kill, in the middle of a character.
        for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            if is_error(&line) && !explained(&line) {
                count += 1;
                if shown.len() < SHOWN_MAX {
                    shown.push(line.chars().take(SHOWN_CHARS).collect());
                }
            }
        }
        (shown, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_found_unless_explained() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let text = "{\"level\":\"INFO\",\"message\":\"an ERROR was expected\"}\n\
            {\"level\":\"ERROR\",\"message\":\"expected\"}\n\
            {\"level\":\"ERROR\",\"message\":\"bad\"}\n\
            thread 'main' panicked at x.rs:1\n{\"level\":\"ERR";
        std::fs::write(&path, text).unwrap();
        let (shown, count) = Log::new(path).errors(|line| line.contains("expected"));
        assert_eq!(count, 2, "{shown:?}");
        assert!(shown[0].contains("bad") && shown[1].contains("panicked"));
        let (_, missing) = Log::new(dir.path().join("none")).errors(|_| true);
        assert_eq!(missing, 1);
    }
}
