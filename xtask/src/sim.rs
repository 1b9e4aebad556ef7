//! `cargo xtask sim`: the delivery simulation, as many seeds as there is time for.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use stonechat_delivery::sim::{Campaign, Case, Cell, Coverage, Progress, Sheet, trace_seed};

/// How often progress is printed.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// Trace lines printed for a failure.
const TRACE_LINES: usize = 60;

/// Options of `cargo xtask sim`.
#[derive(Debug, Args)]
pub(crate) struct SimArgs {
    /// How many schedules to run.
    #[arg(long, default_value_t = 1_000_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Run this one seed only.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Print what happens in it, step by step (the last 400 lines).
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Threads; all processors by default.
    #[arg(long)]
    threads: Option<usize>,
}

/// Runs the simulation; fails when a promise was broken.
pub(crate) fn run(args: &SimArgs) -> anyhow::Result<()> {
    match args.seed {
        Some(seed) => one(seed, args.trace),
        None => many(args),
    }
}

fn one(seed: u64, trace: bool) -> anyhow::Result<()> {
    let (lines, violation) = trace_seed(seed, None);
    if trace {
        println!("{}", lines.join("\n"));
    }
    match violation {
        None => {
            println!("seed {seed}: every promise kept");
            Ok(())
        }
        Some(violation) => bail!("seed {seed} breaks {}: {}", violation.rule, violation.what),
    }
}

fn many(args: &SimArgs) -> anyhow::Result<()> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let started = Instant::now();
    let last = Mutex::new(started);
    let progress = |progress: Progress| {
        // Whoever finds the lock taken leaves the printing to the other thread.
        let Ok(mut last) = last.try_lock() else {
            return;
        };
        if last.elapsed() >= PROGRESS_EVERY {
            *last = Instant::now();
            let rate = progress.done as f64 / started.elapsed().as_secs_f64();
            eprintln!(
                "{} of {} schedules, {rate:.0}/s",
                progress.done, progress.seeds
            );
        }
    };
    let campaign = Campaign {
        first: args.first,
        seeds: args.seeds,
        threads: args.threads.unwrap_or(processors),
        sabotage: None,
    };
    let summary = campaign.run(progress);
    report(&summary.coverage, started.elapsed());
    let Some(failure) = summary.failure else {
        println!(
            "seeds {} to {}: every promise kept",
            args.first,
            args.first.saturating_add(args.seeds).saturating_sub(1)
        );
        return Ok(());
    };
    let from = failure.trace.len().saturating_sub(TRACE_LINES);
    println!("{}", failure.trace[from..].join("\n"));
    bail!(failure)
}

fn report(coverage: &Coverage, took: Duration) {
    for (machine, cases) in Case::BY_MACHINE {
        println!("{machine}");
        for case in *cases {
            let count = coverage.count(*case);
            let hole = if count == 0 { "  <- hole" } else { "" };
            println!("{count:>14} {case:?}{hole}");
        }
    }
    for sheet in coverage.transitions.sheets() {
        print_sheet(&sheet);
    }
    println!(
        "{} schedules, {} steps, {} messages accepted, {:.1} s",
        coverage.schedules,
        coverage.steps,
        coverage.accepted,
        took.as_secs_f64()
    );
    let holes = coverage.holes();
    if holes.is_empty() {
        println!("no holes: every case and every transition that can happen did");
    } else {
        println!("holes, which these schedules prove nothing about:");
        for hole in holes {
            println!("  {hole}");
        }
    }
}

/// States down, events across; `-` cannot happen.
fn print_sheet(sheet: &Sheet) {
    println!("{}, what happened in which state", sheet.machine);
    print!("{:>14}", "");
    for event in &sheet.events {
        print!(" {event:>14}");
    }
    println!();
    for (state, cells) in &sheet.rows {
        print!("{state:>14}");
        for cell in cells {
            let text = match cell {
                Cell::Impossible => "-".to_owned(),
                Cell::Count(0) => "HOLE".to_owned(),
                Cell::Unexpected(count) => format!("!{count}"),
                Cell::Count(count) => count.to_string(),
            };
            print!(" {text:>14}");
        }
        println!();
    }
}
