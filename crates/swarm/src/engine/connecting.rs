//! Connecting: sockets, upgrades, sign-ins, so many at a time.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::{Interest, Token};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::behaviour::Behaviour;
use crate::connection::Phase;
use crate::engine::Engine;
use crate::{Counts, SwarmError, websocket};

/// Sockets kept open with nobody behind them.
const LEFT_MAX: usize = 1024;
/// Connections of one source address; an address has some 28,000 ports by default.
const PORTS_EACH: u32 = 20_000;

impl Engine {
    /// Connects users and waits until all of them are signed in.
    ///
    /// # Errors
    /// When a connection fails, is refused, or the deadline passes.
    pub fn connect<B: Behaviour>(
        &mut self,
        users: Range<u32>,
        behaviour: &mut B,
        within: Duration,
    ) -> Result<(), SwarmError> {
        let welcomed = self.shared.counts.welcomed + users.len() as u64;
        self.to_connect = users;
        self.hello_held = false;
        self.wait(behaviour, within, welcomed, |counts| counts.welcomed)
    }

    /// Connects users as far as the WebSocket goes; [`Engine::sign_in`] does the rest.
    ///
    /// # Errors
    /// As [`Engine::connect`].
    pub fn upgrade<B: Behaviour>(
        &mut self,
        users: Range<u32>,
        behaviour: &mut B,
        within: Duration,
    ) -> Result<(), SwarmError> {
        let upgraded = self.shared.counts.upgraded + users.len() as u64;
        self.to_connect = users;
        self.hello_held = true;
        self.wait(behaviour, within, upgraded, |counts| counts.upgraded)
    }

    /// Signs in users whose WebSocket is open.
    ///
    /// # Errors
    /// As [`Engine::connect`].
    pub fn sign_in<B: Behaviour>(
        &mut self,
        users: Range<u32>,
        behaviour: &mut B,
        within: Duration,
    ) -> Result<(), SwarmError> {
        let welcomed = self.shared.counts.welcomed + users.len() as u64;
        self.to_sign_in = users;
        self.wait(behaviour, within, welcomed, |counts| counts.welcomed)
    }

    fn wait<B: Behaviour>(
        &mut self,
        behaviour: &mut B,
        within: Duration,
        enough: u64,
        of: impl Fn(&Counts) -> u64,
    ) -> Result<(), SwarmError> {
        let until = Instant::now() + within;
        while of(&self.shared.counts) < enough {
            self.turn(behaviour)?;
            if Instant::now() > until {
                return Err(SwarmError::Deadline {
                    what: "that all users are connected",
                    state: format!("{} of {enough}", of(&self.shared.counts)),
                });
            }
        }
        Ok(())
    }

    pub(super) fn open_more<B: Behaviour>(&mut self, behaviour: &mut B) -> Result<(), SwarmError> {
        self.look_away()?;
        while self.connecting < self.options.connecting_max {
            let Some(index) = self.to_connect.next() else {
                break;
            };
            self.dial(index, behaviour)?;
        }
        while self.connecting < self.options.connecting_max {
            let Some(index) = self.shared.to_dial.pop_front() else {
                break;
            };
            if self.connections[index as usize].phase == Phase::Waiting {
                let from_us = self.connections[index as usize].connect_from_us;
                self.dial(index, behaviour)?;
                self.connections[index as usize].connect_from_us = from_us;
            }
        }
        while self.connecting < self.options.connecting_max {
            let Some(index) = self.to_sign_in.next() else {
                break;
            };
            self.connecting += 1;
            self.say_hello(index);
        }
        Ok(())
    }

    /// Sockets that were left behind are not polled any more, and the oldest go when there are many.
    fn look_away(&mut self) -> Result<(), SwarmError> {
        let registry = self.poll.registry();
        for mut stream in self.shared.left.drain(..) {
            let done = registry.deregister(&mut stream);
            done.map_err(SwarmError::io("leaving a socket"))?;
            self.left.push_back(stream);
        }
        let many = self.left.len().saturating_sub(LEFT_MAX);
        self.left.drain(..many);
        Ok(())
    }

    /// Opens a connection. A server that is not there ends it at once, which is the behaviour's business.
    fn dial<B: Behaviour>(&mut self, index: u32, behaviour: &mut B) -> Result<(), SwarmError> {
        match self.open(index) {
            Ok(()) => {
                self.connecting += 1;
                Ok(())
            }
            Err(e) if is_the_servers(&e) => self.ended(index as usize, behaviour, &e.to_string()),
            Err(e) => Err(SwarmError::io("connecting")(e)),
        }
    }

    fn open(&mut self, index: u32) -> io::Result<()> {
        let server = self.options.server;
        let socket = Socket::new(
            Domain::for_address(server),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(sources) = self.options.sources {
            let network = self.connections[index as usize].network;
            bind_to(
                &socket,
                sources.pick(index / PORTS_EACH + u32::from(network)),
            )?;
        }
        match socket.connect(&server.into()) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) if e.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
            Err(e) => return Err(e),
        }
        let mut stream = mio::net::TcpStream::from_std(socket.into());
        self.poll.registry().register(
            &mut stream,
            Token(index as usize),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let connection = &mut self.connections[index as usize];
        connection.stream = Some(stream);
        connection.phase = Phase::Upgrading;
        connection.heard_s = self.shared.now_s();
        connection.connect_from_us = self.shared.now_us;
        self.shared.counts.opened += 1;
        let out = connection.out(index, &mut self.shared);
        websocket::write_upgrade(out, &server.to_string(), "/v1/ws");
        Ok(())
    }
}

/// Whether a connection failed over there; what fails here ends the run.
fn is_the_servers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::TimedOut
    )
}

/// Gives a socket its source address.
///
/// The port is left open until the socket is connected. Chosen by `bind` it would belong to this
/// socket alone, whatever the addresses, and for a minute after its end: 28,000 connections and no
/// other program on the machine could connect to anything.
#[cfg(target_os = "linux")]
fn bind_to(socket: &Socket, source: Ipv4Addr) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
    setsockopt(socket, IpBindAddressNoPort, &true)?;
    socket.bind(&SocketAddr::from((source, 0)).into())
}

/// Other systems have other loopback addresses only when told to.
#[cfg(not(target_os = "linux"))]
fn bind_to(_socket: &Socket, _source: Ipv4Addr) -> io::Result<()> {
    Ok(())
}
