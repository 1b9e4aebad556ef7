//! The release build of the server, which is what gets measured.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Builds the server for release; returns where it is.
pub(crate) fn server() -> Result<PathBuf> {
    let status = Command::new("cargo")
        .args(["build", "--release", "--package", "stonechat"])
        .status()?;
    ensure!(status.success(), "the server could not be built");
    Ok(target_dir()?.join("release/stonechat"))
}

/// Where cargo puts what it builds: two levels above this program.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2);
    Ok(target
        .context("xtask runs from cargo's target directory")?
        .to_owned())
}
