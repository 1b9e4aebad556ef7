//! Who is silent for too long is asked, and then given up.

use serde_json::json;
use stonechat_tests::raw::opcode;
use stonechat_tests::{Incoming, Node, NodeOptions, RawClient, WsClient};

#[tokio::test]
async fn a_client_that_answers_pings_stays() {
    let node = Node::start(NodeOptions::new().heartbeat_ms(1_000));
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    // Six pings are twice the time after which a silent client is given up.
    let mut pings = 0;
    while pings < 6 {
        match alice.incoming().await {
            Incoming::Ping => pings += 1,
            other => alice.fail(&format!("expected pings only, got {other:?}")),
        }
    }
    alice.say("alice", &json!("still here")).await;
}

#[tokio::test]
async fn a_client_that_answers_nothing_is_given_up() {
    let node = Node::start(NodeOptions::new().heartbeat_ms(1_000));
    let mut silent = RawClient::join(&node, "alice", "phone").await;
    let first = silent.frame().await.unwrap();
    assert_eq!(first.opcode, opcode::PING, "it is asked first");
    let bye = silent.bye("heartbeat_timeout", 4005).await;
    assert!(bye["reason"].is_string());
    // Nothing is lost by it: what comes now waits.
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    bob.say("alice", &json!("for later")).await;
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    assert_eq!(alice.message().await["body"], "for later");
}
