//! One second of a run as it is measured, with histograms, so that those of several processes add up.

use serde::{Deserialize, Serialize};

use super::{Point, ServerLook};
use crate::people::Latencies;
use crate::summary::LatencySummary;
use crate::{Lateness, Percentiles};

/// What one process saw in a second, or a little more when its loop was busy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// When it ended, since the run began.
    pub at_s: f64,
    /// How long it was.
    pub span_s: f64,
    /// Where in the scenario.
    pub phase: String,
    /// Devices signed in at its end.
    pub online: u64,
    /// Devices in all.
    pub devices: u64,
    /// Sends.
    pub sent: u64,
    /// `accepted`.
    pub accepted: u64,
    /// Deliveries, all devices.
    pub delivered: u64,
    /// Refusals.
    pub refused: u64,
    /// Sign-ins of devices that had been signed in before.
    pub reconnects: u64,
    /// Connections lost that the scenario did not end.
    pub lost_connections: u64,
    /// Violations.
    pub violations: u64,
    /// Latencies of what ended in it.
    pub latencies: Latencies,
    /// Processor time of the busiest thread, as a share of one core.
    pub busy_share: f64,
    /// Processor time in cores.
    pub cpu_share: f64,
    /// Memory.
    pub rss_bytes: u64,
    /// How late timers fired.
    pub lateness: Lateness,
}

impl Second {
    /// Adds what another process saw in the same second.
    pub fn add(&mut self, other: &Self) {
        self.at_s = self.at_s.max(other.at_s);
        self.span_s = self.span_s.max(other.span_s);
        if self.phase.is_empty() {
            self.phase.clone_from(&other.phase);
        }
        for (own, more) in [
            (&mut self.online, other.online),
            (&mut self.devices, other.devices),
            (&mut self.sent, other.sent),
            (&mut self.accepted, other.accepted),
            (&mut self.delivered, other.delivered),
            (&mut self.refused, other.refused),
            (&mut self.reconnects, other.reconnects),
            (&mut self.lost_connections, other.lost_connections),
            (&mut self.violations, other.violations),
            (&mut self.rss_bytes, other.rss_bytes),
        ] {
            *own += more;
        }
        self.latencies.add(&other.latencies);
        self.busy_share = self.busy_share.max(other.busy_share);
        self.cpu_share += other.cpu_share;
        self.lateness.add(other.lateness);
    }

    /// As figures, with what was seen of the server at its end.
    pub fn point(&self, server: ServerLook) -> Point {
        Point {
            at_s: self.at_s,
            span_s: self.span_s,
            phase: self.phase.clone(),
            online: self.online,
            sent: self.sent,
            accepted: self.accepted,
            delivered: self.delivered,
            refused: self.refused,
            reconnects: self.reconnects,
            lost_connections: self.lost_connections,
            violations: self.violations,
            latencies: LatencySummary::of(&self.latencies),
            swarm_busy_share: self.busy_share,
            swarm_cpu_share: self.cpu_share,
            swarm_rss_bytes: self.rss_bytes,
            swarm_late_us: self.lateness.mean_us(),
            server,
        }
    }
}

impl LatencySummary {
    /// Of histograms.
    pub fn of(latencies: &Latencies) -> Self {
        Self {
            connect_to_welcome: Percentiles::of(&latencies.welcome),
            send_to_accepted: Percentiles::of(&latencies.accepted),
            send_to_delivered: Percentiles::of(&latencies.delivered),
            reconnect_to_caught_up: Percentiles::of(&latencies.caught_up),
        }
    }

    /// Of each figure the worse one.
    pub(super) fn worse(&self, other: &Self) -> Self {
        Self {
            connect_to_welcome: self.connect_to_welcome.worse(other.connect_to_welcome),
            send_to_accepted: self.send_to_accepted.worse(other.send_to_accepted),
            send_to_delivered: self.send_to_delivered.worse(other.send_to_delivered),
            reconnect_to_caught_up: self
                .reconnect_to_caught_up
                .worse(other.reconnect_to_caught_up),
        }
    }
}

impl Percentiles {
    fn worse(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            p50_us: self.p50_us.max(other.p50_us),
            p90_us: self.p90_us.max(other.p90_us),
            p99_us: self.p99_us.max(other.p99_us),
            p999_us: self.p999_us.max(other.p999_us),
            max_us: self.max_us.max(other.max_us),
        }
    }
}
