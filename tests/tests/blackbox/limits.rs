//! Limits have typed answers: rates, quotas, the window of unacknowledged messages, sessions.

use std::time::Duration;

use serde_json::{Value, json};
use stonechat_tests::ws::send;
use stonechat_tests::{Connect, Node, NodeOptions, WsClient, eventually, new_id};

/// Sends under one id until it is accepted, waiting as told in between.
async fn insist(client: &mut WsClient, id: &str, user: &str, body: &Value) -> Value {
    loop {
        client.send_json(&send(id, user, body)).await;
        let answer = client
            .take_where("an answer", |frame| {
                frame["ref"] == *id || frame["id"] == *id
            })
            .await;
        if answer["type"] == "accepted" {
            return answer;
        }
        assert_eq!(answer["code"], "rate_limited", "{answer}");
        // The protocol says when to try again; trying again then is what is under test.
        tokio::time::sleep(retry_after(&answer)).await;
    }
}

fn retry_after(error: &Value) -> Duration {
    let ms = error["retry_after_ms"].as_u64();
    let ms = ms.unwrap_or_else(|| panic!("when to try again is missing: {error}"));
    assert!((1..=60_000).contains(&ms), "{error}");
    Duration::from_millis(ms)
}

#[tokio::test]
async fn too_many_messages_are_rate_limited_and_pass_later() {
    let node = Node::start(NodeOptions::new().messages_per_s(1).messages_burst(10));
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let ids: Vec<String> = (0..30).map(|_| new_id()).collect();
    let mut taken = Vec::new();
    let mut refused = Vec::new();
    for id in &ids {
        alice.send_json(&send(id, "bob", &json!(id))).await;
        let answer = alice
            .take_where("an answer", |frame| {
                frame["ref"] == *id || frame["id"] == *id
            })
            .await;
        if answer["type"] == "accepted" {
            taken.push(id.clone());
        } else {
            assert_eq!(answer["code"], "rate_limited");
            retry_after(&answer);
            refused.push(id.clone());
        }
    }
    assert!(taken.len() >= 10, "the burst passes: {}", taken.len());
    assert!(!refused.is_empty(), "1 a second, yet 30 passed at once");
    // The greatest refused id may be sent again when nothing later was accepted.
    if refused.last() == ids.last() {
        let id = ids.last().unwrap();
        insist(&mut alice, id, "bob", &json!(id)).await;
        taken.push(id.clone());
    }
    // Another user is not affected.
    let other = bob.say("alice", &json!("unhindered")).await;
    assert_eq!(alice.message().await["id"], json!(other));
    for id in &taken {
        assert_eq!(bob.message().await["id"], json!(id));
    }
}

#[tokio::test]
async fn too_many_bytes_are_rate_limited_too() {
    let node = Node::start(NodeOptions::new().bytes_per_s(20_000).bytes_burst(70_000));
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let body = json!("b".repeat(60_000));
    alice.say("alice", &body).await;
    let id = alice.send_to("alice", &body).await;
    let error = alice.error("rate_limited", &json!(id)).await;
    retry_after(&error);
    insist(&mut alice, &id, "alice", &body).await;
}

#[tokio::test]
async fn a_known_id_is_a_duplicate_even_beyond_the_rate() {
    let node = Node::start(NodeOptions::new().messages_per_s(1).messages_burst(3));
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(alice.say("alice", &json!(n)).await);
    }
    // After a reconnect all three are sent again: none may be refused, or D3 would break.
    for _ in 0..4 {
        for id in &ids {
            alice.send_json(&send(id, "alice", &json!(0))).await;
            assert_eq!(alice.accepted(id).await["duplicate"], true);
        }
    }
}

#[tokio::test]
async fn a_full_mailbox_refuses_and_opens_again() {
    let node = Node::start(NodeOptions::new().quota_messages(5));
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let token = node.user("bob");
    let mut sent = Vec::new();
    for n in 0..5 {
        sent.push(alice.say("bob", &json!(n)).await);
    }
    let refused = alice.send_to("bob", &json!("too much")).await;
    alice.error("mailbox_full", &json!(refused)).await;
    // Others can still be written to.
    node.user("carol");
    alice.say("carol", &json!("hi")).await;
    let (mut bob, welcome) = Connect::to(&node).sign_in(&token, "phone").await;
    assert_eq!(welcome["pending"], 5);
    for id in &sent {
        assert_eq!(bob.message_acked().await["id"], json!(id));
    }
    eventually("the mailbox has room", || {
        (node.admin().user("bob")["mailbox"]["messages"] == 0).then_some(())
    });
    let later = alice.say("bob", &json!("under a new id")).await;
    assert_eq!(
        bob.message().await["id"],
        json!(later),
        "and what was refused never comes"
    );
}

#[tokio::test]
async fn a_mailbox_is_full_by_bytes_too() {
    let node = Node::start(NodeOptions::new().quota_bytes(100_000));
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    node.user("bob");
    let body = json!("b".repeat(40_000));
    alice.say("bob", &body).await;
    alice.say("bob", &body).await;
    let id = alice.send_to("bob", &body).await;
    alice.error("mailbox_full", &json!(id)).await;
    alice.say("bob", &json!("a small one fits")).await;
}

#[tokio::test]
async fn the_server_waits_for_acks_at_the_window() {
    let node = Node::start(NodeOptions::new().unacked_max(8));
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let (mut bob, welcome) = Connect::to(&node).sign_in(&node.user("bob"), "phone").await;
    assert_eq!(welcome["limits"]["unacked_max"], 8);
    for n in 0..30 {
        alice.say("bob", &json!(n)).await;
    }
    let first = bob.messages(8).await;
    // What bob sends travels the same way; its answer proves that nothing more was queued before.
    bob.say("alice", &json!("fence")).await;
    bob.fence().await;
    let count = |bob: &WsClient| {
        let messages = bob.untaken().filter(|frame| frame["type"] == "message");
        messages.count()
    };
    assert_eq!(count(&bob), 0, "eight are outstanding");
    // Half the window is acknowledged: half a window more may come, and not one beyond.
    bob.ack(first[3]["seq"].as_u64().unwrap()).await;
    for n in 8..12 {
        assert_eq!(bob.message().await["body"], n);
    }
    bob.say("alice", &json!("fence")).await;
    bob.fence().await;
    assert_eq!(count(&bob), 0, "four were acknowledged, four came");
    bob.ack(first[7]["seq"].as_u64().unwrap() + 4).await;
    for n in 12..30 {
        assert_eq!(bob.message_acked().await["body"], n);
    }
}

#[tokio::test]
async fn beyond_the_session_limit_one_is_told_overloaded() {
    let node = Node::start(NodeOptions::new().sessions_max(2).session_linger_ms(0));
    let alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let token = node.user("carol");
    let hello = json!({"type": "hello", "token": token, "device": "phone"});
    let mut carol = Connect::to(&node).open().await.unwrap();
    carol.send_json(&hello).await;
    let bye = carol.bye("overloaded", 1013).await;
    assert!(
        bye["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0),
        "{bye}"
    );
    // A further device of a user who has a session is no new session.
    let mut tablet = WsClient::join(&node, "bob", "tablet").await;
    tablet.fence().await;
    bob.fence().await;
    alice.close().await;
    stonechat_tests::eventually_async("a session ends", async || {
        let mut carol = Connect::to(&node).open().await.ok()?;
        carol.send_json(&hello).await;
        (carol.frame().await["type"] == "welcome").then_some(())
    })
    .await;
}
