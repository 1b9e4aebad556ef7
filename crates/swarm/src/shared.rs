//! What all simulated users of an engine share: clock, timers, buffers to lend, counts.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mio::net::TcpStream;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use crate::{Counts, Lateness, Roster};

/// Buffers kept to be lent again, and the largest that is kept.
const BUFFERS_MAX: usize = 4096;
const BUFFER_BYTES_MAX: usize = 64 * 1024;
const BUFFER_BYTES: usize = 1024;

/// Why a timer was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Behaviour,
    Ack,
    Resume,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) roster: Roster,
    pub(crate) counts: Counts,
    pub(crate) lateness: Lateness,
    pub(crate) dirty: Vec<u32>,
    pub(crate) timers: BinaryHeap<Reverse<(u64, u32, Timer)>>,
    /// Whether sends are answered; a bare relay answers none.
    pub(crate) answers: bool,
    pub(crate) now_us: u64,
    /// Users that are to be connected.
    pub(crate) to_dial: VecDeque<u32>,
    /// Sockets that were left behind: open, and nobody looks at them. New ones first.
    pub(crate) left: VecDeque<TcpStream>,
    buffers: Vec<Vec<u8>>,
    began: Instant,
    began_unix_us: u64,
    random: SmallRng,
}

impl Shared {
    pub(crate) fn new(roster: Roster, answers: bool) -> Self {
        let began_unix_us = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0));
        Self {
            roster,
            counts: Counts::default(),
            lateness: Lateness::default(),
            dirty: Vec::new(),
            timers: BinaryHeap::new(),
            answers,
            now_us: began_unix_us,
            to_dial: VecDeque::new(),
            left: VecDeque::new(),
            buffers: Vec::new(),
            began: Instant::now(),
            began_unix_us,
            random: SmallRng::from_os_rng(),
        }
    }

    /// Reads the clock. It counts from the Unix epoch and never runs backwards.
    pub(crate) fn tick(&mut self) {
        let elapsed_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX / 2);
        self.now_us = self.began_unix_us + elapsed_us;
    }

    /// The engine's clock in seconds since it began.
    pub(crate) fn now_s(&self) -> u32 {
        u32::try_from((self.now_us - self.began_unix_us) / 1_000_000).unwrap_or(u32::MAX)
    }

    pub(crate) fn random(&mut self) -> u64 {
        self.random.random()
    }

    pub(crate) fn lend(&mut self) -> Vec<u8> {
        self.buffers
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    pub(crate) fn give_back(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0
            && buffer.capacity() <= BUFFER_BYTES_MAX
            && self.buffers.len() < BUFFERS_MAX
        {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}
