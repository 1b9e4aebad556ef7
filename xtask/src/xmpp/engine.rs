//! The loop: one thread, one poller, all connections.

use std::collections::BinaryHeap;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};

use super::connection::{Connection, Phase, Shared, Timer, User};
use super::scan::Piece;
use crate::load::{Hand, Work};

const EVENTS_MAX: usize = 1024;
const READ_BYTES: usize = 256 * 1024;
/// The longest sleep: whoever waits for a condition looks again after it.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// Connections under way to being signed in at the same time.
const UNDER_WAY_MAX: usize = 128;

/// How an engine speaks to its server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Where the server listens.
    pub(crate) server: SocketAddr,
    /// Manage streams (XEP-0198): every message is answered for, in both directions.
    pub(crate) acks: bool,
}

/// What was seen so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Users that have been signed in, in all.
    pub(crate) open: u64,
    pub(crate) under_way: usize,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

/// Simulated users and their connections.
#[derive(Debug)]
pub(crate) struct Engine {
    poll: Poll,
    connections: Vec<Connection>,
    shared: Shared,
    buffer: Vec<u8>,
    server: SocketAddr,
    to_connect: Range<u32>,
}

impl Engine {
    /// An engine for so many users; none is connected yet.
    pub(crate) fn new(users: usize, options: Options) -> Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            connections: (0..users).map(|_| Connection::new()).collect(),
            shared: Shared {
                now_us: 0,
                acks: options.acks,
                dirty: Vec::new(),
                timers: BinaryHeap::new(),
                counts: Counts::default(),
            },
            buffer: vec![0; READ_BYTES],
            server: options.server,
            to_connect: 0..0,
        })
    }

    /// The engine's clock, microseconds since the Unix epoch, as of the last turn.
    pub(crate) fn now_us(&self) -> u64 {
        self.shared.now_us
    }

    /// Connects users and waits until all of them are signed in.
    pub(crate) fn connect(
        &mut self,
        users: Range<u32>,
        work: &mut dyn Work,
        within: Duration,
    ) -> Result<()> {
        let enough = self.shared.counts.open + users.len() as u64;
        self.to_connect = users;
        let until = Instant::now() + within;
        while self.shared.counts.open < enough {
            self.turn(work, until)?;
            ensure!(
                Instant::now() < until,
                "after {} s {} users are not signed in",
                within.as_secs(),
                enough - self.shared.counts.open
            );
        }
        Ok(())
    }

    /// Closes connections as a network that breaks does.
    pub(crate) fn drop_connections(&mut self, users: Range<u32>) {
        for index in users {
            let connection = &mut self.connections[index as usize];
            if connection.phase.under_way() {
                self.shared.counts.under_way -= 1;
            }
            connection.reset();
        }
    }

    /// Calls `act` for some users, and sends what it produced.
    pub(crate) fn each<W: Work>(
        &mut self,
        users: Range<u32>,
        work: &mut W,
        mut act: impl FnMut(&mut W, &mut dyn Hand) -> Result<(), String>,
    ) -> Result<()> {
        self.shared.tick();
        for index in users {
            act(work, &mut self.user(index as usize)).map_err(|what| anyhow!(what))?;
        }
        self.flush(work)
    }

    /// Runs until the work is finished, or until `until`. Tells whether it is finished.
    pub(crate) fn run(&mut self, work: &mut dyn Work, until: Instant) -> Result<bool> {
        loop {
            if work.finished() {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            self.turn(work, until)?;
        }
    }

    fn user(&mut self, index: usize) -> User<'_> {
        User {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            connection: &mut self.connections[index],
            shared: &mut self.shared,
        }
    }

    fn turn(&mut self, work: &mut dyn Work, until: Instant) -> Result<()> {
        while self.shared.counts.under_way < UNDER_WAY_MAX
            && let Some(index) = self.to_connect.next()
        {
            self.open(index as usize).context("connecting")?;
        }
        self.flush(work)?;
        self.shared.tick();
        let mut sleep = SLEEP_MAX.min(until.saturating_duration_since(Instant::now()));
        if let Some(next) = self.shared.timers.peek() {
            let due_us = next.0.0.saturating_sub(self.shared.now_us);
            sleep = sleep.min(Duration::from_micros(due_us));
        }
        let mut events = Events::with_capacity(EVENTS_MAX);
        if let Err(e) = self.poll.poll(&mut events, Some(sleep))
            && e.kind() != io::ErrorKind::Interrupted
        {
            return Err(e).context("waiting for events");
        }
        for event in &events {
            let index = event.token().0;
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.readable(index, work)?;
            }
            if event.is_writable() && self.connections[index].stuck() {
                self.write(index, work)?;
            }
        }
        self.fire(work)?;
        self.flush(work)
    }

    fn open(&mut self, index: usize) -> Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // EINPROGRESS is what is expected; what has failed is told when the socket is used.
        let _ = socket.connect(&self.server.into());
        let mut stream = mio::net::TcpStream::from_std(socket.into());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, Token(index), interest)?;
        self.connections[index].stream = Some(stream);
        self.shared.counts.under_way += 1;
        self.user(index).begin(Phase::Opening);
        Ok(())
    }

    /// Reads until the socket is empty.
    fn readable(&mut self, index: usize, work: &mut dyn Work) -> Result<()> {
        loop {
            let connection = &mut self.connections[index];
            let (false, Some(stream)) = (connection.paused, &mut connection.stream) else {
                return Ok(());
            };
            match stream.read(&mut self.buffer) {
                Ok(0) => return self.ended(index, work, "closed by the server"),
                Ok(read) => {
                    self.shared.tick();
                    self.shared.counts.bytes_in += read as u64;
                    self.take_in(index, read, work)?;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return self.ended(index, work, &e.to_string()),
            }
        }
    }

    fn take_in(&mut self, index: usize, read: usize, work: &mut dyn Work) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let mut partial = std::mem::take(&mut self.connections[index].partial);
        let result = if partial.is_empty() {
            let used = self.pieces(index, &buffer[..read], work);
            if let Ok(used) = used {
                partial.extend_from_slice(&buffer[used..read]);
            }
            used.map(drop)
        } else {
            partial.extend_from_slice(&buffer[..read]);
            let used = self.pieces(index, &partial, work);
            if let Ok(used) = used {
                partial.drain(..used);
            }
            used.map(drop)
        };
        self.buffer = buffer;
        if !partial.is_empty() {
            self.connections[index].partial = partial;
        }
        result
    }

    /// Takes in all whole pieces; returns how many bytes they were.
    fn pieces(&mut self, index: usize, bytes: &[u8], work: &mut dyn Work) -> Result<usize> {
        let mut used = 0;
        loop {
            let mut user = self.user(index);
            let next = user.connection.scanner.next(&bytes[used..]);
            let next = next.with_context(|| format!("user {index}"))?;
            let Some((piece, length)) = next else {
                return Ok(used);
            };
            used += length;
            let taken = match piece {
                Piece::Start | Piece::End => Ok(()),
                Piece::Element(element) if element.starts_with(b"<stream:error") => {
                    let why = String::from_utf8_lossy(element).into_owned();
                    work.on_end(&mut user, &why)
                }
                Piece::Element(element) => user.take(element, work),
            };
            taken.map_err(|what| anyhow!("user {index}: {what}"))?;
        }
    }

    fn write(&mut self, index: usize, work: &mut dyn Work) -> Result<()> {
        match self.connections[index].flush(&mut self.shared) {
            Ok(()) => Ok(()),
            Err(e) => self.ended(index, work, &e.to_string()),
        }
    }

    fn flush(&mut self, work: &mut dyn Work) -> Result<()> {
        for index in std::mem::take(&mut self.shared.dirty) {
            self.write(index as usize, work)?;
        }
        Ok(())
    }

    fn fire(&mut self, work: &mut dyn Work) -> Result<()> {
        self.shared.tick();
        while let Some(next) = self.shared.timers.peek() {
            let (due_us, index, timer) = next.0;
            if due_us > self.shared.now_us {
                break;
            }
            self.shared.timers.pop();
            match timer {
                Timer::Resume => {
                    self.connections[index as usize].paused = false;
                    // Its event has come and gone.
                    self.readable(index as usize, work)?;
                }
                Timer::Work => {
                    let mut user = self.user(index as usize);
                    work.on_timer(&mut user).map_err(|what| anyhow!(what))?;
                }
            }
        }
        Ok(())
    }

    fn ended(&mut self, index: usize, work: &mut dyn Work, why: &str) -> Result<()> {
        if self.connections[index].phase.under_way() {
            self.shared.counts.under_way -= 1;
        }
        self.connections[index].reset();
        let mut user = self.user(index);
        let ended = work.on_end(&mut user, why);
        ended.map_err(|what| anyhow!("user {index}: {what}"))
    }
}
