//! What a connection costs that does nothing: memory, and CPU for its heartbeats.

use std::time::{Duration, Instant};

use anyhow::Result;
use stonechat_swarm::{Engine, Options, Quiet, Roster};

use super::process::Usage;
use super::report::Target;
use super::server::{self, Server};
use super::{Common, Report, users};

const CONNECTED_WITHIN: Duration = Duration::from_secs(300);
const CALM_WITHIN: Duration = Duration::from_secs(30);
/// Opened before the baseline, so that what the first connections cost once (threads, pools, tables)
/// is not charged to the rest.
const WARM_UP: usize = 200;

/// Memory and CPU of an idle, authenticated connection.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Connections, each of a user of its own; a process has 20,000 descriptors here.
    #[arg(long, default_value_t = 19_000)]
    pub(crate) connections: usize,
    /// How long they idle while their CPU is measured; two heartbeats by default.
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
}

/// What idling costs a process.
#[derive(Debug, Clone, Copy)]
struct Idle {
    bytes: f64,
    cpu_us_per_s: f64,
    client_bytes: f64,
    client_cpu_us_per_s: f64,
}

/// Runs the benchmark.
pub(crate) fn run(args: &Args, common: &Common) -> Result<Report> {
    let mut report = Report::new("idle");
    report.setting("connections", &args.connections);
    report.setting("seconds", &args.seconds);
    report.setting("workers", &common.workers);
    let dir = server::work_dir(common)?;
    let users = args.connections + WARM_UP;
    let server = Server::start(common, dir.path(), &[])?;
    let base = Usage::own()?;
    let began = Instant::now();
    let roster = users::create(&server.admin, users, users)?;
    report.figure(
        "users created by the admin API",
        users as f64 / began.elapsed().as_secs_f64(),
        "/s",
    );
    let ours = idle(
        args,
        roster,
        Options::new(server.listen),
        server.pid(),
        base,
    )?;
    server.check_log()?;
    drop(server);
    let (floor, listen) = server::floor(users)?;
    let options = Options {
        answers: false,
        ..Options::new(listen)
    };
    let bare = idle(args, users::unchecked(users), options, floor.pid(), base)?;

    report.aimed(
        "memory of a connection, session included",
        ours.bytes,
        "bytes",
        Target::AtMost(4096.0),
    );
    report.figure("memory of a bare connection", bare.bytes, "bytes");
    report.aimed(
        "CPU of a connection with heartbeats, a second",
        ours.cpu_us_per_s,
        "µs",
        Target::AtMost(2.0),
    );
    report.aimed(
        "memory of a simulated user in the load generator",
        ours.client_bytes,
        "bytes",
        Target::AtMost(4096.0),
    );
    report.aimed(
        "CPU of a simulated user, a second",
        ours.client_cpu_us_per_s,
        "µs",
        Target::AtMost(1.5),
    );
    Ok(report)
}

/// `base` is what the load generator used before it knew its users.
fn idle(args: &Args, roster: Roster, options: Options, pid: u32, base: Usage) -> Result<Idle> {
    let warm_up = u32::try_from(WARM_UP)?;
    let all = u32::try_from(roster.len())?;
    let mut engine = Engine::new(roster, options)?;
    let mut quiet = Quiet;
    engine.connect(0..warm_up, &mut quiet, CONNECTED_WITHIN)?;
    calm(&mut engine, pid)?;
    let before = Usage::of(pid)?;
    engine.connect(warm_up..all, &mut quiet, CONNECTED_WITHIN)?;
    calm(&mut engine, pid)?;
    let (idle, client_idle) = (Usage::of(pid)?, Usage::own()?);
    let began = Instant::now();
    engine.run(&mut quiet, began + Duration::from_secs(args.seconds))?;
    let seconds = began.elapsed().as_secs_f64();
    let (after, client_after) = (Usage::of(pid)?, Usage::own()?);
    let each = |before: u64, after: u64| {
        after.saturating_sub(before) as f64 / args.connections.max(1) as f64
    };
    let cpu = |usage: Usage| usage.cpu_s * 1e6 / seconds / f64::from(all);
    Ok(Idle {
        // The higher of the two: what heartbeats leave behind counts too.
        bytes: each(before.rss_bytes, idle.rss_bytes.max(after.rss_bytes)),
        cpu_us_per_s: cpu(after.since(idle)),
        client_bytes: each(base.rss_bytes, client_after.rss_bytes),
        client_cpu_us_per_s: cpu(client_after.since(client_idle)),
    })
}

/// Waits until the memory of a process has moved by less than 1 % for a second.
fn calm(engine: &mut Engine, pid: u32) -> Result<()> {
    let until = Instant::now() + CALM_WITHIN;
    let mut last = Usage::of(pid)?.rss_bytes;
    let mut calm = 0;
    while calm < 5 && Instant::now() < until {
        engine.run(&mut Quiet, Instant::now() + Duration::from_millis(200))?;
        let now = Usage::of(pid)?.rss_bytes;
        calm = if now.abs_diff(last) * 100 <= last {
            calm + 1
        } else {
            0
        };
        last = now;
    }
    Ok(())
}
