//! Connections held for minutes, by one server process or by several on this machine: memory stays flat,
//! nobody is lost, and holding them costs next to nothing, on either side.
//!
//! The users are those of `stonechat swarm run idle`, a process for each server, so that the tool that is
//! shipped is what is measured.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::process::Usage;
use super::report::{Sample, Target};
use super::server::{self, Running, Server};
use super::{Common, Report};

/// To create and sign in: so long, and so long more for each.
const SIGNED_IN_WITHIN: Duration = Duration::from_secs(120);
const SIGNED_IN_EACH: Duration = Duration::from_millis(8);
/// How long a swarm may take to end after its time.
const ENDED_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether users are created or signed in: the memory between the two is wanted.
const SIGN_IN_LOOK_EVERY: Duration = Duration::from_millis(100);
/// Looks of the beginning and of the end that are put together, so that one does not decide.
const EDGE: usize = 10;
/// After the last has signed in, before memory is compared: what signing in left to write goes to the
/// database meanwhile.
const SETTLE: Duration = Duration::from_secs(90);
const MIB: f64 = 1_048_576.0;

/// Connections held for minutes: memory, losses, CPU.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Connections in all, each of a user of its own.
    #[arg(long, default_value_t = 19_000)]
    connections: u32,
    /// How long they are held once all are signed in.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Server processes that share them; a process has 20,000 descriptors here.
    #[arg(long, default_value_t = 1)]
    servers: u32,
}

/// A server and the swarm that holds its connections.
struct Pair {
    server: Server,
    swarm: Running,
    summary: std::path::PathBuf,
    users: u32,
    before: Usage,
    /// With all users created, the last time that none was signed in.
    created: Usage,
}

/// Runs the benchmark.
pub(crate) fn run(args: &Args, common: &Common) -> Result<Report> {
    ensure!(args.servers > 0 && args.connections >= args.servers);
    let several = args.servers > 1;
    let mut report = Report::new(if several { "hold-several" } else { "hold" });
    report.setting("connections", &args.connections);
    report.setting("minutes", &args.minutes);
    report.setting("servers", &args.servers);
    let dir = server::work_dir(common)?;
    let mut pairs = Vec::new();
    for n in 0..args.servers {
        let dir = dir.path().join(n.to_string());
        std::fs::create_dir(&dir)?;
        let users =
            args.connections / args.servers + u32::from(n < args.connections % args.servers);
        pairs.push(Pair::start(args, common, &dir, users)?);
    }
    let began = Instant::now();
    let within = SIGNED_IN_WITHIN + SIGNED_IN_EACH * args.connections;
    loop {
        let mut signed_in = 0;
        for pair in &mut pairs {
            signed_in += usize::from(pair.signed_in(began + within)?);
        }
        if signed_in == pairs.len() {
            break;
        }
        std::thread::sleep(SIGN_IN_LOOK_EVERY);
    }
    report.figure(
        "until all were signed in",
        began.elapsed().as_secs_f64(),
        "s",
    );
    let at_sign_in = servers(&pairs)?.rss_bytes;
    std::thread::sleep(SETTLE);
    let looks = hold(args, &pairs, &mut report)?;
    for pair in &mut pairs {
        pair.ended()?;
    }
    let lost: u64 = pairs.iter().map(Pair::lost).sum::<Result<u64>>()?;
    let all = f64::from(args.connections);
    let rss = |of: fn(&Look) -> u64, some: &[Look]| {
        some.iter().map(of).sum::<u64>() as f64 / some.len().max(1) as f64
    };
    let edge = EDGE.min(looks.len());
    let (first, last) = (&looks[..edge], &looks[looks.len() - edge..]);
    let server_rss = |look: &Look| look.server.rss_bytes;
    let (at_first, at_last) = (rss(server_rss, first), rss(server_rss, last));
    let before: u64 = pairs.iter().map(|pair| pair.before.rss_bytes).sum();
    let created: u64 = pairs.iter().map(|pair| pair.created.rss_bytes).sum();
    report.aimed("connections lost", lost as f64, "", Target::AtMost(0.0));
    report.figure(
        "server memory, all just signed in",
        at_sign_in as f64 / MIB,
        "MiB",
    );
    report.figure("server memory, first ten seconds", at_first / MIB, "MiB");
    report.figure("server memory, last ten seconds", at_last / MIB, "MiB");
    report.aimed(
        "growth while held",
        (at_last - at_first) * 100.0 / at_first,
        "%",
        Target::AtMost(2.0),
    );
    let most = at_first.max(at_last);
    report.aimed(
        "memory of a connection, session included",
        (most - created as f64) / all,
        "bytes",
        Target::AtMost(4096.0),
    );
    report.figure(
        "memory of a user, account included",
        (most - before as f64) / all,
        "bytes",
    );
    let (begin, end) = (&looks[0], &looks[looks.len() - 1]);
    let seconds = (end.at - begin.at).as_secs_f64().max(1e-3);
    let cpu = |begin: Usage, end: Usage| (end.cpu_s - begin.cpu_s) * 1e6 / seconds / all;
    report.figure(
        "server CPU of a connection, a second",
        cpu(begin.server, end.server),
        "µs",
    );
    let swarm_before: u64 = pairs.iter().map(Pair::swarm_before).sum::<Result<u64>>()?;
    let swarm = end.swarm.rss_bytes.saturating_sub(swarm_before) as f64 / all;
    report.aimed(
        "swarm: memory of an idle user",
        swarm,
        "bytes",
        Target::AtMost(4096.0),
    );
    report.aimed(
        "swarm: CPU of an idle user, a second",
        cpu(begin.swarm, end.swarm),
        "µs",
        Target::AtMost(1.5),
    );
    Ok(report)
}

/// What all servers and all swarms used at a moment.
struct Look {
    at: Instant,
    server: Usage,
    swarm: Usage,
}

fn add(sum: Usage, more: Usage) -> Usage {
    Usage {
        cpu_s: sum.cpu_s + more.cpu_s,
        system_s: sum.system_s + more.system_s,
        sleeps: sum.sleeps + more.sleeps,
        rss_bytes: sum.rss_bytes + more.rss_bytes,
    }
}

fn servers(pairs: &[Pair]) -> Result<Usage> {
    pairs.iter().try_fold(Usage::default(), |sum, pair| {
        Ok(add(sum, Usage::of(pair.server.pid())?))
    })
}

fn hold(args: &Args, pairs: &[Pair], report: &mut Report) -> Result<Vec<Look>> {
    let began = Instant::now();
    let until = began + Duration::from_secs_f64(args.minutes * 60.0);
    let mut looks = Vec::new();
    loop {
        let server = servers(pairs)?;
        let mut swarm = Usage::default();
        for pair in pairs {
            swarm = add(swarm, Usage::of(pair.swarm.pid())?);
        }
        report.series.push(Sample {
            phase: "hold",
            at_s: began.elapsed().as_secs_f64(),
            accepted: 0,
            rss_bytes: server.rss_bytes,
            journal_bytes: 0,
            database_bytes: 0,
        });
        looks.push(Look {
            at: Instant::now(),
            server,
            swarm,
        });
        if Instant::now() >= until {
            return Ok(looks);
        }
        std::thread::sleep(LOOK_EVERY.min(until.saturating_duration_since(Instant::now())));
    }
}

impl Pair {
    fn start(args: &Args, common: &Common, dir: &Path, users: u32) -> Result<Self> {
        let server = Server::start(common, dir, &[])?;
        let before = Usage::of(server.pid())?;
        let binary = match &common.binary {
            Some(binary) => binary.clone(),
            None => std::env::current_exe()?.with_file_name("stonechat"),
        };
        // It outlasts the looks, however long the others take to sign in, and is ended by a signal.
        let within = SIGNED_IN_WITHIN + SIGNED_IN_EACH * args.connections;
        let seconds = args.minutes * 60.0 + 2.0 * within.as_secs_f64();
        let summary = dir.join("swarm.json");
        let secret = server.admin.bearer.trim_start_matches("Bearer ");
        let swarm = Command::new(binary)
            .args(["swarm", "run", "idle", "--plain", "--json", "--keep-users"])
            .args(["--users", &users.to_string()])
            .args(["--duration", &seconds.to_string()])
            .args(["--url", &format!("ws://{}", server.listen)])
            .args(["--admin", &server.admin.base])
            .args(["--server-pid", &server.pid().to_string()])
            .env("STONECHAT_ADMIN_SECRET", secret)
            .stdin(Stdio::null())
            .stdout(File::create(&summary)?)
            .stderr(File::create(dir.join("swarm.log"))?)
            .spawn()
            .context("the swarm cannot be started")?;
        Ok(Self {
            server,
            swarm: Running::new(swarm),
            summary,
            users,
            before,
            created: before,
        })
    }

    /// Whether all are.
    fn signed_in(&mut self, until: Instant) -> Result<bool> {
        let devices = self.server.metric("stonechat_devices_connected")?;
        if devices >= f64::from(self.users) {
            return Ok(true);
        }
        if devices == 0.0 {
            self.created = Usage::of(self.server.pid())?;
        }
        if let Some(status) = self.swarm.ended()? {
            bail!("the swarm ended with {status}:\n{}", self.log());
        }
        ensure!(
            Instant::now() < until,
            "{devices} are signed in:\n{}",
            self.log()
        );
        Ok(false)
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.summary.with_file_name("swarm.log"));
        let log = log.unwrap_or_default();
        let from = log.lines().count().saturating_sub(5);
        log.lines().skip(from).collect::<Vec<_>>().join("\n")
    }

    /// Ends the swarm as somebody at a terminal does, and waits for its verdict.
    fn ended(&mut self) -> Result<()> {
        let pid = self.swarm.pid().to_string();
        let told = Command::new("kill").args(["-s", "INT", &pid]).status()?;
        ensure!(
            told.success(),
            "the swarm has ended before its time:\n{}",
            self.log()
        );
        let until = Instant::now() + ENDED_WITHIN;
        loop {
            if let Some(status) = self.swarm.ended()? {
                ensure!(
                    status.success(),
                    "the swarm ended with {status}:\n{}",
                    self.log()
                );
                return self.server.check_log();
            }
            ensure!(
                Instant::now() < until,
                "the swarm does not end:\n{}",
                self.log()
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn told(&self, key: &str) -> Result<u64> {
        let summary: Value = serde_json::from_slice(&std::fs::read(&self.summary)?)?;
        let value = summary[key].as_u64();
        value.with_context(|| format!("the swarm's summary has no {key}"))
    }

    /// Connections that did not last.
    fn lost(&self) -> Result<u64> {
        Ok(
            self.told("connections")?.saturating_sub(self.users.into())
                + self.told("reconnects")?,
        )
    }

    fn swarm_before(&self) -> Result<u64> {
        self.told("rss_bytes_before")
    }
}
