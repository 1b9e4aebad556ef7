//! `stonechat swarm run` as somebody runs it: several processes, the report, the live view, an end before
//! the time.

use std::io::Write as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use stonechat_tests::node::{run_within, wait};
use stonechat_tests::{DEADLINE, Node, eventually};

/// A swarm that is under way; killed when dropped.
struct Run {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Run {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the swarm can be started");
        let said = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().expect("piped"), Arc::clone(&said));
        collect(child.stderr.take().expect("piped"), Arc::clone(&said));
        Self { child, said }
    }

    fn said(&self) -> String {
        self.said
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn wait_for(&self, text: &str) {
        eventually(text, || self.said().contains(text).then_some(()));
    }

    fn ended(&mut self) -> ExitStatus {
        let status = wait(&mut self.child, DEADLINE);
        status.unwrap_or_else(|| panic!("it does not end:\n{}", self.said()))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut from: impl std::io::Read + Send + 'static, into: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        let mut some = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut some) {
            let text = String::from_utf8_lossy(&some[..read]);
            let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
            into.push_str(&text);
        }
    });
}

fn signal(pid: &str, name: &str) {
    let sent = Command::new("kill").args(["-s", name, pid]).status();
    assert!(sent.is_ok_and(|status| status.success()), "{name} to {pid}");
}

/// A run that is ended before has nothing to judge.
fn something_is_accepted(node: &Node) {
    eventually("something is accepted", || {
        let accepted = node.admin().metric("stonechat_messages_accepted_total", "");
        (accepted > Some(0.0)).then_some(())
    });
}

#[test]
fn two_processes_make_one_verdict_and_one_report() {
    let node = Node::start_default();
    let command = node.command(&[
        "swarm",
        "run",
        "pairs",
        "--users",
        "42",
        "--duration",
        "2",
        "--processes",
        "2",
        "--json",
        "--report",
        "run.html",
        "--source-addresses",
        "127.0.0.40-127.0.0.47",
    ]);
    let output = run_within(4 * DEADLINE, command);
    assert_eq!(output.code, Some(0), "{output:?}");
    let summary: Value = serde_json::from_str(&output.stdout).expect("a summary");
    let of = |path: &str| summary.pointer(path).and_then(Value::as_u64);
    assert_eq!(summary["verdict"]["outcome"], "clean", "{summary:#}");
    assert_eq!(of("/processes"), Some(2));
    assert_eq!(of("/users"), Some(42));
    assert_eq!(of("/connections"), Some(42));
    let accepted = of("/verdict/totals/accepted").expect("a count");
    assert!(accepted > 100, "{summary:#}");
    assert_eq!(of("/verdict/totals/delivered"), Some(accepted));
    assert_eq!(of("/latencies/send_to_accepted/count"), Some(accepted));
    // The server is on this machine, so what it used is known.
    assert!(of("/server/rss_bytes_max") > Some(1 << 20), "{summary:#}");
    assert_eq!(summary["server"]["version"], env!("CARGO_PKG_VERSION"));
    let page = std::fs::read_to_string(node.dir().join("run.html")).expect("the report");
    for part in [
        "Verdict: clean",
        "--processes 2",
        "Devices signed in",
        "contacts",
    ] {
        assert!(page.contains(part), "the report lacks {part}");
    }
    // Those of both are gone.
    assert_eq!(node.run(&["user", "list"]).stdout.trim(), "");
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_that_dies_fails_the_run_by_its_name() {
    let node = Node::start_default();
    let mut run = Run::start(node.command(&[
        "swarm",
        "run",
        "chatter",
        "--users",
        "20",
        "--duration",
        "600",
        "--processes",
        "3",
    ]));
    run.wait_for("  run  ");
    let pid = run.child.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.expect("its processes");
    let children: Vec<&str> = children.split_whitespace().collect();
    assert_eq!(children.len(), 3, "{children:?}");
    signal(children[1], "KILL");
    assert_eq!(run.ended().code(), Some(69), "{}", run.said());
    let name = format!("process 2 of 3 (pid {})", children[1]);
    run.wait_for(&name);
    run.wait_for("signal: 9");
    // The others do not live on.
    for child in [children[0], children[2]] {
        let stat = format!("/proc/{child}/stat");
        eventually("the others end", || {
            (!std::path::Path::new(&stat).exists()).then_some(())
        });
    }
}

#[test]
fn an_interrupted_run_drains_and_is_judged() {
    let node = Node::start_default();
    for processes in ["1", "2"] {
        let mut run = Run::start(node.command(&[
            "swarm",
            "run",
            "chatter",
            "--users",
            "20",
            "--duration",
            "600",
            "--json",
            "--processes",
            processes,
        ]));
        run.wait_for("  run  ");
        something_is_accepted(&node);
        signal(&run.child.id().to_string(), "INT");
        assert_eq!(run.ended().code(), Some(0), "{}", run.said());
        run.wait_for("\"ended_early\": true");
        run.wait_for("\"outcome\": \"clean\"");
    }
}

/// In a terminal of its own: it is drawn, `q` ends it, and the terminal is as it was.
#[cfg(target_os = "linux")]
#[test]
fn the_live_view_draws_and_gives_the_terminal_back() {
    let node = Node::start_default();
    let swarm = node.command(&[
        "swarm",
        "run",
        "chatter",
        "--users",
        "20",
        "--duration",
        "600",
    ]);
    let line = std::iter::once(swarm.get_program())
        .chain(swarm.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ");
    let mut command = Command::new("script");
    let shell = format!("stty cols 100 rows 34; {line}; echo \"code $?\"; stty -a");
    command
        .args(["-q", "-e", "-c", &shell, "/dev/null"])
        .env("TERM", "xterm");
    for (name, value) in swarm.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(dir) = swarm.get_current_dir() {
        command.current_dir(dir);
    }
    let mut run = Run::start(command);
    let (enter, leave) = ("\u{1b}[?1049h", "\u{1b}[?1049l");
    run.wait_for(enter);
    run.wait_for("latency");
    run.wait_for("devices signed in");
    run.wait_for("end now");
    something_is_accepted(&node);
    run.child
        .stdin
        .as_mut()
        .expect("piped")
        .write_all(b"q")
        .expect("it reads keys");
    run.wait_for("code 0");
    run.ended();
    let said = run.said();
    let (drawn, after) = said.rsplit_once(leave).expect("it leaves the other screen");
    assert!(drawn.contains("ending"), "it says that it ends: {said:?}");
    assert!(after.contains("verdict: clean"), "{after:?}");
    let modes: Vec<&str> = after.split_whitespace().collect();
    for mode in ["icanon", "echo", "isig"] {
        assert!(modes.contains(&mode), "{mode}: {after}");
    }
    assert!(said.contains("\u{1b}[?25h"), "the cursor is back");
}
