//! Coming back: what was not acknowledged comes again and says so; acks wherever they may ride.

use serde_json::{Value, json};
use stonechat_tests::{Connect, Node, WsClient, eventually, new_id};

fn seq(message: &Value) -> u64 {
    message["seq"].as_u64().expect("a seq")
}

/// `n` messages for bob, which his phone has received and not acknowledged.
async fn received(node: &Node, n: usize) -> (WsClient, WsClient, String, Vec<Value>) {
    let mut alice = WsClient::join(node, "alice", "phone").await;
    let token = node.user("bob");
    let (mut bob, _) = Connect::to(node).sign_in(&token, "phone").await;
    for n in 0..n {
        alice.say("bob", &json!(n)).await;
    }
    let messages = bob.messages(n).await;
    (alice, bob, token, messages)
}

#[tokio::test]
async fn unacknowledged_messages_come_again_and_say_so() {
    let node = Node::start_default();
    let (mut alice, mut bob, token, first) = received(&node, 5).await;
    bob.ack(seq(&first[1])).await;
    bob.close().await;
    let new = alice.say("bob", &json!("new")).await;
    let (mut bob, welcome) = Connect::to(&node).sign_in(&token, "phone").await;
    assert_eq!(welcome["pending"], 4);
    for old in &first[2..] {
        let mut again = bob.message().await;
        assert_eq!(again["redelivered"], true, "{again}");
        again.as_object_mut().unwrap().remove("redelivered");
        assert_eq!(again, *old, "the same message under the same seq");
    }
    let last = bob.message().await;
    assert_eq!(last["id"], json!(new));
    assert!(last.get("redelivered").is_none(), "{last}");
}

#[tokio::test]
async fn an_ack_may_ride_on_any_frame() {
    let node = Node::start_default();
    let admin = node.admin();
    let (mut alice, mut bob, token, messages) = received(&node, 6).await;
    let pending = |n: u64| {
        eventually(&format!("{n} are left"), || {
            (admin.device("bob", "phone")["pending"] == n).then_some(())
        });
    };
    bob.send_json(&json!({"type": "ping", "ack": seq(&messages[0])}))
        .await;
    bob.take("pong").await;
    pending(5);
    let id = new_id();
    let riding = json!({"type": "send", "id": id, "to": {"user": "alice"}, "body": 1,
        "ack": seq(&messages[1])});
    bob.send_json(&riding).await;
    bob.accepted(&id).await;
    alice.message().await;
    pending(4);
    let read = json!({"type": "read", "from": "alice", "id": messages[2]["id"],
        "ack": seq(&messages[2])});
    bob.send_json(&read).await;
    pending(3);
    // The greater of two counts.
    let both = json!({"type": "ack", "seq": seq(&messages[0]), "ack": seq(&messages[3])});
    bob.send_json(&both).await;
    pending(2);
    bob.close().await;
    let hello = json!({"type": "hello", "token": token, "device": "phone",
        "ack": seq(&messages[4])});
    let (mut bob, welcome) = Connect::to(&node).hello(hello).await;
    assert_eq!(welcome["pending"], 1);
    assert_eq!(seq(&bob.message().await), seq(&messages[5]));
}

#[tokio::test]
async fn acks_are_cumulative_and_old_ones_mean_nothing() {
    let node = Node::start_default();
    let admin = node.admin();
    let (_alice, mut bob, _, messages) = received(&node, 5).await;
    bob.ack(seq(&messages[3])).await;
    eventually("one is left", || {
        (admin.device("bob", "phone")["pending"] == 1).then_some(())
    });
    bob.ack(seq(&messages[0])).await;
    bob.ack(0).await;
    bob.fence().await;
    assert_eq!(admin.device("bob", "phone")["cursor"], seq(&messages[3]));
    assert_eq!(bob.untaken().count(), 0, "no error either");
}

#[tokio::test]
async fn an_ack_of_what_was_never_sent_changes_nothing() {
    let node = Node::start_default();
    let admin = node.admin();
    let (mut alice, mut bob, _, messages) = received(&node, 2).await;
    let integer_max = (1 << 53) - 1;
    for beyond in [seq(&messages[1]) + 1, u64::from(u32::MAX), integer_max] {
        bob.ack(beyond).await;
        bob.error("bad_ack", &Value::Null).await;
    }
    for above in [integer_max + 1, u64::MAX] {
        bob.ack(above).await;
        bob.error("bad_frame", &Value::Null).await;
    }
    assert_eq!(admin.device("bob", "phone")["pending"], 2);
    alice.say("bob", &json!("goes on")).await;
    let third = bob.message().await;
    assert_eq!(third["body"], "goes on");
    bob.ack(seq(&third)).await;
    eventually("all are acknowledged", || {
        (admin.device("bob", "phone")["pending"] == 0).then_some(())
    });
}

#[tokio::test]
async fn after_a_crash_they_come_again_under_the_same_seq() {
    let mut node = Node::start_default();
    let (_alice, _bob, token, first) = received(&node, 4).await;
    node.crash_and_restart();
    let (mut bob, welcome) = Connect::to(&node).sign_in(&token, "phone").await;
    assert_eq!(welcome["pending"], 4);
    for old in &first {
        let mut again = bob.message().await;
        assert_eq!(
            again["redelivered"], true,
            "it may have been sent before: {again}"
        );
        again.as_object_mut().unwrap().remove("redelivered");
        assert_eq!(again, *old);
    }
}

#[tokio::test]
async fn an_acknowledged_cursor_survives_a_clean_restart() {
    let mut node = Node::start_default();
    let (_alice, mut bob, token, messages) = received(&node, 4).await;
    bob.ack(seq(&messages[2])).await;
    eventually("the ack is taken", || {
        (node.admin().device("bob", "phone")["pending"] == 1).then_some(())
    });
    assert_eq!(node.sigterm(), Some(0));
    node.launch();
    let (mut bob, welcome) = Connect::to(&node).sign_in(&token, "phone").await;
    assert_eq!(welcome["pending"], 1);
    assert_eq!(seq(&bob.message().await), seq(&messages[3]));
}

#[tokio::test]
async fn a_connection_cut_without_a_word_loses_nothing() {
    let node = Node::start_default();
    let (mut alice, bob, token, first) = received(&node, 3).await;
    drop(bob);
    for n in 3..6 {
        alice.say("bob", &json!(n)).await;
    }
    let (mut bob, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let messages = bob.messages(6).await;
    for (n, message) in messages.iter().enumerate() {
        assert_eq!(message["body"], n);
    }
    assert_eq!(seq(&messages[0]), seq(&first[0]));
    assert_eq!(messages[2]["redelivered"], true);
}
