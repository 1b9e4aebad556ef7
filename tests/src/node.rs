//! One server process under test: started, killed, restarted, and its log held to account.

mod ending;

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Admin, DEADLINE, NodeOptions, POLL_EVERY, binary, eventually};

/// Where a node listens; it changes with every start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Address for clients.
    pub listen: String,
    /// Address of the admin API.
    pub admin_listen: String,
}

/// A node. Dropping it kills its process and fails the test when its log has unexpected errors.
#[derive(Debug)]
pub struct Node {
    options: NodeOptions,
    dir: TempDir,
    data_dir: PathBuf,
    child: Option<Child>,
    endpoint: Arc<Mutex<Endpoint>>,
    log_seen: usize,
}

/// What a finished command left.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A command of the binary, without any of the caller's configuration in its environment.
pub fn command() -> Command {
    bare(binary::stonechat())
}

fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STONECHAT_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG");
    command
}

/// Runs a command to its end.
///
/// # Panics
/// When it has not ended by the deadline.
pub fn run(command: Command) -> Output {
    run_within(DEADLINE, command)
}

/// The same for one that takes its time.
///
/// # Panics
/// When it has not ended by the deadline.
pub fn run_within(deadline: Duration, mut command: Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command can be started");
    let mut stdout = child.stdout.take().expect("piped");
    let mut stderr = child.stderr.take().expect("piped");
    let out = std::thread::spawn(move || read_all(&mut stdout));
    let err = std::thread::spawn(move || read_all(&mut stderr));
    let status = wait(&mut child, deadline).unwrap_or_else(|| {
        kill(&mut child);
        panic!("{command:?} has not ended within {deadline:?}")
    });
    Output {
        code: status.code(),
        stdout: out.join().expect("the reader does not panic"),
        stderr: err.join().expect("the reader does not panic"),
    }
}

fn read_all(from: &mut impl std::io::Read) -> String {
    let mut bytes = Vec::new();
    // What was read until an error is all there is to show.
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for a process.
pub fn wait(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait().expect("our own child can be waited for") {
            return Some(status);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(POLL_EVERY);
    }
}

fn kill(child: &mut Child) {
    // It may have ended by itself in between: then there is nothing to kill.
    let _ = child.kill();
    let _ = child.wait();
}

impl Node {
    /// Starts a node with the default options.
    pub fn start_default() -> Self {
        Self::start(NodeOptions::new())
    }

    /// Starts a node and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start(options: NodeOptions) -> Self {
        let mut node = Self::prepared(options);
        node.launch();
        node
    }

    /// Everything but the process: for suites about commands on a stopped node.
    pub fn prepared(options: NodeOptions) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("stonechat-test-")
            .tempdir()
            .expect("a temporary directory");
        let node = Self {
            options,
            data_dir: dir.path().join("data"),
            dir,
            child: None,
            endpoint: Arc::default(),
            log_seen: 0,
        };
        node.write_config();
        node
    }

    /// Directory of this node's files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    /// Has the next start use another directory.
    pub fn move_data(&mut self, data_dir: PathBuf) {
        self.data_dir = data_dir;
    }

    /// Its configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("stonechat.toml")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("node.log")
    }

    fn write_config(&self) {
        std::fs::write(self.config_file(), self.options.toml()).expect("the directory is ours");
    }

    /// Changes the options for the next start.
    pub fn reconfigure(&mut self, change: impl FnOnce(NodeOptions) -> NodeOptions) {
        self.options = change(std::mem::take(&mut self.options));
        self.write_config();
    }

    /// A command of the binary that uses this node's configuration and data.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command();
        command
            .args(arguments)
            .arg("--config")
            .arg(self.config_file())
            .arg("--data-dir")
            .arg(self.data_dir())
            .current_dir(self.dir());
        command
    }

    /// Runs such a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        run(self.command(arguments))
    }

    fn serve_command(&self) -> Command {
        let serve = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ];
        let mut command = match &self.options.shell_prelude {
            None => {
                let mut command = command();
                command.args(serve);
                command
            }
            Some(prelude) => {
                let mut command = bare(Path::new("sh"));
                command
                    .arg("-c")
                    .arg(format!("{prelude}; exec \"$0\" \"$@\""))
                    .arg(binary::stonechat())
                    .args(serve);
                command
            }
        };
        command
            .arg("--config")
            .arg(self.config_file())
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(&self.options.flags)
            .current_dir(self.dir());
        command
    }

    /// Starts the process and waits until it says it is ready.
    ///
    /// # Panics
    /// When it exits or is not ready by the deadline.
    pub fn launch(&mut self) {
        if let Err(why) = self.try_launch() {
            panic!("{why}\n{}", self.log_tail());
        }
    }

    /// Starts the process and does not wait.
    ///
    /// # Panics
    /// When it cannot be started at all.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the node is running");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("the directory is ours");
        let child = self
            .serve_command()
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the server can be started");
        self.child = Some(child);
    }

    /// [`Node::launch`] that says how it failed. The log says why.
    ///
    /// # Errors
    /// It exited, or was not ready in time.
    pub fn try_launch(&mut self) -> Result<(), String> {
        self.spawn();
        let pid = self.pid();
        let end = Instant::now() + 2 * DEADLINE;
        loop {
            if let Some(status) = self.exited() {
                self.child = None;
                return Err(format!("the node exited at start: {status}"));
            }
            if let Some(endpoint) = self.published(pid) {
                let admin = self.options.admin(&endpoint, None);
                if admin
                    .try_request("GET", "/readyz", None)
                    .is_some_and(|r| r.status == 200)
                {
                    *self.endpoint.lock().unwrap_or_else(PoisonError::into_inner) = endpoint;
                    return Ok(());
                }
            }
            if Instant::now() >= end {
                return Err("the node is not ready".to_owned());
            }
            std::thread::sleep(POLL_EVERY);
        }
    }

    fn published(&self, pid: u32) -> Option<Endpoint> {
        let text = std::fs::read_to_string(self.data_dir().join("node.json")).ok()?;
        let node: Value = serde_json::from_str(&text).ok()?;
        (node["pid"] == pid).then(|| Endpoint {
            listen: node["listen"].as_str().unwrap_or_default().to_owned(),
            admin_listen: node["admin_listen"].as_str().unwrap_or_default().to_owned(),
        })
    }

    /// Where it listens now; clones follow restarts.
    pub fn endpoint_cell(&self) -> Arc<Mutex<Endpoint>> {
        Arc::clone(&self.endpoint)
    }

    /// Where it listens now.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The admin API, with the secret from its file.
    ///
    /// # Panics
    /// When the secret file cannot be read.
    pub fn admin(&self) -> Admin {
        let secret = std::fs::read_to_string(self.data_dir().join("admin.secret"))
            .expect("the node made its admin secret");
        let secret = Some(secret.trim().to_owned());
        self.options.admin(&self.endpoint(), secret)
    }

    /// A user (made when missing) and a fresh token.
    #[track_caller]
    pub fn user(&self, user: &str) -> String {
        let admin = self.admin();
        admin.create_user(user);
        admin.token(user, None)
    }

    /// Process id.
    ///
    /// # Panics
    /// When the node is not running.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node is running").id()
    }

    /// The exit status when the process has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child
            .as_mut()
            .and_then(|child| child.try_wait().expect("our own child can be waited for"))
    }

    /// The whole log so far.
    pub fn log(&self) -> String {
        let mut text = Vec::new();
        if let Ok(mut file) = File::open(self.log_file()) {
            let _ = file.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Waits until a line of the log that comes after the first `after` bytes contains `part`.
    pub fn wait_log(&self, after: usize, part: &str) {
        eventually(&format!("{part:?} in the log"), || {
            self.log()
                .get(after..)
                .is_some_and(|log| log.contains(part))
                .then_some(())
        });
    }

    /// The end of the log, for failure messages.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(60);
        format!(
            "--- end of the node's log ---\n{}",
            lines[from..].join("\n")
        )
    }

    /// Fails when the log has a line of level ERROR, or about a panic, that was not announced.
    ///
    /// # Panics
    /// When there is such a line.
    pub fn assert_clean_log(&self) {
        let unexpected = self.unexpected_log();
        assert!(
            unexpected.is_empty(),
            "unexpected errors in the node's log:\n{}",
            unexpected.join("\n")
        );
    }

    /// Such lines that have not been taken yet; taken, they no longer fail anything.
    pub fn take_unexpected_log(&mut self) -> Vec<String> {
        let unexpected = self.unexpected_log();
        self.log_seen = self.log().len();
        unexpected
    }

    fn unexpected_log(&self) -> Vec<String> {
        let log = self.log();
        log.get(self.log_seen..)
            .unwrap_or_default()
            .lines()
            .filter(|line| {
                let error = serde_json::from_str::<Value>(line)
                    .is_ok_and(|entry| entry["level"].as_str() == Some("ERROR"));
                error || line.contains("panicked at")
            })
            .filter(|line| {
                !self
                    .options
                    .allowed_log
                    .iter()
                    .any(|part| line.contains(part))
            })
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        } else {
            self.assert_clean_log();
        }
    }
}
