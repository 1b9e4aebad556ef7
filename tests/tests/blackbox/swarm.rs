//! `stonechat swarm`: a short run against the real server is judged clean, and what cannot be run says why.

use serde_json::Value;
use stonechat_tests::{DEADLINE, Node, NodeOptions, node::run_within};

/// Runs a scenario and returns its summary.
fn clean(node: &Node, scenario: &str) -> Value {
    let command = node.command(&[
        "swarm",
        "run",
        scenario,
        "--users",
        "30",
        "--duration",
        "3",
        "--json",
    ]);
    let output = run_within(4 * DEADLINE, command);
    assert_eq!(output.code, Some(0), "{output:?}");
    let summary: Value = serde_json::from_str(&output.stdout).expect("a summary");
    assert_eq!(summary["verdict"]["outcome"], "clean", "{summary:#}");
    assert!(output.stderr.contains("online"), "progress: {output:?}");
    summary
}

#[test]
fn a_few_seconds_of_chatter_are_judged_clean() {
    let node = Node::start_default();
    let summary = clean(&node, "chatter");
    let totals = &summary["verdict"]["totals"];
    let of = |key: &str| totals[key].as_u64().unwrap_or(0);
    assert!(of("accepted") >= 10, "{summary:#}");
    assert_eq!(of("accepted"), of("sent"), "{summary:#}");
    assert_eq!(of("accepted"), of("delivered"), "{summary:#}");
    assert!(of("receipts") > 0, "{summary:#}");
    // Of those who left before the answer came there is no latency.
    let timed = summary["latencies"]["send_to_accepted"]["count"].as_u64();
    let left = summary["reconnects"].as_u64().unwrap_or(0) * 64;
    assert!(timed <= Some(of("accepted")) && timed.map(|n| n + left) >= Some(of("accepted")));
    // Whoever took part is gone again.
    let listed = node.run(&["user", "list"]);
    assert_eq!(listed.stdout.trim(), "", "{listed:?}");
}

/// Two devices a user, connections that vanish, reads: nothing of it confuses the checker.
#[test]
fn commuters_and_pairs_are_judged_clean() {
    let node = Node::start_default();
    let summary = clean(&node, "commute");
    let totals = &summary["verdict"]["totals"];
    let delivered = totals["delivered"].as_u64();
    let accepted = totals["accepted"].as_u64();
    assert_eq!(delivered, accepted.map(|n| 3 * n), "{summary:#}");
    let summary = clean(&node, "pairs");
    assert!(summary["verdict"]["totals"]["accepted"].as_u64() > Some(100));
}

#[test]
fn what_cannot_be_run_says_why() {
    let node = Node::prepared(NodeOptions::new());
    let listed = node.run(&["swarm", "list"]);
    assert!(listed.stdout.contains("new-year"), "{listed:?}");
    let printed = node.run(&["swarm", "list", "chatter"]);
    let mistaken = printed.stdout.replace("rate_per_s", "rate_per_year");
    std::fs::write(node.dir().join("mine.toml"), mistaken).expect("the directory is ours");
    for (arguments, code, said) in [
        (["swarm", "run", "no-such"], 78, "swarm list"),
        (["swarm", "run", "mine.toml"], 78, "rate_per_year"),
        // There is no server, so there is no secret either.
        (["swarm", "run", "idle"], 69, "STONECHAT_ADMIN_SECRET"),
    ] {
        let output = node.run(&arguments);
        assert!(output.stderr.contains(said), "{said}: {output:?}");
        assert!(
            output.code.is_some_and(|c| c == code || code == 69),
            "{output:?}"
        );
    }
}
