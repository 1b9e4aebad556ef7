//! Sending again: one copy whatever happens, and clear words when an id cannot be taken.

use std::collections::HashSet;

use serde_json::{Value, json};
use stonechat_tests::ws::send;
use stonechat_tests::{Connect, Node, WsClient, new_id};

#[tokio::test]
async fn a_resend_is_a_duplicate_with_the_first_time_stamp() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let id = new_id();
    alice.send_json(&send(&id, "bob", &json!("once"))).await;
    let first = alice.accepted(&id).await;
    for _ in 0..3 {
        alice.send_json(&send(&id, "bob", &json!("once"))).await;
        let again = alice.accepted(&id).await;
        assert_eq!(
            again,
            json!({"type": "accepted", "id": id, "ts_ms": first["ts_ms"], "duplicate": true})
        );
    }
    alice.say("bob", &json!("then")).await;
    assert_eq!(bob.message().await["body"], "once");
    assert_eq!(bob.message().await["body"], "then");
}

#[tokio::test]
async fn resends_in_flight_are_answered_in_order_too() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let ids: Vec<String> = (0..10).map(|_| new_id()).collect();
    let frames: Vec<Value> = ids.iter().map(|id| send(id, "bob", &json!(id))).collect();
    let twice: Vec<Value> = frames.iter().chain(&frames).cloned().collect();
    alice.send_burst(&twice).await;
    for (round, id) in ids.iter().chain(&ids).enumerate() {
        let answer = alice.frame().await;
        assert_eq!(
            (&answer["type"], &answer["id"]),
            (&json!("accepted"), &json!(id)),
            "{answer}"
        );
        assert_eq!(answer["duplicate"] == true, round >= ids.len(), "{answer}");
    }
    alice.say("bob", &json!("end")).await;
    for id in &ids {
        assert_eq!(bob.message().await["id"], json!(id));
    }
    assert_eq!(bob.message().await["body"], "end");
}

#[tokio::test]
async fn the_window_holds_64_ids_and_no_more() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let mut sent = Vec::new();
    for n in 0..65 {
        sent.push(alice.say("bob", &json!(n)).await);
    }
    alice.send_json(&send(&sent[1], "bob", &json!(1))).await;
    assert_eq!(
        alice.accepted(&sent[1]).await["duplicate"],
        true,
        "64 back: known"
    );
    alice.send_json(&send(&sent[0], "bob", &json!(0))).await;
    let error = alice.error("id_too_old", &json!(sent[0])).await;
    assert!(
        error.get("retry_after_ms").is_none(),
        "trying again is of no use: {error}"
    );
    alice.say("bob", &json!("end")).await;
    for n in 0..65 {
        assert_eq!(bob.message_acked().await["body"], n);
    }
    assert_eq!(bob.message_acked().await["body"], "end");
}

#[tokio::test]
async fn an_id_that_does_not_increase_is_too_old() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let older = new_id();
    alice.say("alice", &json!("newer")).await;
    alice
        .send_json(&send(&older, "alice", &json!("older")))
        .await;
    alice.error("id_too_old", &json!(older)).await;
    // The window is each device's own.
    let mut tablet = WsClient::join(&node, "alice", "tablet").await;
    tablet
        .send_json(&send(&older, "alice", &json!("older")))
        .await;
    tablet.accepted(&older).await;
}

#[tokio::test]
async fn a_refused_id_was_not_accepted() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let id = alice.send_to("nobody", &json!(1)).await;
    alice.error("unknown_user", &json!(id)).await;
    node.user("nobody");
    alice.send_json(&send(&id, "nobody", &json!(1))).await;
    let accepted = alice.accepted(&id).await;
    assert!(accepted.get("duplicate").is_none(), "{accepted}");
}

#[tokio::test]
async fn after_a_reconnect_duplicates_are_recognised() {
    let node = Node::start_default();
    let token = node.user("alice");
    let (mut alice, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let ids: Vec<String> = (0..64).map(|_| new_id()).collect();
    for id in &ids {
        alice.send_json(&send(id, "bob", &json!(id))).await;
    }
    alice.accepted(&ids[63]).await;
    drop(alice);
    let (mut alice, _) = Connect::to(&node).sign_in(&token, "phone").await;
    for id in &ids {
        alice.send_json(&send(id, "bob", &json!(id))).await;
    }
    for id in &ids {
        assert_eq!(alice.accepted(id).await["duplicate"], true);
    }
    alice.say("bob", &json!("end")).await;
    for id in &ids {
        assert_eq!(bob.message_acked().await["id"], json!(id));
    }
    assert_eq!(bob.message_acked().await["body"], "end");
}

#[tokio::test]
async fn after_a_crash_duplicates_are_recognised() {
    let mut node = Node::start_default();
    let token = node.user("alice");
    let bob_token = node.user("bob");
    let (mut alice, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let ids: Vec<String> = (0..64).map(|_| new_id()).collect();
    for id in &ids {
        alice.send_json(&send(id, "bob", &json!(id))).await;
    }
    // Half are known to be accepted; of the others nobody knows.
    let mut stamps = Vec::new();
    for id in &ids[..32] {
        stamps.push(alice.accepted(id).await["ts_ms"].clone());
    }
    node.crash_and_restart();
    let (mut alice, _) = Connect::to(&node).sign_in(&token, "phone").await;
    for id in &ids {
        alice.send_json(&send(id, "bob", &json!(id))).await;
    }
    for (n, id) in ids.iter().enumerate() {
        let answer = alice.accepted(id).await;
        if let Some(stamp) = stamps.get(n) {
            assert_eq!(answer["duplicate"], true, "{answer}");
            assert_eq!(answer["ts_ms"], *stamp);
        }
    }
    let (mut bob, welcome) = Connect::to(&node).sign_in(&bob_token, "phone").await;
    assert_eq!(welcome["pending"], 64);
    for id in &ids {
        assert_eq!(bob.message().await["id"], json!(id));
    }
}

/// Bursts far beyond the window until the server had to refuse some; what it accepted arrives,
/// in order, and what it refused does not.
#[tokio::test]
async fn more_than_64_unanswered_are_refused() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    for round in 0.. {
        assert!(
            round < 50,
            "the server answered every burst faster than it read it"
        );
        let ids: Vec<String> = (0..600).map(|_| new_id()).collect();
        let frames: Vec<Value> = ids.iter().map(|id| send(id, "bob", &json!(id))).collect();
        alice.send_burst(&frames).await;
        // A refusal may overtake; what is accepted is told in the order of the sends.
        let mut accepted = Vec::new();
        let mut refused = HashSet::new();
        while accepted.len() + refused.len() < ids.len() {
            let answer = alice.take_where("an answer", |frame| {
                frame["type"] == "accepted" || frame["type"] == "error"
            });
            let answer = answer.await;
            if answer["type"] == "accepted" {
                accepted.push(answer["id"].as_str().unwrap().to_owned());
            } else {
                assert_eq!(answer["code"], "too_many_unanswered", "{answer}");
                let new = refused.insert(answer["ref"].as_str().unwrap().to_owned());
                assert!(new, "one answer for a send: {answer}");
            }
        }
        let expected: Vec<&String> = ids.iter().filter(|id| !refused.contains(*id)).collect();
        assert_eq!(accepted.iter().collect::<Vec<_>>(), expected);
        let early = ids[..64].iter().find(|id| refused.contains(*id));
        assert_eq!(early, None, "the first 64 are within the limit");
        let end = alice.say("bob", &json!("end")).await;
        for id in ids.iter().filter(|id| !refused.contains(*id)).chain([&end]) {
            assert_eq!(bob.message_acked().await["id"], json!(id));
        }
        if !refused.is_empty() {
            break;
        }
    }
}
