//! The processes under measurement: the server, and the bare relay it is compared with.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use stonechat_swarm::Admin;
use tempfile::TempDir;

use super::{Common, disk, target_dir};

const READY_WITHIN: Duration = Duration::from_secs(120);
/// As good as none: benchmarks measure the server, not its rate limits.
const UNLIMITED: &str = "4294967295";

/// A directory for one run, on a real disk.
pub(crate) fn work_dir(common: &Common) -> Result<TempDir> {
    let parent = match &common.data_dir {
        Some(dir) => dir.clone(),
        None => target_dir()?.join("bench"),
    };
    fs::create_dir_all(&parent)?;
    disk::check_real(&parent)?;
    Ok(tempfile::Builder::new().prefix("run-").tempdir_in(parent)?)
}

/// A process that ends with its handle.
#[derive(Debug)]
pub(crate) struct Running(pub(super) Child);

impl Running {
    pub(crate) fn new(child: Child) -> Self {
        Self(child)
    }

    /// How it ended, when it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) process: Running,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: Admin,
    log: PathBuf,
}

#[derive(Deserialize)]
struct NodeFile {
    pid: u32,
    listen: SocketAddr,
    admin_listen: SocketAddr,
}

impl Server {
    /// Starts a server on the data in `dir` and waits until it is ready.
    pub(crate) fn start(common: &Common, dir: &Path, settings: &[&str]) -> Result<Self> {
        Self::start_under(&[], common, dir, settings)
    }

    /// The same with the server run by another program, which is to keep its pid.
    pub(crate) fn start_under(
        runner: &[&str],
        common: &Common,
        dir: &Path,
        settings: &[&str],
    ) -> Result<Self> {
        let binary = match &common.binary {
            Some(binary) => binary.clone(),
            None => std::env::current_exe()?.with_file_name("stonechat"),
        };
        let data = dir.join("data");
        let log = dir.join("server.log");
        // A file of an earlier process would tell old ports.
        let _ = fs::remove_file(data.join("node.json"));
        let mut command = on_cpus(runner, &binary, common.server_cpus.as_deref());
        command
            .args([
                "serve",
                // Should this process be killed, the pipe below ends with it, and the server too.
                "--exit-with-parent",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
            ])
            .arg("--data-dir")
            .arg(&data)
            .args(["--set", &format!("server.workers={}", common.workers)]);
        for limit in [
            "messages_per_s",
            "messages_burst",
            "bytes_per_s",
            "bytes_burst",
        ] {
            command.args(["--set", &format!("limits.{limit}={UNLIMITED}")]);
        }
        for setting in settings {
            command.args(["--set", setting]);
        }
        for setting in &common.settings {
            command.args(["--set", setting]);
        }
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("STONECHAT_") {
                command.env_remove(name);
            }
        }
        for pair in &common.server_env {
            let (name, value) = pair
                .split_once('=')
                .context("--server-env takes NAME=VALUE")?;
            command.env(name, value);
        }
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(&log)?)
            .spawn()
            .with_context(|| format!("{} cannot be started", binary.display()))?;
        let mut process = Running(child);
        let node = wait_for_node(&mut process, &data, &log)?;
        if common.hold {
            let pid = process.pid();
            eprintln!("the server is process {pid}; press enter to go on");
            std::io::stdin().read_line(&mut String::new())?;
        }
        let secret = fs::read_to_string(data.join("admin.secret"))?;
        Ok(Self {
            process,
            listen: node.listen,
            admin: Admin {
                base: format!("http://{}/admin/v1", node.admin_listen),
                bearer: format!("Bearer {}", secret.trim()),
            },
            log,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// One figure of `/metrics`.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let url = self.admin.base.replace("/admin/v1", "/metrics");
        let text = ureq::get(url).call()?.body_mut().read_to_string()?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.with_context(|| format!("the server tells no {name}"))?;
        Ok(value.trim().parse()?)
    }

    /// Fails when the server had something to complain about.
    pub(crate) fn check_log(&self) -> Result<()> {
        let log = fs::read_to_string(&self.log)?;
        if let Some(line) = log.lines().find(|line| line.contains("ERROR")) {
            bail!("the server's log has: {line}");
        }
        Ok(())
    }
}

fn wait_for_node(process: &mut Running, data: &Path, log: &Path) -> Result<NodeFile> {
    let until = Instant::now() + READY_WITHIN;
    loop {
        if let Ok(text) = fs::read_to_string(data.join("node.json"))
            && let Ok(node) = serde_json::from_str::<NodeFile>(&text)
            && node.pid == process.pid()
        {
            return Ok(node);
        }
        if let Some(status) = process.0.try_wait()? {
            let log = fs::read_to_string(log).unwrap_or_default();
            bail!("the server ended with {status}:\n{log}");
        }
        ensure!(Instant::now() < until, "the server did not get ready");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn on_cpus(runner: &[&str], program: &Path, cpus: Option<&str>) -> Command {
    let mut words: Vec<&OsStr> = Vec::new();
    if let Some(cpus) = cpus {
        // It becomes the program, so the pid stays.
        words.extend(["taskset", "-c", cpus].map(OsStr::new));
    }
    words.extend(runner.iter().map(OsStr::new));
    words.push(program.as_os_str());
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

/// Starts the bare relay.
pub(crate) fn floor(users: usize) -> Result<(Running, SocketAddr)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["floor-relay", "--users", &users.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().context("standard output is piped")?;
    let running = Running(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let listen = line.trim().parse();
    Ok((running, listen.context("the bare relay told no address")?))
}
