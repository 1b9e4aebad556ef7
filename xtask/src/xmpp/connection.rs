//! What is kept of one simulated user, and how its stream is spoken.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use mio::net::TcpStream;
use stonechat_swarm::Mark;

use super::engine::Counts;
use super::scan::Scanner;
use super::stanza;
use crate::load::{Hand, Sent, Work};

/// Messages unanswered, at most: as many as our protocol allows.
const UNANSWERED_MAX: usize = 64;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Closed,
    /// The first stream was opened.
    Opening,
    Authenticating,
    /// The second stream was opened.
    Reopening,
    Binding,
    Open,
}

impl Phase {
    /// Between the two ends: under way to being signed in.
    pub(super) fn under_way(self) -> bool {
        !matches!(self, Self::Closed | Self::Open)
    }
}

/// What wakes a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Resume,
    Work,
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) now_us: u64,
    /// Whether streams are managed: XEP-0198 acknowledgements both ways.
    pub(super) acks: bool,
    pub(super) dirty: Vec<u32>,
    pub(super) timers: BinaryHeap<Reverse<(u64, u32, Timer)>>,
    pub(super) counts: Counts,
}

impl Shared {
    pub(super) fn tick(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.now_us = now.map_or(0, |now| now.as_micros() as u64);
    }
}

/// One user's connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Option<TcpStream>,
    pub(super) phase: Phase,
    pub(super) scanner: Scanner,
    /// Bytes of an element that has not arrived as a whole.
    pub(super) partial: Vec<u8>,
    pub(super) paused: bool,
    dirty: bool,
    out: Vec<u8>,
    out_from: usize,
    managed: bool,
    /// Stanzas sent and taken since management began.
    sent: u32,
    taken: u32,
    /// Messages were written and the server has not been asked about them.
    to_ask: bool,
    /// With the stanza's number, oldest first.
    unanswered: VecDeque<(u32, Sent)>,
}

impl Connection {
    pub(super) fn new() -> Self {
        Self {
            stream: None,
            phase: Phase::Closed,
            scanner: Scanner::default(),
            partial: Vec::new(),
            paused: false,
            dirty: false,
            out: Vec::new(),
            out_from: 0,
            managed: false,
            sent: 0,
            taken: 0,
            to_ask: false,
            unanswered: VecDeque::new(),
        }
    }

    /// Where stanzas are written to; they leave at the end of the turn.
    pub(super) fn out(&mut self, index: u32, shared: &mut Shared) -> &mut Vec<u8> {
        if !self.dirty {
            self.dirty = true;
            shared.dirty.push(index);
        }
        &mut self.out
    }

    /// Writes what there is to write, as far as the socket takes it. The server is asked once for all
    /// messages of a turn: the least that a client can do that wants to know of each.
    pub(super) fn flush(&mut self, shared: &mut Shared) -> io::Result<()> {
        self.dirty = false;
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        if std::mem::take(&mut self.to_ask) {
            self.out.extend_from_slice(stanza::ASK);
        }
        while self.out_from < self.out.len() {
            match stream.write(&self.out[self.out_from..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.out_from += written;
                    shared.counts.bytes_out += written as u64;
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
        self.out.clear();
        // What a burst needed is not kept by thousands of idle users.
        self.out.shrink_to(4096);
        Ok(())
    }

    /// There is something to write that is not in the list already.
    pub(super) fn stuck(&self) -> bool {
        !self.dirty && !self.out.is_empty()
    }

    /// Forgets everything: the next connection is a new one.
    pub(super) fn reset(&mut self) {
        let dirty = self.dirty;
        *self = Self::new();
        // It may still be in the list.
        self.dirty = dirty;
    }
}

/// A simulated user in a callback.
pub(super) struct User<'a> {
    pub(super) index: u32,
    pub(super) connection: &'a mut Connection,
    pub(super) shared: &'a mut Shared,
}

impl Hand for User<'_> {
    fn index(&self) -> u32 {
        self.index
    }

    fn now_us(&self) -> u64 {
        self.shared.now_us
    }

    fn may_send(&self) -> bool {
        self.connection.phase == Phase::Open && self.connection.unanswered.len() < UNANSWERED_MAX
    }

    fn send(&mut self, sent: Sent, body_bytes: usize) -> Result<(), String> {
        if !self.may_send() {
            return Err("not signed in, or too many messages unanswered".to_owned());
        }
        let mark = Mark {
            sender: self.index,
            number: sent.number,
            at_us: sent.at_us,
        };
        let out = self.connection.out(self.index, self.shared);
        stanza::write_message(out, sent.to, &mark, body_bytes);
        self.shared.counts.sent += 1;
        if self.connection.managed {
            self.connection.sent += 1;
            self.connection.to_ask = true;
            let place = self.connection.sent;
            self.connection.unanswered.push_back((place, sent));
        }
        Ok(())
    }

    fn wake_at(&mut self, at_us: u64) {
        let entry = (at_us, self.index, Timer::Work);
        self.shared.timers.push(Reverse(entry));
    }

    fn pause_until(&mut self, at_us: u64) {
        self.connection.paused = true;
        let entry = (at_us, self.index, Timer::Resume);
        self.shared.timers.push(Reverse(entry));
    }
}

impl User<'_> {
    fn write(&mut self, bytes: &[u8]) {
        let out = self.connection.out(self.index, self.shared);
        out.extend_from_slice(bytes);
    }

    /// Begins a stream.
    pub(super) fn begin(&mut self, phase: Phase) {
        self.connection.scanner = Scanner::default();
        self.connection.phase = phase;
        self.write(stanza::HEADER);
    }

    /// Takes an element in.
    pub(super) fn take(&mut self, element: &[u8], work: &mut dyn Work) -> Result<(), String> {
        let name = stanza::name(element);
        match name {
            b"message" | b"presence" | b"iq" => {
                // Modulo 2^32, as XEP-0198 has it.
                self.connection.taken = self.connection.taken.wrapping_add(1);
                self.stanza(name, element, work)
            }
            b"r" => {
                let taken = self.connection.taken;
                stanza::write_answer(self.connection.out(self.index, self.shared), taken);
                Ok(())
            }
            b"a" => {
                let upto = stanza::number(element, "h").ok_or("an answer without a number")?;
                self.answered(upto, work)
            }
            b"stream:features" => {
                self.features();
                Ok(())
            }
            b"success" if self.connection.phase == Phase::Authenticating => {
                self.begin(Phase::Reopening);
                Ok(())
            }
            b"enabled" => {
                self.connection.taken = 0;
                Ok(())
            }
            _ => Err(format!(
                "in {:?} came {}",
                self.connection.phase,
                shown(element)
            )),
        }
    }

    fn features(&mut self) {
        if self.connection.phase == Phase::Opening {
            self.connection.phase = Phase::Authenticating;
            stanza::write_auth(self.connection.out(self.index, self.shared), self.index);
            return;
        }
        self.connection.phase = Phase::Binding;
        self.write(stanza::BIND);
        if self.shared.acks {
            self.write(stanza::ENABLE);
            self.connection.managed = true;
            // Presence is a stanza too.
            self.connection.sent = 1;
        }
        self.write(stanza::PRESENCE);
    }

    fn stanza(&mut self, name: &[u8], element: &[u8], work: &mut dyn Work) -> Result<(), String> {
        let of_type = stanza::attribute(element, "type");
        if of_type == Some(b"error") {
            return match name {
                b"message" => work.on_refused(self, &shown(element)),
                _ => Err(shown(element)),
            };
        }
        match name {
            b"message" => {
                let mark = stanza::mark(element).ok_or("a message that nobody sent")?;
                self.shared.counts.received += 1;
                work.on_message(self, mark)
            }
            // One's own presence comes back when the session is there for others.
            b"presence" if self.connection.phase == Phase::Binding => {
                self.connection.phase = Phase::Open;
                self.shared.counts.open += 1;
                self.shared.counts.under_way -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn answered(&mut self, upto: u32, work: &mut dyn Work) -> Result<(), String> {
        while let Some(&(place, sent)) = self.connection.unanswered.front() {
            if upto.wrapping_sub(place) > u32::MAX / 2 {
                break;
            }
            self.connection.unanswered.pop_front();
            work.on_accepted(self, sent)?;
        }
        Ok(())
    }
}

/// The beginning of an element, for messages to people.
fn shown(element: &[u8]) -> String {
    String::from_utf8_lossy(&element[..element.len().min(300)]).into_owned()
}
