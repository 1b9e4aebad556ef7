//! A simulated user, as a behaviour sees it for the length of a callback.

use std::cmp::Reverse;
use std::time::Duration;

use socket2::SockRef;
use stonechat_protocol::{MessageId, UNACCEPTED_MAX};

use crate::behaviour::Sent;
use crate::connection::{Connection, Phase};
use crate::frames::{self, Riding};
use crate::ids;
use crate::mark::Mark;
use crate::shared::{Shared, Timer};

/// An acknowledgement waits at most this long for a frame to ride on.
const ACK_AFTER_US: u64 = 1_000_000;

/// How a user leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// The socket is closed, without a word of the WebSocket.
    Cut,
    /// The socket is reset: the server sees an error, and what was under way is gone.
    Reset,
    /// The server is told nothing at all: the old socket stays open, and nobody is behind it. The next
    /// connection comes from another address.
    Vanish,
}

/// A simulated user.
#[derive(Debug)]
pub struct User<'a> {
    pub(crate) index: u32,
    pub(crate) connection: &'a mut Connection,
    pub(crate) shared: &'a mut Shared,
}

impl User<'_> {
    /// Place in the roster: which device.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The engine's clock, microseconds since the Unix epoch.
    pub fn now_us(&self) -> u64 {
        self.shared.now_us
    }

    /// Whether the user is signed in.
    pub fn is_open(&self) -> bool {
        self.connection.phase == Phase::Open
    }

    /// How many sends are unanswered.
    pub fn unanswered(&self) -> usize {
        self.connection.unanswered.len()
    }

    /// Whether the protocol allows another send now.
    pub fn may_send(&self) -> bool {
        self.is_open() && self.connection.unanswered.len() < UNACCEPTED_MAX
    }

    /// Sends a body of `body_bytes` bytes, marked with `number` and `at_us`. What is to be
    /// acknowledged rides on it.
    ///
    /// # Errors
    /// When the protocol does not allow it now; see [`User::may_send`].
    pub fn send(
        &mut self,
        to: u32,
        number: u64,
        at_us: u64,
        body_bytes: usize,
    ) -> Result<MessageId, String> {
        if !self.may_send() {
            return Err(format!(
                "{} sends are unanswered or the user is not signed in",
                self.unanswered()
            ));
        }
        let random = self.shared.random();
        let id = ids::next(self.connection.last_id, self.shared.now_us / 1000, random);
        self.connection.last_id = id;
        let sent = Sent {
            id,
            to,
            number,
            at_us,
            body_bytes,
        };
        self.write(&sent);
        if self.shared.answers {
            self.connection.unanswered.push_back(sent);
        }
        Ok(id)
    }

    fn write(&mut self, sent: &Sent) {
        let riding = self.riding();
        let mark = Mark {
            sender: self.index,
            number: sent.number,
            at_us: sent.at_us,
        };
        let mut out = std::mem::take(self.connection.out(self.index, self.shared));
        let body = (mark, sent.body_bytes);
        frames::write_send(
            &mut out,
            &self.shared.roster,
            sent.id,
            sent.to,
            body,
            riding,
        );
        self.connection.out = out;
        self.shared.counts.sent += 1;
    }

    /// Sends once more what was refused for the moment, under its id.
    pub(crate) fn repeat(&mut self, sent: Sent) {
        self.write(&sent);
        self.connection.unanswered.push_back(sent);
    }

    /// After a reconnect: everything unanswered once more, in the order of the first time, before
    /// anything new.
    pub(crate) fn resend(&mut self) {
        let mut unanswered = std::mem::take(&mut self.connection.unanswered);
        unanswered
            .make_contiguous()
            .sort_unstable_by_key(|sent| sent.id);
        for sent in &unanswered {
            self.write(sent);
        }
        self.connection.unanswered = unanswered;
    }

    /// Acknowledges what was taken over, at once and in a frame of its own. Nothing when there is nothing.
    pub fn ack_now(&mut self) {
        if self.connection.unacked == 0 || !self.is_open() || !self.shared.answers {
            return;
        }
        let Riding { ack, rev } = self.riding();
        let seq = ack.unwrap_or(self.connection.taken);
        let out = self.connection.out(self.index, self.shared);
        frames::write_ack(out, seq, rev);
        self.shared.counts.acks += 1;
    }

    /// Calls [`crate::Behaviour::on_timer`] when the engine's clock has reached `at_us`.
    pub fn wake_at(&mut self, at_us: u64) {
        let entry = (at_us, self.index, Timer::Behaviour);
        self.shared.timers.push(Reverse(entry));
    }

    /// Says that the user has read what `from` sent up to `id`.
    pub fn read(&mut self, from: u32, id: MessageId) {
        if self.is_open() {
            let mut out = std::mem::take(self.connection.out(self.index, self.shared));
            frames::write_read(&mut out, &self.shared.roster, from, id);
            self.connection.out = out;
        }
    }

    /// Connects, unless it is connected or about to be. Latencies count from now.
    pub fn connect(&mut self) {
        if self.connection.phase == Phase::Closed {
            self.connection.phase = Phase::Waiting;
            self.connection.connect_from_us = self.shared.now_us;
            self.shared.to_dial.push_back(self.index);
        }
    }

    /// How long it should stay away, as the last `bye` said; it counts once.
    pub(crate) fn take_retry_after_ms(&mut self) -> u64 {
        std::mem::take(&mut self.connection.retry_after_ms)
    }

    /// When it wanted to be connected.
    pub fn connect_from_us(&self) -> u64 {
        self.connection.connect_from_us
    }

    /// Ends the connection, when it is signed in. [`crate::Behaviour::on_end`] is not called.
    pub fn leave(&mut self, how: Leave) {
        if !self.is_open() {
            return;
        }
        match how {
            Leave::Cut => {}
            Leave::Reset => {
                if let Some(stream) = &self.connection.stream {
                    // Where it cannot be set the socket is closed as by `Cut`.
                    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
                }
            }
            Leave::Vanish => {
                self.connection.network = self.connection.network.wrapping_add(1);
                if let Some(stream) = self.connection.stream.take() {
                    self.shared.left.push_front(stream);
                }
            }
        }
        self.connection.reset(self.shared);
        self.shared.counts.ended += 1;
    }

    /// Reads nothing before `at_us`, so that the server has to wait.
    pub fn pause_until(&mut self, at_us: u64) {
        if self.is_open() && !self.connection.paused {
            self.connection.paused = true;
            self.shared
                .timers
                .push(Reverse((at_us, self.index, Timer::Resume)));
        }
    }

    /// What rides on the next frame; it counts as told.
    fn riding(&mut self) -> Riding {
        let connection = &mut *self.connection;
        let ack = (connection.unacked > 0).then_some(connection.taken);
        connection.unacked = 0;
        let rev = (connection.rev > connection.rev_told).then_some(connection.rev);
        connection.rev_told = connection.rev;
        Riding { ack, rev }
    }

    /// A message was taken over: acknowledge it soon.
    pub(crate) fn took(&mut self, seq: u64) {
        let connection = &mut *self.connection;
        connection.taken = connection.taken.max(seq);
        if connection.unacked == 0 {
            connection.unacked_since_us = self.shared.now_us;
        }
        connection.unacked += 1;
        if !self.shared.answers {
            return;
        }
        if !connection.ack_timer {
            connection.ack_timer = true;
            let entry = (self.shared.now_us + ACK_AFTER_US, self.index, Timer::Ack);
            self.shared.timers.push(Reverse(entry));
        }
    }

    /// Acknowledges when so much is unacknowledged that it should not wait.
    pub(crate) fn ack_if_many(&mut self) {
        if self.connection.unacked >= self.connection.ack_every {
            self.ack_now();
        }
    }

    /// The timer of the acknowledgement fired.
    pub(crate) fn ack_timer(&mut self) {
        self.connection.ack_timer = false;
        if self.connection.unacked == 0 {
            return;
        }
        let due_us = self.connection.unacked_since_us + ACK_AFTER_US;
        if due_us <= self.shared.now_us {
            self.ack_now();
        } else {
            self.connection.ack_timer = true;
            self.shared
                .timers
                .push(Reverse((due_us, self.index, Timer::Ack)));
        }
    }
}
