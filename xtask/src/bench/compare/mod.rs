//! The same work done by our server, ejabberd and Prosody, in one run, by turns.
//!
//! Each measure starts the servers afresh on loopback, each with data of its own on the same disk, and
//! puts the same work on them (`crate::load`), spoken by the `swarm` engine or by the XMPP client in
//! `crate::xmpp`. Where a measure has rounds, the servers take turns and medians are told. A server
//! that fails a measure gets a cell that says how; the others go on.

mod away;
mod chart;
mod ejabberd;
mod idle;
mod loss;
mod node;
mod packages;
mod prosody;
mod relay;
mod side;
mod signin;
mod slow;
mod table;
mod tree;
mod words;
mod works;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::{Common, all, server, target_dir};
use node::{Kind, Tls};
use table::Table;

/// The same work done by ejabberd and Prosody.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Small loads: less than four minutes, and figures that are only good for a first look.
    #[arg(long)]
    quick: bool,
    /// Writes the table into docs/performance.md, and the chart beside it.
    #[arg(long)]
    write: bool,
    /// Only these measures: idle, signin, relay, away, slow, loss, tls.
    #[arg(long)]
    only: Vec<String>,
}

/// Measures all servers and puts what was found into the table.
type Measure = fn(&Setup, &mut Table) -> Result<()>;

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Idle connections, few and many, and how long they idle.
    idle: (usize, usize, u64),
    /// The same, encrypted; each has two more descriptors, in the tunnel.
    idle_tls: (usize, usize, u64),
    sign_ins: usize,
    pairs: usize,
    /// Seconds of a round of relaying, of filling mailboxes.
    seconds: f64,
    rounds: usize,
    /// Seconds before and with the slow reader.
    slow: (u64, u64),
    /// Kills of each, in the order of the servers.
    kills: [usize; 3],
}

const FULL: Plan = Plan {
    idle: (2_000, 10_000, 60),
    idle_tls: (500, 4_000, 30),
    sign_ins: 1_000,
    pairs: 500,
    seconds: 5.0,
    rounds: 3,
    slow: (5, 15),
    kills: [50, 8, 8],
};

const QUICK: Plan = Plan {
    idle: (300, 1_500, 3),
    idle_tls: (100, 500, 2),
    sign_ins: 300,
    pairs: 100,
    seconds: 1.5,
    rounds: 1,
    slow: (2, 5),
    kills: [5, 1, 2],
};

/// What all measures need.
pub(super) struct Setup {
    common: Common,
    plan: Plan,
    dir: TempDir,
    tls: Tls,
}

/// Bytes of a body, everywhere but at the slow reader.
const BODY_BYTES: usize = 200;

/// Runs the measures, prints the table, and writes it where asked.
pub(crate) fn run(args: &Args, common: &Common) -> Result<()> {
    packages::install()?;
    let began = Instant::now();
    let dir = server::work_dir(common)?;
    let setup = Setup {
        common: common.clone(),
        plan: if args.quick { QUICK } else { FULL },
        tls: Tls::make(dir.path())?,
        dir,
    };
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let mut table = Table::default();
    let measures: [(&str, Measure); 7] = [
        ("idle", |setup, table| idle::measure(setup, None, table)),
        ("signin", signin::measure),
        ("relay", |setup, table| relay::measure(setup, None, table)),
        ("away", away::measure),
        ("slow", slow::measure),
        ("loss", loss::measure),
        ("tls", |setup, table| {
            idle::measure(setup, Some(&setup.tls), table)?;
            relay::measure(setup, Some(&setup.tls), table)
        }),
    ];
    for (name, measure) in measures {
        if wanted(name) {
            eprintln!("{:4.0} s: {name}", began.elapsed().as_secs_f64());
            measure(&setup, &mut table)?;
        }
    }
    eprintln!("{:4.0} s: done", began.elapsed().as_secs_f64());
    let words: Vec<String> = std::env::args().skip(1).collect();
    let page = words::page(&setup, &table, &format!("cargo xtask {}", words.join(" ")));
    println!("{page}");
    std::fs::write(target_dir()?.join("bench/compare.md"), &page)?;
    std::fs::write(
        target_dir()?.join("bench/compare.json"),
        serde_json::to_string_pretty(&table)?,
    )?;
    if args.write {
        write(&page, &table)?;
    }
    Ok(())
}

fn write(page: &str, table: &Table) -> Result<()> {
    let path = Path::new("docs/performance.md");
    let mut text =
        std::fs::read_to_string(path).context("run this at the top of the repository")?;
    all::replace(&mut text, "compare", page)?;
    std::fs::write(path, text)?;
    std::fs::write("docs/compare.svg", chart::svg(table))?;
    Ok(())
}

/// The value in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Whatever is measured for a server: a failure of it is its own, and is told.
fn told<T>(kind: Kind, what: &str, result: Result<T>) -> Result<T, String> {
    result.map_err(|e| {
        let why = format!("{e:#}");
        eprintln!("{}: {what} failed: {why}", kind.name());
        why
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_has_a_place_for_the_table() {
        let mut page = include_str!("../../../../docs/performance.md").to_owned();
        assert!(super::all::replace(&mut page, "compare", "").is_ok());
    }
}
