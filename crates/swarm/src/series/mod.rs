//! How a run went over time: a point a second, in bounded memory, with what the server used beside it.
//!
//! A point holds figures, not histograms. When there are [`POINTS_MAX`] of them neighbours are put
//! together and from then on each stands for twice as long: counts are added up, gauges and percentiles
//! are those of the worse half, so that a bad second never disappears. Nothing here decides what the
//! figures mean.

mod probe;
mod process;
mod recorder;
mod second;

pub use probe::{Probe, ServerLook, ServerUse};
pub use process::own_rss_bytes;
pub use recorder::Recorder;
pub use second::Second;

use serde::{Deserialize, Serialize};

use crate::summary::LatencySummary;

/// Points kept; an hour of seconds.
pub const POINTS_MAX: usize = 3_600;

/// What happened in a second, or in several.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// When it ended, since the run began.
    pub at_s: f64,
    /// How long it was.
    pub span_s: f64,
    /// Where in the scenario.
    pub phase: String,
    /// Devices signed in at its end.
    pub online: u64,
    /// Sends in it.
    pub sent: u64,
    /// `accepted` in it.
    pub accepted: u64,
    /// Deliveries in it, all devices.
    pub delivered: u64,
    /// Refusals in it.
    pub refused: u64,
    /// Sign-ins of devices that had been signed in before.
    pub reconnects: u64,
    /// Connections lost in it that the scenario did not end.
    pub lost_connections: u64,
    /// Violations noticed in it.
    pub violations: u64,
    /// Latencies of what ended in it.
    pub latencies: LatencySummary,
    /// Processor time of the swarm's busiest thread, as a share of one core.
    pub swarm_busy_share: f64,
    /// Processor time of all of the swarm, in cores.
    pub swarm_cpu_share: f64,
    /// Memory of the swarm.
    pub swarm_rss_bytes: u64,
    /// How late the swarm's timers fired on average.
    pub swarm_late_us: u64,
    /// What was seen of the server.
    pub server: ServerLook,
}

impl Point {
    /// Puts the one that follows into it.
    fn absorb(&mut self, next: &Self) {
        let span_s = self.span_s + next.span_s;
        let weighted = |a: f64, b: f64| (a * self.span_s + b * next.span_s) / span_s.max(1e-9);
        *self = Self {
            at_s: next.at_s,
            span_s,
            phase: next.phase.clone(),
            online: next.online,
            sent: self.sent + next.sent,
            accepted: self.accepted + next.accepted,
            delivered: self.delivered + next.delivered,
            refused: self.refused + next.refused,
            reconnects: self.reconnects + next.reconnects,
            lost_connections: self.lost_connections + next.lost_connections,
            violations: self.violations + next.violations,
            latencies: self.latencies.worse(&next.latencies),
            swarm_busy_share: weighted(self.swarm_busy_share, next.swarm_busy_share),
            swarm_cpu_share: weighted(self.swarm_cpu_share, next.swarm_cpu_share),
            swarm_rss_bytes: self.swarm_rss_bytes.max(next.swarm_rss_bytes),
            swarm_late_us: self.swarm_late_us.max(next.swarm_late_us),
            server: self.server.worse(&next.server),
        };
    }
}

/// Points in the order of time, at most so many.
#[derive(Debug, Clone)]
pub struct Series {
    points: Vec<Point>,
    points_max: usize,
    /// Seconds that a point stands for, and how many the last one has so far.
    each: u32,
    filled: u32,
}

impl Default for Series {
    fn default() -> Self {
        Self::bounded(POINTS_MAX)
    }
}

impl Series {
    /// One that keeps at most so many points, an even number.
    pub fn bounded(points_max: usize) -> Self {
        Self {
            points: Vec::new(),
            points_max: points_max.max(2).next_multiple_of(2),
            each: 1,
            filled: 0,
        }
    }

    /// Adds the next second.
    pub fn push(&mut self, point: Point) {
        if self.filled < self.each
            && let Some(last) = self.points.last_mut()
        {
            last.absorb(&point);
            self.filled += 1;
            return;
        }
        if self.points.len() == self.points_max {
            self.points = joined(&self.points, 2);
            self.each *= 2;
        }
        self.points.push(point);
        self.filled = 1;
    }

    /// All of them.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The same in at most so many points.
    pub fn coarse(&self, points_max: usize) -> Vec<Point> {
        let each = self.points.len().div_ceil(points_max.max(1)).max(1);
        joined(&self.points, each)
    }
}

/// Each so many put together.
pub(crate) fn joined(points: &[Point], each: usize) -> Vec<Point> {
    let join = |some: &[Point]| {
        let mut joined = some[0].clone();
        some[1..].iter().for_each(|next| joined.absorb(next));
        joined
    };
    points.chunks(each).map(join).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Percentiles;

    fn point(n: u64) -> Point {
        let mut point = Point {
            at_s: n as f64 + 1.0,
            span_s: 1.0,
            phase: format!("p{}", n / 10),
            online: n,
            sent: 3,
            swarm_busy_share: n as f64,
            ..Point::default()
        };
        point.latencies.send_to_accepted = Percentiles {
            count: 2,
            p99_us: 1000 - n,
            ..Percentiles::default()
        };
        point.server.rss_bytes = (n == 3).then_some(77);
        point
    }

    /// However many seconds: bounded, nothing lost of what is counted, the worst still there.
    #[test]
    fn resolution_is_halved_and_counts_stay() {
        for seconds in [1, 7, 8, 9, 16, 17, 100, 1000_u64] {
            let mut series = Series::bounded(8);
            (0..seconds).for_each(|n| series.push(point(n)));
            let points = series.points();
            assert!(points.len() <= 8, "{seconds}: {}", points.len());
            assert!(points.len() as u64 >= seconds.min(4), "{seconds}");
            let sent: u64 = points.iter().map(|point| point.sent).sum();
            let span_s: f64 = points.iter().map(|point| point.span_s).sum();
            assert_eq!(sent, 3 * seconds);
            assert!((span_s - seconds as f64).abs() < 1e-6, "{span_s}");
            let last = points.last().unwrap();
            assert_eq!((last.at_s, last.online), (seconds as f64, seconds - 1));
            assert_eq!(points[0].latencies.send_to_accepted.p99_us, 1000);
            let counts = points.iter().map(|p| p.latencies.send_to_accepted.count);
            assert_eq!(counts.sum::<u64>(), 2 * seconds);
            let seen = points.iter().any(|p| p.server.rss_bytes == Some(77));
            assert_eq!(seen, seconds > 3);
        }
    }

    #[test]
    fn a_coarse_copy_covers_the_same_time() {
        let mut series = Series::default();
        (0..1000).for_each(|n| series.push(point(n)));
        let coarse = series.coarse(60);
        assert!((30..=60).contains(&coarse.len()), "{}", coarse.len());
        let sent: u64 = coarse.iter().map(|point| point.sent).sum();
        assert_eq!(sent, 3000);
        assert!((coarse[0].swarm_busy_share - 8.0).abs() < 1e-9, "the mean");
        assert!(Series::default().coarse(60).is_empty());
    }
}
