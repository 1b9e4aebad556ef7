//! Latencies in a histogram of constant size: microseconds, three digits, up to ten minutes.

use std::time::Duration;

use hdrhistogram::Histogram;

const US_MAX: u64 = 600_000_000;

/// A histogram of latencies.
#[derive(Debug, Clone)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_max(US_MAX, 3).expect("three digits up to ten minutes are valid"))
    }
}

impl Latency {
    /// Adds one; what is longer than ten minutes counts as ten minutes.
    pub fn record_us(&mut self, us: u64) {
        self.0.saturating_record(us);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that `percent` of all stay at or below.
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.0.value_at_percentile(percent))
    }

    /// The greatest.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }

    /// Adds all of another histogram.
    pub fn add(&mut self, other: &Self) {
        // Both have the same bounds, so nothing can be out of range.
        self.0 += &other.0;
    }
}
