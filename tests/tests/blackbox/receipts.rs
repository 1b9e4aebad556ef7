//! Receipts: watermarks of what was delivered and read, told once, never going back.

use serde_json::{Value, json};
use stonechat_tests::{Connect, Node, NodeOptions, WsClient};

/// The receipt in which `field` has reached `id`; those before it are returned too.
async fn receipt(client: &mut WsClient, field: &str, id: &str) -> (Value, Vec<Value>) {
    let mut before = Vec::new();
    let mut last_rev = 0;
    loop {
        let receipt = client.take("receipt").await;
        let rev = receipt["rev"].as_u64().expect("a rev");
        assert!(rev > last_rev, "revs increase: {receipt}");
        last_rev = rev;
        if receipt[field] == *id {
            return (receipt, before);
        }
        before.push(receipt);
    }
}

fn receipts(client: &WsClient) -> usize {
    client
        .untaken()
        .filter(|frame| frame["type"] == "receipt")
        .count()
}

#[tokio::test]
async fn delivered_then_read() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let id = alice.say("bob", &json!("hi")).await;
    let message = bob.message().await;
    alice.fence().await;
    assert_eq!(receipts(&alice), 0, "not before it is acknowledged");
    bob.ack(message["seq"].as_u64().unwrap()).await;
    let (delivered, _) = receipt(&mut alice, "delivered", &id).await;
    assert_eq!(delivered["with"], "bob");
    assert_eq!(delivered["read"], Value::Null);
    assert!(
        delivered["ts_ms"]
            .as_u64()
            .is_some_and(|ms| ms >= message["ts_ms"].as_u64().unwrap())
    );
    bob.send_json(&json!({"type": "read", "from": "alice", "id": id}))
        .await;
    let (read, _) = receipt(&mut alice, "read", &id).await;
    assert_eq!(read["delivered"], json!(id));
    assert!(read["rev"].as_u64() > delivered["rev"].as_u64());
}

#[tokio::test]
async fn many_acks_make_few_receipts() {
    let node = Node::start(NodeOptions::new().coalesce_ms(200));
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let mut ids = Vec::new();
    for n in 0..50 {
        ids.push(alice.say("bob", &json!(n)).await);
    }
    for message in bob.messages(50).await {
        bob.ack(message["seq"].as_u64().unwrap()).await;
    }
    let (_, before) = receipt(&mut alice, "delivered", &ids[49]).await;
    assert!(
        before.len() < 25,
        "coalesced, yet {} receipts came",
        before.len() + 1
    );
    let order: Vec<_> = before
        .iter()
        .map(|receipt| {
            ids.iter()
                .position(|id| receipt["delivered"] == *id)
                .expect("one of ours")
        })
        .collect();
    assert!(order.is_sorted(), "watermarks do not go back: {order:?}");
}

#[tokio::test]
async fn the_first_device_that_acknowledges_counts() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut alice_tablet = WsClient::join(&node, "alice", "tablet").await;
    let mut phone = WsClient::join(&node, "bob", "phone").await;
    let mut tablet = WsClient::join(&node, "bob", "tablet").await;
    let first = alice.say("bob", &json!(1)).await;
    let seen = phone.message().await;
    tablet.message_acked().await;
    let (on_phone, _) = receipt(&mut alice, "delivered", &first).await;
    let (on_tablet, _) = receipt(&mut alice_tablet, "delivered", &first).await;
    assert_eq!(
        on_phone, on_tablet,
        "all devices of the sender are told the same"
    );
    // The other device's ack tells nothing new.
    phone.ack(seen["seq"].as_u64().unwrap()).await;
    let second = alice.say("bob", &json!(2)).await;
    phone.message().await;
    tablet.message_acked().await;
    let (_, before) = receipt(&mut alice, "delivered", &second).await;
    assert!(before.is_empty(), "{before:?}");
}

#[tokio::test]
async fn a_sender_who_was_away_is_told_once() {
    let node = Node::start_default();
    let token = node.user("alice");
    let (mut alice, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let mut carol = WsClient::join(&node, "carol", "phone").await;
    let mut last = String::new();
    for n in 0..5 {
        last = alice.say("bob", &json!(n)).await;
    }
    let to_carol = alice.say("carol", &json!("c")).await;
    alice.close().await;
    for _ in 0..5 {
        bob.message_acked().await;
    }
    bob.send_json(&json!({"type": "read", "from": "alice", "id": last}))
        .await;
    carol.message_acked().await;
    bob.fence().await;
    carol.fence().await;
    let (mut alice, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let with = |name: &'static str| {
        move |frame: &Value| frame["type"] == "receipt" && frame["with"] == name
    };
    // The acks may still be on their way when alice is back; then a later receipt completes them.
    let bobs = loop {
        let got = alice.take_where("bob's receipt", with("bob")).await;
        if got["read"] == json!(last) {
            break got;
        }
    };
    assert_eq!(bobs["delivered"], json!(last));
    let carols = alice.take_where("carol's receipt", with("carol")).await;
    assert_eq!(carols["delivered"], json!(to_carol));
    let rev = bobs["rev"].as_u64().max(carols["rev"].as_u64()).unwrap();
    alice.close().await;

    // Not confirmed: told again. Confirmed by hello: not told.
    let (mut alice, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let again = alice.take_where("bob's receipt", with("bob")).await;
    assert_eq!(
        (&again["read"], &again["rev"]),
        (&json!(last), &bobs["rev"])
    );
    alice.take_where("carol's receipt", with("carol")).await;
    alice.close().await;
    let hello = json!({"type": "hello", "token": token, "device": "phone", "rev": rev});
    let (mut alice, _) = Connect::to(&node).hello(hello).await;
    assert_no_old_receipts(&mut alice, &mut bob).await;
    alice.close().await;

    // The confirmation is remembered for a hello that does not say.
    let (mut alice, _) = Connect::to(&node).sign_in(&token, "phone").await;
    assert_no_old_receipts(&mut alice, &mut bob).await;
}

/// A new conversation's receipt arrives, and none came before it.
async fn assert_no_old_receipts(alice: &mut WsClient, bob: &mut WsClient) {
    let marker = alice.say("bob", &json!("marker")).await;
    let message = bob.message_acked().await;
    assert_eq!(message["id"], json!(marker));
    let (new, before) = receipt(alice, "delivered", &marker).await;
    assert!(before.is_empty(), "told before: {before:?}");
    alice
        .send_json(&json!({"type": "ack", "seq": 0, "rev": new["rev"]}))
        .await;
    alice.fence().await;
}

#[tokio::test]
async fn a_rev_beside_an_ack_is_remembered() {
    let mut node = Node::start_default();
    let token = node.user("alice");
    let (mut alice, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let id = alice.say("bob", &json!(1)).await;
    bob.message_acked().await;
    let (told, _) = receipt(&mut alice, "delivered", &id).await;
    alice
        .send_json(&json!({"type": "ping", "rev": told["rev"]}))
        .await;
    alice.take("pong").await;
    alice.close().await;
    assert_eq!(node.sigterm(), Some(0));
    node.launch();
    let (mut alice, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    assert_no_old_receipts(&mut alice, &mut bob).await;
}

#[tokio::test]
async fn revs_increase_across_a_crash() {
    let mut node = Node::start_default();
    let token = node.user("alice");
    let (mut alice, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let mut last = 0;
    for round in 0..3 {
        let id = alice.say("bob", &json!(round)).await;
        let message = bob.message().await;
        bob.ack(message["seq"].as_u64().unwrap()).await;
        let (told, _) = receipt(&mut alice, "delivered", &id).await;
        let rev = told["rev"].as_u64().unwrap();
        assert!(rev > last, "round {round}: {rev} after {last}");
        assert!(rev < 1 << 53, "fits a JSON number everywhere: {rev}");
        last = rev;
        node.crash_and_restart();
        let hello = json!({"type": "hello", "token": token, "device": "phone", "rev": last});
        alice = Connect::to(&node).hello(hello).await.0;
        let ack = message["seq"].clone();
        let hello =
            json!({"type": "hello", "token": node.user("bob"), "device": "phone", "ack": ack});
        bob = Connect::to(&node).hello(hello).await.0;
    }
}

#[tokio::test]
async fn reading_what_was_never_delivered_is_an_error() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let read = |from: &str, id: &str| json!({"type": "read", "from": from, "id": id});
    let unknown = stonechat_tests::new_id();
    bob.send_json(&read("alice", &unknown)).await;
    bob.error("unknown_message", &json!(unknown)).await;
    let id = alice.say("bob", &json!(1)).await;
    bob.message_acked().await;
    receipt(&mut alice, "delivered", &id).await;
    // An id above everything sent, and one of somebody who sent nothing.
    node.user("carol");
    let above = stonechat_tests::new_id();
    bob.send_json(&read("alice", &above)).await;
    bob.error("unknown_message", &json!(above)).await;
    bob.send_json(&read("carol", &id)).await;
    bob.error("unknown_message", &json!(id)).await;
    bob.send_json(&read("alice", &id)).await;
    let (told, before) = receipt(&mut alice, "read", &id).await;
    assert!(
        before.is_empty(),
        "the errors changed nothing: {before:?} {told}"
    );
}

#[tokio::test]
async fn a_stale_read_changes_nothing() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let first = alice.say("bob", &json!(1)).await;
    let second = alice.say("bob", &json!(2)).await;
    bob.message_acked().await;
    bob.message_acked().await;
    let read = |id: &str| json!({"type": "read", "from": "alice", "id": id});
    bob.send_json(&read(&second)).await;
    receipt(&mut alice, "read", &second).await;
    bob.send_json(&read(&first)).await;
    bob.send_json(&read(&second)).await;
    bob.fence().await;
    let third = alice.say("bob", &json!(3)).await;
    bob.message_acked().await;
    let (told, before) = receipt(&mut alice, "delivered", &third).await;
    assert!(before.is_empty(), "{before:?}");
    assert_eq!(told["read"], json!(second));
    assert_eq!(
        bob.untaken()
            .filter(|frame| frame["type"] == "error")
            .count(),
        0
    );
}

#[tokio::test]
async fn reading_implies_delivery() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let id = alice.say("bob", &json!(1)).await;
    bob.message().await;
    bob.send_json(&json!({"type": "read", "from": "alice", "id": id}))
        .await;
    let (told, _) = receipt(&mut alice, "read", &id).await;
    assert_eq!(told["delivered"], json!(id));
}
