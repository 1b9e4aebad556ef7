//! `cargo xtask mutants`: deliberate breaks of the real logic, and which test finds each.
//!
//! The breaks are textual patches in `xtask/mutants/*.toml`, applied one at a
//! time to a copy of the tree; the switches of the simulation count too. A test
//! that cannot fail proves nothing, so a break that nothing finds is a finding.
//! It does not look for breaks by itself: each is one somebody thought of, tied
//! to the promise it breaks.

mod list;
mod scratch;
mod table;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;
use stonechat_delivery::sim::{Campaign, Sabotage};

use list::Mutant;
use scratch::{Outcome, Scratch};
use table::Row;

/// Within this time a break has to be found, building excluded.
const FOUND_WITHIN: Duration = Duration::from_secs(60);
/// Schedules in which each switch of the simulation has to be found.
const SCHEDULES: u64 = 200_000;

/// Options of `cargo xtask mutants`.
#[derive(Debug, Args)]
pub(crate) struct MutantsArgs {
    /// Only these; by default all of them.
    #[arg(long)]
    only: Vec<String>,
    /// Only see that each patch still applies.
    #[arg(long)]
    check: bool,
    /// Write what came of it into the table in docs/durability.md.
    #[arg(long)]
    write: bool,
    /// Do not first see that the tests pass without a break.
    #[arg(long)]
    no_baseline: bool,
    /// Where to keep the copy of the tree and its build.
    #[arg(long, default_value = "target/mutants")]
    scratch: PathBuf,
}

/// Breaks, tests, reports; fails when a break was not found.
pub(crate) fn run(args: &MutantsArgs) -> Result<()> {
    let root = root();
    let mutants = list::load(&root)?;
    for mutant in &mutants {
        mutant.apply(&root)?;
    }
    println!("{} patches apply", mutants.len());
    if args.check {
        return Ok(());
    }
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    for name in &args.only {
        let known = mutants.iter().any(|mutant| mutant.name == *name);
        let switch = Sabotage::ALL.iter().any(|how| table::switch(*how) == *name);
        ensure!(known || switch, "there is no break called {name}");
    }
    let chosen: Vec<&Mutant> = mutants.iter().filter(|m| wanted(&m.name)).collect();
    let (mut rows, mut untried) = (Vec::new(), Vec::new());
    if !chosen.is_empty() {
        let scratch = Scratch::prepare(&root, &root.join(&args.scratch))?;
        if !args.no_baseline {
            baseline(&scratch, &chosen)?;
        }
        for mutant in chosen {
            // One that does not build must not keep the others from being tried.
            match one(&scratch, mutant) {
                Ok(row) => {
                    println!("{}", row.line());
                    if args.write {
                        // At once: all of them take a while.
                        table::write(&root, std::slice::from_ref(&row), &names(&mutants))?;
                    }
                    rows.push(row);
                }
                Err(error) => {
                    println!("UNTRIED          {:<34} {error:#}", mutant.name);
                    untried.push(mutant.name.as_str());
                }
            }
        }
    }
    for how in Sabotage::ALL {
        if wanted(&table::switch(*how)) {
            let row = simulated(*how);
            println!("{}", row.line());
            rows.push(row);
        }
    }
    ensure!(
        untried.is_empty(),
        "not tried: {}; mend the list",
        untried.join(", ")
    );
    if args.write {
        table::write(&root, &rows, &names(&mutants))?;
    }
    let missed: Vec<&str> = rows
        .iter()
        .filter(|row| row.found.is_none())
        .map(|row| row.name.as_str())
        .collect();
    ensure!(
        missed.is_empty(),
        "nothing found {}: write the test that does",
        missed.join(", ")
    );
    println!("{} breaks, each of them found", rows.len());
    Ok(())
}

/// All breaks, in the order of the table.
fn names(mutants: &[Mutant]) -> Vec<String> {
    let patches = mutants.iter().map(|mutant| mutant.name.clone());
    let switches = Sabotage::ALL.iter().map(|how| table::switch(*how));
    patches.chain(switches).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
        .to_owned()
}

/// Without a break the tests pass: else they would find anything.
fn baseline(scratch: &Scratch, mutants: &[&Mutant]) -> Result<()> {
    let tests: BTreeSet<&[String]> = mutants.iter().map(|mutant| &*mutant.test).collect();
    for test in tests {
        match scratch.test(test, Duration::from_secs(600))? {
            Outcome::Passed => println!("without a break: {} passes", test.join(" ")),
            Outcome::Failed { test, .. } => {
                bail!("{test} fails without any break; mend that first")
            }
        }
    }
    Ok(())
}

fn one(scratch: &Scratch, mutant: &Mutant) -> Result<Row> {
    let broken = mutant.apply(scratch.tree())?;
    let original = scratch.replace(&mutant.file, &broken)?;
    let outcome = scratch.test(&mutant.test, FOUND_WITHIN);
    scratch.replace(&mutant.file, &original)?;
    let found = match outcome? {
        Outcome::Passed => None,
        Outcome::Failed { test, after } => Some((test, after)),
    };
    Ok(Row {
        name: mutant.name.clone(),
        promise: mutant.promise.clone(),
        why: mutant.why.clone(),
        found,
    })
}

fn simulated(how: Sabotage) -> Row {
    let started = Instant::now();
    let campaign = Campaign {
        first: 1,
        seeds: SCHEDULES,
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        sabotage: Some(how),
    };
    let failure = campaign.run(|_| {}).failure;
    let rule = failure.as_ref().map(|failure| failure.violation.rule);
    Row {
        name: table::switch(how),
        promise: rule.unwrap_or("").to_owned(),
        why: how.what().to_owned(),
        found: failure.map(|failure| {
            (
                format!("simulation, seed {}", failure.seed),
                started.elapsed(),
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patch_still_applies_and_is_in_the_table() {
        let root = root();
        let mutants = list::load(&root).unwrap();
        assert!(mutants.len() >= 20);
        for mutant in &mutants {
            mutant.apply(&root).unwrap();
        }
        let listed = names(&mutants);
        assert_eq!(
            table::names(&root).unwrap(),
            listed,
            "xtask mutants --write"
        );
    }
}
