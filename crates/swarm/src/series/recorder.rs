//! Gathers the seconds of a run: the series, the running totals, and the line for the terminal.

use super::{Point, Probe, Second, Series, ServerLook};
use crate::Progress;

/// Gathers what a run tells while it goes.
#[derive(Debug)]
pub struct Recorder {
    /// Everything so far.
    pub series: Series,
    probe: Option<Probe>,
    lost_connections: u64,
    refused: u64,
    violations: u64,
}

impl Recorder {
    /// One that also looks at the server, when there is a probe.
    pub fn new(probe: Option<Probe>) -> Self {
        Self {
            series: Series::default(),
            probe,
            lost_connections: 0,
            refused: 0,
            violations: 0,
        }
    }

    /// What looks at the server.
    pub fn probe(&self) -> Option<&Probe> {
        self.probe.as_ref()
    }

    /// Takes a second in; what is to be shown of it.
    pub fn take(&mut self, second: &Second) -> (Progress, Point) {
        if let (Some(probe), []) = (&self.probe, self.series.points()) {
            probe.begin();
        }
        self.lost_connections += second.lost_connections;
        self.refused += second.refused;
        self.violations += second.violations;
        let look = self
            .probe
            .as_ref()
            .map_or_else(ServerLook::default, Probe::look);
        let point = second.point(look);
        self.series.push(point.clone());
        let per_s = |count: u64| count as f64 / second.span_s.max(1e-3);
        let progress = Progress {
            at_s: second.at_s,
            phase: second.phase.clone(),
            online: second.online,
            devices: second.devices,
            sent_per_s: per_s(second.sent),
            accepted_per_s: per_s(second.accepted),
            delivered_per_s: per_s(second.delivered),
            accepted: point.latencies.send_to_accepted,
            delivered: point.latencies.send_to_delivered,
            lost_connections: self.lost_connections,
            refused: self.refused,
            violations: self.violations,
            cpu_share: second.busy_share,
            server_rss_bytes: point.server.rss_bytes,
            server_cpu_share: point.server.cpu_share,
        };
        (progress, point)
    }
}
