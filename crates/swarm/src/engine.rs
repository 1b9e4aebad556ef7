//! The loop: one thread, one poller, all connections of a roster.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Poll};

use crate::behaviour::Behaviour;
use crate::connection::{Connection, Phase};
use crate::precise::{self, Alarm};
use crate::shared::{Shared, Timer};
use crate::{Counts, Lateness, Roster, Sources, SwarmError, User};

mod connecting;
mod inbound;

const EVENTS_MAX: usize = 1024;
const READ_BYTES: usize = 256 * 1024;
/// The longest sleep: whoever waits for a condition looks again after it.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// How an engine speaks to its server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the server listens.
    pub server: SocketAddr,
    /// Where connections come from; what the system chooses when it is absent.
    pub sources: Option<Sources>,
    /// Connections under way to `welcome` at the same time.
    pub connecting_max: usize,
    /// Whether the server answers sends and wants acknowledgements; a bare relay does neither.
    pub answers: bool,
}

impl Options {
    /// The defaults for a server that speaks the whole protocol.
    pub fn new(server: SocketAddr) -> Self {
        Self {
            server,
            sources: Sources::for_server(server),
            connecting_max: 128,
            answers: true,
        }
    }
}

/// Simulated users and their connections.
#[derive(Debug)]
pub struct Engine {
    poll: Poll,
    alarm: Alarm,
    events: Events,
    connections: Vec<Connection>,
    shared: Shared,
    buffer: Vec<u8>,
    options: Options,
    /// Users that have yet to be connected or signed in, and how many are under way.
    to_connect: Range<u32>,
    to_sign_in: Range<u32>,
    hello_held: bool,
    connecting: usize,
    /// Sockets with nobody behind them.
    left: VecDeque<TcpStream>,
    swept_s: u32,
}

impl Engine {
    /// An engine for the users of `roster`; none is connected yet.
    ///
    /// # Errors
    /// When the system gives no poller.
    pub fn new(roster: Roster, options: Options) -> Result<Self, SwarmError> {
        let connections = (0..roster.len()).map(|_| Connection::new()).collect();
        let poll = Poll::new().map_err(SwarmError::io("making a poller"))?;
        Ok(Self {
            alarm: Alarm::new(poll.registry()).map_err(SwarmError::io("making a timer"))?,
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            connections,
            shared: Shared::new(roster, options.answers),
            buffer: vec![0; READ_BYTES],
            options,
            to_connect: 0..0,
            to_sign_in: 0..0,
            hello_held: false,
            connecting: 0,
            left: VecDeque::new(),
            swept_s: 0,
        })
    }

    /// What was seen so far.
    pub fn counts(&self) -> Counts {
        self.shared.counts
    }

    /// How late timers fired since this was asked last.
    pub fn take_lateness(&mut self) -> Lateness {
        std::mem::take(&mut self.shared.lateness)
    }

    /// The engine's clock, microseconds since the Unix epoch, as of the last turn.
    pub fn now_us(&self) -> u64 {
        self.shared.now_us
    }

    /// Sends of all users that are unanswered.
    pub fn unanswered(&self) -> usize {
        self.connections.iter().map(|c| c.unanswered.len()).sum()
    }

    /// Closes connections as they are, without a word, as a network that breaks does.
    pub fn drop_connections(&mut self, users: Range<u32>) {
        for index in users {
            let connection = &mut self.connections[index as usize];
            if connection.phase != Phase::Closed {
                if matches!(connection.phase, Phase::Upgrading | Phase::SigningIn) {
                    self.connecting -= 1;
                }
                connection.reset(&mut self.shared);
                self.shared.counts.ended += 1;
            }
        }
    }

    /// Calls `act` for some users, and sends what it produced.
    ///
    /// # Errors
    /// What `act` returns, or what writing it out returned.
    pub fn each<B: Behaviour>(
        &mut self,
        users: Range<u32>,
        behaviour: &mut B,
        mut act: impl FnMut(&mut B, &mut User<'_>) -> Result<(), String>,
    ) -> Result<(), SwarmError> {
        self.shared.tick();
        for index in users {
            let mut user = User {
                index,
                connection: &mut self.connections[index as usize],
                shared: &mut self.shared,
            };
            act(behaviour, &mut user).map_err(|what| SwarmError::Server { user: index, what })?;
        }
        self.flush(behaviour)
    }

    /// Runs until the behaviour has finished, or until `until`. Tells whether it has finished.
    ///
    /// # Errors
    /// What the behaviour returned, or what the system did.
    pub fn run<B: Behaviour>(
        &mut self,
        behaviour: &mut B,
        until: Instant,
    ) -> Result<bool, SwarmError> {
        loop {
            if behaviour.finished() {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            self.turn_until(behaviour, until)?;
        }
    }

    fn turn<B: Behaviour>(&mut self, behaviour: &mut B) -> Result<(), SwarmError> {
        self.turn_until(behaviour, Instant::now() + SLEEP_MAX)
    }

    fn turn_until<B: Behaviour>(
        &mut self,
        behaviour: &mut B,
        until: Instant,
    ) -> Result<(), SwarmError> {
        self.open_more(behaviour)?;
        self.flush(behaviour)?;
        self.shared.tick();
        let mut sleep = SLEEP_MAX.min(until.saturating_duration_since(Instant::now()));
        if let Some(next) = self.shared.timers.peek() {
            let due_us = next.0.0.saturating_sub(self.shared.now_us);
            let due = Duration::from_micros(due_us);
            if due < sleep {
                sleep = self
                    .alarm
                    .set(due)
                    .map_err(SwarmError::io("setting a timer"))?;
            }
        }
        if let Err(e) = self.poll.poll(&mut self.events, Some(sleep))
            && e.kind() != io::ErrorKind::Interrupted
        {
            return Err(SwarmError::io("waiting for events")(e));
        }
        self.shared.counts.turns += 1;
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let mut result = Ok(());
        for event in &events {
            if event.token() == precise::TOKEN {
                continue;
            }
            let index = event.token().0;
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                let closed = event.is_read_closed() || event.is_error();
                result = self.readable(index, closed, behaviour);
            }
            if result.is_ok() && event.is_writable() {
                result = self.writable(index, behaviour);
            }
            if result.is_err() {
                break;
            }
        }
        self.events = events;
        result?;
        self.fire(behaviour)?;
        self.sweep(behaviour)?;
        self.flush(behaviour)
    }

    /// Reads until the socket is empty. A short read means that it is, unless the end is to be read
    /// behind it: of that there is no second event.
    fn readable<B: Behaviour>(
        &mut self,
        index: usize,
        closed: bool,
        behaviour: &mut B,
    ) -> Result<(), SwarmError> {
        loop {
            let connection = &mut self.connections[index];
            if connection.paused {
                return Ok(());
            }
            let Some(stream) = &mut connection.stream else {
                return Ok(());
            };
            match stream.read(&mut self.buffer) {
                Ok(0) => return self.ended(index, behaviour, "closed"),
                Ok(read) => {
                    self.shared.tick();
                    self.shared.counts.reads += 1;
                    self.shared.counts.bytes_in += read as u64;
                    self.take_in(index, read, behaviour)?;
                    if read < self.buffer.len() && !closed {
                        return Ok(());
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return self.ended(index, behaviour, &e.to_string()),
            }
        }
    }

    fn writable<B: Behaviour>(
        &mut self,
        index: usize,
        behaviour: &mut B,
    ) -> Result<(), SwarmError> {
        let connection = &mut self.connections[index];
        // What is in the list is written at the end of the turn anyway.
        if connection.dirty || connection.out.is_empty() {
            return Ok(());
        }
        match connection.flush(&mut self.shared) {
            Ok(()) => Ok(()),
            Err(e) => self.ended(index, behaviour, &e.to_string()),
        }
    }

    fn flush<B: Behaviour>(&mut self, behaviour: &mut B) -> Result<(), SwarmError> {
        let mut dirty = std::mem::take(&mut self.shared.dirty);
        for &index in &dirty {
            if let Err(e) = self.connections[index as usize].flush(&mut self.shared) {
                self.ended(index as usize, behaviour, &e.to_string())?;
            }
        }
        dirty.clear();
        // Nobody but a behaviour that was just told of an end can have added to it.
        dirty.append(&mut self.shared.dirty);
        self.shared.dirty = dirty;
        Ok(())
    }

    fn fire<B: Behaviour>(&mut self, behaviour: &mut B) -> Result<(), SwarmError> {
        self.shared.tick();
        while let Some(next) = self.shared.timers.peek() {
            let (due_us, index, timer) = next.0;
            if due_us > self.shared.now_us {
                break;
            }
            self.shared.timers.pop();
            let late_us = self.shared.now_us - due_us;
            self.shared.lateness.record_us(late_us);
            let mut user = User {
                index,
                connection: &mut self.connections[index as usize],
                shared: &mut self.shared,
            };
            match timer {
                Timer::Ack => user.ack_timer(),
                Timer::Resume => {
                    user.connection.paused = false;
                    // Its event has come and gone.
                    self.readable(index as usize, true, behaviour)?;
                }
                Timer::Behaviour => behaviour
                    .on_timer(&mut user)
                    .map_err(|what| SwarmError::Server { user: index, what })?,
            }
        }
        Ok(())
    }

    /// Once a second: ask servers that have been silent for a heartbeat, give up after three.
    fn sweep<B: Behaviour>(&mut self, behaviour: &mut B) -> Result<(), SwarmError> {
        let now_s = self.shared.now_s();
        if now_s == self.swept_s {
            return Ok(());
        }
        self.swept_s = now_s;
        for index in 0..self.connections.len() {
            let connection = &mut self.connections[index];
            let silent_s = now_s.saturating_sub(connection.heard_s);
            if silent_s <= connection.heartbeat_s || connection.phase != Phase::Open {
                continue;
            }
            if silent_s > 3 * connection.heartbeat_s {
                self.ended(index, behaviour, "silent for three heartbeats")?;
            } else if !connection.asked {
                connection.asked = true;
                let out = connection.out(index as u32, &mut self.shared);
                crate::frames::write_ping(out);
            }
        }
        Ok(())
    }

    fn ended<B: Behaviour>(
        &mut self,
        index: usize,
        behaviour: &mut B,
        why: &str,
    ) -> Result<(), SwarmError> {
        let connection = &mut self.connections[index];
        if matches!(connection.phase, Phase::Upgrading | Phase::SigningIn) {
            self.connecting -= 1;
        }
        connection.reset(&mut self.shared);
        self.shared.counts.ended += 1;
        let user = u32::try_from(index).unwrap_or(u32::MAX);
        let mut handle = User {
            index: user,
            connection,
            shared: &mut self.shared,
        };
        behaviour
            .on_end(&mut handle, why)
            .map_err(|what| SwarmError::Server { user, what })
    }
}
