//! The WebSocket layer itself: fragments, control frames, and every breach of its rules.

use serde_json::json;
use stonechat_tests::raw::{Shape, opcode};
use stonechat_tests::{Node, RawClient, WsClient};
use tokio_tungstenite::tungstenite::Message;

const PING: &str = r#"{"type":"ping","nonce":"whole"}"#;

#[tokio::test]
async fn a_fragmented_message_is_one_message() {
    let node = Node::start_default();
    let mut client = RawClient::join(&node, "alice", "phone").await;
    let (first, rest) = PING.as_bytes().split_at(9);
    let (second, third) = rest.split_at(0);
    let part = |opcode, fin, payload: &[u8]| {
        Shape {
            fin,
            ..Shape::new(opcode, payload)
        }
        .encode()
    };
    client.write(&part(opcode::TEXT, false, first)).await;
    // Control frames may come in between.
    client
        .write(&Shape::new(opcode::PING, "in between").encode())
        .await;
    let pong = client.frame().await.unwrap();
    assert_eq!(
        (pong.opcode, pong.payload.as_slice()),
        (opcode::PONG, &b"in between"[..])
    );
    client
        .write(&part(opcode::CONTINUATION, false, second))
        .await;
    client.write(&part(opcode::CONTINUATION, true, third)).await;
    assert_eq!(
        client.json().await,
        json!({"type": "pong", "nonce": "whole"})
    );
    // A character may be cut in two by a fragment.
    let text = r#"{"type":"ping","nonce":"ü"}"#;
    let cut = text.find('ü').unwrap() + 1;
    client
        .write(&part(opcode::TEXT, false, &text.as_bytes()[..cut]))
        .await;
    client
        .write(&part(opcode::CONTINUATION, true, &text.as_bytes()[cut..]))
        .await;
    assert_eq!(client.json().await["nonce"], "ü");
}

#[tokio::test]
async fn a_websocket_ping_is_answered_with_its_payload() {
    let node = Node::start_default();
    let mut client = RawClient::join(&node, "alice", "phone").await;
    for payload in [&b""[..], b"x", &[0xff; 125]] {
        client
            .write(&Shape::new(opcode::PING, payload).encode())
            .await;
        let pong = client.frame().await.unwrap();
        assert_eq!(
            (pong.opcode, pong.payload.as_slice()),
            (opcode::PONG, payload)
        );
    }
    // A pong nobody asked for is nobody's business.
    client
        .write(&Shape::new(opcode::PONG, "unasked").encode())
        .await;
    client.text(PING).await;
    assert_eq!(client.json().await["nonce"], "whole");
}

#[tokio::test]
async fn a_closing_client_gets_its_close_frame_back() {
    let node = Node::start_default();
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    for payload in [
        &b""[..],
        &[0x03, 0xe8],
        b"\x03\xe9going away",
        b"\x0f\xa0private",
    ] {
        let mut client = RawClient::join(&node, "alice", "phone").await;
        client
            .write(&Shape::new(opcode::CLOSE, payload).encode())
            .await;
        let close = client.frame().await.unwrap();
        assert_eq!(close.opcode, opcode::CLOSE);
        if let Some(code) = payload.get(..2) {
            assert_eq!(&close.payload[..2], code, "the code is echoed");
        }
        assert_eq!(client.frame().await, None, "then the server hangs up");
    }
    bob.fence().await;
}

#[tokio::test]
async fn binary_is_not_spoken_here() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    alice
        .send_message(Message::binary(PING.as_bytes().to_vec()))
        .await;
    alice.bye("unsupported_data", 1003).await;
}

/// Sends the bytes on a signed-in connection and expects it to be closed.
async fn expect_bye(node: &Node, what: &str, bytes: &[u8], reason: &str, code: u16) {
    let mut client = RawClient::join(node, "alice", "phone").await;
    client.try_write(bytes).await;
    eprintln!("case: {what}");
    let bye = client.bye(reason, code).await;
    assert!(bye.get("reason").is_some(), "{what}");
}

#[tokio::test]
async fn text_must_be_utf8() {
    let node = Node::start_default();
    for (what, text) in [
        ("a lone continuation byte", &b"{\"type\":\"\x80\"}"[..]),
        ("an overlong slash", b"{\"type\":\"\xc0\xaf\"}"),
        ("a surrogate", b"{\"type\":\"\xed\xa0\x80\"}"),
        ("above U+10FFFF", b"{\"type\":\"\xf4\x90\x80\x80\"}"),
        ("cut at the end", b"{\"type\":\"x\"}\xc3"),
    ] {
        let bytes = Shape::new(opcode::TEXT, text).encode();
        expect_bye(&node, what, &bytes, "invalid_utf8", 1007).await;
    }
    let mut fragmented = Shape {
        fin: false,
        ..Shape::new(opcode::TEXT, &b"{\xc3"[..])
    }
    .encode();
    fragmented.extend(Shape::new(opcode::CONTINUATION, "x}").encode());
    expect_bye(&node, "fragmented", &fragmented, "invalid_utf8", 1007).await;
}

#[tokio::test]
async fn breaches_of_the_websocket_protocol_end_the_connection() {
    let node = Node::start_default();
    let good = Shape::new(opcode::TEXT, PING);
    let unfinished = Shape {
        fin: false,
        ..good.clone()
    }
    .encode();
    let mut cases: Vec<(String, Vec<u8>)> = vec![
        (
            "not masked".to_owned(),
            Shape {
                masked: false,
                ..good.clone()
            }
            .encode(),
        ),
        (
            "a continuation of nothing".to_owned(),
            Shape::new(opcode::CONTINUATION, "x").encode(),
        ),
        (
            "a new message within a fragmented one".to_owned(),
            [unfinished.clone(), good.encode()].concat(),
        ),
        (
            "a fragmented ping".to_owned(),
            Shape {
                fin: false,
                ..Shape::new(opcode::PING, "x")
            }
            .encode(),
        ),
        (
            "a long ping".to_owned(),
            Shape::new(opcode::PING, [0; 126]).encode(),
        ),
        (
            "a long close".to_owned(),
            Shape::new(opcode::CLOSE, [3; 126]).encode(),
        ),
        (
            "half a close code".to_owned(),
            Shape::new(opcode::CLOSE, [3]).encode(),
        ),
        (
            "close code 1005".to_owned(),
            Shape::new(opcode::CLOSE, 1005_u16.to_be_bytes()).encode(),
        ),
        (
            "close code 999".to_owned(),
            Shape::new(opcode::CLOSE, 999_u16.to_be_bytes()).encode(),
        ),
        (
            "a length above 2^63".to_owned(),
            vec![0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
        ),
        (
            "a 16 bit length for 5 bytes".to_owned(),
            vec![0x81, 0xfe, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4, 5],
        ),
    ];
    for rsv in [1, 2, 4] {
        cases.push((
            format!("reserved bits {rsv:03b}"),
            Shape {
                rsv,
                ..good.clone()
            }
            .encode(),
        ));
    }
    for reserved in [3, 7, 11, 15] {
        cases.push((
            format!("opcode {reserved}"),
            Shape::new(reserved, "x").encode(),
        ));
    }
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    for (what, bytes) in cases {
        expect_bye(&node, &what, &bytes, "protocol_error", 1002).await;
    }
    bob.fence().await;
}

#[tokio::test]
async fn a_frame_announced_too_large_is_refused_before_it_comes() {
    let node = Node::start_default();
    // Only the head of the frame: the server must not wait for 2^40 bytes.
    let mut head = vec![0x81, 0xff];
    head.extend((1_u64 << 40).to_be_bytes());
    head.extend([0; 4]);
    expect_bye(&node, "a head of 2^40 bytes", &head, "too_large", 1009).await;
    let mut parts = Shape {
        fin: false,
        ..Shape::new(opcode::TEXT, vec![b' '; 50_000])
    }
    .encode();
    parts.extend(Shape::new(opcode::CONTINUATION, vec![b' '; 50_000]).encode());
    expect_bye(
        &node,
        "fragments too large together",
        &parts,
        "too_large",
        1009,
    )
    .await;
}

#[tokio::test]
async fn noise_instead_of_a_first_frame_harms_nobody() {
    let node = Node::start_default();
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let mut client = RawClient::open(&node).await;
    client
        .try_write(
            &Shape {
                rsv: 7,
                ..Shape::new(15, [0xff; 40])
            }
            .encode(),
        )
        .await;
    client.bye("protocol_error", 1002).await;
    let mut client = RawClient::open(&node).await;
    client
        .write(&Shape::new(opcode::BINARY, [0; 10]).encode())
        .await;
    client.bye("unsupported_data", 1003).await;
    bob.fence().await;
}
