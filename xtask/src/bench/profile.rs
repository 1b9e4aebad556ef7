//! Where the server's time goes while it relays: a flame graph, system calls and sleeps a message.
//!
//! Needs Linux's `perf` (package linux-perf in Debian) and the right to use it. Files go to
//! target/bench. The load is that of the relay benchmark, without the floor.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::flame::Stacks;
use super::process::Usage;
use super::relay::Side;
use super::server::{self, Server};
use super::{Common, Report, target_dir};

/// System calls that are told by name; the rest is in the total.
const CALLS: &[&str] = &[
    "epoll_wait",
    "epoll_ctl",
    "read",
    "recvfrom",
    "readv",
    "write",
    "sendto",
    "writev",
    "pwrite64",
    "fdatasync",
    "sync_file_range",
    "futex",
    "sched_yield",
    "clock_nanosleep",
    "mmap",
    "munmap",
    "madvise",
];
const SAMPLES_PER_S: u32 = 997;
const HOTTEST: usize = 25;
const ATTACH: Duration = Duration::from_secs(1);

/// Profiles the server during a benchmark.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// During what.
    #[arg(value_enum, default_value = "relay")]
    what: What,
    /// Pairs of connected users.
    #[arg(long, default_value_t = 500)]
    pairs: usize,
    /// Messages under way a pair; may be given more than once.
    #[arg(long, default_values_t = [1, 16])]
    window: Vec<usize>,
    /// Bytes of a body, quotes included.
    #[arg(long, default_value_t = 200)]
    body_bytes: usize,
    /// How long each look takes: samples, then counters.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum What {
    Relay,
}

/// Ends a process with its handle.
struct Perf(Child);

impl Drop for Perf {
    fn drop(&mut self) {
        // It has ended by itself unless something else failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the benchmark under perf.
pub(crate) fn run(args: &Args, common: &Common) -> Result<Report> {
    let What::Relay = args.what;
    let mut report = Report::new("profile");
    report.setting("pairs", &args.pairs);
    report.setting("seconds", &args.seconds);
    let out = target_dir()?.join("bench");
    let dir = server::work_dir(common)?;
    let server = Server::start(common, dir.path(), &[])?;
    let mut side = Side::of(&server, args.pairs, args.body_bytes)?;
    for &window in &args.window {
        let a_round = 100 * args.pairs as u64;
        side.round(window, a_round)?;
        samples(
            &mut report,
            args,
            &mut side,
            (window, a_round),
            (&out, dir.path()),
        )?;
        counters(&mut report, args, &mut side, (window, a_round), dir.path())?;
    }
    server.check_log()?;
    Ok(report)
}

/// perf looking at process `pid`, until it is interrupted.
fn perf(arguments: &[&str], pid: u32) -> Result<Perf> {
    let child = Command::new("perf")
        .args(arguments)
        .args(["-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("perf cannot be started; install it (linux-perf in Debian)")?;
    // It tells nobody when it has attached itself; until then the server idles.
    std::thread::sleep(ATTACH);
    Ok(Perf(child))
}

/// Keeps the load up for some seconds while perf looks, then has perf write what it saw.
fn load(
    mut perf: Perf,
    side: &mut Side,
    (window, messages): (usize, u64),
    seconds: u64,
) -> Result<(f64, Usage)> {
    let before = Usage::of(side.pid())?;
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut sent = 0;
    while Instant::now() < until {
        ensure!(
            perf.0.try_wait()?.is_none(),
            "perf ended; may it look at other processes?"
        );
        side.round(window, messages)?;
        sent += messages;
    }
    let used = Usage::of(side.pid())?.since(before);
    let interrupted = Command::new("kill")
        .args(["-INT", &perf.0.id().to_string()])
        .status()?;
    ensure!(interrupted.success(), "perf could not be interrupted");
    perf.0.wait()?;
    Ok((sent as f64, used))
}

fn samples(
    report: &mut Report,
    args: &Args,
    side: &mut Side,
    round: (usize, u64),
    (out, scratch): (&Path, &Path),
) -> Result<()> {
    let data = scratch.join("perf.data");
    let data = data.to_str().context("the directory's name is text")?;
    let rate = SAMPLES_PER_S.to_string();
    // No frame pointers in the release build: stacks are copied and unwound afterwards.
    let record = [
        "record",
        "-o",
        data,
        "-F",
        &rate,
        "--call-graph",
        "dwarf,8192",
    ];
    let recording = perf(&record, side.pid())?;
    load(recording, side, round, args.seconds)?;
    let script = Command::new("perf")
        .args(["script", "-i", data, "--no-inline", "-F", "comm,ip,sym,dso"])
        .stderr(Stdio::null())
        .output()?;
    ensure!(
        script.status.success(),
        "perf script failed; is perf_event_paranoid too high?"
    );
    let stacks = Stacks::read(&String::from_utf8_lossy(&script.stdout));
    ensure!(stacks.total() > 0, "perf took no samples");
    let window = round.0;
    let base = out.join(format!("relay-window-{window}"));
    fs::write(base.with_extension("folded"), stacks.folded())?;
    let title = format!("server relaying, {} pairs, window {window}", args.pairs);
    fs::write(base.with_extension("svg"), stacks.svg(&title))?;
    eprintln!("window {window}: {}", base.with_extension("svg").display());
    for (name, percent) in stacks.hottest(HOTTEST) {
        let short: String = name.chars().take(60).collect();
        report.figure(format!("window {window}: in {short}"), percent, "%");
    }
    fs::remove_file(data)?;
    Ok(())
}

fn counters(
    report: &mut Report,
    args: &Args,
    side: &mut Side,
    round: (usize, u64),
    scratch: &Path,
) -> Result<()> {
    let file = scratch.join("perf.stat");
    let path = file.to_str().context("the directory's name is text")?;
    let mut events = String::from("raw_syscalls:sys_enter,context-switches,cpu-migrations");
    for call in CALLS {
        events.push_str(",syscalls:sys_enter_");
        events.push_str(call);
    }
    let counting = perf(&["stat", "-x", ";", "-o", path, "-e", &events], side.pid())?;
    let (sent, used) = load(counting, side, round, args.seconds)?;
    let text = fs::read_to_string(&file)?;
    let window = round.0;
    report.figure(
        format!("window {window}: sleeps of server threads a message"),
        used.sleeps as f64 / sent,
        "",
    );
    for line in text.lines() {
        // count;unit;event;…
        let mut fields = line.split(';');
        let (Some(Ok(count)), Some(event)) = (fields.next().map(str::parse::<f64>), fields.nth(1))
        else {
            continue;
        };
        let name = event.trim_start_matches("syscalls:sys_enter_");
        let name = name.replace("raw_syscalls:sys_enter", "system calls");
        if count / sent > 0.0005 {
            report.figure(
                format!("window {window}: {name} a message"),
                count / sent,
                "",
            );
        }
    }
    Ok(())
}
