//! Several devices of one user: copies, notes to oneself, cursors of their own, removal.

use serde_json::{Value, json};
use stonechat_tests::{Connect, Node, NodeOptions, WsClient, eventually};

#[tokio::test]
async fn every_device_receives() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut phone = WsClient::join(&node, "bob", "phone").await;
    let mut tablet = WsClient::join(&node, "bob", "tablet").await;
    alice.say("bob", &json!("both")).await;
    let (one, two) = (phone.message().await, tablet.message().await);
    assert_eq!(one, two);
    assert!(one.get("to").is_none(), "{one}");
}

#[tokio::test]
async fn other_devices_of_the_sender_get_a_copy() {
    let node = Node::start_default();
    let mut phone = WsClient::join(&node, "alice", "phone").await;
    let mut tablet = WsClient::join(&node, "alice", "tablet").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let id = phone.say("bob", &json!("hi")).await;
    let copy = tablet.message().await;
    assert_eq!(copy["id"], json!(id));
    assert_eq!(copy["from"], json!({"user": "alice", "device": "phone"}));
    assert_eq!(copy["to"], json!({"user": "bob"}));
    assert_eq!(copy["body"], "hi");
    assert!(bob.message().await.get("to").is_none());
    // Nothing came back to the sending device: the next thing it gets is the other's copy.
    let answer = tablet.say("bob", &json!("from the tablet")).await;
    assert_eq!(phone.message().await["id"], json!(answer));
    assert_eq!(bob.message().await["from"]["device"], "tablet");
}

#[tokio::test]
async fn copies_wait_for_a_device_that_is_away() {
    let node = Node::start_default();
    let token = node.user("alice");
    let (tablet, _) = Connect::to(&node).sign_in(&token, "tablet").await;
    tablet.close().await;
    let (mut phone, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let sent = phone.say("bob", &json!("mine")).await;
    let got = bob.say("alice", &json!("yours")).await;
    assert_eq!(phone.message_acked().await["id"], json!(got));
    let (mut tablet, _) = Connect::to(&node).sign_in(&token, "tablet").await;
    let copies = tablet.messages(2).await;
    assert_eq!(copies[0]["id"], json!(sent));
    assert_eq!(copies[0]["to"]["user"], "bob");
    assert_eq!(copies[1]["id"], json!(got));
    assert!(copies[1].get("to").is_none());
}

#[tokio::test]
async fn notes_to_oneself_go_to_the_other_devices() {
    let node = Node::start_default();
    let mut phone = WsClient::join(&node, "alice", "phone").await;
    let mut tablet = WsClient::join(&node, "alice", "tablet").await;
    let note = phone.say("alice", &json!("buy milk")).await;
    let copy = tablet.message().await;
    assert_eq!(copy["id"], json!(note));
    assert_eq!(copy["to"], json!({"user": "alice"}));
    let back = tablet.say("alice", &json!("done")).await;
    let first = phone.message().await;
    assert_eq!(
        first["id"],
        json!(back),
        "a device does not get its own note"
    );
    // Alone, a note is accepted, and goes nowhere in particular.
    let mut solo = WsClient::join(&node, "solo", "phone").await;
    solo.say("solo", &json!("only me")).await;
    solo.fence().await;
    assert_eq!(
        solo.untaken()
            .filter(|frame| frame["type"] == "message")
            .count(),
        0
    );
}

#[tokio::test]
async fn cursors_are_each_devices_own() {
    let node = Node::start_default();
    let admin = node.admin();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let token = node.user("bob");
    let (mut phone, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let (mut tablet, _) = Connect::to(&node).sign_in(&token, "tablet").await;
    for n in 0..4 {
        alice.say("bob", &json!(n)).await;
    }
    let on_phone = phone.messages(4).await;
    tablet.messages(4).await;
    let last = on_phone[3]["seq"].as_u64().unwrap();
    phone.ack(last).await;
    tablet.ack(on_phone[0]["seq"].as_u64().unwrap()).await;
    eventually("both acks are counted", || {
        let (phone, tablet) = (admin.device("bob", "phone"), admin.device("bob", "tablet"));
        (phone["pending"] == 0 && tablet["pending"] == 3).then_some(())
    });
    let mailbox = &admin.user("bob")["mailbox"];
    assert_eq!(
        mailbox["messages"], 3,
        "what all have acknowledged is gone: {mailbox}"
    );
    tablet.close().await;
    phone.close().await;
    let (_phone, welcome) = Connect::to(&node).sign_in(&token, "phone").await;
    assert_eq!(welcome["pending"], 0);
    let (mut tablet, welcome) = Connect::to(&node).sign_in(&token, "tablet").await;
    assert_eq!(welcome["pending"], 3);
    for message in tablet.messages(3).await {
        assert_eq!(message["redelivered"], true, "{message}");
    }
}

#[tokio::test]
async fn a_new_device_gets_what_is_still_held() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let token = node.user("bob");
    let (mut phone, _) = Connect::to(&node).sign_in(&token, "phone").await;
    alice.say("bob", &json!("acknowledged")).await;
    phone.message_acked().await;
    eventually("it is gone", || {
        (node.admin().user("bob")["mailbox"]["messages"] == 0).then_some(())
    });
    let held = alice.say("bob", &json!("held")).await;
    phone.message().await;
    let (mut tablet, welcome) = Connect::to(&node).sign_in(&token, "tablet").await;
    assert_eq!(welcome["pending"], 1);
    let message = tablet.message().await;
    assert_eq!(message["id"], json!(held));
    assert!(
        message.get("redelivered").is_none(),
        "new to this device: {message}"
    );
}

#[tokio::test]
async fn a_removed_device_is_disconnected_and_holds_nothing_up() {
    let node = Node::start_default();
    let admin = node.admin();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let token = node.user("bob");
    let (mut phone, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let (mut lost, _) = Connect::to(&node).sign_in(&token, "lost").await;
    alice.say("bob", &json!("hi")).await;
    phone.message_acked().await;
    lost.message().await;
    eventually("the phone's ack counts", || {
        (admin.device("bob", "phone")["pending"] == 0).then_some(())
    });
    assert_eq!(admin.user("bob")["mailbox"]["messages"], 1);
    let reply = admin.delete("/admin/v1/users/bob/devices/lost");
    assert!((200..300).contains(&reply.status), "{reply:?}");
    lost.bye("revoked", 4004).await;
    assert_eq!(admin.device("bob", "lost"), Value::Null);
    eventually("nothing is held for it", || {
        (admin.user("bob")["mailbox"]["messages"] == 0).then_some(())
    });
    phone.fence().await;
    admin
        .delete("/admin/v1/users/bob/devices/lost")
        .expect_problem(404);
}

#[tokio::test]
async fn too_many_devices_are_refused() {
    let node = Node::start(NodeOptions::new().devices_max(2));
    let token = node.user("alice");
    let (mut one, _) = Connect::to(&node).sign_in(&token, "one").await;
    let (two, _) = Connect::to(&node).sign_in(&token, "two").await;
    two.close().await;
    let hello = |device: &str| json!({"type": "hello", "token": token, "device": device});
    let mut three = Connect::to(&node).open().await.unwrap();
    three.send_json(&hello("three")).await;
    three.error("too_many_devices", &Value::Null).await;
    three.bye("too_many_devices", 4007).await;
    let (mut two, _) = Connect::to(&node).sign_in(&token, "two").await;
    two.fence().await;
    one.fence().await;
    node.admin().delete("/admin/v1/users/alice/devices/one");
    one.bye("revoked", 4004).await;
    Connect::to(&node).sign_in(&token, "three").await;
}
