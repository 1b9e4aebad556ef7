//! `cargo xtask attack`: the attack suite at full size against the release
//! binary, one attack after the other, with what was measured.
//!
//! The suite itself is `tests/tests/attacks`; the test command runs it small.

use std::process::Command;

use anyhow::{Result, ensure};

/// Options of `cargo xtask attack`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only attacks whose names contain this.
    name: Option<String>,
}

/// Runs the suite.
pub(crate) fn run(args: &Args) -> Result<()> {
    let status = Command::new("cargo")
        .args(["test", "--release", "--package", "stonechat-tests"])
        .args(["--test", "attacks", "--"])
        .args(["--nocapture", "--test-threads=1"])
        .args(&args.name)
        .env("STONECHAT_ATTACK", "1")
        .status()?;
    ensure!(status.success(), "an attack did harm");
    Ok(())
}
