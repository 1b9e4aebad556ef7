//! A copy of the tree to break, with a build directory of its own, and tests run in it.
//!
//! The copy is kept between runs, and only what differs is written, so that
//! nothing is built twice.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Time between two looks at a test that runs.
const POLL_EVERY: Duration = Duration::from_millis(20);

/// The copy.
pub(super) struct Scratch {
    tree: PathBuf,
    target: PathBuf,
}

/// What came of a test.
pub(super) enum Outcome {
    Passed,
    Failed {
        /// The first test that failed, with its binary; or that they did not end.
        test: String,
        after: Duration,
    },
}

/// A test binary with the directory it runs in.
struct Binary {
    name: String,
    executable: PathBuf,
    package: PathBuf,
}

impl Scratch {
    /// Brings the copy up to date with the tree.
    pub(super) fn prepare(root: &Path, at: &Path) -> Result<Self> {
        let scratch = Self {
            tree: at.join("tree"),
            target: at.join("build"),
        };
        let listed = Command::new("git")
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ])
            .current_dir(root)
            .output()
            .context("running git")?;
        ensure!(
            listed.status.success(),
            "git cannot list the files of the tree"
        );
        for file in String::from_utf8(listed.stdout)?.split_terminator('\0') {
            // Deleted and not yet committed.
            let Ok(bytes) = std::fs::read(root.join(file)) else {
                continue;
            };
            scratch.put(file, &bytes)?;
        }
        Ok(scratch)
    }

    /// Where the copy is.
    pub(super) fn tree(&self) -> &Path {
        &self.tree
    }

    /// Writes a file, unless it is so already.
    fn put(&self, file: &str, bytes: &[u8]) -> Result<()> {
        let path = self.tree.join(file);
        if std::fs::read(&path).is_ok_and(|known| known == bytes) {
            return Ok(());
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
    }

    /// Gives a file another text; returns the one it had.
    pub(super) fn replace(&self, file: &str, text: &str) -> Result<String> {
        let before = std::fs::read_to_string(self.tree.join(file))?;
        self.put(file, text.as_bytes())?;
        Ok(before)
    }

    /// Builds the tests, then runs them until one fails.
    pub(super) fn test(&self, arguments: &[String], within: Duration) -> Result<Outcome> {
        let binaries = self.build(arguments)?;
        let started = Instant::now();
        for binary in binaries {
            let left = within.saturating_sub(started.elapsed());
            if let Some(test) = run(&binary, left)? {
                let test = format!("{} `{test}`", binary.name);
                let after = started.elapsed();
                return Ok(Outcome::Failed { test, after });
            }
        }
        Ok(Outcome::Passed)
    }

    fn build(&self, arguments: &[String]) -> Result<Vec<Binary>> {
        let output = Command::new("cargo")
            .args(["test", "--quiet", "--no-run", "--message-format=json"])
            .args(arguments)
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target)
            .stdin(Stdio::null())
            .output()
            .context("running cargo")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let messages = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if !output.status.success() {
            let errors: Vec<String> = messages
                .filter_map(|message| Some(message["message"]["rendered"].as_str()?.to_owned()))
                .collect();
            bail!(
                "it does not build:\n{}{}",
                errors.join("\n"),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let binaries: Vec<Binary> = messages.filter_map(|message| binary(&message)).collect();
        ensure!(
            !binaries.is_empty(),
            "cargo test {arguments:?} has no tests"
        );
        Ok(binaries)
    }
}

fn binary(message: &Value) -> Option<Binary> {
    let executable = message["executable"].as_str()?;
    let manifest = Path::new(message["manifest_path"].as_str()?);
    let package = manifest.parent()?;
    let folder = package.file_name()?.to_string_lossy();
    let target = message["target"]["name"].as_str()?;
    let name = match message["target"]["kind"][0].as_str()? {
        "test" => format!("{folder}/{target}"),
        _ => folder.into_owned(),
    };
    Some(Binary {
        name,
        executable: executable.into(),
        package: package.to_owned(),
    })
}

/// The test that failed, if one did.
fn run(binary: &Binary, within: Duration) -> Result<Option<String>> {
    let mut child = Command::new(&binary.executable)
        .current_dir(&binary.package)
        // A failure is enough: neither kept for later nor made small.
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
        .env("PROPTEST_MAX_SHRINK_ITERS", "0")
        .env("RUST_BACKTRACE", "0")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {}", binary.executable.display()))?;
    let stdout = child.stdout.take().context("it is piped")?;
    let (found, failed) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        // To its end, or the tests could not write any more.
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let test = line.strip_prefix("test ").and_then(|line| {
                let (test, _) = line.split_once(" ... FAILED")?;
                Some(test.to_owned())
            });
            if let Some(test) = test {
                // Only the first is waited for.
                let _ = found.send(test);
            }
        }
    });
    let outcome = wait(&mut child, &failed, within);
    // It may have ended by itself.
    let _ = child.kill();
    child.wait()?;
    let _ = reader.join();
    outcome
}

/// The first test that fails; nothing when the process succeeds.
fn wait(child: &mut Child, failed: &Receiver<String>, within: Duration) -> Result<Option<String>> {
    let end = Instant::now() + within;
    loop {
        if let Ok(test) = failed.recv_timeout(POLL_EVERY) {
            return Ok(Some(test));
        }
        if let Some(status) = child.try_wait()? {
            let last = failed.recv_timeout(POLL_EVERY).ok();
            let ended = (!status.success()).then(|| "the process ended".to_owned());
            return Ok(last.or(ended));
        }
        if Instant::now() >= end {
            return Ok(Some(format!("not done within {} s", within.as_secs())));
        }
    }
}
