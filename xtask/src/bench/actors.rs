//! Supervised actors beside plain actix: the examples of the `actors` crate, run and compared.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::report::Target;
use super::{Common, Report};

/// Supervised actors beside plain actix.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Messages of one run.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) messages: u64,
    /// Idle actors.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) actors: u64,
}

/// Runs the benchmark.
pub(crate) fn run(args: &Args, _common: &Common) -> Result<Report> {
    let mut report = Report::new("actors");
    report.setting("messages", &args.messages);
    report.setting("idle actors", &args.actors);
    let throughput = example("throughput", args.messages)?;
    for shape in ["flood", "ping-pong"] {
        let (ours, plain) = pair(&throughput, shape)?;
        report.figure(format!("{shape}: supervised, a message"), ours, "ns");
        report.figure(format!("{shape}: plain actix, a message"), plain, "ns");
        report.aimed(
            format!("{shape}: ratio"),
            ours / plain,
            "times",
            Target::AtMost(1.1),
        );
    }
    let memory = example("memory", args.actors)?;
    let ours = number_after(&memory, "supervised")?;
    let plain = number_after(&memory, "plain actix")?;
    report.figure("memory of a supervised actor", ours, "bytes");
    report.figure("memory of a plain actor", plain, "bytes");
    report.aimed(
        "more than a plain actor",
        ours - plain,
        "bytes",
        Target::AtMost(512.0),
    );
    Ok(report)
}

fn example(name: &str, argument: u64) -> Result<String> {
    let output = Command::new("cargo")
        .args([
            "run",
            "--quiet",
            "--release",
            "--package",
            "stonechat-actors",
        ])
        .args(["--example", name, "--", &argument.to_string()])
        .output()?;
    ensure!(
        output.status.success(),
        "the example {name} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// The two numbers of a line that starts with `name`.
fn pair(text: &str, name: &str) -> Result<(f64, f64)> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    let mut numbers = rest
        .with_context(|| format!("the example tells nothing about {name}"))?
        .split_whitespace();
    let mut next = || -> Result<f64> { Ok(numbers.next().context("two numbers")?.parse()?) };
    Ok((next()?, next()?))
}

fn number_after(text: &str, name: &str) -> Result<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    let number = rest.and_then(|rest| rest.split_whitespace().next());
    Ok(number
        .with_context(|| format!("the example tells nothing about {name}"))?
        .parse()?)
}
