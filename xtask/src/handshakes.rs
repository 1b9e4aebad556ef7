//! `cargo xtask handshakes`: what a TLS handshake costs the server, a full one
//! and a resumed one.
//!
//! One client connects, asks for `/` and closes, again and again: over plain
//! TCP, over TLS without a ticket, over TLS with the ticket of the connection
//! before. The difference to plain TCP is the handshake. Processor time of the
//! server process alone.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind};

use crate::server::Server;

/// Measures the processor time of TLS handshakes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Handshakes of each kind.
    #[arg(long, default_value_t = 2_000)]
    count: u32,
    /// The server to measure; built with `cargo build --release` when absent.
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// Runs the measurement and prints it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let count = args.count.max(1);
    let plain = {
        let server = Server::start(args.binary.as_deref(), false)?;
        cost(&server, count, || ask(&mut server.connect()?))?
    };
    let server = Server::start(args.binary.as_deref(), true)?;
    let resuming = server.tls_client()?.expect("it was started with TLS");
    let full = cost(&server, count, || {
        // Takes tickets as any client does, and has none to show.
        let mut config = ClientConfig::clone(&resuming);
        config.resumption = Resumption::in_memory_sessions(4);
        once(&server, &Arc::new(config), HandshakeKind::Full)
    })?;
    once(&server, &resuming, HandshakeKind::Full)?;
    let resumed = cost(&server, count, || {
        once(&server, &resuming, HandshakeKind::Resumed)
    })?;
    let us = |cost: Duration| cost.as_secs_f64() * 1e6;
    println!("a connection with one request and its answer, {count} of each:");
    println!("plain TCP          {:6.0} us", us(plain));
    for (name, cost) in [("full handshake", full), ("resumed handshake", resumed)] {
        let more = us(cost) - us(plain);
        println!("{name:18} {:6.0} us, {more:.0} us of them TLS", us(cost));
    }
    Ok(())
}

/// Processor time of the server for one turn.
fn cost(server: &Server, count: u32, mut turn: impl FnMut() -> Result<()>) -> Result<Duration> {
    for _ in 0..count.min(100) {
        turn()?;
    }
    let before = server.cpu()?;
    for _ in 0..count {
        turn()?;
    }
    Ok((server.cpu()? - before) / count)
}

fn once(server: &Server, config: &Arc<ClientConfig>, expected: HandshakeKind) -> Result<()> {
    let mut socket = server.connect_tls(config)?;
    ask(&mut socket)?;
    let kind = socket.conn.handshake_kind();
    ensure!(
        kind == Some(expected),
        "{expected:?} was wanted, the handshake was {kind:?}"
    );
    Ok(())
}

fn ask(socket: &mut (impl Read + Write)) -> Result<()> {
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = [0; 2048];
    let mut length = 0;
    // To the end of the text, which is its only line feed by itself.
    while !answer[..length].ends_with(b"json.\n") {
        let read = socket.read(&mut answer[length..])?;
        ensure!(read > 0, "the server closed before its answer was complete");
        length += read;
    }
    Ok(())
}
