//! Messages for someone who is away wait, in order, through restarts.

use serde_json::json;
use stonechat_tests::{Connect, Node, WsClient, eventually};

#[tokio::test]
async fn what_was_sent_while_away_is_waiting() {
    let node = Node::start_default();
    let token = node.user("bob");
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(alice.say("bob", &json!({"n": n})).await);
    }
    assert_eq!(node.admin().user("bob")["mailbox"]["messages"], 20);
    let (mut bob, welcome) = Connect::to(&node).sign_in(&token, "phone").await;
    assert_eq!(welcome["pending"], 20);
    let mut last = 0;
    for (n, id) in ids.iter().enumerate() {
        let message = bob.message().await;
        assert_eq!(message["id"], json!(id));
        assert_eq!(message["body"]["n"], n);
        assert!(
            message.get("redelivered").is_none(),
            "it is the first time: {message}"
        );
        let seq = message["seq"].as_u64().unwrap();
        assert!(seq > last);
        last = seq;
    }
    bob.ack(last).await;
    // Gone when delivered (D5).
    eventually("the mailbox is empty", || {
        (node.admin().user("bob")["mailbox"]["messages"] == 0).then_some(())
    });
    assert_eq!(node.admin().user("bob")["mailbox"]["bytes"], 0);
    bob.close().await;
    let (mut bob, welcome) = Connect::to(&node).sign_in(&token, "phone").await;
    assert_eq!(welcome["pending"], 0);
    alice.say("bob", &json!("next")).await;
    let next = bob.message().await;
    assert_eq!(next["body"], "next", "nothing old comes again");
    assert!(next["seq"].as_u64().unwrap() > last, "seqs go on");
}

#[tokio::test]
async fn waiting_messages_survive_a_clean_restart_and_a_crash() {
    let mut node = Node::start_default();
    let token = node.user("bob");
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let first = alice.say("bob", &json!("before the restart")).await;
    assert_eq!(node.sigterm(), Some(0));
    node.launch();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let second = alice.say("bob", &json!("before the crash")).await;
    node.crash_and_restart();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let third = alice.say("bob", &json!("after")).await;
    let (mut bob, welcome) = Connect::to(&node).sign_in(&token, "phone").await;
    assert_eq!(welcome["pending"], 3);
    let messages = bob.messages(3).await;
    let ids: Vec<_> = messages.iter().map(|message| &message["id"]).collect();
    assert_eq!(ids, [&json!(first), &json!(second), &json!(third)]);
    let seqs: Vec<_> = messages
        .iter()
        .filter_map(|message| message["seq"].as_u64())
        .collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
}

#[tokio::test]
async fn a_backlog_longer_than_every_window_arrives_whole() {
    let node = Node::start_default();
    let token = node.user("bob");
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let total = 1_500;
    let mut accepted = 0;
    for start in (0..total).step_by(60) {
        let mut ids = Vec::new();
        for n in start..total.min(start + 60) {
            ids.push(alice.send_to("bob", &json!(n)).await);
        }
        for id in ids {
            alice.accepted(&id).await;
            accepted += 1;
        }
    }
    assert_eq!(accepted, total);
    let (mut bob, welcome) = Connect::to(&node).sign_in(&token, "phone").await;
    assert_eq!(welcome["pending"], total);
    // New messages come in while the backlog is read; they must not overtake it.
    for n in 0..total + 20 {
        if n < 20 {
            alice.say("bob", &json!(total + n)).await;
        }
        assert_eq!(bob.message_acked().await["body"], n);
    }
}

#[tokio::test]
async fn one_mailbox_many_senders() {
    let node = Node::start_default();
    let token = node.user("bob");
    let mut senders = Vec::new();
    for n in 0..5 {
        senders.push(WsClient::join(&node, &format!("s{n}"), "phone").await);
    }
    for round in 0..10 {
        for sender in &mut senders {
            sender.say("bob", &json!(round)).await;
        }
    }
    let (mut bob, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let messages = bob.messages(50).await;
    for n in 0..5 {
        let rounds: Vec<_> = messages
            .iter()
            .filter(|message| message["from"]["user"] == format!("s{n}"))
            .map(|message| message["body"].as_u64().unwrap())
            .collect();
        assert_eq!(rounds, (0..10).collect::<Vec<u64>>(), "order of s{n}");
    }
}
