//! `cargo xtask soak`: panics under load for as long as wanted.
//!
//! The soak itself is a black-box suite (`tests/tests/blackbox/soak.rs`), of which a few seconds run with
//! the tests; this builds the server for release and runs the suite for longer.

use std::process::Command;

use anyhow::{Result, ensure};
use clap::Args;

/// Options of `cargo xtask soak`.
#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
    /// How long.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Users, in pairs.
    #[arg(long, default_value_t = 200)]
    users: usize,
}

/// Runs it; fails when a promise was broken, memory grew or a panic is unaccounted for.
pub(crate) fn run(args: &SoakArgs) -> Result<()> {
    let binary = crate::release::server()?;
    let passed = Command::new("cargo")
        .args(["test", "--package", "stonechat-tests", "--test", "blackbox"])
        .args([
            "--",
            "--exact",
            "--nocapture",
            "soak::one_in_a_hundred_messages_panics",
        ])
        .env("STONECHAT_BIN", binary)
        .env("STONECHAT_SOAK_SECONDS", (args.minutes * 60).to_string())
        .env("STONECHAT_SOAK_USERS", args.users.to_string())
        .status()?;
    ensure!(passed.success(), "the soak failed; see above");
    Ok(())
}
