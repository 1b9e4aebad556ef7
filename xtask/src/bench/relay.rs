//! Server CPU for messages between connected users, beside a bare relay.
//!
//! Pairs of users play ping-pong with `window` messages under way a pair. On the server's side every
//! message is journaled and synced, accepted, delivered, acknowledged and its receipts told; the
//! floor only carries it over. Rounds of both alternate, on connections that stay open, and medians
//! are compared, so that whatever else the machine does falls on both.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use stonechat_swarm::{Behaviour, Counts, Engine, Options, Pairs, Roster};

use super::far::Chase;
use super::process::Usage;
use super::report::Target;
use super::server::{self, Server};
use super::{Common, Report, disk, users};

/// Something has to arrive within this, or it is lost.
const PROGRESS_WITHIN: Duration = Duration::from_secs(30);
const CONNECTED_WITHIN: Duration = Duration::from_secs(120);
/// Work put off (lazy acknowledgements) is charged to the round that caused it.
const SETTLE: Duration = Duration::from_millis(150);

/// Server CPU for messages between connected users, beside a bare relay.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Pairs of connected users.
    #[arg(long, default_value_t = 500)]
    pub(crate) pairs: usize,
    /// Messages under way a pair; may be given more than once.
    #[arg(long, default_values_t = [1, 16])]
    pub(crate) window: Vec<usize>,
    /// Messages of one round.
    #[arg(long, default_value_t = 300_000)]
    pub(crate) messages: u64,
    /// Bytes of a body, quotes included.
    #[arg(long, default_value_t = 200)]
    pub(crate) body_bytes: usize,
    /// Rounds of each, floor and server by turns; an unmeasured one comes first.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// Leaves the floor out, to profile the server alone.
    #[arg(long)]
    pub(crate) no_floor: bool,
}

/// One side under measurement: a process, and the users connected to it.
pub(super) struct Side {
    engine: Engine,
    pairs: Pairs,
    pid: u32,
}

/// What one round cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    messages: f64,
    wall_s: f64,
    server: Usage,
    client: Usage,
    counts: Counts,
}

impl Side {
    /// Pairs of users of their own on a server that has just been started.
    pub(super) fn of(server: &Server, pairs: usize, body_bytes: usize) -> Result<Self> {
        let users = pairs * 2;
        let roster = users::create(&server.admin, users, users)?;
        Self::new(
            roster,
            Options::new(server.listen),
            server.pid(),
            body_bytes,
        )
    }

    pub(super) fn new(
        roster: Roster,
        options: Options,
        pid: u32,
        body_bytes: usize,
    ) -> Result<Self> {
        let users = roster.len();
        let receipts = options.answers;
        let mut side = Self {
            engine: Engine::new(roster, options)?,
            pairs: Pairs::new(users, 0, body_bytes, receipts),
            pid,
        };
        let all = 0..u32::try_from(users)?;
        side.engine
            .connect(all, &mut side.pairs, CONNECTED_WITHIN)?;
        Ok(side)
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn round(&mut self, window: usize, messages: u64) -> Result<Round> {
        let all = 0..u32::try_from(self.pairs.users().len())?;
        self.pairs.again(messages);
        let counts = self.engine.counts();
        let (server, client) = (Usage::of(self.pid)?, Usage::own()?);
        self.engine
            .each(all, &mut self.pairs, |pairs, user| pairs.kick(user, window))?;
        let began_us = self.engine.now_us();
        until_finished(&mut self.engine, &mut self.pairs, Pairs::received)?;
        let last_us = self.pairs.all_received_at_us().unwrap_or(began_us);
        let client = Usage::own()?.since(client);
        std::thread::sleep(SETTLE);
        let after = self.engine.counts();
        ensure!(
            after.received - counts.received == messages && after.redelivered == counts.redelivered,
            "a connection that held saw messages twice: {after:?}"
        );
        Ok(Round {
            messages: messages as f64,
            wall_s: (last_us - began_us) as f64 / 1e6,
            server: Usage::of(self.pid)?.since(server),
            client,
            counts: difference(after, counts),
        })
    }
}

/// Runs until a behaviour has finished. It may take its time, but something has to happen.
pub(super) fn until_finished<B: Behaviour>(
    engine: &mut Engine,
    behaviour: &mut B,
    progress: impl Fn(&B) -> u64,
) -> Result<()> {
    let mut last = progress(behaviour);
    while !engine.run(behaviour, Instant::now() + PROGRESS_WITHIN)? {
        let now = progress(behaviour);
        ensure!(
            now != last,
            "nothing has arrived for {} s, and not everything is there ({now} of all): it is lost",
            PROGRESS_WITHIN.as_secs()
        );
        last = now;
    }
    Ok(())
}

fn difference(after: Counts, before: Counts) -> Counts {
    Counts {
        bytes_in: after.bytes_in - before.bytes_in,
        bytes_out: after.bytes_out - before.bytes_out,
        receipts: after.receipts - before.receipts,
        acks: after.acks - before.acks,
        reads: after.reads - before.reads,
        writes: after.writes - before.writes,
        ..after
    }
}

pub(super) fn median(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn least(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    rounds.iter().map(of).fold(f64::INFINITY, f64::min)
}

impl Round {
    pub(super) fn server_s_per_million(&self) -> f64 {
        self.server.cpu_s * 1e6 / self.messages
    }

    pub(super) fn client_s_per_million(&self) -> f64 {
        self.client.cpu_s * 1e6 / self.messages
    }

    /// Processors the server kept busy.
    pub(super) fn server_share(&self) -> f64 {
        self.server.cpu_s / self.wall_s
    }

    /// Processors the load generator kept busy.
    pub(super) fn client_share(&self) -> f64 {
        self.client.cpu_s / self.wall_s
    }

    pub(super) fn messages_per_s(&self) -> f64 {
        self.messages / self.wall_s
    }
}

/// Runs the benchmark.
pub(crate) fn run(args: &Args, common: &Common) -> Result<Report> {
    ensure!(args.rounds > 0, "at least one round is needed");
    let dir = server::work_dir(common)?;
    let mut report = Report::new("relay");
    report.setting("pairs", &args.pairs);
    report.setting("body_bytes", &args.body_bytes);
    report.setting("messages a round", &args.messages);
    report.setting("rounds", &args.rounds);
    report.setting("workers", &common.workers);
    let sync = disk::sync_floor(dir.path())?;
    report.figure(
        "one fdatasync of this disk, p50",
        disk::ms(sync.percentile(50.0)),
        "ms",
    );

    let users = args.pairs * 2;
    let server = Server::start(common, dir.path(), &[])?;
    let mut ours = Side::of(&server, args.pairs, args.body_bytes)?;
    let mut floor = None;
    if !args.no_floor {
        let (process, listen) = server::floor(users)?;
        let options = Options {
            answers: false,
            ..Options::new(listen)
        };
        let pid = process.pid();
        floor = Some((
            process,
            Side::new(users::unchecked(users), options, pid, args.body_bytes)?,
        ));
    }
    let mut chase = Chase::new();
    for &window in &args.window {
        let (mut our_rounds, mut floor_rounds) = (Vec::new(), Vec::new());
        for round in 0..=args.rounds {
            // The first is to warm up.
            let messages = if round == 0 {
                args.messages / 4
            } else {
                args.messages
            };
            chase.look();
            if let Some((_, floor)) = &mut floor {
                floor_rounds.push(floor.round(window, messages.max(1))?);
            }
            our_rounds.push(ours.round(window, messages.max(1))?);
        }
        let floor_rounds = floor_rounds.get(1..).unwrap_or_default();
        tell(&mut report, window, &our_rounds[1..], floor_rounds);
    }
    for (which, step_ns) in ["least", "median", "most"]
        .into_iter()
        .zip(chase.told().into_iter().flatten())
    {
        let name = format!("a cache line out of 20 MiB, between rounds, {which}");
        report.figure(name, step_ns, "ns");
    }
    server.check_log()?;
    Ok(report)
}

fn tell(report: &mut Report, window: usize, ours: &[Round], floor: &[Round]) {
    let name = |what: &str| format!("window {window}: {what}");
    let cpu = median(ours, Round::server_s_per_million);
    report.figure(name("server CPU for 1M messages"), cpu, "s");
    if !floor.is_empty() {
        let bare = median(floor, Round::server_s_per_million);
        report.figure(name("bare relay CPU for 1M messages"), bare, "s");
        let most = if window == 1 { 1.8 } else { 4.0 };
        report.aimed(name("ratio"), cpu / bare, "times", Target::AtMost(most));
        let ratio =
            least(ours, Round::server_s_per_million) / least(floor, Round::server_s_per_million);
        report.figure(name("ratio of the cheapest rounds"), ratio, "times");
        report.figure(
            name("bare relay throughput"),
            median(floor, Round::messages_per_s),
            "/s",
        );
    }
    report.figure(
        name("server throughput"),
        median(ours, Round::messages_per_s),
        "/s",
    );
    report.figure(
        name("server CPU in the kernel"),
        median(ours, |round| {
            100.0 * round.server.system_s / round.server.cpu_s
        }),
        "%",
    );
    report.figure(
        name("load generator CPU for 1M messages"),
        median(ours, Round::client_s_per_million),
        "s",
    );
    let each = |of: fn(&Round) -> u64| median(ours, |round| of(round) as f64 / round.messages);
    report.figure(
        name("server sleeps a message"),
        each(|r| r.server.sleeps),
        "",
    );
    report.figure(
        name("client writes a message"),
        each(|r| r.counts.writes),
        "",
    );
    report.figure(name("client reads a message"), each(|r| r.counts.reads), "");
    report.figure(name("receipts a message"), each(|r| r.counts.receipts), "");
    report.figure(
        name("bytes to the server a message"),
        each(|r| r.counts.bytes_out),
        "bytes",
    );
    report.figure(
        name("bytes from the server a message"),
        each(|r| r.counts.bytes_in),
        "bytes",
    );
    report.figure(
        name("server memory"),
        median(ours, |round| {
            round.server.rss_bytes as f64 / 1024.0 / 1024.0
        }),
        "MiB",
    );
}
