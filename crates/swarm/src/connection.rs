//! What the engine keeps of one simulated user. Small when idle: buffers are lent, not owned.

use std::collections::VecDeque;
use std::io::{self, Write as _};

use mio::net::TcpStream;
use stonechat_protocol::MessageId;

use crate::behaviour::Sent;
use crate::ids;
use crate::shared::Shared;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Closed,
    /// About to be connected.
    Waiting,
    Upgrading,
    Upgraded,
    SigningIn,
    Open,
}

/// One user's device: what of it outlives a connection, and the connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: Option<TcpStream>,
    pub(crate) phase: Phase,
    /// In the list of those that have something to write.
    pub(crate) dirty: bool,
    /// A timer for a late acknowledgement is set.
    pub(crate) ack_timer: bool,
    /// Nothing was heard for one heartbeat, and the server was asked.
    pub(crate) asked: bool,
    /// Nothing is read until the timer says so.
    pub(crate) paused: bool,
    /// Counts the networks it has been in; each is another source address.
    pub(crate) network: u8,
    /// What the last `bye` said about coming back.
    pub(crate) retry_after_ms: u64,
    /// When the user wanted to connect.
    pub(crate) connect_from_us: u64,
    /// Messages after which an acknowledgement does not wait for a frame to ride on.
    pub(crate) ack_every: u32,
    /// When anything was last heard, seconds on the engine's clock.
    pub(crate) heard_s: u32,
    pub(crate) heartbeat_s: u32,
    /// Messages taken over and not yet acknowledged, and since when.
    pub(crate) unacked: u32,
    pub(crate) unacked_since_us: u64,
    /// The greatest `seq` taken over.
    pub(crate) taken: u64,
    /// The greatest `rev` seen, and told.
    pub(crate) rev: u64,
    pub(crate) rev_told: u64,
    pub(crate) last_id: MessageId,
    pub(crate) unanswered: VecDeque<Sent>,
    /// Bytes of a frame that has not arrived as a whole.
    pub(crate) partial: Vec<u8>,
    /// Earlier fragments of a message.
    pub(crate) fragments: Vec<u8>,
    pub(crate) out: Vec<u8>,
    pub(crate) out_from: usize,
}

impl Connection {
    pub(crate) fn new() -> Self {
        Self {
            stream: None,
            phase: Phase::Closed,
            dirty: false,
            ack_timer: false,
            asked: false,
            paused: false,
            network: 0,
            retry_after_ms: 0,
            connect_from_us: 0,
            ack_every: 64,
            heard_s: 0,
            heartbeat_s: u32::MAX / 4,
            unacked: 0,
            unacked_since_us: 0,
            taken: 0,
            rev: 0,
            rev_told: 0,
            last_id: MessageId::from_u128(ids::NONE),
            unanswered: VecDeque::new(),
            partial: Vec::new(),
            fragments: Vec::new(),
            out: Vec::new(),
            out_from: 0,
        }
    }

    /// Where frames are written to. The connection will be flushed at the end of the turn.
    pub(crate) fn out(&mut self, index: u32, shared: &mut Shared) -> &mut Vec<u8> {
        if !self.dirty {
            self.dirty = true;
            shared.dirty.push(index);
        }
        if self.out.capacity() == 0 {
            self.out = shared.lend();
        }
        &mut self.out
    }

    /// Writes what there is to write, as far as the socket takes it.
    pub(crate) fn flush(&mut self, shared: &mut Shared) -> io::Result<()> {
        self.dirty = false;
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        while self.out_from < self.out.len() {
            match stream.write(&self.out[self.out_from..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    shared.counts.writes += 1;
                    shared.counts.bytes_out += written as u64;
                    self.out_from += written;
                }
                // Not yet connected, or the socket is full: its event will come.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
                    ) =>
                {
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.out_from = 0;
        shared.give_back(std::mem::take(&mut self.out));
        Ok(())
    }

    /// Forgets the connection, keeps the device.
    pub(crate) fn reset(&mut self, shared: &mut Shared) {
        self.stream = None;
        self.phase = Phase::Closed;
        self.partial = Vec::new();
        self.fragments = Vec::new();
        self.out_from = 0;
        shared.give_back(std::mem::take(&mut self.out));
        self.asked = false;
        self.paused = false;
        self.unacked = 0;
    }
}
