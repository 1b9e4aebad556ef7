//! What a sign-in costs, from `hello` to `welcome`: checking the token, starting the session, the
//! first look into the mailbox. Opening the WebSocket is measured apart.

use std::time::Duration;

use anyhow::Result;
use stonechat_swarm::{Engine, Options, Quiet};

use super::process::Usage;
use super::report::Target;
use super::server::{self, Server};
use super::{Common, Report, users};

const WITHIN: Duration = Duration::from_secs(120);
/// Sessions outlive their last device by this (a setting), so that a sign-in starts a session.
const LINGER: Duration = Duration::from_millis(300);

/// Server CPU of a sign-in.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Sign-ins of each kind.
    #[arg(long, default_value_t = 5_000)]
    pub(crate) sign_ins: usize,
    /// Rounds of known devices.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
}

/// Runs the benchmark.
pub(crate) fn run(args: &Args, common: &Common) -> Result<Report> {
    let mut report = Report::new("signin");
    report.setting("sign-ins", &args.sign_ins);
    report.setting("rounds", &args.rounds);
    let dir = server::work_dir(common)?;
    let settings = [
        "server.auth_deadline_ms=120000",
        "limits.session_linger_ms=10",
    ];
    let server = Server::start(common, dir.path(), &settings)?;
    let users = args.sign_ins;
    let all = 0..u32::try_from(users)?;
    let roster = users::create(&server.admin, users, users)?;
    let mut engine = Engine::new(roster, Options::new(server.listen))?;
    let (floor, listen) = server::floor(users)?;
    let options = Options {
        answers: false,
        ..Options::new(listen)
    };
    let mut bare = Engine::new(users::unchecked(users), options)?;
    let each = |cpu_s: f64| cpu_s * 1e6 / users.max(1) as f64;

    let mut quiet = Quiet;
    let (mut upgrades, mut known, mut floors) = (Vec::new(), Vec::new(), Vec::new());
    let mut first = 0.0;
    for round in 0..=args.rounds {
        let start = Usage::of(server.pid())?;
        engine.upgrade(all.clone(), &mut quiet, WITHIN)?;
        let upgraded = Usage::of(server.pid())?;
        engine.sign_in(all.clone(), &mut quiet, WITHIN)?;
        let done = Usage::of(server.pid())?;
        let cpu_us = each(done.since(upgraded).cpu_s);
        if round == 0 {
            first = cpu_us;
        } else {
            upgrades.push(each(upgraded.since(start).cpu_s));
            known.push(cpu_us);
        }
        engine.drop_connections(all.clone());
        std::thread::sleep(LINGER);

        bare.upgrade(all.clone(), &mut quiet, WITHIN)?;
        let upgraded = Usage::of(floor.pid())?;
        bare.sign_in(all.clone(), &mut quiet, WITHIN)?;
        floors.push(each(Usage::of(floor.pid())?.since(upgraded).cpu_s));
        bare.drop_connections(all.clone());
        std::thread::sleep(LINGER);
    }
    server.check_log()?;
    report.aimed(
        "sign-in of a known device",
        middle(known),
        "µs",
        Target::AtMost(60.0),
    );
    report.figure("first sign-in of a device", first, "µs");
    report.figure("hello and welcome on a bare relay", middle(floors), "µs");
    report.figure("opening the WebSocket", middle(upgrades), "µs");
    Ok(report)
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
