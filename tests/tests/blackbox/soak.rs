//! One in a hundred messages to sessions panics instead of being handled, under load: nothing accepted is
//! lost, doubled or reordered, memory is flat, and every panic is accounted for.
//!
//! A few seconds of it run with the tests; `cargo xtask soak` takes minutes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stonechat_tests::traffic::{Load, Traffic, wait_panics};
use stonechat_tests::ws::send;
use stonechat_tests::{Node, NodeOptions, WsClient, eventually, heavy, new_id};

/// Messages to sessions of which one panics.
const EVERY: u32 = 100;
/// Messages that panic each time they are handled.
const POISONS: usize = 2;
/// Attempts after which such a message is a dead letter.
const ATTEMPTS: u64 = 3;
/// Growth of the resident set that is no growth: caches and the allocator fill up.
const GROWTH_BYTES_MAX: u64 = 16 * 1024 * 1024;

fn from_env(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn rss_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the node runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
    let kib: u64 = kib
        .expect("a resident set")
        .trim()
        .parse()
        .expect("a number");
    kib * 1024
}

fn mean(samples: &[u64]) -> u64 {
    samples.iter().sum::<u64>() / samples.len().max(1) as u64
}

fn totals(node: &Node) -> Value {
    node.admin().get("/admin/v1/actors?limit=1").expect(200)["totals"].clone()
}

fn crashes_at_start(node: &Node) -> u64 {
    let actors = node.admin().get("/admin/v1/actors?limit=1").expect(200);
    let crashes = actors["crashes"].as_array().expect("a list");
    let at_start = |crash: &&Value| {
        let reason = crash["reason"].as_str().unwrap_or_default();
        reason.contains("panicked in started")
    };
    crashes.iter().filter(at_start).count() as u64
}

fn dead_letters(node: &Node) -> usize {
    let list = node.admin().get("/admin/v1/dead-letters").expect(200);
    list["dead_letters"].as_array().expect("a list").len()
}

fn panic_every(node: &Node, every: u32) -> u64 {
    let fault = json!({"target": "messages", "every": every});
    let answer = node.admin().inject_panic(&fault).expect(200);
    answer["injected"].as_u64().expect("a number")
}

/// Messages to one user that panic each time they are handled, until they are dead letters.
fn poison(node: &Node, count: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut sender = WsClient::join(node, "poisoner", "phone").await;
        let mut victim = WsClient::join(node, "victim", "phone").await;
        victim.allow_repeats();
        for n in 1..=count {
            let id = new_id();
            let fault = json!({"target": "session", "user": "victim", "on_id": id});
            node.admin().inject_panic(&fault).expect(200);
            sender
                .send_json(&send(&id, "victim", &json!("poison")))
                .await;
            sender.accepted(&id).await;
            eventually("the poison is put aside", || {
                (dead_letters(node) >= n).then_some(())
            });
        }
        sender.close().await;
        victim.close().await;
    });
}

#[test]
fn one_in_a_hundred_messages_panics() {
    let _heavy = heavy();
    let lasts = Duration::from_secs(from_env("STONECHAT_SOAK_SECONDS", 12));
    let users = from_env("STONECHAT_SOAK_USERS", 100);
    let node = Node::start(NodeOptions::new().fault_injection());
    let traffic = Traffic::start(
        &node,
        Load {
            users: usize::try_from(users).expect("not so many"),
            window: 8,
            pace: Duration::from_millis(400),
            panics: true,
            tablets: false,
        },
    );
    traffic.wait_progress(2, Duration::from_secs(60));
    panic_every(&node, EVERY);
    let end = Instant::now() + lasts;
    let mut samples = Vec::new();
    while Instant::now() < end {
        // Everybody goes on, however often their session has panicked.
        traffic.wait_progress(1, Duration::from_secs(60));
        samples.push(rss_bytes(node.pid()));
    }
    let injected = panic_every(&node, 0);
    poison(&node, POISONS);
    let report = traffic.finish(Duration::from_secs(60));
    report.verify();
    let refused = report.refused();
    assert!(
        refused.iter().all(|(_, code)| code == "internal"),
        "{refused:?}"
    );

    let expected = injected + ATTEMPTS * POISONS as u64;
    wait_panics(&node, expected);
    // A panic ends in a restart, or ends a session that had too many. A generation that panics while it
    // starts, over poison and thus among the last crashes, never counted as a restart.
    let after = eventually("each panic has come to something", || {
        let after = totals(&node);
        let ended = after["restarts"].as_u64()?
            + after["intensity_exceeded"].as_u64()?
            + crashes_at_start(&node);
        (ended == after["panics"].as_u64()?).then_some(after)
    });
    assert_eq!(after["panics"], expected, "{after}");
    let metric = node.admin().metric("stonechat_actor_panics_total", "");
    assert_eq!(metric, Some(expected as f64));
    assert_eq!(dead_letters(&node), POISONS);
    assert_eq!(after["abandoned"], 0, "{after}");

    let third = samples.len() / 3;
    let (first, last) = (mean(&samples[..third]), mean(&samples[2 * third..]));
    println!(
        "{} messages accepted, {} refused, {} reconnects; {injected} panics injected, {after}; \
         resident {:.1} MiB in the first third, {:.1} MiB in the last",
        report.accepted(),
        refused.len(),
        report
            .ledgers
            .iter()
            .map(|(_, ledger)| ledger.disconnects.len())
            .sum::<usize>(),
        first as f64 / 1048576.0,
        last as f64 / 1048576.0,
    );
    assert!(injected >= lasts.as_secs(), "only {injected} panics");
    assert!(
        last <= first + first / 10 + GROWTH_BYTES_MAX,
        "memory grows from {first} to {last} bytes"
    );
}
