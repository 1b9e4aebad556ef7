//! How many cache lines a relayed message touches that are not near, and in which functions.
//!
//! With many users everything of one has left the near caches when its next message comes, so a line
//! costs a way to the last cache or to memory: more than all instructions between two of them, and more
//! still while others use that cache too. valgrind's callgrind simulates a first cache of 32 KiB and a
//! last one as large as a processor's second often is; what it counts does not depend on the machine,
//! only a little on how the server's threads take turns. It sees no system calls, and no line that is
//! fetched because another processor wrote it.
//!
//! The server is some twenty times slower under it, so a tick (`limits.coalesce_ms`) is longer by as
//! much: as many messages share it as do otherwise.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::relay::Side;
use super::server::{self, Server};
use super::{Common, Report};

const SETTINGS: [&str; 1] = ["limits.coalesce_ms=1000"];
const FUNCTIONS: usize = 25;

/// Counts cache lines during a relay.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Pairs of connected users.
    #[arg(long, default_value_t = 500)]
    pairs: usize,
    /// Messages under way a pair.
    #[arg(long, default_value_t = 1)]
    window: usize,
    /// Messages counted, and as many before to warm up.
    #[arg(long, default_value_t = 50_000)]
    messages: u64,
    /// Bytes of a body, quotes included.
    #[arg(long, default_value_t = 200)]
    body_bytes: usize,
    /// Bytes of the cache beyond which a line counts as far.
    #[arg(long, default_value_t = 1 << 20)]
    near_bytes: u64,
}

/// Runs the relay under callgrind.
pub(crate) fn run(args: &Args, common: &Common) -> Result<Report> {
    let mut report = Report::new("cache");
    report.setting("pairs", &args.pairs);
    report.setting("window", &args.window);
    report.setting("messages", &args.messages);
    report.setting("body_bytes", &args.body_bytes);
    report.setting("near_bytes", &args.near_bytes);
    let dir = server::work_dir(common)?;
    let out = dir.path().join("callgrind");
    let last = format!("--LL={},16,64", args.near_bytes);
    let file = format!("--callgrind-out-file={}", out.display());
    let valgrind = [
        "valgrind",
        "--tool=callgrind",
        "--cache-sim=yes",
        "--instr-atstart=no",
        "--I1=32768,8,64",
        "--D1=32768,8,64",
        &last,
        &file,
    ];
    let server = Server::start_under(&valgrind, common, dir.path(), &SETTINGS)
        .context("is valgrind installed?")?;
    let mut side = Side::of(&server, args.pairs, args.body_bytes)?;
    control(&["-i", "on"], server.pid())?;
    side.round(args.window, args.messages)?;
    control(&["-z"], server.pid())?;
    side.round(args.window, args.messages)?;
    control(&["-d"], server.pid())?;
    server.check_log()?;
    let counted = Counted::read(&out.with_extension("1"))?;
    counted.tell(&mut report, args.messages as f64)?;
    Ok(report)
}

/// Tells callgrind in process `pid` something.
fn control(what: &[&str], pid: u32) -> Result<()> {
    let status = Command::new("callgrind_control")
        .args(what)
        .arg(pid.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("callgrind_control cannot be started; it comes with valgrind")?;
    ensure!(status.success(), "callgrind did not answer");
    Ok(())
}

/// What callgrind wrote: its events, and how often each happened, in all and by function.
#[derive(Debug, Default, PartialEq)]
struct Counted {
    events: Vec<String>,
    totals: Vec<u64>,
    functions: HashMap<String, Vec<u64>>,
}

impl Counted {
    fn read(file: &Path) -> Result<Self> {
        let text = fs::read(file).context("callgrind wrote nothing")?;
        Self::parse(&String::from_utf8_lossy(&text))
    }

    /// Reads valgrind's "Callgrind Format Specification", version 1: of a function what is its own, not
    /// what its callees are.
    fn parse(text: &str) -> Result<Self> {
        let mut counted = Self::default();
        // A name is told once, with its number, and meant by the number after that.
        let mut names: HashMap<&str, &str> = HashMap::new();
        let mut function = None;
        let mut callees = false;
        for line in text.lines() {
            if let Some(events) = line.strip_prefix("events: ") {
                counted.events = events.split_whitespace().map(str::to_owned).collect();
            } else if let Some(totals) = line.strip_prefix("totals: ") {
                counted.totals = numbers(totals);
            } else if let Some((key, named)) = line.split_once("=(") {
                if key == "fn" || key == "cfn" {
                    let (number, name) = named.split_once(')').context("a number is closed")?;
                    if !name.is_empty() {
                        names.insert(number, name.trim());
                    }
                    if key == "fn" {
                        function = names.get(number).copied();
                    }
                }
            } else if line.starts_with("calls=") {
                // The line that follows is what the call cost, all in all.
                callees = true;
            } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
                let is_own = !std::mem::take(&mut callees);
                if let (true, Some(function), Some((_, costs))) =
                    (is_own, function, line.split_once(' '))
                {
                    let sum = counted.functions.entry(function.to_owned()).or_default();
                    for (at, cost) in numbers(costs).into_iter().enumerate() {
                        if sum.len() <= at {
                            sum.push(0);
                        }
                        sum[at] += cost;
                    }
                }
            }
        }
        if counted.events.is_empty() || counted.totals.is_empty() {
            bail!("this is not callgrind's");
        }
        Ok(counted)
    }

    /// The sum of some events.
    fn sum(&self, of: &[u64], events: &[&str]) -> f64 {
        let wanted = |event: &String| events.contains(&event.as_str());
        let each = self.events.iter().zip(of);
        each.filter(|(event, _)| wanted(event))
            .map(|(_, count)| *count)
            .sum::<u64>() as f64
    }

    fn tell(&self, report: &mut Report, messages: f64) -> Result<()> {
        let far = ["DLmr", "DLmw", "ILmr"];
        let all = self.sum(&self.totals, &far);
        ensure!(all > 0.0, "callgrind simulated no caches");
        for (what, events) in [
            ("instructions a message", &["Ir"][..]),
            ("lines of data beyond 32 KiB a message", &["D1mr", "D1mw"]),
            ("lines of code beyond 32 KiB a message", &["I1mr"]),
            ("far lines a message", &far),
        ] {
            report.figure(what, self.sum(&self.totals, events) / messages, "");
        }
        let mut functions: Vec<_> = self
            .functions
            .iter()
            .map(|(name, of)| (name, self.sum(of, &far) / messages))
            .collect();
        functions.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (name, lines) in functions.into_iter().take(FUNCTIONS) {
            let short: String = name.chars().take(90).collect();
            report.figure(format!("far lines in {short}"), lines, "");
        }
        Ok(())
    }
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_function_costs_itself_is_told_apart_from_its_callees() -> Result<()> {
        let text = "version: 1\npositions: line\nevents: Ir DLmr ILmr\n\n\
                    fl=(1) a.c\nfn=(1) one\n10 5 1 0\n+2 3\ncfi=(1)\ncfn=(2) two\ncalls=2 20\n* 100 7 1\n\
                    * 1 0 1\n\nfn=(2)\n20 90 6\nfn=(1)\n5 1\ntotals: 100 8 1\n";
        let counted = Counted::parse(text)?;
        assert_eq!(counted.totals, [100, 8, 1]);
        assert_eq!(counted.functions["one"], [10, 1, 1]);
        assert_eq!(counted.functions["two"], [90, 6]);
        let two = &counted.functions["two"];
        assert!((counted.sum(two, &["DLmr", "ILmr"]) - 6.0).abs() < f64::EPSILON);
        assert!(Counted::parse("nonsense").is_err());
        Ok(())
    }
}
