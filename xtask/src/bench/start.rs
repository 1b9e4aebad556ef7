//! How long a node takes to be ready again after `kill -9`, with full mailboxes and a full journal.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use stonechat_swarm::{Flood, Pace, Quiet};

use super::offline::Filled;
use super::relay::until_finished;
use super::report::Target;
use super::server::{self, Server};
use super::{Common, Report, disk};

const COUNTED_WITHIN: Duration = Duration::from_secs(30);
const MIB: f64 = 1024.0 * 1024.0;

/// Time to ready after `kill -9`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Messages in mailboxes.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) messages: u64,
    /// Of these, those sent just before the kill, so that they are in the journal only.
    #[arg(long, default_value_t = 400_000)]
    pub(crate) last: u64,
    /// Pause before these, in which the store takes over what has lain around for some seconds
    /// (`storage.migrate_after_ms`).
    #[arg(long, default_value_t = 10)]
    pub(crate) pause_seconds: u64,
    /// Mailboxes they lie in.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) recipients: usize,
    /// Bytes of a body, quotes included.
    #[arg(long, default_value_t = 200)]
    pub(crate) body_bytes: usize,
}

/// Runs the benchmark.
pub(crate) fn run(args: &Args, common: &Common) -> Result<Report> {
    let mut report = Report::new("start");
    report.setting("messages", &args.messages);
    report.setting("of these just before the kill", &args.last);
    report.setting("mailboxes", &args.recipients);
    let dir = server::work_dir(common)?;
    let users = (500.min(args.recipients), args.recipients);
    let mut filled = Filled::start(common, dir.path(), users, args.body_bytes)?;
    for (messages, rest) in [
        (args.messages.saturating_sub(args.last), true),
        (args.last, false),
    ] {
        filled.flood.limit(messages);
        filled.begin(Pace::Window(16))?;
        until_finished(&mut filled.engine, &mut filled.flood, Flood::accepted_total)?;
        if rest {
            let pause = Duration::from_secs(args.pause_seconds);
            filled.engine.run(&mut Quiet, Instant::now() + pause)?;
        }
    }
    let accepted = filled.flood.accepted_total();
    filled.server.check_log()?;
    // Dropping the handle is `kill -9`.
    drop(filled);
    let data = dir.path().join("data");
    let bytes = disk::data_bytes(&data);
    report.figure("messages accepted", accepted as f64, "");
    report.figure("journal", bytes.journal as f64 / MIB, "MiB");
    report.figure("database", bytes.database as f64 / MIB, "MiB");
    let read_s = disk::read_all(&data)?.as_secs_f64();
    report.figure("floor: reading these files once", read_s, "s");
    let began = Instant::now();
    let server = Server::start(common, dir.path(), &[])?;
    let ready_s = began.elapsed().as_secs_f64();
    // Figures are told a moment after the node is ready.
    let until = Instant::now() + COUNTED_WITHIN;
    let mut stored = server.metric("stonechat_store_messages")?;
    while stored < accepted as f64 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
        stored = server.metric("stonechat_store_messages")?;
    }
    ensure!(
        stored >= accepted as f64,
        "{accepted} messages were accepted and {stored} are stored after the restart"
    );
    server.check_log()?;
    report.aimed("ready after kill -9", ready_s, "s", Target::AtMost(5.0));
    Ok(report)
}
