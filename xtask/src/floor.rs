//! `cargo xtask floor-relay`: the least a relay can do, for benchmarks to compare with.
//!
//! A current-thread tokio runtime, one task a connection. It takes a `send` off its sender's socket
//! and puts a `message` with the same body, of the size the server's would have, on the partner's
//! socket; what arrives in one read leaves in one write. No actors, no disk, no sign-in, no answers,
//! no acknowledgements, no checks: users are who they say they are, and users 2n and 2n+1 are
//! partners. Never use it for anything else.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use anyhow::{Context as _, Result};
use memchr::memmem;
use stonechat_swarm::{ACCEPT, opcode, read_header, write_header};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

const READ_BYTES: usize = 64 * 1024;
/// What names of users start with; their number follows.
const PREFIX: &[u8] = b"u";
const WELCOME: &[u8] = br#"{"type":"welcome","user":"u","device":"d","session":"s","server_time_ms":0,"heartbeat_ms":3600000,"pending":0,"limits":{"unaccepted_max":64,"unacked_max":256,"body_bytes_max":65536,"frame_bytes_max":73728,"ttl_s_max":2592000,"devices_max":16}}"#;

/// Runs the bare relay until it is killed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Users there may be.
    #[arg(long, default_value_t = 20_000)]
    users: usize,
}

/// One connection, as its partner sees it.
struct Peer {
    stream: TcpStream,
    /// What its socket would not take at once.
    out: RefCell<Vec<u8>>,
    more: Notify,
}

type Peers = Rc<RefCell<Vec<Option<Rc<Peer>>>>>;

/// One connection, as its own task sees it.
struct Link {
    peer: Rc<Peer>,
    peers: Peers,
    me: usize,
    partner: Option<Rc<Peer>>,
    upgraded: bool,
    signed_in: bool,
    seq: u64,
}

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
    static WRITE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Listens on a free port and tells it on standard output.
pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let peers: Peers = Rc::new(RefCell::new((0..args.users).map(|_| None).collect()));
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let link = Link::new(stream, Rc::clone(&peers));
            tokio::task::spawn_local(async move {
                // A connection that breaks is the end of a benchmark, not an error.
                if let Err(e) = link.serve().await
                    && !e.is::<io::Error>()
                {
                    eprintln!("{e:#}");
                }
            });
        }
    })
}

impl Link {
    fn new(stream: TcpStream, peers: Peers) -> Self {
        Self {
            peer: Rc::new(Peer {
                stream,
                out: RefCell::default(),
                more: Notify::new(),
            }),
            peers,
            me: 0,
            partner: None,
            upgraded: false,
            signed_in: false,
            seq: 0,
        }
    }

    async fn serve(mut self) -> Result<()> {
        let peer = Rc::clone(&self.peer);
        let mut partial = Vec::new();
        loop {
            tokio::select! {
                ready = peer.stream.readable() => {
                    ready?;
                    if !READ.with_borrow_mut(|buffer| self.read(buffer, &mut partial))? {
                        return Ok(());
                    }
                }
                () = peer.more.notified() => {
                    peer.stream.writable().await?;
                    let rest = peer.out.take();
                    put(&peer, &rest)?;
                }
            }
        }
    }

    /// Takes in what the socket has. `false` at its end.
    fn read(&mut self, buffer: &mut [u8], partial: &mut Vec<u8>) -> Result<bool> {
        let read = match self.peer.stream.try_read(buffer) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(e) => return Err(e.into()),
        };
        if partial.is_empty() {
            let used = self.take_in(&mut buffer[..read])?;
            partial.extend_from_slice(&buffer[used..read]);
        } else {
            partial.extend_from_slice(&buffer[..read]);
            let used = self.take_in(partial)?;
            partial.drain(..used);
        }
        Ok(true)
    }

    fn take_in(&mut self, bytes: &mut [u8]) -> Result<usize> {
        let mut at = 0;
        if !self.upgraded {
            let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
                return Ok(0);
            };
            at = end + 4;
            self.upgraded = true;
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
            );
            put(&self.peer, answer.as_bytes())?;
        }
        WRITE.with_borrow_mut(|out| {
            out.clear();
            while let Some(header) = read_header(&bytes[at..]) {
                let start = at + header.head_bytes;
                let end = start + header.payload_bytes;
                if end > bytes.len() {
                    break;
                }
                at = end;
                if let Some(mask) = header.mask {
                    unmask(&mut bytes[start..end], mask);
                }
                if header.opcode == opcode::TEXT {
                    self.frame(&bytes[start..end], out)?;
                }
            }
            if let (false, Some(partner)) = (out.is_empty(), &self.partner) {
                put(partner, out)?;
            }
            Ok(at)
        })
    }

    fn frame(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<()> {
        if !self.signed_in {
            return self.hello(text);
        }
        if self.partner.is_none() {
            self.partner = self.peers.borrow()[self.me ^ 1].clone();
        }
        let id = memmem::find(text, br#""id":""#).context("a send has an id")? + 6;
        let id = text.get(id..id + 36).context("an id has 36 characters")?;
        let body = memmem::find(text, br#""body":"#).context("a send has a body")? + 7;
        let body = &text[body..text.len() - 1];
        self.seq += 1;
        let head = format!(
            r#"{{"type":"message","seq":{},"id":"{}","from":{{"user":"u{}","device":"d"}},"ts_ms":1700000000000,"body":"#,
            self.seq,
            std::str::from_utf8(id)?,
            self.me,
        );
        write_header(out, opcode::TEXT, head.len() + body.len() + 1);
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body);
        out.push(b'}');
        Ok(())
    }

    /// The token is the user's name.
    fn hello(&mut self, text: &[u8]) -> Result<()> {
        let start = memmem::find(text, br#""token":""#).context("the first frame is hello")? + 9;
        let name = text[start..].split(|b| *b == b'"').next();
        let number = name.and_then(|name| name.strip_prefix(PREFIX));
        self.me = std::str::from_utf8(number.context("a name is u and a number")?)?.parse()?;
        let mut peers = self.peers.borrow_mut();
        let place = peers.get_mut(self.me).context("more users than --users")?;
        *place = Some(Rc::clone(&self.peer));
        self.signed_in = true;
        let mut out = Vec::new();
        write_header(&mut out, opcode::TEXT, WELCOME.len());
        out.extend_from_slice(WELCOME);
        put(&self.peer, &out)
    }
}

/// Writes to a peer at once, or leaves the rest to its task.
fn put(peer: &Peer, bytes: &[u8]) -> Result<()> {
    let mut waiting = peer.out.borrow_mut();
    let mut written = 0;
    if waiting.is_empty() {
        written = match peer.stream.try_write(bytes) {
            Ok(written) => written,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            Err(e) => return Err(e.into()),
        };
    }
    if written < bytes.len() {
        waiting.extend_from_slice(&bytes[written..]);
        peer.more.notify_one();
    }
    Ok(())
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let word = u64::from_ne_bytes([
        mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3],
    ]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let chunk: &mut [u8; 8] = chunk.try_into().expect("chunks of eight");
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(mask) {
        *byte ^= mask;
    }
}
