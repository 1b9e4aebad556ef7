//! What it costs to be watched: the same load with and without open dashboards and a scraper, in turns
//! on the same connections, compared pair by pair.
//!
//! Both of a pair send the same messages at the same times, so what the server used more is what the
//! watching cost. Which comes first alternates, so that what drifts falls on both.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use stonechat_swarm::{Engine, Latency, Options, Quiet, Schedule};

use super::process::Usage;
use super::report::Target;
use super::server::{self, Server};
use super::{Common, Report, disk, users};

mod page;

use page::Watchers;

const CONNECTED_WITHIN: Duration = Duration::from_secs(120);
/// At the start of each stretch: connections and caches are warm before latencies count.
const WARM_UP: Duration = Duration::from_secs(2);
/// What is under way at the end of a stretch has to arrive within this.
const REST_WITHIN: Duration = Duration::from_secs(30);
/// Work put off (lazy acknowledgements) is charged to the stretch that caused it.
const SETTLE: Duration = Duration::from_millis(300);
/// Sessions outlive their connections by this, so that there can be more of them than descriptors.
const LINGER: &str = "limits.session_linger_ms=3600000";
/// Times the top of the actors is asked for.
const LOOKS: usize = 50;

/// What watching costs: dashboards open, metrics scraped every second.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Connected users.
    #[arg(long, default_value_t = 10_000)]
    connections: u32,
    /// Messages a second, all users together.
    #[arg(long, default_value_t = 5_000.0)]
    rate: f64,
    /// Length of one stretch, seconds; a pair is one watched and one unwatched.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Pairs that are compared; two unmeasured stretches come first.
    #[arg(long, default_value_t = 7)]
    pairs: usize,
    /// Dashboards open at a time: each with the overview in one tab and the tree in another.
    #[arg(long, default_value_t = 1)]
    dashboards: usize,
    /// Actors among which the busiest are looked for at the end; at least the connections.
    #[arg(long, default_value_t = 20_000)]
    actors: u32,
    /// Bytes of a body, quotes included.
    #[arg(long, default_value_t = 200)]
    body_bytes: usize,
}

/// What the server used and how long messages took in one stretch.
struct Stretch {
    cpu_s_per_million: f64,
    accepted: Latency,
    delivered: Latency,
}

/// A stretch unwatched and one watched, right after each other.
struct Pair {
    alone: Stretch,
    watched: Stretch,
}

impl Pair {
    /// How much more it is watched than alone, per cent.
    fn more(&self, of: impl Fn(&Stretch) -> f64) -> f64 {
        (of(&self.watched) / of(&self.alone) - 1.0) * 100.0
    }
}

/// Runs the benchmark.
pub(crate) fn run(args: &Args, common: &Common) -> Result<Report> {
    ensure!(args.pairs > 0 && args.rate > 0.0 && args.dashboards > 0);
    ensure!(args.connections >= 2 && args.connections.is_multiple_of(2));
    let all = args.actors.max(args.connections);
    let mut report = Report::new("watch");
    report.setting("connections", &args.connections);
    report.setting("messages a second", &args.rate);
    report.setting("seconds a stretch", &args.seconds);
    report.setting("pairs", &args.pairs);
    report.setting("dashboards", &args.dashboards);
    let dir = server::work_dir(common)?;
    let server = Server::start(common, dir.path(), &[LINGER])?;
    let roster = users::create(&server.admin, all as usize, all as usize)?;
    let mut engine = Engine::new(roster, Options::new(server.listen))?;
    engine.connect(0..args.connections, &mut Quiet, CONNECTED_WITHIN)?;

    let (mut pairs, mut seen) = (Vec::new(), page::Seen::default());
    for pair in 0..=args.pairs {
        let mut watched = |engine: &mut Engine| -> Result<Stretch> {
            let watchers = Watchers::open(&server.admin, args.dashboards)?;
            let stretch = stretch(args, &server, engine)?;
            seen.add(watchers.close()?);
            Ok(stretch)
        };
        // By turns: what comes second finds the server older.
        let both = if pair % 2 == 0 {
            let alone = stretch(args, &server, &mut engine)?;
            Pair {
                alone,
                watched: watched(&mut engine)?,
            }
        } else {
            let watched = watched(&mut engine)?;
            Pair {
                alone: stretch(args, &server, &mut engine)?,
                watched,
            }
        };
        // The first is to warm up.
        if pair > 0 {
            pairs.push(both);
        }
    }
    tell(&mut report, args, &pairs, &seen);
    top_actors(&mut report, args, &server, &mut engine)?;
    server.check_log()?;
    Ok(report)
}

fn tell(report: &mut Report, args: &Args, pairs: &[Pair], seen: &page::Seen) {
    // All stretches with a watcher, those to warm up included.
    let seconds = (args.pairs + 1) as f64 * (WARM_UP.as_secs() + args.seconds) as f64;
    report.figure(
        "requests of the watchers",
        seen.requests as f64 / seconds,
        "/s",
    );
    report.figure(
        "bytes they were told",
        seen.bytes as f64 / seconds / 1024.0,
        "KiB/s",
    );
    type Of = fn(&Stretch) -> f64;
    let cpu: Of = |one| one.cpu_s_per_million;
    let accepted: Of = |one| disk::ms(one.accepted.percentile(99.0));
    let delivered: Of = |one| disk::ms(one.delivered.percentile(99.0));
    let compared = [
        ("server CPU for 1M messages", "s", 2.0, cpu),
        ("send to accepted, p99", "ms", 5.0, accepted),
        ("send to delivered, p99", "ms", 5.0, delivered),
    ];
    for (name, unit, most, of) in compared {
        let alone = sorted(pairs.iter().map(|pair| of(&pair.alone)));
        let watched = sorted(pairs.iter().map(|pair| of(&pair.watched)));
        let more = sorted(pairs.iter().map(|pair| pair.more(of)));
        report.figure(format!("{name}: unwatched"), middle(&alone), unit);
        report.figure(format!("{name}: watched"), middle(&watched), unit);
        report.aimed(
            format!("{name}: more when watched, median of pairs"),
            middle(&more),
            "%",
            Target::AtMost(most),
        );
        let (least, greatest) = (more[0], more[more.len() - 1]);
        report.figure(format!("{name}: more, least of pairs"), least, "%");
        report.figure(format!("{name}: more, most of pairs"), greatest, "%");
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Of an even number, between the two in the middle.
fn middle(sorted: &[f64]) -> f64 {
    let at = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[at - 1], sorted[at])
    } else {
        sorted[at]
    }
}

/// Everybody sends by the clock for a while.
fn stretch(args: &Args, server: &Server, engine: &mut Engine) -> Result<Stretch> {
    let users = args.connections as usize;
    let interval_us = (users as f64 * 1e6 / args.rate) as u64;
    let mut schedule = Schedule::new(users, interval_us, args.body_bytes, true);
    let before = Usage::of(server.pid())?;
    let began = Instant::now();
    // The engine's clock is that of its last turn, before whatever was between the stretches.
    engine.each(0..0, &mut schedule, |_, _| Ok(()))?;
    let from_us = engine.now_us() + u64::try_from(WARM_UP.as_micros())?;
    schedule.span(from_us, from_us + args.seconds * 1_000_000);
    engine.each(0..args.connections, &mut schedule, |schedule, user| {
        schedule.start(user);
        Ok(())
    })?;
    let until = began + WARM_UP + Duration::from_secs(args.seconds) + REST_WITHIN;
    ensure!(
        engine.run(&mut schedule, until)?,
        "{} of {} messages arrived; what is missing is lost or late",
        schedule.received(),
        schedule.sent()
    );
    engine.run(&mut Quiet, Instant::now() + SETTLE)?;
    let used = Usage::of(server.pid())?.since(before);
    Ok(Stretch {
        cpu_s_per_million: used.cpu_s * 1e6 / schedule.sent() as f64,
        accepted: schedule.accepted,
        delivered: schedule.delivered,
    })
}

/// How long the top of the actors takes when there are many: half of the users leave, whose sessions
/// stay for a while, and as many others come.
fn top_actors(
    report: &mut Report,
    args: &Args,
    server: &Server,
    engine: &mut Engine,
) -> Result<()> {
    if args.actors > args.connections {
        engine.drop_connections(0..args.connections);
        let others = args.connections..args.actors;
        engine.connect(others, &mut Quiet, CONNECTED_WITHIN)?;
    }
    let looker = page::Looker::new(&server.admin);
    let sessions = looker.number("/node", "sessions")?;
    let mut took = Latency::default();
    for _ in 0..LOOKS {
        let from = Instant::now();
        looker.look("/actors/top?by=rate")?;
        took.record_us(u64::try_from(from.elapsed().as_micros())?);
    }
    report.aimed(
        "sessions looked through",
        sessions,
        "",
        Target::AtLeast(f64::from(args.actors)),
    );
    report.figure(
        "the 20 busiest of them, over HTTP, p50",
        disk::ms(took.percentile(50.0)),
        "ms",
    );
    report.aimed(
        "the 20 busiest of them, over HTTP, longest",
        disk::ms(took.max()),
        "ms",
        Target::AtMost(50.0),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_some_values() {
        assert!((middle(&[1.0, 2.0, 9.0]) - 2.0).abs() < 1e-9);
        assert!((middle(&[1.0, 2.0, 4.0, 9.0]) - 3.0).abs() < 1e-9);
    }
}
