//! `stonechat`: the server and its command line.
//!
//! A library only so that the fuzzer reaches the configuration; the binary is
//! all there is to use.

mod admin_client;
mod banner;
mod chat;
mod cli;
mod commands;
mod config;
mod exit;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod logging;
mod node_file;
mod operate;
mod serve;
mod swarm;
mod traces;

use std::process::ExitCode;

use clap::Parser;

/// From the command line to what does the work, and from its outcome to an exit code.
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("stonechat: {failure}");
            failure.exit_code()
        }
    }
}
