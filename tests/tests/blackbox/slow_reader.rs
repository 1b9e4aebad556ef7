//! A reader that stops reading costs bounded memory, is let go, and delays nobody.

use serde_json::json;
use stonechat_tests::{Connect, Node, NodeOptions, WsClient, eventually, heavy};

/// Bytes of each body: large, so that few messages fill every buffer on the way.
const BODY_BYTES: usize = 60_000;

#[tokio::test]
async fn a_stuck_reader_is_closed_and_others_are_unharmed() {
    let _heavy = heavy();
    let node = Node::start(
        NodeOptions::new()
            .write_deadline_ms(5_000)
            .unacked_max(4_096)
            .set("limits.feed_window_bytes", "33554432")
            .set("limits.outlet_bytes_max", "67108864"),
    );
    let token = node.user("stuck");
    let connect = Connect::to(&node).receive_buffer_bytes(4_096);
    let (mut stuck, _) = connect.sign_in(&token, "phone").await;
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let slow_consumers = || {
        let admin = node.admin();
        admin
            .metric(
                "stonechat_disconnects_total",
                &format!("{:?}", "slow_consumer"),
            )
            .is_some_and(|count| count >= 1.0)
            .then_some(())
    };
    let body = json!("b".repeat(BODY_BYTES));
    let mut sent = 0_u64;
    while slow_consumers().is_none() {
        assert!(
            sent < 600,
            "36 MB were queued for a reader that does not read"
        );
        for _ in 0..10 {
            alice.say("stuck", &body).await;
            sent += 1;
        }
        // Meanwhile others talk as if nothing were.
        let id = alice.say("bob", &json!(sent)).await;
        assert_eq!(bob.message_acked().await["id"], json!(id));
        if sent >= 200 {
            // Enough to fill every buffer; from here the write deadline decides.
            eventually("the slow reader is let go", slow_consumers);
        }
    }
    // The connection is gone for its owner too, whatever of the farewell still fits in its buffer.
    stuck.gone().await;
    let untaken = stuck
        .untaken()
        .filter(|frame| frame["type"] == "message")
        .count() as u64;
    assert!(untaken < sent);
    drop(stuck);
    // And nothing was lost by it.
    let (mut back, welcome) = Connect::to(&node).sign_in(&token, "phone").await;
    assert_eq!(welcome["pending"], sent);
    for n in 0..sent {
        let message = back.message_acked().await;
        assert_eq!(
            message["body"].as_str().map(str::len),
            Some(BODY_BYTES),
            "{n}"
        );
    }
}

#[tokio::test]
async fn a_slow_reader_in_its_window_is_merely_waited_for() {
    let node = Node::start(NodeOptions::new().write_deadline_ms(1_000));
    let token = node.user("slow");
    let connect = Connect::to(&node).receive_buffer_bytes(4_096);
    let (mut slow, _) = connect.sign_in(&token, "phone").await;
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    // Small messages, more than the window: they fit in the buffers while nobody reads.
    let mut ids = Vec::new();
    for n in 0..400 {
        ids.push(alice.say("slow", &json!(n)).await);
    }
    for id in &ids {
        assert_eq!(slow.message_acked().await["id"], json!(id));
    }
}
