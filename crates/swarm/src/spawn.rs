//! A server of the run's own: started, held to account by its log and exit codes, ended.
//!
//! It is another process, reached like any other server: this crate does not link it. It has free
//! ports, which it keeps when it is started again, and unless told otherwise a temporary data
//! directory. Whatever happens it ends with the value, and what was mounted for it goes too; its log
//! stays until [`Spawned::discard`]. A `kill -9` of this process ends it too, but leaves the mount.
//!
//! It deliberately does not decide when the server is to be hurt: that is chaos' business.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use tempfile::TempDir;

use crate::chaos::switches::Switches;
use crate::{Admin, SwarmError};

mod disk;
mod log;

pub(crate) use disk::Disk;
use log::Log;

/// A start may replay a journal first.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The server's own deadline for a drain is below this.
const END_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Somebody else may have the port for a moment.
const EXIT_IN_USE: i32 = 69;

/// How to start a server.
#[derive(Debug, Clone)]
pub struct SpawnOptions {
    /// The program; it is run with `serve`.
    pub binary: PathBuf,
    /// More arguments, configuration above all.
    pub arguments: Vec<OsString>,
    /// Where it stores; a temporary directory when it is missing.
    pub data_dir: Option<PathBuf>,
    /// Prepares for faults: panics by its admin API, switches in its process, a disk of its own.
    pub for_chaos: bool,
    /// Its limit of descriptors.
    pub descriptors: Option<u64>,
}

/// A server that was started here.
#[derive(Debug)]
pub struct Spawned {
    // Dropped in this order: the process, what it stores on, and the directory of both.
    child: Option<Child>,
    pub(crate) disk: Result<Disk, String>,
    pub(crate) switches: Result<Switches, String>,
    options: SpawnOptions,
    data_dir: PathBuf,
    log: Log,
    place: Option<Place>,
    interrupted: Arc<AtomicBool>,
    dir: TempDir,
}

/// What it says about itself in its data directory.
#[derive(Debug, Clone, Deserialize)]
struct Place {
    pid: u32,
    listen: SocketAddr,
    admin_listen: SocketAddr,
    #[serde(default)]
    admin_tls: bool,
}

impl Spawned {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started, or does not become ready.
    pub fn start(options: SpawnOptions) -> Result<Self, SwarmError> {
        let interrupted = watch_signals().map_err(SwarmError::io("watching for signals"))?;
        let mut dir = tempfile::Builder::new()
            .prefix("stonechat-swarm-")
            .tempdir()
            .map_err(SwarmError::io("making a temporary directory"))?;
        // Until it is known that nobody needs the log.
        dir.disable_cleanup(true);
        let not_asked = || "it was not prepared".to_owned();
        let (mut disk, mut switches) = (Err(not_asked()), Err(not_asked()));
        if options.for_chaos {
            switches = Switches::make(dir.path());
            disk = match &options.data_dir {
                Some(data_dir) => std::fs::create_dir_all(data_dir)
                    .map_err(|e| e.to_string())
                    .and_then(|()| Disk::of(data_dir)),
                None => Disk::make(dir.path()),
            };
        }
        let data_dir = match (&options.data_dir, &disk) {
            (Some(data_dir), _) => data_dir.clone(),
            (None, Ok(disk)) => disk.data_dir(),
            (None, Err(_)) => dir.path().join("data"),
        };
        let mut server = Self {
            child: None,
            disk,
            switches,
            options,
            data_dir,
            log: Log::new(dir.path().join("server.log")),
            place: None,
            interrupted,
            dir,
        };
        server.launch()?;
        Ok(server)
    }

    /// Where it listens for clients.
    pub fn server(&self) -> SocketAddr {
        self.place().listen
    }

    /// Its admin API.
    ///
    /// # Errors
    /// When its secret cannot be read.
    pub fn admin(&self) -> Result<Admin, SwarmError> {
        let secret = std::fs::read_to_string(self.data_dir.join("admin.secret"))
            .map_err(SwarmError::io("reading the secret of the server"))?;
        Ok(Admin {
            base: format!("http://{}/admin/v1", self.place().admin_listen),
            bearer: format!("Bearer {}", secret.trim()),
        })
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its log, of all starts.
    pub fn log(&self) -> &Path {
        self.log.path()
    }

    /// Its limit of descriptors, when it was given one.
    pub(crate) fn descriptors(&self) -> Option<u64> {
        self.options.descriptors
    }

    /// Removes everything, the log too.
    pub fn discard(mut self) {
        self.dir.disable_cleanup(false);
    }

    fn place(&self) -> &Place {
        self.place.as_ref().expect("it was ready once")
    }

    pub(crate) fn error(&self, what: impl Into<String>) -> SwarmError {
        SwarmError::Spawn {
            what: what.into(),
            log: self.log().to_owned(),
        }
    }

    /// Starts the process and waits until it is ready, on the ports it had before if it had any.
    pub(crate) fn launch(&mut self) -> Result<(), SwarmError> {
        let until = Instant::now() + READY_WITHIN;
        self.spawn()?;
        loop {
            if let Some(status) = self.exited() {
                self.child = None;
                if status.code() != Some(EXIT_IN_USE) || self.place.is_none() {
                    return Err(self.error(format!("it ended at its start: {status}")));
                }
                self.spawn()?;
            }
            let place = self.published();
            if place.as_ref().is_some_and(|place| place.admin_tls) {
                let what = "a swarm asks the admin API by http:// only; leave admin.tls_cert out";
                return Err(self.error(what));
            }
            if let Some(place) = place
                && ready(place.admin_listen)
            {
                self.place = Some(place);
                return Ok(());
            }
            // Once it was ready, the run decides how it ends.
            if self.place.is_none() && self.interrupted.load(Ordering::Relaxed) {
                return Err(SwarmError::Interrupted);
            }
            if Instant::now() > until {
                let within = READY_WITHIN.as_secs();
                return Err(self.error(format!("it was not ready within {within} s")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn spawn(&mut self) -> Result<(), SwarmError> {
        let mut command = match self.options.descriptors {
            // The limit has to be in force when the server looks at it.
            Some(limit) => {
                let mut shell = Command::new("sh");
                shell
                    .arg("-c")
                    .arg(format!("ulimit -n {limit} && exec \"$0\" \"$@\""))
                    .arg(&self.options.binary);
                shell
            }
            None => Command::new(&self.options.binary),
        };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let place = self.place.as_ref();
        let (listen, admin) = place.map_or((any, any), |place| (place.listen, place.admin_listen));
        command
            // Should this process be killed, the pipe ends with it, and the server with the pipe.
            .args(["serve", "--exit-with-parent"])
            .args(["--log-format", "json", "--listen"])
            .arg(listen.to_string())
            .arg("--admin-listen")
            .arg(admin.to_string())
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(&self.options.arguments);
        if self.options.for_chaos {
            command.arg("--enable-fault-injection");
        }
        if let Ok(switches) = &self.switches {
            switches.apply(&mut command);
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log());
        let log = log.map_err(SwarmError::io("opening the server's log"))?;
        let second = log.try_clone();
        let second = second.map_err(SwarmError::io("opening the server's log"))?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(second)
            .stderr(log)
            .spawn();
        let program = self.options.binary.display();
        let child = child.map_err(|e| self.error(format!("{program} cannot be started: {e}")))?;
        self.child = Some(child);
        Ok(())
    }

    /// Where it says that it listens, once this very process has said so.
    fn published(&self) -> Option<Place> {
        let text = std::fs::read_to_string(self.data_dir.join("node.json")).ok()?;
        let place: Place = serde_json::from_str(&text).ok()?;
        (Some(place.pid) == self.pid()).then_some(place)
    }

    /// How it ended, when it has.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    /// Ends the process at once.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself in between: then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends it a signal; nothing when it does not run.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            // It is ours and has not been waited for, so the number is nobody else's.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait_exit(&mut self) -> Result<ExitStatus, SwarmError> {
        let until = Instant::now() + END_WITHIN;
        loop {
            if let Some(status) = self.exited() {
                self.child = None;
                return Ok(status);
            }
            if self.child.is_none() || Instant::now() > until {
                let within = END_WITHIN.as_secs();
                return Err(self.error(format!("it did not end within {within} s")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Ends it as an operator would.
    pub(crate) fn terminate(&mut self) -> Result<ExitStatus, SwarmError> {
        self.signal(Signal::TERM);
        self.wait_exit()
    }

    /// Errors in the log that nothing explains: the first few, and how many.
    pub(crate) fn errors(&self, explained: impl Fn(&str) -> bool) -> (Vec<String>, u64) {
        self.log.errors(explained)
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Notes SIGINT and SIGTERM: the server and its disk have to go first. Whoever sends a second one does not want to wait.
fn watch_signals() -> io::Result<Arc<AtomicBool>> {
    let seen = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 130, Arc::clone(&seen))?;
        flag::register(signal, Arc::clone(&seen))?;
    }
    Ok(seen)
}

fn ready(admin: SocketAddr) -> bool {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(2)))
        .proxy(None)
        .build()
        .new_agent();
    agent.get(format!("http://{admin}/readyz")).call().is_ok()
}
