//! A connection while it is open: sign-in, frames in and out, back-pressure.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use stonechat_broker::{Command, Event};
use stonechat_mailbox::Envelope;
use stonechat_protocol::{Address, DeviceId, MessageId, Receipt, UserId};
use tokio::time::timeout;

use super::conformance::frame;
use super::node::Scripted;
use super::pipe::{Got, ID, PATIENCE, rig, rig_with, until};
use crate::edge::backend::Node;
use crate::edge::connection::Connection;

fn message(seq: u64, body: &'static str) -> Event {
    let envelope = Envelope {
        from: Address {
            user: UserId::new("bob").unwrap(),
            device: DeviceId::new("phone").unwrap(),
        },
        to: UserId::new("carol").unwrap(),
        id: MessageId::parse(ID).unwrap(),
        ts_ms: 5,
        expires_ms: 6,
        body: Bytes::from_static(body.as_bytes()),
        trace: Default::default(),
    };
    Event::Message {
        seq,
        envelope: Arc::new(envelope),
        copy: seq == 2,
        redelivered: seq == 3,
        ephemeral: false,
        span: None,
    }
}

#[actix_rt::test]
async fn hello_is_answered_with_welcome() {
    let mut rig = rig(|config| config.heartbeat_ms = 12_345);
    let hello = json!({"type": "hello", "token": "alice", "device": "d1", "client": "x/1", "ack": 7, "rev": 9});
    rig.client.say(hello).await;
    let welcome = rig.client.json().await;
    assert_eq!(welcome["type"], "welcome");
    assert_eq!(welcome["user"], "alice");
    assert_eq!(welcome["device"], "d1");
    assert_eq!(welcome["pending"], 3);
    assert_eq!(welcome["heartbeat_ms"], 12_345);
    assert_eq!(welcome["limits"]["unaccepted_max"], 64);
    assert_eq!(*rig.script.sign_ins.lock(), [(Some(7), Some(9))]);
}

#[actix_rt::test]
async fn what_was_read_with_the_upgrade_belongs_to_the_connection() {
    let hello = json!({"type": "hello", "device": "d1"}).to_string();
    let mut bytes = frame(0x81, hello.as_bytes());
    bytes.extend(frame(0x89, b"soon"));
    let (first, rest) = bytes.split_at(10);
    let mut rig = rig_with(
        |_| {},
        4096,
        |opened| {
            opened.response = b"\x81\x01".to_vec();
            opened.response.push(b'1');
            opened.already_read = first.to_vec();
            opened.token = Some("alice".into());
        },
    );
    assert_eq!(rig.client.next().await, Got::Json(json!(1)));
    rig.client.write(rest).await;
    assert_eq!(rig.client.json().await["user"], "alice");
    assert_eq!(rig.client.next().await, Got::Pong(b"soon".to_vec()));
}

#[actix_rt::test]
async fn a_token_in_hello_goes_before_the_one_in_the_header() {
    let mut rig = rig_with(|_| {}, 4096, |opened| opened.token = Some("wrong!".into()));
    assert_eq!(rig.client.hello("alice").await["user"], "alice");
}

#[actix_rt::test]
async fn events_become_frames_in_their_order() {
    let mut rig = rig(|_| {});
    rig.client.hello("alice").await;
    let outlet = rig.script.outlet("alice");
    outlet.push(message(1, r#"{"a": [1]}"#)).unwrap();
    outlet.push(message(2, "2")).unwrap();
    outlet.push(message(3, "null")).unwrap();
    let receipt = Receipt {
        rev: 4,
        with: UserId::new("bob").unwrap(),
        delivered: None,
        read: None,
        ts_ms: 8,
    };
    outlet.push(Event::Receipt(Box::new(receipt))).unwrap();
    let from = json!({"user": "bob", "device": "phone"});
    assert_eq!(
        rig.client.json().await,
        json!({"type": "message", "seq": 1, "id": ID, "from": from, "ts_ms": 5, "body": {"a": [1]}})
    );
    assert_eq!(
        rig.client.json().await,
        json!({"type": "message", "seq": 2, "id": ID, "from": from, "to": {"user": "carol"}, "ts_ms": 5, "body": 2})
    );
    let third = rig.client.json().await;
    assert_eq!(
        (&third["body"], &third["redelivered"]),
        (&json!(null), &json!(true))
    );
    assert_eq!(rig.client.json().await["rev"], 4);
}

#[actix_rt::test]
async fn more_than_a_batch_arrives_whole_and_in_order() {
    let mut rig = rig_with(|_| {}, 1000, |_| {});
    rig.client.hello("alice").await;
    let outlet = rig.script.outlet("alice");
    let body = Bytes::from(format!("\"{}\"", "x".repeat(30_000)));
    for seq in 1..=60 {
        let Event::Message { envelope, .. } = message(9, "") else {
            unreachable!()
        };
        let mut envelope = Envelope::clone(&envelope);
        envelope.body = body.clone();
        let event = Event::Message {
            seq,
            envelope: Arc::new(envelope),
            copy: false,
            redelivered: false,
            ephemeral: false,
            span: None,
        };
        outlet.push(event).unwrap();
    }
    for seq in 1..=60 {
        let message = rig.client.json().await;
        assert_eq!(message["seq"], seq);
        assert_eq!(message["body"].as_str().unwrap().len(), 30_000);
    }
}

#[actix_rt::test]
async fn frames_become_inputs() {
    let mut rig = rig(|_| {});
    rig.client.hello("alice").await;
    rig.client
        .say(json!({"type": "send", "id": ID, "to": {"user": "bob"}, "body": {"x": 1}, "ttl_s": 5, "ephemeral": true, "ack": 3}))
        .await;
    rig.client
        .say(json!({"type": "ack", "seq": 4, "rev": 5}))
        .await;
    rig.client
        .say(json!({"type": "read", "from": "bob", "id": ID}))
        .await;
    rig.client
        .say(json!({"type": "ping", "nonce": {"n": 1}, "ack": 6}))
        .await;
    assert_eq!(rig.client.json().await["type"], "pong");
    rig.client.say(json!({"type": "ping"})).await;
    until("four inputs", || rig.script.inputs() == 4).await;
    let inputs = rig.script.inputs.lock();
    assert_eq!(inputs[0].ack, Some(3));
    match &inputs[0].command {
        Some(Command::Send {
            to,
            body,
            ttl_s,
            ephemeral,
            ..
        }) => {
            assert_eq!((to.as_str(), &body[..]), ("bob", &br#"{"x":1}"#[..]));
            assert_eq!((*ttl_s, *ephemeral), (Some(5), true));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((inputs[1].ack, inputs[1].rev), (Some(4), Some(5)));
    assert!(inputs[1].command.is_none());
    assert!(matches!(inputs[2].command, Some(Command::Read { .. })));
    assert_eq!(inputs[3].ack, Some(6));
}

#[actix_rt::test]
async fn pings_of_both_kinds_are_answered() {
    let mut rig = rig(|_| {});
    rig.client.hello("alice").await;
    rig.client
        .say(json!({"type": "ping", "nonce": [1, "two"]}))
        .await;
    assert_eq!(
        rig.client.json().await,
        json!({"type": "pong", "nonce": [1, "two"]})
    );
    rig.client.say(json!({"type": "ping"})).await;
    assert_eq!(
        rig.client.json().await,
        json!({"type": "pong", "nonce": null})
    );
    rig.client.write(&frame(0x89, b"payload")).await;
    assert_eq!(rig.client.next().await, Got::Pong(b"payload".to_vec()));
    assert_eq!(rig.script.inputs(), 0);
}

#[actix_rt::test]
async fn refused_frames_are_answered_and_the_connection_stays() {
    let mut rig = rig(|config| config.errors_in_a_row_max = 3);
    rig.client.hello("alice").await;
    for _ in 0..4 {
        rig.client.write(&frame(0x81, b"{")).await;
        rig.client.expect_error("bad_frame").await;
        rig.client.say(json!({"type": "shout"})).await;
        rig.client.expect_error("unknown_type").await;
        // A good frame in between starts the count anew.
        rig.client.say(json!({"type": "ping"})).await;
        assert_eq!(rig.client.json().await["type"], "pong");
    }
    rig.client
        .say(json!({"type": "hello", "token": "bob", "device": "d2"}))
        .await;
    rig.client.expect_error("unexpected_frame").await;
    let body = "x".repeat(66_000);
    rig.client
        .say(json!({"type": "send", "id": ID, "to": {"user": "bob"}, "body": body}))
        .await;
    let error = rig.client.expect_error("too_large").await;
    assert_eq!(error["ref"], ID);
    rig.client.send("bob").await;
    assert_eq!(rig.client.json().await["type"], "accepted");
}

#[actix_rt::test]
async fn reading_stops_while_the_session_is_busy_and_writing_goes_on() {
    let mut rig = rig(|_| {});
    rig.client.hello("alice").await;
    rig.client.send("wait").await;
    for _ in 0..3 {
        rig.client.send("bob").await;
    }
    let outlet = rig.script.outlet("alice");
    for seq in [4, 5] {
        outlet.push(message(seq, "1")).unwrap();
        assert_eq!(rig.client.json().await["seq"], seq);
    }
    assert_eq!(rig.script.inputs(), 0);
    rig.script.release.notify_one();
    for _ in 0..4 {
        assert_eq!(rig.client.json().await["type"], "accepted");
    }
    let first = &rig.script.inputs.lock()[0];
    assert!(matches!(&first.command, Some(Command::Send { to, .. }) if to.as_str() == "wait"));
}

#[actix_rt::test]
async fn a_flood_of_pings_that_nobody_reads_answers_to_is_not_read_either() {
    let mut rig = rig_with(|config| config.write_deadline_ms = 60_000, 4096, |_| {});
    rig.client.hello("alice").await;
    let flood = frame(0x89, &[b'p'; 125]).repeat(10_000);
    let written = timeout(Duration::from_millis(300), async {
        tokio::io::AsyncWriteExt::write_all(&mut rig.client.io, &flood).await
    });
    assert!(written.await.is_err(), "the flood was taken in whole");
    // Whatever was taken in is answered once the client reads.
    assert_eq!(rig.client.next().await, Got::Pong(vec![b'p'; 125]));
}

#[actix_rt::test]
async fn a_silent_client_is_pinged_and_one_that_answers_stays() {
    let mut rig = rig(|config| config.heartbeat_ms = 30);
    rig.client.hello("alice").await;
    for _ in 0..6 {
        assert_eq!(rig.client.next().await, Got::Ping);
        rig.client.write(&frame(0x8a, b"")).await;
    }
    rig.client.send("bob").await;
    assert_eq!(rig.client.json().await["type"], "accepted");
}

/// The design wants at most 2 KiB of heap for an idle connection, the future included.
#[test]
fn a_connection_at_rest_is_small() {
    let plain = size_of::<Connection<actix_rt::net::TcpStream, Node>>();
    let scripted = size_of::<Connection<actix_rt::net::TcpStream, Scripted>>();
    assert!(plain <= 512, "{plain} bytes");
    assert!(scripted <= 512, "{scripted} bytes");
}

#[actix_rt::test]
async fn a_connection_at_rest_holds_no_buffer() {
    use std::future::Future;
    use std::pin::Pin;
    let mut rig = rig(|_| {});
    rig.task.abort();
    let (near, far) = tokio::io::duplex(4096);
    let opened = crate::edge::connection::Opened {
        io: near,
        peer: None,
        response: b"\x81\x01".iter().chain(b"1").copied().collect(),
        already_read: Vec::new(),
        token: None,
        counted: None,
    };
    let mut connection = Connection::new(opened, rig.shared.admit().unwrap());
    rig.client.io = far;
    let talk = async {
        assert_eq!(rig.client.next().await, Got::Json(json!(1)));
        rig.client.hello("alice").await;
        rig.script.outlet("alice").push(message(1, "1")).unwrap();
        assert_eq!(rig.client.json().await["seq"], 1);
    };
    let mut talk = Box::pin(talk);
    let both = std::future::poll_fn(|cx| {
        assert!(Pin::new(&mut connection).poll(cx).is_pending());
        talk.as_mut().poll(cx)
    });
    timeout(PATIENCE, both).await.unwrap();
    assert_eq!(connection.heap_bytes(), 0);
}
