//! What a run tells: a line a second, and the summary at its end, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::series::ServerUse;
use crate::{Event, Latency, LeftOut, Outcome, Verdict};

/// A distribution of latencies, microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many were measured.
    pub count: u64,
    /// Half are at or below.
    pub p50_us: u64,
    /// 90 of 100 are at or below.
    pub p90_us: u64,
    /// 99 of 100 are at or below.
    pub p99_us: u64,
    /// 999 of 1000 are at or below.
    pub p999_us: u64,
    /// The greatest.
    pub max_us: u64,
}

impl Percentiles {
    /// Of a histogram.
    pub fn of(latency: &Latency) -> Self {
        // Looking for percentiles goes through the whole histogram, and most seconds of most runs
        // have none of something.
        if latency.count() == 0 {
            return Self::default();
        }
        let us = |percent| u64::try_from(latency.percentile(percent).as_micros()).unwrap_or(0);
        Self {
            count: latency.count(),
            p50_us: us(50.0),
            p90_us: us(90.0),
            p99_us: us(99.0),
            p999_us: us(99.9),
            max_us: us(100.0),
        }
    }
}

fn ms(us: u64) -> String {
    format!("{:.1}", us as f64 / 1000.0)
}

/// One second of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Progress {
    /// Since the beginning.
    pub at_s: f64,
    /// Where in the scenario.
    pub phase: String,
    /// Devices signed in.
    pub online: u64,
    /// Devices in all.
    pub devices: u64,
    /// Sends a second.
    pub sent_per_s: f64,
    /// `accepted` a second.
    pub accepted_per_s: f64,
    /// Deliveries a second, all devices.
    pub delivered_per_s: f64,
    /// From due to `accepted`, in this second.
    pub accepted: Percentiles,
    /// From due to delivery, in this second.
    pub delivered: Percentiles,
    /// Connections lost so far, not counting those the scenario ended.
    pub lost_connections: u64,
    /// Refusals so far.
    pub refused: u64,
    /// Violations so far.
    pub violations: u64,
    /// Share of one core that the swarm's busiest thread used in this second.
    pub cpu_share: f64,
    /// Memory of the server, where it is known.
    pub server_rss_bytes: Option<u64>,
    /// Processor time of the server in cores, where it is known.
    pub server_cpu_share: Option<f64>,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:5.0} s  {:<10} {}/{} online  {:.0} sent/s  {:.0} accepted/s  {:.0} delivered/s  p99 {}/{} ms  cpu {:.0}%",
            self.at_s,
            self.phase,
            self.online,
            self.devices,
            self.sent_per_s,
            self.accepted_per_s,
            self.delivered_per_s,
            ms(self.accepted.p99_us),
            ms(self.delivered.p99_us),
            self.cpu_share * 100.0,
        )?;
        if let Some(rss_bytes) = self.server_rss_bytes {
            let cpu = self.server_cpu_share.unwrap_or(0.0) * 100.0;
            write!(f, "  server {} MiB cpu {cpu:.0}%", rss_bytes >> 20)?;
        }
        for (count, what) in [
            (self.lost_connections, "connections lost"),
            (self.refused, "refused"),
            (self.violations, "VIOLATIONS"),
        ] {
            if count > 0 {
                write!(f, "  {count} {what}")?;
            }
        }
        Ok(())
    }
}

/// Latencies of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// From wanting to connect to `welcome`.
    pub connect_to_welcome: Percentiles,
    /// From due to `accepted`.
    pub send_to_accepted: Percentiles,
    /// From due to arrival at a device that is not away.
    pub send_to_delivered: Percentiles,
    /// From wanting to connect again to having what had waited.
    pub reconnect_to_caught_up: Percentiles,
}

/// How a run went. As JSON its fields stay: new ones are added, none changes its meaning
/// (`docs/load-testing.md`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Processes that the users were split over.
    pub processes: u32,
    /// Somebody ended it before its time.
    pub ended_early: bool,
    /// The seed of every choice.
    pub seed: u64,
    /// Users.
    pub users: u32,
    /// Devices of each.
    pub devices: u32,
    /// How long they acted.
    pub duration_s: f64,
    /// How long it took then until everything had come.
    pub settled_after_s: f64,
    /// Sign-ins that succeeded.
    pub connections: u64,
    /// Of these, by devices that had been signed in before.
    pub reconnects: u64,
    /// Sends repeated after a reconnect that the server knew already. Allowed.
    pub resends_known: u64,
    /// Latencies.
    pub latencies: LatencySummary,
    /// Codes of refusals, with counts.
    pub refusals: BTreeMap<String, u64>,
    /// Why connections ended that the scenario did not end, with counts.
    pub ends: BTreeMap<String, u64>,
    /// CPU the swarm used, seconds.
    pub cpu_s: f64,
    /// The greatest share of one core in any second.
    pub cpu_share_max: f64,
    /// Most memory of the swarm, bytes, and what it had before it knew its users.
    pub rss_bytes_max: u64,
    /// See `rss_bytes_max`.
    pub rss_bytes_before: u64,
    /// The greatest mean delay of the swarm's timers in any second.
    pub late_us_max: u64,
    /// The swarm had no time left: rates and latencies are its own, not the server's.
    pub swarm_is_bottleneck: bool,
    /// What the server used, where it is known.
    pub server: ServerUse,
    /// Faults that were made, in their order.
    pub chaos: Vec<Event>,
    /// Faults that were asked for and cannot be had here.
    pub chaos_left_out: Vec<LeftOut>,
    /// The seed of the faults, when there was chaos.
    pub chaos_seed: Option<u64>,
    /// Where the log of the server is that the run started, unless the verdict is clean.
    pub server_log: Option<PathBuf>,
    /// The checker's verdict.
    pub verdict: Verdict,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let totals = &self.verdict.totals;
        writeln!(
            f,
            "{} users with {} devices each, {} s, seed {}: {} sent, {} accepted, {} refused, {} delivered, {} redelivered, {} receipts; {} sign-ins; settled after {:.1} s",
            self.users,
            self.devices,
            self.duration_s,
            self.seed,
            totals.sent,
            totals.accepted,
            totals.refused,
            totals.delivered,
            totals.redelivered,
            totals.receipts,
            self.connections,
            self.settled_after_s,
        )?;
        let rule = |text: &str| format!("{text:>10}");
        let head: String = ["count", "p50", "p90", "p99", "p99.9", "max"]
            .map(rule)
            .concat();
        writeln!(f, "{:<26}{head}", "latency, ms")?;
        for (name, of) in [
            ("connect to welcome", self.latencies.connect_to_welcome),
            ("send to accepted", self.latencies.send_to_accepted),
            ("send to delivered", self.latencies.send_to_delivered),
            (
                "reconnect to caught up",
                self.latencies.reconnect_to_caught_up,
            ),
        ] {
            let values = [of.p50_us, of.p90_us, of.p99_us, of.p999_us, of.max_us];
            let values: String = values.map(|us| rule(&ms(us))).concat();
            writeln!(f, "{name:<26}{:>10}{values}", of.count)?;
        }
        for (what, reasons) in [
            ("refused", &self.refusals),
            ("connections lost", &self.ends),
        ] {
            for (reason, count) in reasons {
                writeln!(f, "{what}: {count} times {reason}")?;
            }
        }
        let (cpu_s, share) = (self.cpu_s, self.cpu_share_max * 100.0);
        let (late, rss) = (ms(self.late_us_max), self.rss_bytes_max >> 20);
        writeln!(
            f,
            "the swarm used {cpu_s:.1} s of CPU, {share:.0}% of a core and {rss} MiB at most, and was {late} ms late at most"
        )?;
        if let (Some(rss_bytes), Some(cpu_s)) = (self.server.rss_bytes_max, self.server.cpu_s) {
            let rss = rss_bytes >> 20;
            writeln!(
                f,
                "the server used {cpu_s:.1} s of CPU and {rss} MiB at most"
            )?;
        }
        if self.swarm_is_bottleneck {
            writeln!(
                f,
                "WARNING: the swarm was the bottleneck; rates and latencies are its own, not the server's. Take fewer users or a lower rate."
            )?;
        }
        if let Some(seed) = self.chaos_seed {
            writeln!(f, "chaos, seed {seed}: {} faults", self.chaos.len())?;
            for event in &self.chaos {
                writeln!(f, "{event}")?;
            }
            for LeftOut { kind, why } in &self.chaos_left_out {
                writeln!(f, "left out: {kind}: {why}")?;
            }
        }
        if let Some(log) = &self.server_log {
            writeln!(f, "the server's log: {}", log.display())?;
        }
        for violation in &self.verdict.violations.first {
            writeln!(f, "VIOLATION {violation}")?;
        }
        match self.verdict.outcome {
            Outcome::Clean => writeln!(f, "verdict: clean"),
            Outcome::Broken => {
                write!(f, "verdict: BROKEN:")?;
                for (kind, count) in &self.verdict.violations.counts {
                    write!(f, " {count} {kind};")?;
                }
                writeln!(f)
            }
            Outcome::Incomplete => writeln!(
                f,
                "verdict: INCOMPLETE: {} accepted, {} devices could not be reached at the end, {} sends are in doubt",
                totals.accepted, self.verdict.devices_unreached, self.verdict.sends_in_doubt
            ),
        }
    }
}
