//! A run: everyone signs in, the phases of the scenario, settling, the verdict.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::chaos::{Ground, Tending};
use crate::people::{Latencies, People};
use crate::scenario::Phase;
use crate::series::{Recorder, Second, ServerUse, own_rss_bytes};
use crate::summary::{LatencySummary, Progress, Summary};
use crate::{Engine, Event, Options, Outcome, Roster, Scenario, Sources, SwarmError};

/// To sign in all who are there at the beginning: so long, and so long more for each.
const ASSEMBLE_WITHIN: Duration = Duration::from_secs(60);
const ASSEMBLE_EACH: Duration = Duration::from_millis(5);
/// `read`s that may have been lost are said again when so long nothing more has come.
const REPEAT_AFTER: Duration = Duration::from_secs(1);
/// At the end it listens a little longer, for what should not come.
const LINGER: Duration = Duration::from_millis(500);
const SLICE: Duration = Duration::from_millis(100);
/// Whoever makes faults does not wait longer for what it asks.
const TENDED_EVERY: Duration = Duration::from_millis(20);
const SECOND: Duration = Duration::from_secs(1);
/// From this share of a core on the swarm measures itself; so it does when its timers are so late.
const BUSY_SHARE: f64 = 0.85;
const LATE_US: u64 = 20_000;

/// CPU used, by this thread and by the whole process, and when that was.
#[derive(Debug, Clone, Copy)]
struct Spent {
    at: Instant,
    thread: Duration,
    process: Duration,
}

impl Spent {
    fn now() -> Self {
        let used = |clock| {
            let used = clock_gettime(clock);
            let seconds = u64::try_from(used.tv_sec).unwrap_or(0);
            Duration::new(seconds, u32::try_from(used.tv_nsec).unwrap_or(0))
        };
        Self {
            at: Instant::now(),
            thread: used(ClockId::ThreadCPUTime),
            process: used(ClockId::ProcessCPUTime),
        }
    }
}

/// How a run is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// As the scenario says.
    GoOn,
    /// It ends before its time: nobody writes any more, everything is drained, the verdict follows.
    End,
    /// It stops at once, without a verdict.
    Stop,
}

/// Whoever looks on while a run goes.
pub trait Watch {
    /// A second is over.
    fn second(&mut self, second: Second);

    /// A fault is over.
    fn chaos(&mut self, _event: &Event) {}

    /// The server was started again, as this process.
    fn server_started(&mut self, _pid: u32) {}

    /// Whether the users may begin, once all are signed in; asked until it is so.
    fn may_begin(&mut self) -> bool {
        true
    }

    /// How it is to go on; asked several times a second.
    fn wish(&mut self) -> Wish {
        Wish::GoOn
    }
}

/// A run that came to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// What there is to say about it.
    pub summary: Summary,
    /// Its latencies with all their digits.
    pub latencies: Latencies,
}

/// What a run is pointed at.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Where the server listens.
    pub server: SocketAddr,
    /// Where connections come from; chosen by the server's address when it is absent.
    pub sources: Option<Sources>,
    /// Settling is given up when so long nothing more has come.
    pub settle_still: Duration,
}

impl Target {
    /// A server, with the patience it deserves.
    pub fn new(server: SocketAddr) -> Self {
        Self {
            server,
            sources: None,
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
    last: Second,
    last_spent: Spent,
    busy_s: u32,
    lines: u32,
    cpu_share_max: f64,
    rss_bytes_max: u64,
    late_us_max: u64,
    ended_early: bool,
    watch: &'a mut dyn Watch,
    tending: Tending,
    faults_told: usize,
}

/// Runs a scenario against a server, with users that exist. `progress` is called once a second.
///
/// # Errors
/// When the run cannot go on. What the server does wrong is in the summary's verdict.
pub fn run(
    scenario: &Scenario,
    roster: Roster,
    target: Target,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Summary, SwarmError> {
    struct Lines<'a>(Recorder, &'a mut dyn FnMut(&Progress));
    impl Watch for Lines<'_> {
        fn second(&mut self, second: Second) {
            (self.1)(&self.0.take(&second).0);
        }
    }
    let mut lines = Lines(Recorder::new(None), progress);
    Ok(watched(Ground::default(), scenario, roster, target, &mut lines)?.summary)
}

/// Runs a scenario against a server, with users that exist, while somebody looks on; on a ground of its
/// own, if it has one: a server that ends with the run, faults.
///
/// # Errors
/// When the run cannot go on, or the faults asked for cannot be had. What the server does wrong is in the summary's verdict.
pub fn watched(
    ground: Ground,
    scenario: &Scenario,
    roster: Roster,
    target: Target,
    watch: &mut dyn Watch,
) -> Result<Finished, SwarmError> {
    let rss_bytes_before = own_rss_bytes();
    let tending = Tending::new(ground, target, &roster, scenario.users);
    let people = People::new(scenario, roster.names());
    let devices = u32::try_from(roster.len()).unwrap_or(u32::MAX);
    let spent_before = Spent::now();
    let mut options = Options::new(target.server);
    options.sources = target.sources.or(options.sources);
    let mut run = Run {
        engine: Engine::new(roster, options)?,
        people,
        devices,
        began: spent_before.at,
        next_line: spent_before.at + SECOND,
        last: Second::default(),
        last_spent: spent_before,
        busy_s: 0,
        lines: 0,
        cpu_share_max: 0.0,
        rss_bytes_max: rss_bytes_before,
        late_us_max: 0,
        ended_early: false,
        watch,
        tending,
        faults_told: 0,
    };
    run.assemble()?;
    run.tending.begin(scenario, &mut run.people, run.began)?;
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
        if run.ended_early {
            break;
        }
        run.phase(phase, scenario.duration_s * phase.weight / weights)?;
    }
    while !run.tending.calm() {
        run.slice("calming", Instant::now() + SLICE)?;
    }
    let (busy_s, lines) = (run.busy_s, run.lines);
    let settling = Instant::now();
    run.settle(target.settle_still)?;
    run.second("settling");
    let mut people = run.people;
    for what in run.tending.end() {
        people.checker.server(what);
    }
    let reached: Vec<bool> = (0..devices)
        .map(|device| people.is_online(device))
        .collect();
    let mut verdict = people.checker.verdict(|device| reached[device as usize]);
    // A run in which nothing happened proves nothing.
    let idle = scenario.traffic.is_some() && verdict.totals.accepted == 0;
    if idle && verdict.outcome == Outcome::Clean {
        verdict.outcome = Outcome::Incomplete;
    }
    if verdict.outcome == Outcome::Clean {
        run.tending.discard();
    }
    let told = run.tending.told;
    let spent = Spent::now();
    let summary = Summary {
        processes: 1,
        ended_early: run.ended_early,
        chaos: told.events,
        chaos_left_out: told.left_out,
        chaos_seed: told.seed,
        server_log: told.log,
        seed: scenario.seed,
        users: scenario.users,
        devices: scenario.devices,
        duration_s: scenario.duration_s,
        settled_after_s: settling.elapsed().as_secs_f64(),
        connections: run.engine.counts().welcomed,
        reconnects: people.reconnects,
        resends_known: run.engine.counts().duplicates,
        latencies: LatencySummary::of(&people.latencies),
        refusals: people.refusals,
        ends: people.ends,
        cpu_s: (spent.process - spent_before.process).as_secs_f64(),
        cpu_share_max: run.cpu_share_max,
        rss_bytes_max: run.rss_bytes_max,
        rss_bytes_before,
        late_us_max: run.late_us_max,
        // More than a tenth of the time: what was measured then is the swarm.
        swarm_is_bottleneck: busy_s > 0 && busy_s * 10 > lines,
        server: ServerUse::default(),
        verdict,
    };
    Ok(Finished {
        summary,
        latencies: people.latencies,
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
        while !self.watch.may_begin() && self.watch.wish() == Wish::GoOn {
            self.slice("waiting", Instant::now() + SLICE)?;
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
        while Instant::now() < until && !self.ended_early {
            self.slice(&phase.name, until.min(Instant::now() + SLICE))?;
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
        match self.watch.wish() {
            Wish::GoOn => {}
            Wish::End => self.ended_early = true,
            Wish::Stop => return Err(SwarmError::Stopped),
        }
        let mut until = until.min(self.next_line);
        if self.tending.is_busy() {
            until = until.min(Instant::now() + TENDED_EVERY);
        }
        self.engine.run(&mut self.people, until)?;
        self.tending
            .tend(&mut self.engine, &mut self.people, self.devices)?;
        self.tell_faults();
        let now = Instant::now();
        if now >= self.next_line {
            self.second(phase);
            while self.next_line <= now {
                self.next_line += SECOND;
            }
        }
        Ok(())
    }

    /// Tells of the faults that are over since this was called last.
    fn tell_faults(&mut self) {
        for event in &self.tending.told.events[self.faults_told..] {
            self.watch.chaos(event);
        }
        self.faults_told = self.tending.told.events.len();
        if let Some(pid) = self.tending.told.server_pid.take() {
            self.watch.server_started(pid);
        }
    }

    /// Tells of the time since this was called last.
    fn second(&mut self, phase: &str) {
        let spent = Spent::now();
        let before = std::mem::replace(&mut self.last_spent, spent);
        let wall_s = (spent.at - before.at).as_secs_f64().max(1e-3);
        let busy_share = (spent.thread - before.thread).as_secs_f64() / wall_s;
        let totals = self.people.checker.totals();
        // Everything that is counted is counted from the beginning; told is the difference.
        let counted = Second {
            sent: totals.sent,
            accepted: totals.accepted,
            delivered: totals.delivered,
            refused: self.people.refusals.values().sum(),
            reconnects: self.people.reconnects,
            lost_connections: self.people.ends.values().sum(),
            violations: self.people.checker.violations().total(),
            ..Second::default()
        };
        let last = std::mem::replace(&mut self.last, counted.clone());
        let second = Second {
            at_s: (spent.at - self.began).as_secs_f64(),
            span_s: wall_s,
            phase: phase.to_owned(),
            online: self.people.online() as u64,
            devices: self.devices.into(),
            sent: counted.sent - last.sent,
            accepted: counted.accepted - last.accepted,
            delivered: counted.delivered - last.delivered,
            refused: counted.refused - last.refused,
            reconnects: counted.reconnects - last.reconnects,
            lost_connections: counted.lost_connections - last.lost_connections,
            violations: counted.violations - last.violations,
            latencies: self.people.take_interval(),
            busy_share,
            cpu_share: (spent.process - before.process).as_secs_f64() / wall_s,
            rss_bytes: own_rss_bytes(),
            lateness: self.engine.take_lateness(),
        };
        let late_us = second.lateness.mean_us();
        self.lines += 1;
        self.busy_s += u32::from(busy_share > BUSY_SHARE || late_us > LATE_US);
        self.cpu_share_max = self.cpu_share_max.max(busy_share);
        self.rss_bytes_max = self.rss_bytes_max.max(second.rss_bytes);
        self.late_us_max = self.late_us_max.max(late_us);
        self.watch.second(second);
    }
}
