//! `stonechat swarm` with faults, through the real binary: two minutes with everything on are judged
//! clean, faults that take no process work on any server, and what goes wrong is told.

use std::fs::File;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use stonechat_tests::node::{command, wait};
use stonechat_tests::{Node, NodeOptions, binary, eventually, heavy};

/// Faults that only a server of one's own can be subjected to.
const OF_A_PROCESS: [&str; 6] = [
    "kill",
    "pause",
    "terminate",
    "disk_full",
    "sync_failure",
    "clock_step",
];

struct Run {
    code: Option<i32>,
    stderr: String,
    summary: Value,
}

impl Run {
    fn events(&self) -> Vec<&Value> {
        let events = self.summary["chaos"].as_array();
        events
            .map(|events| events.iter().collect())
            .unwrap_or_default()
    }

    fn kinds(&self) -> Vec<&str> {
        let kinds = self.events().into_iter();
        kinds
            .map(|event| event["kind"].as_str().expect("a kind"))
            .collect()
    }

    #[track_caller]
    fn assert_clean(&self) {
        let (summary, stderr) = (&self.summary, &self.stderr);
        assert_eq!(self.code, Some(0), "{summary:#}\n{stderr}");
        assert_eq!(summary["verdict"]["outcome"], "clean", "{summary:#}");
    }
}

fn start(mut command: Command, dir: &Path) -> Child {
    let file = |name: &str| File::create(dir.join(name)).expect("the directory is ours");
    command
        .arg("--json")
        .env("TMPDIR", dir)
        .stdin(Stdio::null())
        .stdout(file("summary.json"))
        .stderr(file("progress.log"))
        .spawn()
        .expect("the swarm can be started")
}

/// Runs a swarm to its end. What it leaves goes to `dir`.
fn swarm(command: Command, dir: &Path, within: Duration) -> Run {
    let path = |name: &str| dir.join(name);
    let mut child = start(command, dir);
    let status = wait(&mut child, within).unwrap_or_else(|| {
        // So that it ends its server.
        let _ = Command::new("kill").arg(child.id().to_string()).status();
        let _ = wait(&mut child, Duration::from_secs(60));
        let said = std::fs::read_to_string(path("progress.log")).unwrap_or_default();
        panic!("the swarm does not end\n{said}")
    });
    let text = |name: &str| std::fs::read_to_string(path(name)).unwrap_or_default();
    Run {
        code: status.code(),
        stderr: text("progress.log"),
        summary: serde_json::from_str(&text("summary.json")).unwrap_or_default(),
    }
}

fn own(arguments: &[&str]) -> Command {
    let mut swarm = command();
    swarm.args(["swarm", "run"]).args(arguments).arg("--spawn");
    swarm
}

fn temp() -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("stonechat-test-");
    builder.tempdir().expect("a temporary directory")
}

#[test]
fn two_minutes_with_everything_on_are_judged_clean() {
    let _heavy = heavy();
    let mut dir = temp();
    let seed = std::env::var("STONECHAT_SOAK_SEED").unwrap_or_else(|_| "1".to_owned());
    let arguments = [
        "soak",
        "--chaos",
        "--chaos-seed",
        &seed,
        "--chaos-every",
        "4s",
    ];
    let run = swarm(own(&arguments), dir.path(), Duration::from_secs(300));
    // The server's log stays for whoever looks into it.
    dir.disable_cleanup(run.code != Some(0));
    run.assert_clean();
    let totals = &run.summary["verdict"]["totals"];
    println!(
        "soak, seed {seed}: {} faults, {totals}: clean",
        run.events().len()
    );
    assert!(totals["accepted"].as_u64() > Some(2_000), "{totals}");
    let kinds = run.kinds();
    for left_out in run.summary["chaos_left_out"]
        .as_array()
        .into_iter()
        .flatten()
    {
        println!("NOT RUN: {}: {}", left_out["kind"], left_out["why"]);
    }
    for kind in [
        "kill",
        "pause",
        "cut",
        "half_open",
        "garbage",
        "panic_session",
    ] {
        assert!(kinds.contains(&kind), "{kind} is missing: {kinds:?}");
    }
    for event in run.events() {
        assert!(event["recovery_ms"].is_u64(), "it recovered: {event}");
    }
}

#[test]
fn a_server_of_somebody_else_is_spared_what_takes_its_process() {
    let dir = temp();
    let node = Node::start(NodeOptions::new().fault_injection());
    let mut swarm_command = node.command(&["swarm", "run", "chatter", "--users", "20"]);
    swarm_command.args(["--duration", "12", "--chaos", "--chaos-every", "500ms"]);
    let run = swarm(swarm_command, dir.path(), Duration::from_secs(120));
    run.assert_clean();
    let kinds = run.kinds();
    for kind in ["cut", "garbage", "oversized", "panic_session"] {
        assert!(kinds.contains(&kind), "{kind} is missing: {kinds:?}");
    }
    let left_out = run.summary["chaos_left_out"].to_string();
    for kind in OF_A_PROCESS {
        assert!(!kinds.contains(&kind), "{kinds:?}");
        assert!(left_out.contains(&format!("\"{kind}\"")), "{left_out}");
    }
    assert!(left_out.contains("--spawn"), "{left_out}");
}

#[test]
fn faults_that_cannot_be_had_are_refused() {
    let dir = temp();
    let node = Node::start_default();
    let kill = [
        "idle",
        "--users",
        "2",
        "--duration",
        "1",
        "--chaos",
        "--chaos-only",
        "kill",
    ];
    let run = swarm(
        node.command(&[&["swarm", "run"][..], &kill].concat()),
        dir.path(),
        Duration::from_secs(60),
    );
    assert_eq!(run.code, Some(69), "{}", run.stderr);
    assert!(run.stderr.contains("--spawn"), "{}", run.stderr);
}

/// An error in the server's log that no fault explains makes the verdict, and the log stays.
#[test]
fn an_error_that_nothing_explains_is_held_against_the_server() {
    let dir = temp();
    let script = dir.path().join("server");
    let real = binary::stonechat().display().to_string();
    let text = format!(
        "#!/bin/sh\necho '{{\"level\":\"ERROR\",\"message\":\"bad luck\"}}'\nexec '{real}' \"$@\"\n"
    );
    std::fs::write(&script, text).expect("the directory is ours");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&script, executable).expect("it is ours");
    let mut swarm_command = own(&["chatter", "--users", "10", "--duration", "2"]);
    swarm_command.arg("--spawn-binary").arg(&script);
    let run = swarm(swarm_command, dir.path(), Duration::from_secs(60));
    assert_eq!(run.code, Some(65), "{}", run.stderr);
    assert_eq!(run.summary["verdict"]["violations"]["counts"]["server"], 1);
    let log = run.summary["server_log"].as_str().expect("it is named");
    let log = std::fs::read_to_string(log).expect("it is kept");
    assert!(log.contains("bad luck") && log.contains("ready"), "{log}");
}

/// Whoever interrupts a run finds no server running and nothing mounted.
#[test]
fn an_interrupted_run_takes_its_server_along() {
    let dir = temp();
    let progress = || std::fs::read_to_string(dir.path().join("progress.log")).unwrap_or_default();
    let long = ["chatter", "--users", "10", "--duration", "600", "--chaos"];
    let mut child = start(own(&long), dir.path());
    let address = eventually("the server is started", || {
        let said = progress();
        let (_, rest) = said.split_once("started a server on ")?;
        Some(rest.lines().next()?.to_owned())
    });
    let sent = Command::new("kill").arg(child.id().to_string()).status();
    assert!(sent.is_ok_and(|status| status.success()), "it runs");
    let status = wait(&mut child, Duration::from_secs(60)).expect("it ends");
    // Clean, or ended before there was anything to judge.
    assert!(matches!(status.code(), Some(0 | 69)), "{}", progress());
    let summary = std::fs::read_to_string(dir.path().join("summary.json")).expect("it is judged");
    let summary: Value = serde_json::from_str(&summary).expect("JSON");
    assert_eq!(summary["ended_early"], true, "{summary}");
    assert!(TcpStream::connect(&address).is_err(), "{address} listens");
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let ours = dir.path().display().to_string();
    assert!(!mounts.contains(&ours), "{mounts}");
}

/// Also when it can do nothing for it any more.
#[test]
fn a_killed_run_takes_its_server_along() {
    let dir = temp();
    let progress = || std::fs::read_to_string(dir.path().join("progress.log")).unwrap_or_default();
    let long = ["chatter", "--users", "10", "--duration", "600"];
    let mut child = start(own(&long), dir.path());
    let address = eventually("the server is started", || {
        let said = progress();
        let (_, rest) = said.split_once("started a server on ")?;
        Some(rest.lines().next()?.to_owned())
    });
    assert!(TcpStream::connect(&address).is_ok(), "{address}");
    child.kill().expect("it runs");
    child.wait().expect("it is ours");
    eventually("nobody listens", || {
        TcpStream::connect(&address).is_err().then_some(())
    });
}

/// Kinds of faults by themselves, with settings under which each of them once broke a promise
/// (docs/load-testing.md). Says so where they cannot be had.
fn alone(kinds: &str, scenario: &str, more: &[&str]) {
    let _heavy = heavy();
    let mut dir = temp();
    let arguments = [scenario, "--seed", "1", "--chaos", "--chaos-seed", "1"];
    let mut run_command = own(&arguments);
    run_command.args(["--chaos-only", kinds]).args(more);
    let run = swarm(run_command, dir.path(), Duration::from_secs(180));
    if run.code == Some(69) && run.stderr.contains(kinds) {
        println!("NOT RUN: {kinds}: {}", run.stderr.trim());
        return;
    }
    dir.disable_cleanup(run.code != Some(0));
    run.assert_clean();
    assert!(run.events().len() >= 2, "{:?}", run.kinds());
    assert!(run.kinds().iter().all(|kind| kinds.contains(kind)));
}

/// Receipts that moved while the disk was full were not told, nor any after them.
#[test]
fn a_disk_that_fills_up_again_and_again_silences_no_receipt() {
    let users = ["--users", "30", "--duration", "18", "--chaos-every", "4s"];
    alone("disk_full", "soak", &users);
}

const AWAY: &str = "
about = 'mostly away, for longer than the server stays up'
users = 60
duration_s = 18

[traffic]
rate_per_s = 2.0
contacts = { kind = 'zipf', count = 20, exponent = 1.0 }

[presence]
online_s = 5
offline_s = 15
";

/// Messages of whoever was away over two starts were lost, where they were moved to the database soon.
#[test]
fn whoever_is_away_over_many_crashes_gets_everything() {
    let dir = temp();
    let scenario = dir.path().join("away.toml");
    std::fs::write(&scenario, AWAY).expect("the directory is ours");
    let scenario = scenario.to_str().expect("a name in UTF-8");
    let soon = ["--set", "storage.migrate_after_ms=300"];
    let often = ["--chaos-every", "2500ms"];
    alone("kill,sync_failure", scenario, &[soon, often].concat());
}
