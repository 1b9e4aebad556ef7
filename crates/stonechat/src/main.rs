//! `stonechat`: the server and its command line in one binary.
//!
//! Here is only the way from the command line to what does the work, and from
//! its outcome to an exit code.

mod admin_client;
mod banner;
mod chat;
mod cli;
mod commands;
mod config;
mod exit;
mod logging;
mod node_file;
mod serve;

use std::process::ExitCode;

use clap::Parser;

/// Messages are born on one thread and die on another, which glibc's allocator pays for:
/// see "Choices" in docs/performance.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("stonechat: {failure}");
            failure.exit_code()
        }
    }
}
