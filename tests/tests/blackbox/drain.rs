//! An orderly end: everybody is told, nothing accepted is lost, the exit code is 0.

use serde_json::json;
use stonechat_tests::ws::send;
use stonechat_tests::{Connect, Incoming, Node, WsClient, new_id};

#[tokio::test]
async fn sigterm_says_goodbye_and_exits_with_0() {
    for signal in ["TERM", "INT"] {
        let mut node = Node::start_default();
        let token = node.user("alice");
        let (mut alice, _) = Connect::to(&node).sign_in(&token, "phone").await;
        let mut bob = WsClient::join(&node, "bob", "phone").await;
        node.signal(signal);
        for client in [&mut alice, &mut bob] {
            let bye = client.bye("shutdown", 1001).await;
            assert!(bye["retry_after_ms"].as_u64().is_some(), "{bye}");
        }
        assert_eq!(node.wait_exit().code(), Some(0), "{signal}");
        assert!(
            !node.data_dir().join("node.json").exists(),
            "a stopped node is not listed"
        );
        assert!(Connect::to(&node).open().await.is_err());
    }
}

#[tokio::test]
async fn connections_without_a_hello_end_too() {
    let mut node = Node::start_default();
    let mut silent = Connect::to(&node).open().await.unwrap();
    node.signal("TERM");
    silent.bye("shutdown", 1001).await;
    assert_eq!(node.wait_exit().code(), Some(0));
}

#[tokio::test]
async fn nothing_accepted_in_the_last_moment_is_lost() {
    let mut node = Node::start_default();
    let token = node.user("alice");
    let bob_token = node.user("bob");
    for round in 0..3 {
        let (mut alice, _) = Connect::to(&node).sign_in(&token, "phone").await;
        let mut sent = Vec::new();
        let mut accepted = Vec::new();
        // Sending goes on until the server hangs up.
        let mut signalled = false;
        loop {
            if sent.len() < accepted.len() + 40 {
                let id = new_id();
                if !alice
                    .try_send_text(send(&id, "bob", &json!(sent.len())).to_string())
                    .await
                {
                    break;
                }
                sent.push(id);
                continue;
            }
            match alice.incoming().await {
                Incoming::Frame(frame) if frame["type"] == "accepted" => {
                    accepted.push(frame["id"].as_str().unwrap().to_owned());
                    if accepted.len() > 50 && !signalled {
                        node.signal("TERM");
                        signalled = true;
                    }
                }
                Incoming::Frame(frame) if frame["type"] == "bye" => {
                    assert_eq!(frame["reason"], "shutdown");
                    break;
                }
                Incoming::Frame(frame) => assert_eq!(frame["type"], "receipt", "{frame}"),
                Incoming::Gone(_) | Incoming::Closed(..) => break,
                Incoming::Ping | Incoming::Pong(_) => {}
            }
        }
        assert!(signalled, "round {round}");
        assert_eq!(node.wait_exit().code(), Some(0));
        node.launch();
        let (mut bob, welcome) = Connect::to(&node).sign_in(&bob_token, "phone").await;
        assert!(welcome["pending"].as_u64().unwrap() >= accepted.len() as u64);
        for id in &accepted {
            assert_eq!(bob.message_acked().await["id"], json!(id), "round {round}");
        }
        // More may have been stored than was heard of; it follows, and it was sent.
        let (mut alice, _) = Connect::to(&node).sign_in(&token, "phone").await;
        let end = alice.say("bob", &json!("end")).await;
        loop {
            let message = bob.message_acked().await;
            if message["id"] == json!(end) {
                break;
            }
            assert!(
                sent.iter().any(|id| message["id"] == json!(id)),
                "{message}"
            );
        }
    }
}

#[tokio::test]
async fn a_stuck_connection_does_not_hold_the_exit_up() {
    let mut node = Node::start(
        stonechat_tests::NodeOptions::new()
            .write_deadline_ms(600_000)
            // For the store to close as well.
            .set("server.drain_deadline_ms", "5000"),
    );
    let token = node.user("stuck");
    let connect = Connect::to(&node).receive_buffer_bytes(4_096);
    let (_stuck, _) = connect.sign_in(&token, "phone").await;
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    for _ in 0..100 {
        alice.say("stuck", &json!("b".repeat(50_000))).await;
    }
    assert_eq!(node.sigterm(), Some(0));
}
