//! A run: everyone signs in, the phases of the scenario, settling, the verdict.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::people::People;
use crate::scenario::Phase;
use crate::summary::{LatencySummary, Percentiles, Progress, Summary};
use crate::{Engine, Options, Outcome, Roster, Scenario, SwarmError};

/// To sign in all who are there at the beginning: so long, and so long more for each.
const ASSEMBLE_WITHIN: Duration = Duration::from_secs(60);
const ASSEMBLE_EACH: Duration = Duration::from_millis(5);
/// `read`s that may have been lost are said again when so long nothing more has come.
const REPEAT_AFTER: Duration = Duration::from_secs(1);
/// At the end it listens a little longer, for what should not come.
const LINGER: Duration = Duration::from_millis(500);
const SLICE: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
/// From this share of a core on the swarm measures itself.
const BUSY_SHARE: f64 = 0.85;

/// CPU this thread has used.
fn cpu() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(used.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(used.tv_nsec).unwrap_or(0))
}

/// What a run is pointed at.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Where the server listens.
    pub server: SocketAddr,
    /// Settling is given up when so long nothing more has come.
    pub settle_still: Duration,
}

impl Target {
    /// A server, with the patience it deserves.
    pub fn new(server: SocketAddr) -> Self {
        Self {
            server,
            settle_still: Duration::from_secs(20),
        }
    }
}

struct Run<'a> {
    engine: Engine,
    people: People,
    devices: u32,
    began: Instant,
    next_line: Instant,
    last_totals: (u64, u64, u64),
    last_cpu: (Instant, Duration),
    busy_s: u32,
    lines: u32,
    cpu_share_max: f64,
    progress: &'a mut dyn FnMut(&Progress<'_>),
}

/// Runs a scenario against a server, with users that exist. `progress` is called once a second.
///
/// # Errors
/// When the run cannot go on. What the server does wrong is in the summary's verdict.
pub fn run(
    scenario: &Scenario,
    roster: Roster,
    target: Target,
    progress: &mut dyn FnMut(&Progress<'_>),
) -> Result<Summary, SwarmError> {
    let people = People::new(scenario, roster.names());
    let devices = u32::try_from(roster.len()).unwrap_or(u32::MAX);
    let now = Instant::now();
    let cpu_before = cpu();
    let mut run = Run {
        engine: Engine::new(roster, Options::new(target.server))?,
        people,
        devices,
        began: now,
        next_line: now + SECOND,
        last_totals: (0, 0, 0),
        last_cpu: (now, cpu_before),
        busy_s: 0,
        lines: 0,
        cpu_share_max: 0.0,
        progress,
    };
    run.assemble()?;
    let ordinary = [Phase {
        name: "run".to_owned(),
        weight: 1.0,
        rate_factor: 1.0,
        cut_share: 0.0,
        cut_s: 0.0,
    }];
    let phases = match scenario.phases.as_slice() {
        [] => &ordinary[..],
        phases => phases,
    };
    let weights: f64 = phases.iter().map(|phase| phase.weight).sum();
    for phase in phases {
        run.phase(phase, scenario.duration_s * phase.weight / weights)?;
    }
    let (busy_s, lines) = (run.busy_s, run.lines);
    let settling = Instant::now();
    run.settle(target.settle_still)?;
    let people = run.people;
    let reached: Vec<bool> = (0..devices)
        .map(|device| people.is_online(device))
        .collect();
    let mut verdict = people.checker.verdict(|device| reached[device as usize]);
    // A run in which nothing happened proves nothing.
    let idle = scenario.traffic.is_some() && verdict.totals.accepted == 0;
    if idle && verdict.outcome == Outcome::Clean {
        verdict.outcome = Outcome::Incomplete;
    }
    Ok(Summary {
        seed: scenario.seed,
        users: scenario.users,
        devices: scenario.devices,
        duration_s: scenario.duration_s,
        settled_after_s: settling.elapsed().as_secs_f64(),
        connections: run.engine.counts().welcomed,
        resends_known: run.engine.counts().duplicates,
        latencies: LatencySummary {
            connect_to_welcome: Percentiles::of(&people.latencies.welcome),
            send_to_accepted: Percentiles::of(&people.latencies.accepted),
            send_to_delivered: Percentiles::of(&people.latencies.delivered),
            reconnect_to_caught_up: Percentiles::of(&people.latencies.caught_up),
        },
        refusals: people.refusals,
        ends: people.ends,
        cpu_s: (cpu() - cpu_before).as_secs_f64(),
        cpu_share_max: run.cpu_share_max,
        // More than a tenth of the time: what was measured then is the swarm.
        swarm_is_bottleneck: busy_s > 0 && busy_s * 10 > lines,
        verdict,
    })
}

impl Run<'_> {
    fn assemble(&mut self) -> Result<(), SwarmError> {
        let within = ASSEMBLE_WITHIN + ASSEMBLE_EACH * self.devices;
        let until = Instant::now() + within;
        self.engine
            .each(0..self.devices, &mut self.people, |people, user| {
                people.assemble(user);
                Ok(())
            })?;
        while !self.people.assembled() {
            self.slice("signing in", Instant::now() + SLICE)?;
            if Instant::now() > until {
                let (online, ends) = (self.people.online(), &self.people.ends);
                return Err(SwarmError::Deadline {
                    what: "that all users are connected",
                    state: format!("{online} are; connections ended: {ends:?}"),
                });
            }
        }
        Ok(())
    }

    fn phase(&mut self, phase: &Phase, seconds: f64) -> Result<(), SwarmError> {
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        self.people.set_rate_factor(phase.rate_factor);
        let (cut_share, cut_s) = (phase.cut_share, phase.cut_s);
        self.engine
            .each(0..self.devices, &mut self.people, |people, user| {
                people.begin(user, cut_share, cut_s)
            })?;
        while Instant::now() < until {
            self.slice(&phase.name, until)?;
        }
        Ok(())
    }

    /// Until everything has come that was accepted, or nothing comes any more.
    fn settle(&mut self, still: Duration) -> Result<(), SwarmError> {
        self.engine
            .each(0..self.devices, &mut self.people, |people, user| {
                people.settle(user);
                Ok(())
            })?;
        let mut least = u64::MAX;
        let mut since = Instant::now();
        let mut repeated = false;
        let mut pause = SLICE;
        loop {
            let looking = Instant::now();
            let offline = u64::from(self.devices) - self.people.online() as u64;
            let left = self.people.checker.outstanding() + offline;
            // Looking must not become the work.
            pause = pause.max(looking.elapsed() * 10);
            if left == 0 {
                break;
            }
            if left < least {
                (least, since) = (left, Instant::now());
            } else if since.elapsed() > still {
                return Ok(());
            } else if since.elapsed() > REPEAT_AFTER && offline == 0 && !repeated {
                repeated = true;
                self.repeat_reads()?;
            }
            self.slice("settling", Instant::now() + pause)?;
        }
        self.engine.run(&mut self.people, Instant::now() + LINGER)?;
        Ok(())
    }

    fn repeat_reads(&mut self) -> Result<(), SwarmError> {
        let behind = self.people.checker.reads_behind();
        for (device, from) in behind {
            if self.people.was_disturbed(device) {
                self.engine
                    .each(device..device + 1, &mut self.people, |people, user| {
                        people.repeat_reads(user, from);
                        Ok(())
                    })?;
            }
        }
        Ok(())
    }

    /// Runs until then or until the next line of progress is due.
    fn slice(&mut self, phase: &str, until: Instant) -> Result<(), SwarmError> {
        self.engine
            .run(&mut self.people, until.min(self.next_line))?;
        let now = Instant::now();
        if now < self.next_line {
            return Ok(());
        }
        let totals = self.people.checker.totals();
        let totals = (totals.sent, totals.accepted, totals.delivered);
        let (since, cpu_then) = std::mem::replace(&mut self.last_cpu, (now, cpu()));
        let wall_s = (now - since).as_secs_f64();
        let cpu_share = (self.last_cpu.1 - cpu_then).as_secs_f64() / wall_s;
        self.lines += 1;
        self.busy_s += u32::from(cpu_share > BUSY_SHARE);
        self.cpu_share_max = self.cpu_share_max.max(cpu_share);
        let per_s = |now: u64, then: u64| (now - then) as f64 / wall_s;
        (self.progress)(&Progress {
            at_s: (now - self.began).as_secs_f64(),
            phase,
            online: self.people.online(),
            devices: self.devices,
            sent_per_s: per_s(totals.0, self.last_totals.0),
            accepted_per_s: per_s(totals.1, self.last_totals.1),
            delivered_per_s: per_s(totals.2, self.last_totals.2),
            accepted: Percentiles::of(&self.people.interval.accepted),
            delivered: Percentiles::of(&self.people.interval.delivered),
            lost_connections: self.people.ends.values().sum(),
            refused: self.people.refusals.values().sum(),
            violations: self.people.checker.violations().total(),
            cpu_share,
        });
        self.last_totals = totals;
        self.people.next_interval();
        while self.next_line <= now {
            self.next_line += SECOND;
        }
        Ok(())
    }
}
