//! `cargo xtask tls-tunnel`: takes plain connections on loopback and carries each over TLS to a server,
//! so that load clients that know no TLS can put load on one that does.
//!
//! A process of its own, so that its descriptors and its time are not the load generator's. What comes
//! in one read leaves in one TLS record, as a client that encrypts itself would write it. It trusts the
//! one certificate it is given.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

const LISTENER: Token = Token(usize::MAX);
/// A whole record of TLS.
const READ_BYTES: usize = 16 * 1024;
/// What one side has not taken yet, before the other side is not read any more.
const WAITING_MAX: usize = 256 * 1024;

/// Runs until it is killed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the TLS server listens.
    #[arg(long)]
    to: SocketAddr,
    /// Its certificate, DER.
    #[arg(long)]
    certificate: PathBuf,
}

/// One connection: a client's plain socket, and the encrypted one to the server.
struct Link {
    plain: TcpStream,
    server: TcpStream,
    tls: ClientConnection,
    /// For the client, not yet taken.
    down: Vec<u8>,
}

/// Listens on a free port and tells it on standard output.
pub(crate) fn run(args: &Args) -> Result<()> {
    let certificate = CertificateDer::from(std::fs::read(&args.certificate)?);
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("{}", listener.local_addr()?);
    let mut links: HashMap<usize, Link> = HashMap::new();
    let mut next = 0;
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        if let Err(e) = poll.poll(&mut events, None)
            && e.kind() != io::ErrorKind::Interrupted
        {
            return Err(e.into());
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((plain, _)) = listener.accept() {
                    let link = open(plain, args.to, &config, poll.registry(), next)?;
                    links.insert(next, link);
                    next += 1;
                }
                continue;
            }
            let number = event.token().0 / 2;
            // Both ends of a link are looked at: what one takes, the other may be waiting to give.
            if let Some(link) = links.get_mut(&number)
                && link.turn(&mut buffer).is_err()
            {
                links.remove(&number);
            }
        }
    }
}

fn open(
    mut plain: TcpStream,
    to: SocketAddr,
    config: &Arc<ClientConfig>,
    registry: &Registry,
    number: usize,
) -> Result<Link> {
    let mut server = TcpStream::connect(to).context("the server takes no connection")?;
    plain.set_nodelay(true)?;
    let both = Interest::READABLE | Interest::WRITABLE;
    registry.register(&mut plain, Token(number * 2), both)?;
    registry.register(&mut server, Token(number * 2 + 1), both)?;
    let name = ServerName::try_from("localhost")?;
    Ok(Link {
        plain,
        server,
        tls: ClientConnection::new(Arc::clone(config), name)?,
        down: Vec::new(),
    })
}

impl Link {
    /// Moves what can be moved, both ways. An error is the end of the link.
    fn turn(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            let mut moved = self.up(buffer)?;
            moved |= self.down(buffer)?;
            if !moved {
                return Ok(());
            }
        }
    }

    /// From the client to the server.
    fn up(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut moved = false;
        while !self.tls.is_handshaking() && !self.tls.wants_write() {
            let Some(read) = some(self.plain.read(buffer))? else {
                break;
            };
            self.tls.writer().write_all(&buffer[..read])?;
            moved = true;
            self.put()?;
        }
        self.put()?;
        Ok(moved)
    }

    /// Writes records to the server, as far as its socket takes them.
    fn put(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.server) {
                Ok(_) => {
                    let _ = self.server.set_nodelay(true);
                }
                Err(e) if waits(&e) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// From the server to the client.
    fn down(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut moved = false;
        let full = self.down.len() >= WAITING_MAX;
        while self.down.len() < WAITING_MAX {
            match self.tls.read_tls(&mut self.server) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(e) if waits(&e) => break,
                Err(e) => return Err(e),
            }
            let state = self.tls.process_new_packets();
            state.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            while let Some(read) = some(self.tls.reader().read(buffer))? {
                self.down.extend_from_slice(&buffer[..read]);
            }
            moved = true;
        }
        while !self.down.is_empty() {
            match self.plain.write(&self.down) {
                Ok(written) => drop(self.down.drain(..written)),
                Err(e) if waits(&e) => break,
                Err(e) => return Err(e),
            }
        }
        // Of what the server has sent meanwhile there is no second event.
        moved |= full && self.down.len() < WAITING_MAX;
        if self.down.is_empty() {
            self.down = Vec::new();
        }
        Ok(moved)
    }
}

/// What was read; nothing when there is nothing now, an error at the end.
fn some(read: io::Result<usize>) -> io::Result<Option<usize>> {
    match read {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(read) => Ok(Some(read)),
        Err(e) if waits(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

fn waits(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected | io::ErrorKind::Interrupted
    )
}
