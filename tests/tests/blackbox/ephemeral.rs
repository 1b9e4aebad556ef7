//! Ephemeral sends: for whoever is connected, stored nowhere, outside every promise.

use serde_json::{Value, json};
use stonechat_tests::{Connect, Node, WsClient, new_id};

fn ephemeral(id: &str, user: &str, body: &Value) -> Value {
    json!({"type": "send", "id": id, "to": {"user": user}, "body": body, "ephemeral": true})
}

#[tokio::test]
async fn a_connected_user_gets_it_and_the_sender_knows_what_it_is() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut phone = WsClient::join(&node, "bob", "phone").await;
    let mut tablet = WsClient::join(&node, "bob", "tablet").await;
    let id = new_id();
    alice
        .send_json(&ephemeral(&id, "bob", &json!("typing")))
        .await;
    let accepted = alice.accepted(&id).await;
    assert_eq!(accepted["ephemeral"], true, "{accepted}");
    for device in [&mut phone, &mut tablet] {
        let message = device.message().await;
        let expected = json!({"type": "message", "seq": 0, "id": id, "ephemeral": true,
            "from": {"user": "alice", "device": "phone"}, "ts_ms": message["ts_ms"], "body": "typing"});
        assert_eq!(message, expected);
    }
}

#[tokio::test]
async fn it_is_not_stored_for_who_is_away() {
    let node = Node::start_default();
    let token = node.user("bob");
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let id = new_id();
    alice
        .send_json(&ephemeral(&id, "bob", &json!("typing")))
        .await;
    assert_eq!(alice.accepted(&id).await["ephemeral"], true);
    let stored = alice.say("bob", &json!("stored")).await;
    assert_eq!(node.admin().user("bob")["mailbox"]["messages"], 1);
    let (mut bob, welcome) = Connect::to(&node).sign_in(&token, "phone").await;
    assert_eq!(welcome["pending"], 1);
    let message = bob.message_acked().await;
    assert_eq!(message["id"], json!(stored));
    assert_eq!(alice.take("receipt").await["delivered"], json!(stored));
}

#[tokio::test]
async fn its_id_means_nothing() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let old = new_id();
    alice.say("bob", &json!("newer")).await;
    bob.message_acked().await;
    // An id below the greatest accepted is fine, and the same one twice is two.
    for _ in 0..2 {
        alice
            .send_json(&ephemeral(&old, "bob", &json!("typing")))
            .await;
        let accepted = alice.accepted(&old).await;
        assert!(accepted.get("duplicate").is_none(), "{accepted}");
        assert_eq!(bob.message().await["id"], json!(old));
    }
    // And it does not move the window: an id between is still new.
    let between = new_id();
    let future = new_id();
    alice
        .send_json(&ephemeral(&future, "bob", &json!("typing")))
        .await;
    alice.accepted(&future).await;
    alice
        .send_json(&stonechat_tests::ws::send(&between, "bob", &json!("real")))
        .await;
    assert!(alice.accepted(&between).await.get("duplicate").is_none());
    assert_eq!(bob.message().await["id"], json!(future));
    assert_eq!(bob.message().await["id"], json!(between));
}

#[tokio::test]
async fn an_unknown_user_is_unknown_all_the_same() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let id = new_id();
    alice.send_json(&ephemeral(&id, "nobody", &json!(1))).await;
    alice.error("unknown_user", &json!(id)).await;
}
