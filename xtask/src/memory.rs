//! `cargo xtask memory`: resident memory of the server for each idle, authenticated connection.
//!
//! Starts the release binary, creates one user a connection, signs them all
//! in, waits until nothing moves, and compares the resident set with the one
//! before. Loopback; clients live in this process, so that only the server's
//! side counts. Bounded: `--connections` sockets, a deadline on every step.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::json;

use crate::server::Server;

/// Connections opened before the baseline is taken, so that what the first of them cost once
/// (threads, pools, tables) is not charged to the rest.
const WARM_UP: usize = 200;

/// Measures resident memory for each idle connection.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Connections to open, each of a user of its own.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Connect by TLS (1.3, with a certificate made for the occasion).
    #[arg(long)]
    tls: bool,
    /// The server to measure; built with `cargo build --release` when absent.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Fail when a connection takes more than this many bytes.
    #[arg(long)]
    bytes_max: Option<u64>,
}

/// Keeps a connection open.
#[allow(dead_code, reason = "held, not looked at")]
enum Held {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// Runs the measurement and prints it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let server = Server::start(args.binary.as_deref(), args.tls)?;
    let tls = server.tls_client()?;
    let tokens: Vec<String> = (0..args.connections + WARM_UP)
        .map(|n| server.user_with_token(&format!("user{n}")))
        .collect::<Result<_>>()?;
    let mut held = Vec::with_capacity(tokens.len());
    for token in &tokens[..WARM_UP] {
        held.push(open(&server, tls.as_ref(), token)?);
    }
    let before = server.settled_rss()?;
    let started = Instant::now();
    for token in &tokens[WARM_UP..] {
        held.push(open(&server, tls.as_ref(), token)?);
    }
    let took = started.elapsed();
    let after = server.settled_rss()?;
    let each = after.saturating_sub(before) / args.connections.max(1) as u64;
    let with = if args.tls { "TLS included" } else { "no TLS" };
    println!("connections        {}", args.connections);
    println!(
        "resident before    {} KiB ({WARM_UP} connections)",
        before / 1024
    );
    println!("resident after     {} KiB", after / 1024);
    println!("for each           {each} bytes, session included, {with}");
    println!("signed in within   {:.1} s", took.as_secs_f64());
    if let Some(bytes_max) = args.bytes_max {
        ensure!(each <= bytes_max, "{each} bytes are more than {bytes_max}");
    }
    Ok(())
}

fn open(server: &Server, tls: Option<&Arc<ClientConfig>>, token: &str) -> Result<Held> {
    match tls {
        None => {
            let mut socket = server.connect()?;
            sign_in(&mut socket, token)?;
            Ok(Held::Plain(socket))
        }
        Some(config) => {
            let mut socket = Box::new(server.connect_tls(config)?);
            sign_in(&mut socket, token)?;
            Ok(Held::Tls(socket))
        }
    }
}

/// Opens a WebSocket by hand and waits for `welcome`; the socket then stays as it is.
fn sign_in(socket: &mut (impl Read + Write), token: &str) -> Result<()> {
    let hello = json!({"type": "hello", "token": token, "device": "phone"}).to_string();
    let mut request = b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
          Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
          Sec-WebSocket-Protocol: stonechat.v1.json\r\n\r\n"
        .to_vec();
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
            return Ok(());
        }
        if text.contains("\"type\":\"error\"") {
            bail!("refused: {text}");
        }
    }
}
