//! `cargo xtask memory`: resident memory of the server for each idle, authenticated connection.
//!
//! Starts the release binary on free ports in a temporary directory, creates
//! one user a connection, signs them all in, waits until nothing moves, and
//! compares the resident set with the one before. Plain TCP, loopback. Bounded:
//! `--connections` sockets, a deadline on every step.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::json;

/// How long any single step may take.
const STEP_DEADLINE: Duration = Duration::from_secs(60);
/// Connections opened before the baseline is taken, so that what the first of them cost once
/// (threads, pools, tables) is not charged to the rest.
const WARM_UP: usize = 200;

/// Measures resident memory for each idle connection.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Connections to open, each of a user of its own.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// The server to measure; built with `cargo build --release` when absent.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Fail when a connection takes more than this many bytes.
    #[arg(long)]
    bytes_max: Option<u64>,
}

#[derive(Deserialize)]
struct NodeFile {
    listen: String,
    admin_listen: String,
}

/// Ends the server by its own handle, whatever happens.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the measurement and prints it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => build()?,
    };
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let server = start(&binary, &data, args.connections + WARM_UP)?;
    let node = wait_for_node(&data)?;
    let secret = std::fs::read_to_string(data.join("admin.secret"))?;
    let admin = Admin {
        base: format!("http://{}/admin/v1", node.admin_listen),
        bearer: format!("Bearer {}", secret.trim()),
    };
    let pid = server.0.id();

    let tokens: Vec<String> = (0..args.connections + WARM_UP)
        .map(|n| admin.user_with_token(&format!("user{n}")))
        .collect::<Result<_>>()?;
    let mut sockets = Vec::with_capacity(tokens.len());
    for token in &tokens[..WARM_UP] {
        sockets.push(sign_in(&node.listen, token)?);
    }
    let before = settled_rss(pid)?;
    let started = Instant::now();
    for token in &tokens[WARM_UP..] {
        sockets.push(sign_in(&node.listen, token)?);
    }
    let took = started.elapsed();
    let after = settled_rss(pid)?;
    let each = after.saturating_sub(before) / args.connections.max(1) as u64;
    println!("connections        {}", args.connections);
    println!(
        "resident before    {} KiB ({WARM_UP} connections)",
        before / 1024
    );
    println!("resident after     {} KiB", after / 1024);
    println!("for each           {each} bytes, session included, no TLS");
    println!("signed in within   {:.1} s", took.as_secs_f64());
    if let Some(bytes_max) = args.bytes_max {
        ensure!(each <= bytes_max, "{each} bytes are more than {bytes_max}");
    }
    Ok(())
}

fn build() -> Result<PathBuf> {
    let status = Command::new("cargo")
        .args(["build", "--release", "--package", "stonechat"])
        .status()?;
    ensure!(status.success(), "the server could not be built");
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let target = metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target directory")?;
    Ok(Path::new(target).join("release/stonechat"))
}

fn start(binary: &Path, data: &Path, users: usize) -> Result<Server> {
    let child = Command::new(binary)
        .arg("serve")
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| {
            format!(
                "{} could not be started for {users} users",
                binary.display()
            )
        })?;
    Ok(Server(child))
}

fn wait_for_node(data: &Path) -> Result<NodeFile> {
    let deadline = Instant::now() + STEP_DEADLINE;
    loop {
        if let Ok(text) = std::fs::read_to_string(data.join("node.json"))
            && let Ok(node) = serde_json::from_str(&text)
        {
            return Ok(node);
        }
        ensure!(Instant::now() < deadline, "the server did not get ready");
        std::thread::sleep(Duration::from_millis(20));
    }
}

struct Admin {
    base: String,
    bearer: String,
}

impl Admin {
    fn post(&self, path: &str, body: &serde_json::Value) -> Result<serde_json::Value> {
        let mut answer = ureq::post(format!("{}{path}", self.base))
            .header("Authorization", &self.bearer)
            .send_json(body)?;
        Ok(answer.body_mut().read_json()?)
    }

    fn user_with_token(&self, user: &str) -> Result<String> {
        self.post("/users", &json!({ "user": user }))?;
        let issued = self.post(&format!("/users/{user}/tokens"), &json!({}))?;
        let token = issued["token"].as_str();
        Ok(token.context("the admin API gave no token")?.to_owned())
    }
}

/// Opens a WebSocket by hand and waits for `welcome`; the socket then stays as it is.
fn sign_in(listen: &str, token: &str) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(listen)?;
    socket.set_read_timeout(Some(STEP_DEADLINE))?;
    let hello = json!({"type": "hello", "token": token, "device": "phone"}).to_string();
    let mut request = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {listen}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
         Sec-WebSocket-Protocol: stonechat.v1.json\r\n\r\n"
    )
    .into_bytes();
    // A masked text frame; a mask of zeros leaves the payload as it is.
    let length = u16::try_from(hello.len())?;
    request.extend_from_slice(&[0x81, 0x80 | 126]);
    request.extend_from_slice(&length.to_be_bytes());
    request.extend_from_slice(&[0; 4]);
    request.extend_from_slice(hello.as_bytes());
    socket.write_all(&request)?;
    let mut seen = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        let read = socket.read(&mut buffer)?;
        ensure!(
            read > 0,
            "the server closed: {}",
            String::from_utf8_lossy(&seen)
        );
        seen.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&seen);
        if text.contains("\"type\":\"welcome\"") {
            return Ok(socket);
        }
        if text.contains("\"type\":\"error\"") {
            bail!("refused: {text}");
        }
    }
}

/// The resident set once it has stopped moving by more than 1 % for a second.
fn settled_rss(pid: u32) -> Result<u64> {
    let deadline = Instant::now() + STEP_DEADLINE;
    let mut last = rss_bytes(pid)?;
    let mut calm = 0;
    while calm < 5 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(200));
        let now = rss_bytes(pid)?;
        calm = if now.abs_diff(last) * 100 <= last {
            calm + 1
        } else {
            0
        };
        last = now;
    }
    Ok(last)
}

fn rss_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}
