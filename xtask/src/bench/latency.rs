//! How long things take at a tenth of full load, by the clock: open loop, so that a server that
//! stalls is not asked less.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use stonechat_swarm::{Engine, Latency, Options, Roster, Schedule};

use super::relay::Side;
use super::report::Target;
use super::server::{self, Server};
use super::{Common, Report, disk, users};

const CONNECTED_WITHIN: Duration = Duration::from_secs(120);
const WARM_UP: Duration = Duration::from_secs(2);
/// Messages of the closed-loop run that finds out what full load is.
const PROBE_MESSAGES: u64 = 300_000;
/// What is under way at the end has to arrive within this.
const REST_WITHIN: Duration = Duration::from_secs(30);
/// The bare relay is measured for no longer than this: it has no disk to wait for.
const FLOOR_SECONDS_MAX: u64 = 60;

/// Latencies at a tenth of full load.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Pairs of connected users.
    #[arg(long, default_value_t = 500)]
    pub(crate) pairs: usize,
    /// Bytes of a body, quotes included.
    #[arg(long, default_value_t = 200)]
    pub(crate) body_bytes: usize,
    /// How long to measure; the target is for ten minutes (600).
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
    /// Messages a second; a tenth of what a closed loop with 16 under way a pair reaches when absent.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
}

/// Runs the benchmark.
pub(crate) fn run(args: &Args, common: &Common) -> Result<Report> {
    let mut report = Report::new("latency");
    report.setting("pairs", &args.pairs);
    report.setting("body_bytes", &args.body_bytes);
    report.setting("seconds", &args.seconds);
    let dir = server::work_dir(common)?;
    let users = args.pairs * 2;
    let server = Server::start(common, dir.path(), &[])?;
    let roster = users::create(&server.admin, users, users)?;
    let rate = match args.rate {
        Some(rate) => rate,
        None => {
            let options = Options::new(server.listen);
            let mut probe = Side::new(roster.clone(), options, server.pid(), args.body_bytes)?;
            probe.round(16, PROBE_MESSAGES / 4)?;
            probe.round(16, PROBE_MESSAGES)?.messages_per_s() / 10.0
        }
    };
    ensure!(rate > 0.0, "a rate is above 0");
    report.figure("messages a second", rate, "/s");
    let sync = disk::sync_floor(dir.path())?;
    let ours = measure(
        args,
        args.seconds,
        rate,
        roster,
        Options::new(server.listen),
    )?;
    let sync_after = disk::sync_floor(dir.path())?;
    server.check_log()?;

    let (_process, listen) = server::floor(users)?;
    let options = Options {
        answers: false,
        ..Options::new(listen)
    };
    let floor_seconds = args.seconds.min(FLOOR_SECONDS_MAX);
    let bare = measure(args, floor_seconds, rate, users::unchecked(users), options)?;

    // The disk is shared with others: what a sync takes is measured before and after.
    let sync_ms = f64::midpoint(
        disk::ms(sync.percentile(50.0)),
        disk::ms(sync_after.percentile(50.0)),
    );
    report.figure("one fdatasync of this disk, p50", sync_ms, "ms");
    report.figure(
        "one fdatasync of this disk, p99",
        disk::ms(sync.percentile(99.0)),
        "ms",
    );
    report.aimed(
        "send to delivered, p50",
        disk::ms(ours.delivered.percentile(50.0)),
        "ms",
        Target::AtMost(2.0 * sync_ms + 1.0),
    );
    report.aimed(
        "send to delivered, p99.9",
        disk::ms(ours.delivered.percentile(99.9)),
        "ms",
        Target::AtMost(50.0),
    );
    tell(&mut report, "send to delivered", &ours.delivered, &[99.0]);
    tell(
        &mut report,
        "send to accepted",
        &ours.accepted,
        &[50.0, 99.0, 99.9],
    );
    tell(
        &mut report,
        "bare relay, send to delivered",
        &bare.delivered,
        &[50.0, 99.0, 99.9],
    );
    Ok(report)
}

fn tell(report: &mut Report, name: &str, latency: &Latency, percents: &[f64]) {
    for percent in percents {
        let value = disk::ms(latency.percentile(*percent));
        report.figure(format!("{name}, p{percent}"), value, "ms");
    }
    report.figure(format!("{name}, max"), disk::ms(latency.max()), "ms");
}

fn measure(
    args: &Args,
    seconds: u64,
    rate: f64,
    roster: Roster,
    options: Options,
) -> Result<Schedule> {
    let users = roster.len();
    let all = 0..u32::try_from(users)?;
    let interval_us = (users as f64 * 1e6 / rate) as u64;
    let mut schedule = Schedule::new(users, interval_us, args.body_bytes, options.answers);
    let mut engine = Engine::new(roster, options)?;
    engine.connect(all.clone(), &mut schedule, CONNECTED_WITHIN)?;
    let from_us = engine.now_us() + u64::try_from(WARM_UP.as_micros())?;
    schedule.span(from_us, from_us + seconds * 1_000_000);
    engine.each(all, &mut schedule, |schedule, user| {
        schedule.start(user);
        Ok(())
    })?;
    let until = Instant::now() + WARM_UP + Duration::from_secs(seconds) + REST_WITHIN;
    ensure!(
        engine.run(&mut schedule, until)?,
        "{} of {} messages arrived; what is missing is lost or late",
        schedule.received(),
        schedule.sent()
    );
    Ok(schedule)
}
