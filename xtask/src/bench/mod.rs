//! `cargo xtask bench`: speed and size of the server, each figure beside its floor in the same run.
//!
//! Every benchmark starts the release binary itself, on loopback, with its data on a real disk, puts
//! load on it with the `swarm` crate, and fails when a message was lost, doubled or out of order: a
//! figure of a server that broke its word is worth nothing. It measures; it asserts no times.

mod actors;
mod all;
mod cache;
mod compare;
mod disk;
mod far;
mod flame;
mod hold;
mod idle;
mod latency;
mod offline;
mod process;
mod profile;
mod relay;
mod report;
mod scaling;
mod server;
mod signin;
mod start;
mod users;
mod watch;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

pub(crate) use report::Report;

use crate::release::target_dir;

/// Speed and size of the server, each figure beside its floor in the same run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Bench,
    #[command(flatten)]
    common: Common,
}

/// What all benchmarks take.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Common {
    /// The server to measure; built with `cargo build --release` when absent.
    #[arg(long, global = true)]
    binary: Option<PathBuf>,
    /// Where data directories are made; on a real disk. Default: target/bench.
    #[arg(long, global = true)]
    data_dir: Option<PathBuf>,
    /// Threads of the server that serve connections (`server.workers`); 0 is one a processor.
    #[arg(long, global = true, default_value_t = 0)]
    workers: u32,
    /// Processors the server may use, as `taskset -c` takes them; all when absent.
    #[arg(long, global = true)]
    server_cpus: Option<String>,
    /// More settings of the server, as `serve --set` takes them.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Environment of the server, such as LD_PRELOAD for another allocator.
    #[arg(long = "server-env", global = true, value_name = "NAME=VALUE")]
    server_env: Vec<String>,
    /// Prints JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
    /// Prints the server's pid and waits for a line on standard input once it is ready.
    #[arg(long, global = true)]
    hold: bool,
    /// Runs as built, even without optimisation. For tests: the figures mean nothing.
    #[arg(long, global = true, hide = true)]
    as_built: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Bench {
    /// All of them in a row.
    All(all::Args),
    /// The same work done by ejabberd and Prosody, from Debian's packages.
    Compare(compare::Args),
    /// Instructions of the hot path beside the committed baseline (needs valgrind).
    Guard(crate::guard::Args),
    /// Server CPU for messages between connected users, beside a bare relay.
    Relay(relay::Args),
    /// Where the server's time goes: flame graph, system calls and sleeps a message (needs perf).
    Profile(profile::Args),
    /// Cache lines a relayed message touches that are not near, by function (needs valgrind).
    Cache(cache::Args),
    /// Memory and CPU of an idle, authenticated connection.
    Idle(idle::Args),
    /// Connections held for minutes, by one server process or by several.
    Hold(hold::Args),
    /// Latencies at a tenth of full load, by the clock.
    Latency(latency::Args),
    /// Messages to users who are away: taken, kept, drained.
    Offline(offline::Args),
    /// Time to ready after kill -9.
    Start(start::Args),
    /// Server CPU of a sign-in.
    Signin(signin::Args),
    /// Supervised actors beside plain actix.
    Actors(actors::Args),
    /// What a second processor adds.
    Scaling(scaling::Args),
    /// What it costs to be watched: dashboards open, metrics scraped every second.
    Watch(watch::Args),
}

/// Runs a benchmark and prints its report.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Bench::Guard(of) = &args.bench {
        // It counts what it builds itself.
        return crate::guard::run(of);
    }
    if cfg!(debug_assertions) && !args.common.as_built {
        return again_optimised();
    }
    if let Bench::All(of) = &args.bench {
        return all::run(of, &args.common);
    }
    if let Bench::Compare(of) = &args.bench {
        return compare::run(of, &args.common);
    }
    let mut report = one(&args.bench, &args.common)?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    report.command = format!("cargo xtask {}", words.join(" "));
    if args.common.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.table());
    }
    Ok(())
}

fn one(bench: &Bench, common: &Common) -> Result<Report> {
    Ok(match bench {
        Bench::All(_) | Bench::Compare(_) | Bench::Guard(_) => bail!("they are not one of a row"),
        Bench::Relay(of) => relay::run(of, common)?,
        Bench::Profile(of) => profile::run(of, common)?,
        Bench::Cache(of) => cache::run(of, common)?,
        Bench::Idle(of) => idle::run(of, common)?,
        Bench::Hold(of) => hold::run(of, common)?,
        Bench::Latency(of) => latency::run(of, common)?,
        Bench::Offline(of) => offline::run(of, common)?,
        Bench::Start(of) => start::run(of, common)?,
        Bench::Signin(of) => signin::run(of, common)?,
        Bench::Actors(of) => actors::run(of, common)?,
        Bench::Scaling(of) => scaling::run(of, common)?,
        Bench::Watch(of) => watch::run(of, common)?,
    })
}

/// Load generator and floor have to be optimised as the server is, so this very command is run again
/// from the release build.
fn again_optimised() -> Result<()> {
    let built = Command::new("cargo")
        .args(["build", "--release", "--quiet"])
        .args(["--package", "stonechat", "--package", "xtask"])
        .status()?;
    ensure!(built.success(), "the release build failed");
    let program = target_dir()?.join("release/xtask");
    let status = Command::new(&program)
        .args(std::env::args_os().skip(1))
        .status()
        .with_context(|| format!("{} cannot be run", program.display()))?;
    ensure!(status.success(), "the benchmark failed");
    Ok(())
}
