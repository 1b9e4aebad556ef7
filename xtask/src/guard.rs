//! `cargo xtask bench guard`: instructions of a message's way through the server's logic, beside the
//! committed baseline.
//!
//! Counted by valgrind's callgrind, which simulates: load of the machine and its clock do not show. What
//! is counted is the example `hot_path` of the broker: no sockets, no threads, no disk. A stage that got
//! more than [`TOLERATED_PERCENT`] worse fails the command. Another compiler than the baseline's makes
//! other code, so then it only tells.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::release::target_dir;

const BASELINE: &str = "xtask/guard/baseline.json";
const TOLERATED_PERCENT: f64 = 2.0;
/// Two runs, of so many messages, and their difference: what is done once cancels out.
const MESSAGES: [u64; 2] = [1_000, 3_000];
/// Functions of the example, all of it first.
const STAGES: [&str; 7] = [
    "one_message",
    "stage_decode",
    "stage_submit",
    "stage_journal",
    "stage_accept",
    "stage_deliver",
    "stage_ack",
];

/// Instructions of the hot path beside the committed baseline.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Makes what is counted the new baseline.
    #[arg(long)]
    update: bool,
}

/// What is committed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Baseline {
    /// The compiler, as `rustc --version` names itself.
    rustc: String,
    /// Instructions of one message, by stage; callees included.
    instructions: BTreeMap<String, f64>,
}

/// Counts, compares, and fails when something got worse.
pub(crate) fn run(args: &Args) -> Result<()> {
    let found = Baseline {
        rustc: rustc()?,
        instructions: count()?,
    };
    if args.update {
        let text = serde_json::to_string_pretty(&found)?;
        std::fs::write(BASELINE, text + "\n").context("run this at the top of the repository")?;
        println!("{BASELINE} is what was counted now");
        return Ok(());
    }
    let text =
        std::fs::read_to_string(BASELINE).context("run this at the top of the repository")?;
    let baseline: Baseline = serde_json::from_str(&text)?;
    let worse = compare(&baseline, &found);
    if baseline.rustc != found.rustc {
        println!(
            "the baseline is of {}, this is {}: differences may be the compiler's",
            baseline.rustc, found.rustc
        );
    } else if !worse.is_empty() {
        bail!(
            "more than {TOLERATED_PERCENT} % more instructions in {}; if that is meant, run `cargo xtask bench \
             guard --update` and commit the baseline with the reason",
            worse.join(", ")
        );
    }
    Ok(())
}

/// Prints the differences; returns the stages that are too much worse.
fn compare(baseline: &Baseline, found: &Baseline) -> Vec<String> {
    println!(
        "{:<16} {:>10} {:>10} {:>9}",
        "a message", "baseline", "now", ""
    );
    let mut worse = Vec::new();
    for stage in STAGES {
        let of = |from: &Baseline| from.instructions.get(stage).copied().unwrap_or_default();
        let (was, is) = (of(baseline), of(found));
        let percent = 100.0 * (is - was) / was.max(1.0);
        println!("{stage:<16} {was:>10.1} {is:>10.1} {percent:>+8.2} %");
        if percent > TOLERATED_PERCENT {
            worse.push(stage.to_owned());
        }
    }
    worse
}

fn rustc() -> Result<String> {
    let output = Command::new("rustc").arg("--version").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Instructions of one message, by stage.
fn count() -> Result<BTreeMap<String, f64>> {
    let status = Command::new("cargo")
        .args([
            "build",
            "--release",
            "--quiet",
            "--package",
            "stonechat-broker",
        ])
        .args(["--example", "hot_path", "--features", "guard"])
        .status()?;
    ensure!(status.success(), "the example could not be built");
    let program = target_dir()?.join("release/examples/hot_path");
    let [few, many] = MESSAGES.map(|messages| stages(&program, messages));
    let (few, many) = (few?, many?);
    let between = (MESSAGES[1] - MESSAGES[0]) as f64;
    let each = |stage: &str| (many[stage] - few[stage]) as f64 / between;
    Ok(STAGES
        .into_iter()
        .map(|stage| (stage.to_owned(), each(stage)))
        .collect())
}

/// Instructions by stage in a run of so many messages.
fn stages(program: &Path, messages: u64) -> Result<BTreeMap<&'static str, u64>> {
    let out = tempfile::NamedTempFile::new()?;
    let file = format!("--callgrind-out-file={}", out.path().display());
    let ran = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--compress-strings=no",
            "--compress-pos=no",
            &file,
        ])
        .arg(program)
        .arg(messages.to_string())
        // What a shell hands down is on the stack and would move things about.
        .env_clear()
        .output()
        .context("valgrind is needed; Debian's package is called valgrind")?;
    ensure!(
        ran.status.success(),
        "callgrind failed:\n{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let profile = std::fs::read_to_string(out.path())?;
    let found = inclusive(&profile);
    for stage in STAGES {
        ensure!(
            found.contains_key(stage),
            "callgrind saw no {stage}; was it inlined?"
        );
    }
    Ok(found)
}

/// Reads a callgrind profile without compressed names: what was counted in each stage's function and in
/// what it called. A stage calls itself never, so its own lines and its calls are all there is.
fn inclusive(profile: &str) -> BTreeMap<&'static str, u64> {
    let mut found = BTreeMap::new();
    let mut stage: Option<&'static str> = None;
    for line in profile.lines() {
        if let Some(function) = line.strip_prefix("fn=") {
            stage = STAGES.into_iter().find(|stage| {
                function.split("::").any(|part| part == *stage) || ends(function, stage)
            });
            continue;
        }
        // Own cost: "line cost". What a call cost stands in the same form behind its "calls=" line.
        let Some(stage) =
            stage.filter(|_| line.starts_with(|c: char| c.is_ascii_digit() || c == '+'))
        else {
            continue;
        };
        let cost = line
            .split_whitespace()
            .nth(1)
            .and_then(|cost| cost.parse::<u64>().ok());
        *found.entry(stage).or_default() += cost.unwrap_or_default();
    }
    found
}

/// Whether a mangled name is that of the function.
fn ends(function: &str, stage: &str) -> bool {
    // Length and name, as in `…8hot_path11one_message…`.
    function.contains(&format!("{}{stage}", stage.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "events: Ir\n\
        fn=hot_path::main\n10 100\ncfn=hot_path::one_message\ncalls=1 5\n12 900\n\n\
        fn=hot_path::one_message\n20 7\ncfn=hot_path::stage_decode\ncalls=3 8\n21 800\n22 13\n\n\
        fn=_RNvCs1_8hot_path12stage_decode\n30 300\ncfi=x\ncfn=memcpy\ncalls=1 2\n31 500\n";

    #[test]
    fn own_instructions_and_those_of_calls_are_counted() {
        let found = inclusive(PROFILE);
        assert_eq!(found.get("one_message"), Some(&820));
        assert_eq!(found.get("stage_decode"), Some(&800));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn more_than_tolerated_is_worse() {
        let of = |count: f64| Baseline {
            rustc: "x".to_owned(),
            instructions: STAGES.into_iter().map(|s| (s.to_owned(), count)).collect(),
        };
        assert!(compare(&of(1000.0), &of(1019.0)).is_empty());
        assert!(compare(&of(1000.0), &of(900.0)).is_empty());
        assert_eq!(compare(&of(1000.0), &of(1021.0)).len(), STAGES.len());
    }

    #[test]
    fn the_committed_baseline_can_be_read() {
        let text = include_str!("../guard/baseline.json");
        let baseline: Baseline = serde_json::from_str(text).unwrap();
        assert!(
            STAGES
                .iter()
                .all(|stage| baseline.instructions[*stage] > 0.0)
        );
    }
}
