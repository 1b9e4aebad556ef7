//! Latencies in a histogram of constant size: microseconds, three digits, up to ten minutes.
//!
//! Written down it is the list of its occupied buckets, so that the histograms of several processes can
//! be added up without losing anything.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const US_MAX: u64 = 600_000_000;

/// A histogram of latencies.
#[derive(Debug, Clone, PartialEq)]
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

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let buckets = self.0.iter_recorded();
        serializer.collect_seq(buckets.map(|b| (b.value_iterated_to(), b.count_at_value())))
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut latency = Self::default();
        for (us, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            let added = latency.0.record_n(us, count);
            added.map_err(|_| D::Error::custom("a latency beyond ten minutes"))?;
        }
        Ok(latency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_and_added_up_is_what_was_recorded() {
        let (mut all, mut parts) = (Latency::default(), Latency::default());
        for part in 0..3_u64 {
            let mut latency = Latency::default();
            for n in 0..500 {
                let us = n * n * (part + 1) + part;
                latency.record_us(us);
                all.record_us(us);
            }
            let text = serde_json::to_string(&latency).unwrap();
            parts.add(&serde_json::from_str(&text).unwrap());
        }
        assert_eq!(all.count(), 1500);
        for percent in [0.0, 10.0, 50.0, 99.0, 99.9, 100.0] {
            assert_eq!(all.percentile(percent), parts.percentile(percent));
        }
        all.record_us(u64::MAX);
        let text = serde_json::to_string(&all).unwrap();
        let back: Latency = serde_json::from_str(&text).unwrap();
        assert_eq!(back.max(), all.max(), "what was cut to the greatest fits");
    }
}
