//! How late the swarm itself is: from when a timer was due to when it fired.
//!
//! Whatever the server does, a timer that fires late is the swarm's own doing, or that of whoever took
//! the processor from it. What was to be sent then was sent late, and the latency counts from when it
//! was due, so lateness is in the figures and has to be told beside them.

use serde::{Deserialize, Serialize};

/// How late timers fired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lateness {
    /// How many fired.
    pub count: u64,
    /// Their delays, added up.
    pub sum_us: u64,
    /// The greatest delay.
    pub max_us: u64,
}

impl Lateness {
    pub(crate) fn record_us(&mut self, us: u64) {
        self.count += 1;
        self.sum_us += us;
        self.max_us = self.max_us.max(us);
    }

    /// Adds another's.
    pub fn add(&mut self, other: Self) {
        self.count += other.count;
        self.sum_us += other.sum_us;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// The mean delay.
    pub fn mean_us(self) -> u64 {
        self.sum_us.checked_div(self.count).unwrap_or(0)
    }
}
