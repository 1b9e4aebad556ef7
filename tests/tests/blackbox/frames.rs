//! Frames of the protocol: what is taken, what is ignored, what is refused and with which code.

use serde_json::{Value, json};
use stonechat_tests::ws::send;
use stonechat_tests::{Node, WsClient, new_id};

#[tokio::test]
async fn pong_carries_the_nonce_of_its_ping() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let nonces = [
        json!("a"),
        json!(1.5),
        json!({"k": [1, null]}),
        json!([]),
        json!(null),
        json!(true),
    ];
    for nonce in &nonces {
        alice
            .send_json(&json!({"type": "ping", "nonce": nonce}))
            .await;
    }
    for nonce in &nonces {
        assert_eq!(alice.frame().await, json!({"type": "pong", "nonce": nonce}));
    }
    alice.send_json(&json!({"type": "ping"})).await;
    assert_eq!(alice.frame().await, json!({"type": "pong", "nonce": null}));
    alice
        .send_json(&json!({"type": "ping", "nonce": "n".repeat(300)}))
        .await;
    alice.error("too_large", &Value::Null).await;
}

#[tokio::test]
async fn an_unknown_type_is_answered_and_forgiven() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let long = "x".repeat(2_000);
    for kind in ["dance", "", "Send", "welcome", "ü\u{1F600}", &long] {
        alice
            .send_json(&json!({"type": kind, "id": "whatever"}))
            .await;
        alice.error("unknown_type", &Value::Null).await;
    }
    alice.fence().await;
}

#[tokio::test]
async fn unknown_fields_are_ignored_on_every_frame() {
    let node = Node::start_default();
    let token = node.user("alice");
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let hello =
        json!({"type": "hello", "token": token, "device": "phone", "new": {"a": 1}, "seq": "x"});
    let (mut alice, _) = stonechat_tests::Connect::to(&node).hello(hello).await;
    let id = new_id();
    let frame = json!({"type": "send", "id": id, "to": {"user": "bob", "kind": "new"}, "body": 1,
        "new": [1, 2], "seq": "not a number", "from": 3});
    alice.send_json(&frame).await;
    alice.accepted(&id).await;
    let message = bob.message().await;
    bob.send_json(&json!({"type": "ack", "seq": message["seq"], "new": null, "id": 4}))
        .await;
    bob.send_json(&json!({"type": "read", "from": "alice", "id": id, "new": "x", "to": 1}))
        .await;
    bob.send_json(&json!({"type": "ping", "nonce": 1, "new": {}, "token": 9}))
        .await;
    bob.take("pong").await;
    alice
        .take_where("the receipt", |frame| {
            frame["type"] == "receipt" && frame["read"] == json!(id)
        })
        .await;
}

#[tokio::test]
async fn fields_come_in_any_order_and_null_is_absent() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let id = new_id();
    let text = format!(
        " {{ \"body\" : null , \"ttl_s\":null,\"ephemeral\":null, \"ack\":null,\"to\":{{\"user\":\"bob\"}},\n\"id\":\"{}\",\"type\":\"s\\u0065nd\"}} ",
        id.to_uppercase()
    );
    alice.send_text(&text).await;
    alice.accepted(&id).await;
    let message = bob.message().await;
    assert_eq!(message["body"], Value::Null);
    assert_eq!(message["id"], json!(id), "ids are written in lower case");
    assert!(message.as_object().unwrap().contains_key("body"));
}

#[tokio::test]
async fn a_message_says_who_wrote_what_when() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "Tablet").await;
    let id = alice.send_to("bob", &json!("hi")).await;
    let accepted = alice.accepted(&id).await;
    let message = bob.message().await;
    let expected = json!({"type": "message", "seq": message["seq"], "id": id,
        "from": {"user": "alice", "device": "phone"}, "ts_ms": accepted["ts_ms"], "body": "hi"});
    assert_eq!(message, expected);
    assert_eq!(
        accepted,
        json!({"type": "accepted", "id": id, "ts_ms": message["ts_ms"]})
    );
    assert!(message["seq"].as_u64().is_some_and(|seq| seq >= 1));
}

#[tokio::test]
async fn a_body_arrives_as_it_was_written() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    for body in [
        r#"{"a": [1,  2], "a": "twice", "ü":"\u00fc\ud83d\ude00\u0000"}"#,
        "123456789012345678901234567890.000",
        "1e300",
        r#""\/""#,
        "\"\u{1F600}\u{7f}\"",
        "[[[[[[[[]]]]]]]]",
        "false",
    ] {
        let id = new_id();
        let text = format!(r#"{{"type":"send","id":"{id}","to":{{"user":"bob"}},"body":{body}}}"#);
        alice.send_text(&text).await;
        alice.accepted(&id).await;
        let text = bob.incoming_text().await;
        assert!(text.contains(&format!(r#""body":{body}"#)), "{text}");
    }
}

#[tokio::test]
async fn what_is_no_frame_is_bad_and_forgiven() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    for text in [
        "",
        " ",
        "x",
        "{",
        "[]",
        "null",
        "1",
        r#""send""#,
        "{}",
        r#"{"type":null}"#,
        r#"{"type":1}"#,
        r#"{"type":"ping"} {}"#,
        r#"{"type":"ping",}"#,
        r#"{"type":"ack"}"#,
        r#"{"type":"ack","seq":-1}"#,
        r#"{"type":"ack","seq":1.5}"#,
        r#"{"type":"ack","seq":"1"}"#,
        r#"{"type":"ack","seq":18446744073709551616}"#,
        r#"{"type":"ping","ack":"x"}"#,
        r#"{"type":"ping","rev":[]}"#,
        r#"{"type":"read"}"#,
        r#"{"type":"read","from":"bob"}"#,
        r#"{"type":"read","from":"BOB","id":"0190163d-8694-739b-aea5-966c26f8ad91"}"#,
        r#"{"type":"read","from":"bob","id":"1"}"#,
        r#"{"type":"send"}"#,
    ] {
        alice.send_text(text).await;
        alice.error("bad_frame", &Value::Null).await;
        alice.fence().await;
    }
}

#[tokio::test]
async fn a_bad_send_is_answered_under_its_id() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let spoil = |field: &str, value: Value| {
        let mut frame = send(&new_id(), "alice", &json!(1));
        frame[field] = value;
        frame
    };
    for frame in [
        spoil("to", json!(null)),
        spoil("to", json!("alice")),
        spoil("to", json!({})),
        spoil("to", json!({"user": 1})),
        spoil("to", json!({"user": "Alice"})),
        spoil("to", json!({"user": ""})),
        spoil("to", json!({"user": "a".repeat(65)})),
        spoil("to", json!({"user": "a b"})),
        spoil("ttl_s", json!("1")),
        spoil("ttl_s", json!(-1)),
        spoil("ttl_s", json!(0.5)),
        spoil("ephemeral", json!("yes")),
        spoil("ephemeral", json!(1)),
    ] {
        alice.send_json(&frame).await;
        alice.error("bad_frame", &frame["id"]).await;
        alice.fence().await;
    }
    let id = new_id();
    alice
        .send_json(&json!({"type": "send", "id": id, "to": {"user": "alice"}}))
        .await;
    alice.error("bad_frame", &json!(id)).await;
    for id in [
        json!("1"),
        json!(7),
        json!(new_id().replace('-', "")),
        json!("0190163d-8694-439b-aea5-966c26f8ad91"),
        json!(format!("{{{}}}", new_id())),
    ] {
        alice
            .send_json(&json!({"type": "send", "id": id, "to": {"user": "alice"}, "body": 1}))
            .await;
        alice.error("bad_frame", &Value::Null).await;
        alice.fence().await;
    }
}

#[tokio::test]
async fn an_unknown_user_cannot_be_written_to() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let id = alice.send_to("nobody", &json!(1)).await;
    let error = alice.error("unknown_user", &json!(id)).await;
    assert!(error.get("retry_after_ms").is_none(), "{error}");
    alice.say("alice", &json!("still here")).await;
}

#[tokio::test]
async fn bodies_up_to_the_limit_and_not_beyond() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let body = |bytes: usize| json!("b".repeat(bytes - 2));
    let id = alice.say("bob", &body(65_536)).await;
    assert_eq!(bob.message().await["id"], json!(id));
    let id = alice.send_to("bob", &body(65_537)).await;
    alice.error("too_large", &json!(id)).await;
    alice.say("bob", &json!("still here")).await;
    assert_eq!(bob.message().await["body"], "still here");
}

#[tokio::test]
async fn a_frame_beyond_the_limit_ends_the_connection() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    // The server may hang up before all of it is written.
    alice.try_send_text("x".repeat(80_000)).await;
    alice.bye("too_large", 1009).await;
}

#[tokio::test]
async fn too_many_refused_frames_in_a_row_end_the_connection() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    // A good frame in between forgives the bad ones before it.
    for _ in 0..3 {
        for _ in 0..31 {
            alice.send_text("{").await;
            alice.error("bad_frame", &Value::Null).await;
        }
        alice.fence().await;
    }
    let mut refused = 0;
    while alice.try_send_text("{}".to_owned()).await && refused < 32 {
        refused += 1;
    }
    alice.bye("too_many_errors", 1008).await;
    let errors = alice
        .untaken()
        .filter(|frame| frame["code"] == "bad_frame")
        .count();
    assert_eq!(errors, 32);
}
