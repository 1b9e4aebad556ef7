//! Clients that mean harm, against the real binary: what they cost, and that nobody else notices.
//!
//! Small in the test command. `cargo xtask attack` runs them at full size, one after the other, and
//! prints what was measured (docs/testing.md, "Attacks"). Nothing asserts how long something took;
//! who is attacked is compared with who is not.

mod bursts;
mod flood;
mod half_open;
mod loris;
mod stuck;

use std::time::{Duration, Instant};

use serde_json::json;
use stonechat_tests::{Node, WsClient};

/// `small` in the test command, `full` on demand.
fn size(small: usize, full: usize) -> usize {
    match std::env::var_os("STONECHAT_ATTACK") {
        Some(_) => full,
        None => small,
    }
}

/// Resident memory of a node, in bytes.
fn resident_bytes(node: &Node) -> u64 {
    let path = format!("/proc/{}/status", node.pid());
    let status = std::fs::read_to_string(path).expect("the node runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok())
        .expect("Linux tells VmRSS")
        * 1024
}

/// Two users who go on talking, whatever happens around them.
struct Bystanders {
    alice: WsClient,
    bob: WsClient,
}

impl Bystanders {
    async fn join(node: &Node) -> Self {
        Self {
            alice: WsClient::join(node, "alice", "phone").await,
            bob: WsClient::join(node, "bob", "phone").await,
        }
    }

    /// One message each way, acknowledged; how long a way took.
    async fn talk(&mut self) -> Duration {
        let since = Instant::now();
        let there = self.alice.say("bob", &json!("there")).await;
        assert_eq!(self.bob.message_acked().await["id"], json!(there));
        let back = self.bob.say("alice", &json!("back")).await;
        assert_eq!(self.alice.message_acked().await["id"], json!(back));
        since.elapsed() / 2
    }

    /// The middle of `rounds` of talking.
    async fn median(&mut self, rounds: usize) -> Duration {
        let mut all = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            all.push(self.talk().await);
        }
        all.sort_unstable();
        all[rounds / 2]
    }
}

/// Waits until a node has no more connections than these.
fn until_connections(node: &Node, most: f64) {
    stonechat_tests::eventually("the connections are gone", || {
        node.admin()
            .metric("stonechat_connections", "")
            .is_some_and(|count| count <= most)
            .then_some(())
    });
}
