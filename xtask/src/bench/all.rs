//! All benchmarks in a row: JSON files, one readable report, and the measured blocks of
//! docs/performance.md.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

use super::{Bench, Common, Report, one, target_dir};

/// All benchmarks in a row.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Small loads: minutes in all, and figures that are only good for a first look.
    #[arg(long)]
    quick: bool,
    /// Loads of a second or so, to see that the benchmarks work. For tests.
    #[arg(long, hide = true)]
    tiny: bool,
    /// Writes what was measured into the marked blocks of docs/performance.md.
    #[arg(long)]
    write: bool,
    /// Only these benchmarks; may be given more than once.
    #[arg(long)]
    only: Vec<String>,
    /// Where JSON and report go. Default: target/bench.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// A benchmark with its arguments for a full, a quick and a tiny run; no arguments for the last
/// means that there is no tiny one.
const ALL: &[(&str, &str, &str, Option<&str>)] = &[
    (
        "relay",
        "",
        "--messages 60000 --rounds 1",
        Some("--pairs 3 --messages 400 --rounds 1"),
    ),
    (
        "idle",
        "",
        "--connections 2000 --seconds 5",
        Some("--connections 20 --seconds 1"),
    ),
    (
        "hold",
        "",
        "--connections 2000 --minutes 0.2",
        Some("--connections 20 --minutes 0.02"),
    ),
    (
        "hold",
        "--servers 6 --connections 100000 --minutes 2",
        "--servers 2 --connections 3000 --minutes 0.2",
        Some("--servers 2 --connections 20 --minutes 0.02"),
    ),
    (
        "latency",
        "--seconds 120",
        "--seconds 5",
        Some("--pairs 3 --seconds 1 --rate 100"),
    ),
    (
        "offline",
        "",
        "--recipients 1000 --burst-seconds 3 --seconds 5",
        Some("--senders 3 --recipients 10 --burst-seconds 1 --seconds 1 --rate 100"),
    ),
    (
        "start",
        "",
        "--messages 100000 --last 40000 --recipients 2000",
        Some("--messages 600 --last 200 --recipients 10 --pause-seconds 0"),
    ),
    (
        "signin",
        "",
        "--sign-ins 1000 --rounds 1",
        Some("--sign-ins 20 --rounds 1"),
    ),
    ("actors", "", "--messages 200000 --actors 20000", None),
    (
        "scaling",
        "",
        "--messages 60000 --rounds 1",
        Some("--pairs 3 --messages 400 --rounds 1"),
    ),
    (
        "watch",
        "",
        "--connections 1000 --rate 500 --seconds 4 --pairs 2 --actors 2000",
        Some("--connections 20 --rate 100 --seconds 1 --pairs 1 --actors 40"),
    ),
];

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    bench: Bench,
}

/// Runs them all. One that fails does not keep the others from running.
pub(crate) fn run(args: &Args, common: &Common) -> Result<()> {
    for name in &args.only {
        ensure!(
            ALL.iter().any(|(known, ..)| known == name),
            "there is no benchmark {name}"
        );
    }
    let out = match &args.out {
        Some(out) => out.clone(),
        None => target_dir()?.join("bench"),
    };
    fs::create_dir_all(&out)?;
    let (mut reports, mut failed) = (Vec::new(), Vec::new());
    for (name, full, quick, tiny) in ALL {
        let chosen = args.only.is_empty() || args.only.iter().any(|only| only == name);
        let arguments = match (args.tiny, args.quick) {
            (true, _) => *tiny,
            (false, true) => Some(*quick),
            (false, false) => Some(*full),
        };
        let (true, Some(arguments)) = (chosen, arguments) else {
            continue;
        };
        let command = format!("{name} {arguments}");
        eprintln!("bench {command}");
        let words = std::iter::once("bench").chain(command.split_whitespace());
        let line = Line::try_parse_from(words)?;
        match one(&line.bench, common) {
            Ok(mut report) => {
                report.command = format!("cargo xtask bench {}", command.trim());
                let json = serde_json::to_string_pretty(&report)?;
                fs::write(out.join(format!("{}.json", report.bench)), json)?;
                print!("{}", report.table());
                if args.write {
                    write(&report)?;
                }
                reports.push(report);
            }
            Err(e) => {
                eprintln!("{name} failed: {e:#}");
                failed.push(*name);
            }
        }
    }
    let mut text = format!("{}\n\n", machine());
    for report in &reports {
        let _ = writeln!(text, "{}", report.table());
    }
    fs::write(out.join("report.txt"), text)?;
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Puts what was measured into docs/performance.md; other blocks stay.
fn write(report: &Report) -> Result<()> {
    let page = Path::new("docs/performance.md");
    let mut text = fs::read_to_string(page).context("run this at the top of the repository")?;
    replace(&mut text, "machine", &machine())?;
    replace(&mut text, report.bench, &report.markdown())?;
    fs::write(page, text)?;
    Ok(())
}

/// Replaces what is between `<!-- bench:NAME -->` and `<!-- bench:end -->`.
pub(super) fn replace(text: &mut String, name: &str, with: &str) -> Result<()> {
    let mark = format!("<!-- bench:{name} -->");
    let start = text.find(&mark);
    let start = start.with_context(|| format!("docs/performance.md lacks {mark}"))? + mark.len();
    let length = text[start..].find("<!-- bench:end -->");
    let length = length.with_context(|| format!("{mark} has no <!-- bench:end -->"))?;
    text.replace_range(start..start + length, &format!("\n{}\n", with.trim()));
    Ok(())
}

/// What the figures were measured on.
pub(super) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let count = cpus
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?");
    format!(
        "{count} × {model}, Linux {}; load average of the machine at the end of the run: {load}.",
        kernel.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_of_arguments_is_understood() {
        for (name, full, quick, tiny) in ALL {
            for arguments in [Some(*full), Some(*quick), *tiny].into_iter().flatten() {
                let words = ["bench", name]
                    .into_iter()
                    .chain(arguments.split_whitespace());
                let line = Line::try_parse_from(words);
                assert!(line.is_ok(), "{name} {arguments}: {:?}", line.err());
            }
        }
    }

    #[test]
    fn only_the_marked_block_is_replaced() {
        let mut text = "a\n<!-- bench:x -->\nold\n<!-- bench:end -->\nb\n".to_owned();
        replace(&mut text, "x", "new").unwrap();
        assert_eq!(text, "a\n<!-- bench:x -->\nnew\n<!-- bench:end -->\nb\n");
        assert!(replace(&mut text, "y", "new").is_err());
    }

    #[test]
    fn the_page_has_a_block_for_each_benchmark() {
        let page = include_str!("../../../docs/performance.md");
        for (name, ..) in ALL {
            assert!(replace(&mut page.to_owned(), name, "").is_ok(), "{name}");
        }
        for name in ["machine", "hold-several"] {
            assert!(replace(&mut page.to_owned(), name, "").is_ok(), "{name}");
        }
    }
}
