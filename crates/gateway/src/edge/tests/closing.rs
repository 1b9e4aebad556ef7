//! How connections end: each reason, with its code, and never without a word
//! where a word can be had.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use stonechat_broker::{Closed, Event, OutletLimits};
use stonechat_protocol::{CloseReason, ErrorCode, ErrorFrame};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::conformance::frame;
use super::pipe::{Got, PATIENCE, Rig, rig, rig_with, until};

async fn signed_in() -> Rig {
    let mut rig = rig(|_| {});
    rig.client.hello("alice").await;
    rig
}

async fn ended(rig: Rig) {
    let Rig {
        client,
        script,
        shared,
        task,
    } = rig;
    // The server waits for the client's side to close.
    drop(client);
    timeout(PATIENCE, task)
        .await
        .expect("the task ends")
        .unwrap();
    assert_eq!(shared.connections(), 0);
    assert_eq!(
        script.detached.load(Ordering::SeqCst),
        script.outlets.lock().len()
    );
}

fn event(message: &str) -> Event {
    Event::Error(Box::new(ErrorFrame {
        code: ErrorCode::Internal,
        message: message.to_owned(),
        reference: None,
        retry_after_ms: None,
    }))
}

#[actix_rt::test]
async fn anything_before_hello_is_unauthorized() {
    let mut rig = rig(|_| {});
    rig.client.send("bob").await;
    rig.client.expect_error("unauthorized").await;
    rig.client.expect_bye("unauthorized", 4003).await;
    ended(rig).await;
}

#[actix_rt::test]
async fn a_hello_without_token_or_with_a_wrong_one_is_unauthorized() {
    for hello in [
        json!({"type": "hello", "device": "d1"}),
        json!({"type": "hello", "device": "d1", "token": "wrong!"}),
    ] {
        let mut rig = rig(|_| {});
        rig.client.say(hello).await;
        rig.client.expect_error("unauthorized").await;
        rig.client.expect_bye("unauthorized", 4003).await;
        ended(rig).await;
    }
}

#[actix_rt::test]
async fn a_hello_that_is_malformed_may_be_mended() {
    let mut rig = rig(|_| {});
    rig.client
        .say(json!({"type": "hello", "device": "no spaces", "token": "alice"}))
        .await;
    rig.client.expect_error("bad_frame").await;
    rig.client.hello("alice").await;
}

#[actix_rt::test]
async fn too_many_devices_is_said_so() {
    let mut rig = rig(|_| {});
    rig.client
        .say(json!({"type": "hello", "device": "d1", "token": "crowd!"}))
        .await;
    rig.client.expect_error("too_many_devices").await;
    rig.client.expect_bye("too_many_devices", 4007).await;
    ended(rig).await;
}

#[actix_rt::test]
async fn no_hello_in_time() {
    let mut rig = rig(|config| config.auth_deadline_ms = 30);
    rig.client.expect_bye("auth_timeout", 4002).await;
    ended(rig).await;
}

#[actix_rt::test]
async fn a_sign_in_that_hangs() {
    let mut rig = rig(|config| config.auth_deadline_ms = 2_000);
    rig.client
        .say(json!({"type": "hello", "device": "d1", "token": "hang!"}))
        .await;
    let bye = rig.client.expect_bye("overloaded", 1013).await;
    assert!(bye["retry_after_ms"].is_u64());
    ended(rig).await;
}

#[actix_rt::test]
async fn breaches_of_the_websocket_protocol() {
    for (bytes, reason, code) in [
        (frame(0xc1, b"x"), "protocol_error", 1002),
        (frame(0x82, b"x"), "unsupported_data", 1003),
        (frame(0x81, b"\xff"), "invalid_utf8", 1007),
        (
            frame(0x81, &vec![b' '; 73 * 1024])[..100].to_vec(),
            "too_large",
            1009,
        ),
    ] {
        let mut rig = signed_in().await;
        rig.client.write(&bytes).await;
        rig.client.expect_bye(reason, code).await;
        ended(rig).await;
    }
}

#[actix_rt::test]
async fn refused_frames_in_a_row() {
    let mut rig = signed_in().await;
    for _ in 0..32 {
        rig.client.write(&frame(0x81, b"[]")).await;
        rig.client.expect_error("bad_frame").await;
    }
    rig.client.expect_bye("too_many_errors", 1008).await;
    ended(rig).await;
}

#[actix_rt::test]
async fn silence() {
    let mut rig = rig(|config| config.heartbeat_ms = 30);
    rig.client.hello("alice").await;
    assert_eq!(rig.client.next().await, Got::Ping);
    assert_eq!(rig.client.next().await, Got::Ping);
    rig.client.expect_bye("heartbeat_timeout", 4005).await;
    ended(rig).await;
}

#[actix_rt::test]
async fn half_a_frame_now_and_then_is_silence() {
    let mut rig = rig(|config| config.heartbeat_ms = 30);
    rig.client.hello("alice").await;
    let mut bytes = frame(0x81, &[b' '; 5_000]).into_iter();
    loop {
        rig.client
            .write(&[bytes.next().expect("given up long before")])
            .await;
        match timeout(Duration::from_millis(5), rig.client.next()).await {
            Err(_) | Ok(Got::Ping) => {}
            Ok(Got::Json(bye)) => {
                assert_eq!(bye["reason"], "heartbeat_timeout");
                break;
            }
            Ok(other) => panic!("{other:?}"),
        }
    }
}

#[actix_rt::test]
async fn the_session_closes_after_what_it_had_to_say() {
    let mut rig = signed_in().await;
    let outlet = rig.script.outlet("alice");
    outlet.push(event("last words")).unwrap();
    outlet.close(CloseReason::Shutdown, Some(250));
    assert_eq!(rig.client.json().await["message"], "last words");
    let bye = rig.client.expect_bye("shutdown", 1001).await;
    assert_eq!(bye["retry_after_ms"], 250);
    ended(rig).await;
}

#[actix_rt::test]
async fn a_session_that_is_too_busy_or_gone() {
    for (to, reason, code) in [("busy", "overloaded", 1013), ("gone", "internal", 1011)] {
        let mut rig = signed_in().await;
        rig.client.send(to).await;
        // Nobody is there to answer the send; it is sent again after a reconnect.
        rig.client.expect_bye(reason, code).await;
        ended(rig).await;
    }
}

#[actix_rt::test]
async fn a_client_that_does_not_read_is_given_up() {
    let mut rig = rig_with(|config| config.write_deadline_ms = 100, 512, |_| {});
    rig.client.hello("alice").await;
    let outlet = rig.script.outlet("alice");
    for _ in 0..20 {
        outlet.push(event(&"x".repeat(500))).unwrap();
    }
    until("giving up", || {
        rig.script.detached.load(Ordering::SeqCst) == 1
    })
    .await;
    assert_eq!(outlet.push(event("")), Err(Closed));
    ended(rig).await;
}

#[actix_rt::test]
async fn the_session_closes_a_client_that_does_not_read() {
    // Longer than a test may take: whoever waits for it does not end in time.
    let change = |config: &mut crate::edge::EdgeConfig| {
        config.write_deadline_ms = 600_000;
        config.heartbeat_ms = 600_000;
    };
    for (events, close_first) in [(1, false), (400, false), (400, true)] {
        let mut rig = rig_with(change, 512, |_| {});
        rig.client.hello("alice").await;
        let outlet = rig.script.outlet("alice");
        // More than the pipe holds; 400 of them also more than goes out in one batch.
        for _ in 0..events {
            outlet.push(event(&"x".repeat(1_000))).unwrap();
        }
        if close_first {
            outlet.close(CloseReason::Shutdown, Some(250));
        }
        // It has begun to write: the pipe is full then, and stays so.
        let mut first = [0];
        rig.client.io.read_exact(&mut first).await.unwrap();
        outlet.close(CloseReason::Shutdown, Some(250));
        until("the device is detached", || {
            rig.script.detached.load(Ordering::SeqCst) == 1
        })
        .await;
        ended(rig).await;
    }
}

#[actix_rt::test]
async fn a_client_that_reads_too_slowly_is_told_so() {
    let change = |config: &mut crate::edge::EdgeConfig| {
        config.outlet = OutletLimits {
            events_max: 4,
            bytes_max: 1 << 20,
        };
    };
    let mut rig = rig_with(change, 512, |_| {});
    rig.client.hello("alice").await;
    let outlet = rig.script.outlet("alice");
    let pushing = async {
        while outlet.push(event(&"x".repeat(500))).is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, pushing)
        .await
        .expect("the queue is bounded");
    let bye = loop {
        let frame = rig.client.json().await;
        if frame["type"] == "bye" {
            break frame;
        }
    };
    assert_eq!(bye["reason"], "slow_consumer");
    assert_eq!(
        rig.client.next().await,
        Got::Close(Some(4006), "slow_consumer".into())
    );
    drop(rig.client);
    timeout(PATIENCE, rig.task).await.unwrap().unwrap();
}

#[actix_rt::test]
async fn a_client_that_closes_gets_its_code_back() {
    for (payload, expected) in [
        (&b""[..], Got::Close(None, String::new())),
        (&b"\x03\xe8done"[..], Got::Close(Some(1000), String::new())),
    ] {
        let mut rig = signed_in().await;
        rig.client.write(&frame(0x88, payload)).await;
        assert_eq!(rig.client.next().await, expected);
        assert_eq!(rig.client.next().await, Got::End);
        ended(rig).await;
    }
}

#[actix_rt::test]
async fn a_client_that_vanishes_is_detached() {
    let Rig {
        client,
        script,
        shared,
        task,
    } = signed_in().await;
    drop(client);
    timeout(PATIENCE, task).await.unwrap().unwrap();
    assert_eq!(script.detached.load(Ordering::SeqCst), 1);
    assert_eq!(shared.connections(), 0);
}

#[actix_rt::test]
async fn a_goodbye_has_a_deadline_of_its_own() {
    let mut rig = rig_with(|config| config.write_deadline_ms = 100, 64, |_| {});
    // Says goodbye to a client that never reads it.
    rig.client.write(&frame(0x82, b"")).await;
    timeout(PATIENCE, &mut rig.task)
        .await
        .expect("the task ends")
        .unwrap();
    assert_eq!(rig.shared.connections(), 0);
}

#[actix_rt::test]
async fn a_panic_says_goodbye_and_goes_on_to_the_supervisor() {
    let mut rig = signed_in().await;
    rig.shared
        .fault
        .arm(Some(stonechat_protocol::UserId::new("bob").unwrap()), 1);
    rig.client.say(json!({"type": "ping"})).await;
    assert_eq!(rig.client.json().await["type"], "pong");
    rig.shared.fault.arm(None, 1);
    rig.client.say(json!({"type": "ping"})).await;
    assert_eq!(rig.client.json().await["type"], "pong");
    rig.client.expect_bye("internal", 1011).await;
    let outcome = timeout(PATIENCE, rig.task).await.unwrap();
    assert!(outcome.unwrap_err().is_panic());
    assert_eq!(rig.script.detached.load(Ordering::SeqCst), 1);
    assert_eq!(rig.shared.connections(), 0);
}
