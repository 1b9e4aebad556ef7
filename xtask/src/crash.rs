//! `cargo xtask powercut` and `cargo xtask kill`: crashes of the real server in mid-load, and a
//! verdict on what it had promised.
//!
//! The work is done by the harness of the black-box suites; here is only the command line.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::json;
use stonechat_tests::binary;
use stonechat_tests::crash::{self, Crash, RunOptions};
use tokio::signal::unix::{SignalKind, signal};

/// Options of `cargo xtask powercut`.
#[derive(Debug, Args)]
pub(crate) struct PowerCutArgs {
    /// How many cuts in mid-load.
    #[arg(long, default_value_t = 200)]
    cuts: u32,
    /// Where images are kept, instead of the directory for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// What the disk does with what it was not told to flush.
    #[arg(long, value_enum, default_value_t = Cache::None)]
    cache: Cache,
    /// Cut where the database has most to lose: during starts, when megabytes wait for a flush, and so
    /// that later writes are there and earlier ones are not.
    #[arg(long)]
    at_database: bool,
    #[command(flatten)]
    common: CommonArgs,
}

/// Options of `cargo xtask kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// How many kills in mid-load.
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    #[command(flatten)]
    common: CommonArgs,
}

/// What a disk has between its wire and its medium.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Cache {
    /// Nothing: it keeps whatever was handed to it.
    None,
    /// A cache: of what was not flushed, any part may be there, in any order, whole or torn.
    Lossy,
}

#[derive(Debug, Args)]
struct CommonArgs {
    /// Draws users' behaviour and the moments of the crashes; a new one when absent.
    #[arg(long)]
    seed: Option<u64>,
    /// Users; every third has two devices.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(2..=48))]
    users: u16,
    /// Messages a device sends in a round, at most.
    #[arg(long, default_value_t = 2000)]
    sends_max: usize,
    /// The server to crash; built when absent.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Build and crash the release build.
    #[arg(long, conflicts_with = "binary")]
    release: bool,
    /// Leave the disks and the log here when a promise was broken.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// One JSON object a line: each round, then the summary.
    #[arg(long)]
    json: bool,
}

/// Cuts the power again and again.
pub(crate) fn powercut(args: PowerCutArgs) -> Result<()> {
    let crash = match args.cache {
        Cache::None => Crash::PowerCut,
        Cache::Lossy => Crash::LossyPowerCut,
    };
    run(crash, args.cuts, args.dir, args.at_database, &args.common)
}

/// Kills again and again.
pub(crate) fn kill(args: &KillArgs) -> Result<()> {
    run(Crash::Kill, args.rounds, None, false, &args.common)
}

fn run(
    crash: Crash,
    rounds: u32,
    dir: Option<PathBuf>,
    at_database: bool,
    args: &CommonArgs,
) -> Result<()> {
    ensure!(rounds > 0, "nothing to do: ask for at least one");
    if let Some(path) = &args.binary {
        let path = path
            .canonicalize()
            .with_context(|| format!("there is no {}", path.display()))?;
        binary::choose(path);
    } else if args.release {
        binary::choose(crate::release::server()?);
    }
    let seed = args.seed.unwrap_or_else(|| {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        u64::from(since.subsec_nanos()) ^ since.as_secs()
    });
    if !args.json {
        println!("seed {seed}");
    }
    let options = RunOptions {
        crash,
        rounds,
        seed,
        users: usize::from(args.users),
        sends_max: args.sends_max,
        dir,
        at_database,
        keep: args.keep.clone(),
    };
    static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    on_interrupt(|| INTERRUPTED.store(true, Ordering::Relaxed))?;
    let summary = crash::run(&options, &INTERRUPTED, |round| {
        if args.json {
            println!("{}", round.json());
        } else {
            println!("{}", round.line(crash));
        }
    });
    let summary = match summary {
        Ok(summary) => summary,
        Err(why) => bail!("this cannot be run here: {why}"),
    };
    if args.json {
        println!("{}", json!({"seed": seed, "summary": summary.json()}));
    } else {
        println!("{}", summary.text());
    }
    if summary.breaches_total > 0 {
        bail!("promises were broken; again with --seed {seed}");
    }
    Ok(())
}

/// Has Ctrl-C and SIGTERM end the run after the round under way, so that nothing stays mounted.
fn on_interrupt(then: impl Fn() + Send + 'static) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let inside = runtime.enter();
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    drop(inside);
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupted.recv() => {}
                    _ = terminated.recv() => {}
                }
                then();
            }
        });
    });
    Ok(())
}
