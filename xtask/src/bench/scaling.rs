//! What a second processor adds.
//!
//! The server is pinned to one processor, then to two, and relays with 16 under way a pair. With two,
//! the load generator runs on the same processors, so what it took is taken off what the server could
//! have had: throughput is divided by the share of the processors that was left to the server. That
//! holds only when nothing else runs and the server uses what it gets, which is told as well.

use anyhow::{Context, Result};

use super::relay::{Round, Side, median};
use super::report::Target;
use super::server::{self, Server};
use super::{Common, Report};

/// Throughput with one and with two processors.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Pairs of connected users.
    #[arg(long, default_value_t = 500)]
    pub(crate) pairs: usize,
    /// Messages under way a pair.
    #[arg(long, default_value_t = 16)]
    pub(crate) window: usize,
    /// Messages of one round.
    #[arg(long, default_value_t = 500_000)]
    pub(crate) messages: u64,
    /// Rounds of each.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
}

/// Runs the benchmark.
pub(crate) fn run(args: &Args, common: &Common) -> Result<Report> {
    let mut report = Report::new("scaling");
    report.setting("pairs", &args.pairs);
    report.setting("window", &args.window);
    report.setting("messages a round", &args.messages);
    report.setting("rounds", &args.rounds);
    let one = rounds(args, common, 1, "0")?;
    let two = rounds(args, common, 2, "0,1")?;
    let alone = median(&one, Round::messages_per_s);
    let both = median(&two, Round::messages_per_s);
    report.figure("one processor: throughput", alone, "/s");
    report.figure(
        "one processor: server CPU for 1M messages",
        median(&one, Round::server_s_per_million),
        "s",
    );
    report.figure(
        "one processor: used by the server",
        100.0 * median(&one, Round::server_share),
        "%",
    );
    report.figure("two processors: throughput", both, "/s");
    report.figure(
        "two processors: server CPU for 1M messages",
        median(&two, Round::server_s_per_million),
        "s",
    );
    report.figure(
        "two processors: used by the server",
        100.0 * median(&two, Round::server_share),
        "%",
    );
    let client = median(&two, Round::client_share);
    report.figure(
        "two processors: used by the load generator",
        100.0 * client,
        "%",
    );
    // What stays true when something else keeps the processors busy: what a message costs.
    let (cpu_one, cpu_two) = (
        median(&one, Round::server_s_per_million),
        median(&two, Round::server_s_per_million),
    );
    report.figure(
        "by CPU for a message, the second processor could add",
        100.0 * (2.0 * cpu_one / cpu_two - 1.0),
        "%",
    );
    // Of 2 processors, 2 - client were left.
    let accounted = both * 2.0 / (2.0 - client).max(0.1);
    report.figure(
        "two processors: throughput, load generator accounted for",
        accounted,
        "/s",
    );
    report.aimed(
        "the second processor adds",
        100.0 * (accounted / alone - 1.0),
        "%",
        Target::AtLeast(60.0),
    );
    Ok(report)
}

fn rounds(args: &Args, common: &Common, workers: u32, cpus: &str) -> Result<Vec<Round>> {
    let common = Common {
        workers,
        server_cpus: Some(cpus.to_owned()),
        ..common.clone()
    };
    let dir = server::work_dir(&common)?;
    let server = Server::start(&common, dir.path(), &[])?;
    let mut side = Side::of(&server, args.pairs, 200)?;
    side.round(args.window, (args.messages / 4).max(1))?;
    let rounds: Result<Vec<Round>> = (0..args.rounds.max(1))
        .map(|_| side.round(args.window, args.messages))
        .collect();
    server.check_log()?;
    rounds.context("a round failed")
}
