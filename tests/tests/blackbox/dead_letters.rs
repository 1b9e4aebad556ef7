//! A message whose handling keeps failing is put aside; the rest of the mailbox goes on.

use serde_json::{Value, json};
use stonechat_tests::ws::send;
use stonechat_tests::{Connect, Node, NodeOptions, WsClient, eventually, new_id};

/// Poisons a message to bob between two others; what is then in the dead letters.
async fn poisoned(node: &Node) -> (WsClient, WsClient, String, Value) {
    let token = node.user("bob");
    let mut alice = WsClient::join(node, "alice", "phone").await;
    let (mut bob, _) = Connect::to(node).sign_in(&token, "phone").await;
    let poison = new_id();
    let fault = json!({"target": "session", "user": "bob", "on_id": poison});
    node.admin().inject_panic(&fault).expect(200);
    let before = new_id();
    let after = new_id();
    // Sent by different devices, because ids of one must increase.
    let mut tablet = WsClient::join(node, "alice", "tablet").await;
    tablet
        .send_json(&send(&before, "bob", &json!("before")))
        .await;
    tablet.accepted(&before).await;
    alice
        .send_json(&send(&poison, "bob", &json!({"poison": [1, 2]})))
        .await;
    alice.accepted(&poison).await;
    tablet
        .send_json(&send(&after, "bob", &json!("after")))
        .await;
    tablet.accepted(&after).await;
    // On the same socket, although the session panicked on the way.
    bob.allow_repeats();
    assert_eq!(bob.message_acked().await["id"], json!(before));
    assert_eq!(
        bob.message_acked().await["id"],
        json!(after),
        "the rest of the mailbox goes on"
    );
    let letter = eventually("the poison is put aside", || {
        let list = node.admin().get("/admin/v1/dead-letters").expect(200);
        list["dead_letters"].get(0).cloned()
    });
    tablet.close().await;
    (alice, bob, poison, letter)
}

#[tokio::test]
async fn a_poison_message_is_put_aside_after_a_few_attempts() {
    let node = Node::start(NodeOptions::new().fault_injection());
    let (mut alice, mut bob, poison, letter) = poisoned(&node).await;
    assert_eq!(letter["id"], json!(poison));
    assert_eq!(letter["user"], "bob");
    assert_eq!(letter["from"], json!({"user": "alice", "device": "phone"}));
    assert!(
        letter["reason"]
            .as_str()
            .is_some_and(|why| why.contains("panic")),
        "{letter}"
    );
    assert!(
        letter.get("body").is_none(),
        "a list shows no bodies: {letter}"
    );
    let number = letter["number"].as_u64().unwrap();
    let path = format!("/admin/v1/dead-letters/{number}");
    let shown = node.admin().get(&path).expect(200);
    assert_eq!(shown["body"], json!({"poison": [1, 2]}));
    let panics = node.admin().get("/admin/v1/node").expect(200)["panics"]
        .as_u64()
        .unwrap();
    assert!((2..=10).contains(&panics), "a few attempts: {panics}");
    // Life goes on for both.
    let id = alice.say("bob", &json!("still friends")).await;
    assert_eq!(bob.message_acked().await["id"], json!(id));
    // Thrown away, it is gone.
    let reply = node.admin().delete(&path);
    assert!((200..300).contains(&reply.status), "{reply:?}");
    node.admin().get(&path).expect_problem(404);
    node.admin().delete(&path).expect_problem(404);
}

#[tokio::test]
async fn a_dead_letter_survives_a_crash_and_can_be_replayed() {
    let mut node = Node::start(NodeOptions::new().fault_injection());
    let (_alice, bob, poison, letter) = poisoned(&node).await;
    drop(bob);
    // The fault is of the process; without it the message is harmless.
    node.crash_and_restart();
    let number = letter["number"].as_u64().unwrap();
    let list = node.admin().get("/admin/v1/dead-letters").expect(200);
    assert_eq!(list["dead_letters"][0]["id"], json!(poison), "{list}");
    let path = format!("/admin/v1/dead-letters/{number}/replay");
    let reply = node.admin().post(&path, &json!({}));
    assert!((200..300).contains(&reply.status), "{reply:?}");
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    loop {
        let message = bob.message_acked().await;
        if message["id"] == json!(poison) {
            assert_eq!(message["body"], json!({"poison": [1, 2]}));
            assert_eq!(message["from"], json!({"user": "alice", "device": "phone"}));
            break;
        }
        assert_eq!(
            message["redelivered"], true,
            "acks may be lost in a crash: {message}"
        );
    }
    let list = node.admin().get("/admin/v1/dead-letters").expect(200);
    assert_eq!(
        list["dead_letters"],
        json!([]),
        "a replayed letter is no longer dead"
    );
    node.admin().post(&path, &json!({})).expect_problem(404);
}
