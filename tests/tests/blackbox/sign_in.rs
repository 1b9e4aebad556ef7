//! Signing in: the first frame, who is let in, and what the others are told.

use serde_json::{Value, json};
use stonechat_tests::{Connect, Node, NodeOptions, WsClient};

/// Opens a connection, sends `first`, expects to be refused as unauthorized.
async fn expect_unauthorized(connect: &Connect, first: &Value) {
    let mut client = connect.open().await.expect("the upgrade itself is fine");
    client.send_json(first).await;
    client.error("unauthorized", &Value::Null).await;
    let bye = client.bye("unauthorized", 4003).await;
    assert!(
        bye.get("retry_after_ms").is_none(),
        "trying again is of no use: {bye}"
    );
}

#[tokio::test]
async fn the_welcome_says_who_where_and_how_much() {
    let node = Node::start_default();
    let token = node.user("alice");
    let hello =
        json!({"type": "hello", "token": token, "device": "Phone-1.x_y", "client": "test/1"});
    let (_alice, welcome) = Connect::to(&node).hello(hello).await;
    assert_eq!(welcome["user"], "alice");
    assert_eq!(welcome["device"], "Phone-1.x_y");
    assert_eq!(welcome["pending"], 0);
    assert_eq!(welcome["heartbeat_ms"], 30_000);
    assert!(
        welcome["session"]
            .as_str()
            .is_some_and(|session| !session.is_empty())
    );
    assert!(
        welcome["server_time_ms"]
            .as_u64()
            .is_some_and(|ms| ms > 1_700_000_000_000)
    );
    let limits = &welcome["limits"];
    assert_eq!(limits["unaccepted_max"], 64);
    assert_eq!(limits["unacked_max"], 256);
    assert_eq!(limits["body_bytes_max"], 65_536);
    for name in ["frame_bytes_max", "ttl_s_max", "devices_max"] {
        assert!(
            limits[name].as_u64().is_some_and(|limit| limit > 0),
            "{name}: {welcome}"
        );
    }
}

#[tokio::test]
async fn limits_in_the_welcome_are_those_configured() {
    let node = Node::start(
        NodeOptions::new()
            .unacked_max(7)
            .devices_max(3)
            .heartbeat_ms(12_345),
    );
    let (_alice, welcome) = Connect::to(&node)
        .sign_in(&node.user("alice"), "phone")
        .await;
    assert_eq!(welcome["limits"]["unacked_max"], 7);
    assert_eq!(welcome["limits"]["devices_max"], 3);
    assert_eq!(welcome["heartbeat_ms"], 12_345);
}

#[tokio::test]
async fn the_token_may_come_in_a_header() {
    let node = Node::start_default();
    let token = node.user("alice");
    let connect = Connect::to(&node).header("authorization", &format!("Bearer {token}"));
    let (_alice, welcome) = connect
        .hello(json!({"type": "hello", "device": "phone"}))
        .await;
    assert_eq!(welcome["user"], "alice");
}

#[tokio::test]
async fn the_query_string_is_never_read() {
    let node = Node::start_default();
    let token = node.user("alice");
    for path in [
        format!("/v1/ws?token={token}"),
        format!("/v1/ws?access_token={token}"),
    ] {
        let connect = Connect::to(&node).path(&path);
        expect_unauthorized(&connect, &json!({"type": "hello", "device": "phone"})).await;
    }
}

#[tokio::test]
async fn bad_tokens_are_refused() {
    let node = Node::start_default();
    let good = node.user("alice");
    let mut forged = good.clone().into_bytes();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    let (head, tail) = good.split_at(good.len() - 10);
    let other = if tail.starts_with('Q') { 'g' } else { 'Q' };
    let resigned = format!("{head}{other}{}", &tail[1..]);
    for bad in [
        String::new(),
        "x".to_owned(),
        "st1...".to_owned(),
        good[..good.len() - 3].to_owned(),
        format!("{good}x"),
        good.to_uppercase(),
        forged,
        resigned,
        "A".repeat(5_000),
        "é\u{0}\n".to_owned(),
    ] {
        let hello = json!({"type": "hello", "token": bad, "device": "phone"});
        expect_unauthorized(&Connect::to(&node), &hello).await;
    }
    Connect::to(&node).sign_in(&good, "phone").await;
}

#[tokio::test]
async fn nothing_but_hello_is_taken_first() {
    let node = Node::start_default();
    let id = stonechat_tests::new_id();
    for first in [
        json!({"type": "ping", "nonce": 1}),
        json!({"type": "ack", "seq": 1}),
        json!({"type": "read", "from": "bob", "id": id}),
        json!({"type": "hello", "device": "phone"}),
    ] {
        expect_unauthorized(&Connect::to(&node), &first).await;
    }
    let mut client = Connect::to(&node).open().await.unwrap();
    client
        .send_json(&stonechat_tests::ws::send(&id, "bob", &json!("hi")))
        .await;
    client
        .take_where("error unauthorized", |frame| {
            frame["code"] == "unauthorized"
        })
        .await;
    client.bye("unauthorized", 4003).await;
}

#[tokio::test]
async fn a_second_hello_is_unexpected_and_harmless() {
    let node = Node::start_default();
    let token = node.user("alice");
    let (mut alice, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let again = json!({"type": "hello", "token": token, "device": "other"});
    alice.send_json(&again).await;
    alice.error("unexpected_frame", &Value::Null).await;
    alice.fence().await;
    assert_eq!(node.admin().device("alice", "other"), Value::Null);
}

#[tokio::test]
async fn a_bad_device_name_can_be_mended() {
    let node = Node::start_default();
    let token = node.user("alice");
    let mut client = Connect::to(&node).open().await.unwrap();
    let long = "d".repeat(65);
    for device in ["", "a b", "a/b", "a+b", "ü", &long] {
        let hello = json!({"type": "hello", "token": token, "device": device});
        client.send_json(&hello).await;
        client.error("bad_frame", &Value::Null).await;
    }
    client
        .send_json(&json!({"type": "hello", "token": token}))
        .await;
    client.error("bad_frame", &Value::Null).await;
    let good = json!({"type": "hello", "token": token, "device": "d".repeat(64)});
    client.send_json(&good).await;
    client.take("welcome").await;
}

#[tokio::test]
async fn who_says_nothing_is_let_go() {
    let node = Node::start(NodeOptions::new().auth_deadline_ms(3_000));
    let mut silent = Connect::to(&node).open().await.unwrap();
    silent.bye("auth_timeout", 4002).await;
    // Saying hello in time stops the clock for good.
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut silent = Connect::to(&node).open().await.unwrap();
    silent.bye("auth_timeout", 4002).await;
    alice.fence().await;
}

#[tokio::test]
async fn the_newer_connection_of_a_device_stays() {
    let node = Node::start_default();
    let token = node.user("alice");
    let (mut old, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let mut tablet = Connect::to(&node).sign_in(&token, "tablet").await.0;
    let (mut new, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let bye = old.bye("replaced", 4001).await;
    assert!(bye.get("retry_after_ms").is_none(), "{bye}");
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    bob.say("alice", &json!("to the newer one")).await;
    assert_eq!(new.message().await["body"], "to the newer one");
    assert_eq!(tablet.message().await["body"], "to the newer one");
}
