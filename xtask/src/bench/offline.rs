//! Messages to users who are away: how fast they are taken, what they leave behind, how fast they
//! are fetched.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use stonechat_swarm::{Drain, Engine, Flood, Options, Pace};

use super::process::Usage;
use super::relay::until_finished;
use super::report::{Sample, Target};
use super::server::{self, Server};
use super::{Common, Report, disk};

const WITHIN: Duration = Duration::from_secs(120);
const DRAIN_WITHIN: Duration = Duration::from_secs(900);
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
const MIB: f64 = 1024.0 * 1024.0;

/// Messages to users who are away.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Connected senders.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) senders: usize,
    /// Recipients, who are away.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) recipients: usize,
    /// Sends each sender has unanswered in the burst.
    #[arg(long, default_value_t = 16)]
    pub(crate) window: usize,
    /// Bytes of a body, quotes included.
    #[arg(long, default_value_t = 200)]
    pub(crate) body_bytes: usize,
    /// How long the burst lasts.
    #[arg(long, default_value_t = 10)]
    pub(crate) burst_seconds: u64,
    /// How long messages come at the sustained rate.
    #[arg(long, default_value_t = 300)]
    pub(crate) seconds: u64,
    /// The sustained rate, messages a second.
    #[arg(long, default_value_t = 30_000)]
    pub(crate) rate: u64,
    /// Recipients who come back at the end and drain their mailboxes, at most.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) drain: usize,
}

/// A server with senders connected to it, and what they have sent.
pub(super) struct Filled {
    pub(super) server: Server,
    pub(super) engine: Engine,
    pub(super) flood: Flood,
    senders: u32,
    data: PathBuf,
}

impl Filled {
    pub(super) fn start(
        common: &Common,
        dir: &Path,
        (senders, recipients): (usize, usize),
        body_bytes: usize,
    ) -> Result<Self> {
        let server = Server::start(common, dir, &[])?;
        let users = senders + recipients;
        let roster = super::users::create(&server.admin, users, users)?;
        let mut engine = Engine::new(roster, Options::new(server.listen))?;
        let senders_end = u32::try_from(senders)?;
        let away = senders_end..u32::try_from(users)?;
        let mut flood = Flood::new(senders, away, body_bytes);
        engine.connect(0..senders_end, &mut flood, WITHIN)?;
        Ok(Self {
            server,
            engine,
            flood,
            senders: senders_end,
            data: dir.join("data"),
        })
    }

    pub(super) fn begin(&mut self, pace: Pace) -> Result<()> {
        self.flood.pace(pace);
        self.engine
            .each(0..self.senders, &mut self.flood, Flood::start)?;
        Ok(())
    }

    /// Sends nothing more and waits for what is unanswered.
    pub(super) fn end(&mut self) -> Result<()> {
        self.flood.stop();
        until_finished(&mut self.engine, &mut self.flood, Flood::accepted_total)
    }

    /// Sends for a while and tells how many messages a second were accepted in it.
    fn for_a_while(
        &mut self,
        phase: &'static str,
        pace: Pace,
        seconds: u64,
        report: &mut Report,
    ) -> Result<f64> {
        let accepted = self.flood.accepted_total();
        let began = Instant::now();
        let until = began + Duration::from_secs(seconds);
        let first = report.series.len();
        self.begin(pace)?;
        while Instant::now() < until {
            let slice = until.min(Instant::now() + SAMPLE_EVERY);
            self.engine.run(&mut self.flood, slice)?;
            let disk = disk::data_bytes(&self.data);
            report.series.push(Sample {
                phase,
                at_s: began.elapsed().as_secs_f64(),
                accepted: self.flood.accepted_total() - accepted,
                rss_bytes: Usage::of(self.server.pid())?.rss_bytes,
                journal_bytes: disk.journal,
                database_bytes: disk.database,
            });
        }
        let elapsed_s = began.elapsed().as_secs_f64();
        let mut taken = self.flood.accepted_total() - accepted;
        self.end()?;
        if let Pace::EveryUs(_) = pace {
            // What was sent in time counts, also when its answer came a moment later.
            taken = self.flood.accepted_total() - accepted;
        }
        let rate = taken as f64 / elapsed_s;
        let samples = &report.series[first..];
        let most = |of: fn(&Sample) -> u64| samples.iter().map(of).max().unwrap_or(0) as f64 / MIB;
        let figures = [
            ("memory", most(|sample| sample.rss_bytes)),
            ("journal", most(|sample| sample.journal_bytes)),
            ("database", most(|sample| sample.database_bytes)),
        ];
        for (what, value) in figures {
            report.figure(format!("{phase}: {what}, most"), value, "MiB");
        }
        Ok(rate)
    }
}

/// Runs the benchmark.
pub(crate) fn run(args: &Args, common: &Common) -> Result<Report> {
    let mut report = Report::new("offline");
    report.setting("senders", &args.senders);
    report.setting("recipients", &args.recipients);
    report.setting("window", &args.window);
    report.setting("body_bytes", &args.body_bytes);
    report.setting("sustained seconds", &args.seconds);
    let dir = server::work_dir(common)?;
    report.figure(
        "bare file, one fdatasync for 1,024 records",
        disk::append_floor(dir.path())?,
        "/s",
    );
    let mut filled = Filled::start(
        common,
        dir.path(),
        (args.senders, args.recipients),
        args.body_bytes,
    )?;

    let before = Usage::of(filled.server.pid())?;
    let pace = Pace::Window(args.window);
    let rate = filled.for_a_while("burst", pace, args.burst_seconds, &mut report)?;
    report.aimed("burst: accepted", rate, "/s", Target::AtLeast(100_000.0));
    let burst = filled.flood.accepted_total().max(1) as f64;
    let cpu_s = Usage::of(filled.server.pid())?.since(before).cpu_s;
    report.figure(
        "burst: server CPU for 1M messages",
        cpu_s * 1e6 / burst,
        "s",
    );
    let latency = std::mem::take(&mut filled.flood.accepted);
    report.figure(
        "burst: send to accepted, p99",
        disk::ms(latency.percentile(99.0)),
        "ms",
    );

    if args.seconds > 0 {
        let interval_us = args.senders as u64 * 1_000_000 / args.rate.max(1);
        let before = (
            Usage::of(filled.server.pid())?,
            filled.flood.accepted_total(),
        );
        let pace = Pace::EveryUs(interval_us);
        let rate = filled.for_a_while("sustained", pace, args.seconds, &mut report)?;
        // Rounding of the interval and the last moment are not the server's.
        let target = Target::AtLeast(args.rate as f64 * 0.99);
        report.aimed("sustained: accepted", rate, "/s", target);
        let messages = (filled.flood.accepted_total() - before.1).max(1) as f64;
        let cpu_s = Usage::of(filled.server.pid())?.since(before.0).cpu_s;
        report.figure(
            "sustained: server CPU for 1M messages",
            cpu_s * 1e6 / messages,
            "s",
        );
        let latency = &filled.flood.accepted;
        for percent in [50.0, 99.0, 99.9] {
            let value = disk::ms(latency.percentile(percent));
            report.figure(
                format!("sustained: send to accepted, p{percent}"),
                value,
                "ms",
            );
        }
        report.figure(
            "sustained: send to accepted, max",
            disk::ms(latency.max()),
            "ms",
        );
    }
    drain(args, &mut filled, &mut report)?;
    filled.server.check_log()?;
    Ok(report)
}

fn drain(args: &Args, filled: &mut Filled, report: &mut Report) -> Result<()> {
    let users = args.drain.min(args.recipients);
    let mut drain = Drain::new(filled.senders, &filled.flood.tallies()[..users]);
    let messages = drain.left();
    let back = filled.senders..filled.senders + u32::try_from(users)?;
    let before = Usage::of(filled.server.pid())?;
    let began = Instant::now();
    filled.engine.connect(back, &mut drain, DRAIN_WITHIN)?;
    until_finished(&mut filled.engine, &mut drain, Drain::left)?;
    let seconds = began.elapsed().as_secs_f64();
    drain.verify().map_err(|what| anyhow!(what))?;
    report.aimed(
        "drained",
        messages as f64 / seconds,
        "/s",
        Target::AtLeast(50_000.0),
    );
    report.figure("drained: messages", messages as f64, "");
    let cpu_s = Usage::of(filled.server.pid())?.since(before).cpu_s;
    report.figure(
        "drained: server CPU for 1M messages",
        cpu_s * 1e6 / messages.max(1) as f64,
        "s",
    );
    Ok(())
}
