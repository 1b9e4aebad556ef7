//! Faults within the server's process that nothing outside can make: syncs that fail, a clock that is
//! wrong.
//!
//! A small library in C is compiled at run time and loaded into the server before the C library
//! (`LD_PRELOAD`). It looks at a file that both sides map, so the faults can be switched on and off
//! while the server runs. It takes a C compiler and Linux; without them the kinds are left out.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SOURCE: &str = include_str!("switches.c");

/// The switches, all off to begin with.
#[derive(Debug)]
pub(crate) struct Switches {
    library: PathBuf,
    path: PathBuf,
    file: File,
}

impl Switches {
    /// Compiles the library and makes the file, both in `dir`.
    ///
    /// # Errors
    /// What is missing here, as a sentence.
    pub(crate) fn make(dir: &Path) -> Result<Self, String> {
        if !cfg!(target_os = "linux") {
            return Err("it takes LD_PRELOAD, and so Linux".to_owned());
        }
        let (source, library) = (dir.join("switches.c"), dir.join("switches.so"));
        let path = dir.join("switches");
        let file = prepare(&source, &path).map_err(|e| format!("no files for switches: {e}"))?;
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(&source)
            .arg("-ldl")
            .stdin(Stdio::null())
            .output();
        match compiled {
            Ok(output) if output.status.success() => Ok(Self {
                library,
                path,
                file,
            }),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(format!("cc cannot compile it: {}", said.trim()))
            }
            Err(e) => Err(format!(
                "it takes a C compiler: cc: {e}; install the package gcc"
            )),
        }
    }

    /// Has a server that is about to be started look at them.
    pub(crate) fn apply(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("CHAOS_SWITCHES", &self.path);
    }

    /// From now on syncs fail, or not.
    pub(crate) fn set_syncs_fail(&self, fail: bool) -> io::Result<()> {
        self.file.write_all_at(&i64::from(fail).to_ne_bytes(), 0)
    }

    /// From now on the clock is wrong by so much.
    pub(crate) fn set_clock_offset_s(&self, offset_s: i64) -> io::Result<()> {
        self.file.write_all_at(&offset_s.to_ne_bytes(), 8)
    }
}

fn prepare(source: &Path, path: &Path) -> io::Result<File> {
    std::fs::write(source, SOURCE)?;
    std::fs::write(path, [0; 16])?;
    OpenOptions::new().write(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn year(switches: &Switches) -> i32 {
        let mut date = Command::new("date");
        date.args(["-u", "+%Y"]);
        switches.apply(&mut date);
        let output = date.output().unwrap();
        String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse()
            .unwrap()
    }

    fn syncs(switches: &Switches, file: &Path) -> bool {
        let mut sync = Command::new("sync");
        sync.arg("--data").arg(file).stderr(Stdio::null());
        switches.apply(&mut sync);
        sync.status().unwrap().success()
    }

    #[test]
    fn a_process_is_told_another_time_and_that_its_syncs_fail() {
        let dir = tempfile::tempdir().unwrap();
        let switches = match Switches::make(dir.path()) {
            Ok(switches) => switches,
            Err(why) if why.contains("it takes") => return,
            Err(why) => panic!("{why}"),
        };
        let now = year(&switches);
        switches.set_clock_offset_s(-20 * 366 * 86_400).unwrap();
        assert!(year(&switches) <= now - 20);
        switches.set_clock_offset_s(0).unwrap();
        assert!(year(&switches) >= now);
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(syncs(&switches, &file));
        switches.set_syncs_fail(true).unwrap();
        assert!(!syncs(&switches, &file));
    }
}
