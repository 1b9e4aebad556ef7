//! Connections that are nobody's: they send what no client should, or nothing.
//!
//! Each blocks its thread for as long as it says at most. What the server answers is not judged here:
//! that no user notices is what counts, and the suites of the edge know each answer.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::SmallRng;

use crate::Roster;
use crate::frames::{Riding, write_hello, write_ping};
use crate::websocket::{opcode, read_header, read_upgrade, write_masked, write_upgrade};

const PATIENCE: Duration = Duration::from_secs(2);
/// Above every limit of a server.
const OVERSIZED_BYTES: usize = 2 << 20;
const GARBAGE_BYTES_MAX: usize = 4096;

/// A connection to be misused.
#[derive(Debug)]
pub(super) struct Intruder {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Intruder {
    /// A connection on which nothing was said.
    pub(super) fn connect(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            bytes: Vec::new(),
        })
    }

    /// And the WebSocket is open.
    pub(super) fn upgraded(server: SocketAddr) -> io::Result<Self> {
        let mut this = Self::connect(server)?;
        let mut request = Vec::new();
        write_upgrade(&mut request, &server.to_string(), "/v1/ws");
        this.stream.write_all(&request)?;
        loop {
            match read_upgrade(&this.bytes) {
                Ok(Some(end)) => {
                    this.bytes.drain(..end);
                    return Ok(this);
                }
                Ok(None) => this.more()?,
                Err(why) => return Err(io::Error::other(why)),
            }
        }
    }

    /// And the roster's first user is signed in.
    pub(super) fn signed_in(server: SocketAddr, roster: &Roster) -> io::Result<Self> {
        let mut this = Self::upgraded(server)?;
        let mut hello = Vec::new();
        write_hello(&mut hello, roster, 0, Riding::default());
        this.stream.write_all(&hello)?;
        this.until("welcome")?;
        Ok(this)
    }

    fn more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.bytes.extend_from_slice(&buffer[..read]);
                Ok(())
            }
        }
    }

    /// Reads frames until one of this type has come.
    fn until(&mut self, kind: &str) -> io::Result<()> {
        let kind = format!("\"type\":\"{kind}\"");
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            while let Some(header) = read_header(&self.bytes) {
                let end = header.head_bytes.saturating_add(header.payload_bytes);
                let Some(payload) = self.bytes.get(header.head_bytes..end) else {
                    break;
                };
                let found = String::from_utf8_lossy(payload).contains(&kind);
                self.bytes.drain(..end);
                if found {
                    return Ok(());
                }
            }
            self.more()?;
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Reads to the end. Whether the server has ended it in time.
    fn ended_by_server(mut self) -> bool {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            match self.more() {
                Ok(()) => self.bytes.clear(),
                Err(e) => return !matches!(e.kind(), io::ErrorKind::WouldBlock),
            }
        }
        false
    }
}

/// Sends a ping a byte at a time for so long. Tells whether it was answered.
pub(super) fn dribble(
    server: SocketAddr,
    roster: Option<&Roster>,
    lasts: Duration,
) -> io::Result<bool> {
    let mut intruder = match roster {
        Some(roster) => Intruder::signed_in(server, roster)?,
        None => Intruder::upgraded(server)?,
    };
    let mut frame = Vec::new();
    write_ping(&mut frame);
    let pause = lasts / u32::try_from(frame.len()).unwrap_or(1);
    for byte in &frame {
        intruder.stream.write_all(&[*byte])?;
        std::thread::sleep(pause);
    }
    Ok(roster.is_none() || intruder.until("pong").is_ok())
}

/// One connection of rubbish. Tells what it was.
pub(super) fn garbage(
    server: SocketAddr,
    roster: Option<&Roster>,
    random: &mut SmallRng,
) -> io::Result<&'static str> {
    let mut rubbish = vec![0; random.random_range(1..GARBAGE_BYTES_MAX)];
    random.fill(&mut rubbish[..]);
    let way = random.random_range(0..6);
    let mut intruder = match (way, roster) {
        (0, _) => Intruder::connect(server)?,
        (_, Some(roster)) if random.random_bool(0.5) => Intruder::signed_in(server, roster)?,
        _ => Intruder::upgraded(server)?,
    };
    let mut out = Vec::new();
    let what = match way {
        0 => {
            out = rubbish;
            "no HTTP"
        }
        1 => {
            out = rubbish;
            "no WebSocket"
        }
        2 => {
            write_masked(&mut out, opcode::TEXT, |out| out.extend(&rubbish));
            "no text"
        }
        3 => {
            // 3 to 7 are reserved, and so are 11 to 15.
            write_masked(&mut out, 3 + random.random_range(0..5), |out| {
                out.extend(&rubbish);
            });
            "an opcode that does not exist"
        }
        4 => {
            write_ping(&mut out);
            let half = random.random_range(1..out.len());
            out.truncate(half);
            "half a frame"
        }
        _ => {
            write_masked(&mut out, opcode::TEXT, |out| {
                out.extend(br#"{"type":"send","id":{"no":"id"},"to":[[[[["#);
            });
            "no frame of the protocol"
        }
    };
    // The server may have closed in the middle of it, as it should.
    let _ = intruder.stream.write_all(&out);
    Ok(what)
}

/// A message above every limit, in one frame or in many without an end. Tells whether the server has
/// ended the connection.
pub(super) fn oversized(server: SocketAddr, fragments: bool) -> io::Result<bool> {
    let mut intruder = Intruder::upgraded(server)?;
    let piece = vec![b'x'; OVERSIZED_BYTES / 64];
    let mut out = Vec::new();
    if fragments {
        for number in 0..64 {
            let kind = if number == 0 {
                opcode::TEXT
            } else {
                opcode::CONTINUATION
            };
            let start = out.len();
            write_masked(&mut out, kind, |out| out.extend(&piece));
            // It is never the last one.
            out[start] &= 0x0f;
        }
    } else {
        write_masked(&mut out, opcode::TEXT, |out| {
            for _ in 0..64 {
                out.extend(&piece);
            }
        });
    }
    // It closes before it has read all of this.
    let _ = intruder.stream.write_all(&out);
    Ok(intruder.ended_by_server())
}

/// Opens connections until the server takes no more, or `most` are open, and holds them.
pub(super) fn crowd(server: SocketAddr, most: usize) -> Vec<Intruder> {
    let mut held = Vec::new();
    while held.len() < most {
        match Intruder::upgraded(server) {
            Ok(intruder) => held.push(intruder),
            Err(_) => break,
        }
    }
    held
}
