//! How a device behaves in a round, and what the fleet is told while a phase runs.

use std::sync::atomic::AtomicBool;

use rand::Rng as _;
use rand::rngs::SmallRng;

/// How a device behaves in a round.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Not connected at all.
    pub away: bool,
    /// Sends that may be unanswered at a time.
    pub window: usize,
    /// Sends in the round.
    pub sends_max: usize,
    /// Acknowledges after this many messages; 0: never.
    pub ack_every: usize,
    /// Breaks its connection about every so many ticks and comes back; 0: never.
    pub flaps_every: u32,
}

impl Manner {
    /// Draws a manner.
    pub fn draw(random: &mut SmallRng, sends_max: usize) -> Self {
        Self {
            away: random.random_ratio(1, 5),
            window: [1, 4, 16, 48][random.random_range(0..4)],
            sends_max,
            ack_every: [0, 1, 8, 64][random.random_range(0..4)],
            flaps_every: if random.random_ratio(1, 5) { 15 } else { 0 },
        }
    }

    /// Sends nothing new and takes everything.
    pub fn settling() -> Self {
        Self {
            away: false,
            window: 0,
            sends_max: 0,
            ack_every: 32,
            flaps_every: 0,
        }
    }
}

/// What the fleet is told while a phase runs.
#[derive(Debug, Default)]
pub struct Orders {
    /// Everything is there: say goodbye.
    pub done: AtomicBool,
    /// End at once.
    pub stop: AtomicBool,
    /// A connection that breaks is made again.
    pub come_back: bool,
    /// The disk fails: sends may be refused with `storage_unavailable`, and the server may go.
    pub disk_fails: bool,
}
