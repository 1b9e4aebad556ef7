//! Single decisions of the engine, one by one. Time is a number here.

mod connection;
mod exchange;

use stonechat_protocol::{CloseReason, ErrorCode};

use super::*;
use crate::error::DisconnectCause;

pub(super) fn setup() -> Setup {
    Setup {
        device: DeviceId::new("phone").unwrap(),
        client_name: "test/1".to_owned(),
        tuning: Tuning::default(),
        fresh_tokens: false,
    }
}

fn welcome_with(limits: &str) -> String {
    format!(
        r#"{{"type":"welcome","user":"alice","device":"phone","session":"s","server_time_ms":1,"heartbeat_ms":1000,"pending":0,"limits":{limits}}}"#
    )
}

pub(super) fn welcome() -> String {
    welcome_with(&serde_json::to_string(&Limits::default()).unwrap())
}

fn fresh(setup: Setup) -> Engine {
    Engine::new(setup, ResumeState::default(), 7)
}

pub(super) fn sign_in(engine: &mut Engine, now_ms: u64) -> String {
    assert_eq!(engine.step(now_ms), Step::Connect);
    engine.connected("t", now_ms);
    let hello = text(engine, now_ms);
    assert_eq!(engine.transmit(now_ms), None, "nothing before welcome");
    engine.received(&welcome(), now_ms);
    assert!(engine.is_online());
    hello
}

fn online() -> Engine {
    let mut engine = fresh(setup());
    sign_in(&mut engine, 0);
    assert!(matches!(engine.take_event(), Some(Event::Connected(_))));
    engine
}

fn text(engine: &mut Engine, now_ms: u64) -> String {
    match engine.transmit(now_ms) {
        Some(Transmit::Text(text)) => text,
        other => panic!("not a frame: {other:?}"),
    }
}

pub(super) fn bob() -> UserId {
    UserId::new("bob").unwrap()
}

pub(super) fn outgoing(body: &str) -> OutgoingSend {
    OutgoingSend {
        to: bob(),
        body: RawValue::from_string(body.to_owned()).unwrap(),
        ttl_s: None,
        ephemeral: false,
        traceparent: None,
    }
}

fn submit(engine: &mut Engine, body: &str) -> MessageId {
    engine.submit(outgoing(body), None, 1_000).unwrap()
}

fn accepted(id: MessageId) -> String {
    format!(r#"{{"type":"accepted","id":"{id}","ts_ms":5}}"#)
}

fn error(code: &str, id: MessageId, retry_after_ms: u64) -> String {
    format!(
        r#"{{"type":"error","code":"{code}","message":"m","ref":"{id}","retry_after_ms":{retry_after_ms}}}"#
    )
}

pub(super) fn message(seq: Seq) -> String {
    format!(
        r#"{{"type":"message","seq":{seq},"id":"0190163d-8694-739b-aea5-966c26f8ad91","from":{{"user":"bob","device":"d"}},"ts_ms":1,"body":{seq}}}"#
    )
}

fn receipt(rev: u64, with: &str) -> String {
    format!(
        r#"{{"type":"receipt","rev":{rev},"with":"{with}","delivered":null,"read":null,"ts_ms":1}}"#
    )
}

fn take_seq(engine: &mut Engine) -> Option<Seq> {
    match engine.take_event() {
        Some(Event::Message(message)) => Some(message.seq),
        None => None,
        other => panic!("not a message: {other:?}"),
    }
}
