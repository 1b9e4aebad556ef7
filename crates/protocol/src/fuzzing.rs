//! What a fuzzer does with a client frame. The test of this module replays the
//! committed corpus; `cargo xtask fuzz` looks for more. Not part of the server.

use serde_json::json;
use serde_json::value::RawValue;

use crate::{
    Address, ClientFrame, ClientFrameKind, DeviceId, ErrorCode, ErrorFrame, FrameError, Limits,
    MessageParts, Pong, ServerFrame, UserId, write_frame, write_message,
};

/// Longest text of an answer to a frame that was refused, in bytes.
const ERROR_TEXT_BYTES_MAX: usize = 256;

/// Text from a client: decoded, written again from what was understood, decoded again.
///
/// # Panics
/// When a property does not hold.
pub fn client_frame(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let limits = Limits {
        body_bytes_max: 512,
        ..Limits::default()
    };
    crate::fields::same_by_both_readers(text);
    match ClientFrame::decode(text, &limits) {
        Ok(frame) => {
            let again = encode(&frame);
            let second = ClientFrame::decode(&again, &limits)
                .unwrap_or_else(|error| panic!("{again} was understood before: {error}"));
            assert_eq!(again, encode(&second), "the second reading differs");
            passes_on(&frame);
        }
        Err(error) => refusal_is_bounded(error),
    }
}

/// The frame as a client would write it.
fn encode(frame: &ClientFrame<'_>) -> String {
    let mut value = match &frame.kind {
        ClientFrameKind::Hello {
            token,
            device,
            client,
        } => json!({"type": "hello", "token": token, "device": device, "client": client}),
        ClientFrameKind::Send(send) => json!({
            "type": "send", "id": send.id, "to": {"user": send.to},
            "ttl_s": send.ttl_s, "ephemeral": send.ephemeral, "traceparent": send.traceparent,
        }),
        ClientFrameKind::Ack => json!({"type": "ack", "seq": frame.ack}),
        ClientFrameKind::Read { from, id } => json!({"type": "read", "from": from, "id": id}),
        ClientFrameKind::Ping { .. } => json!({"type": "ping"}),
    };
    value["ack"] = json!(frame.ack);
    value["rev"] = json!(frame.rev);
    let mut text = value.to_string();
    // Byte for byte: a value would lose what only looks like a difference.
    let raw = match &frame.kind {
        ClientFrameKind::Send(send) => Some(("body", send.body)),
        ClientFrameKind::Ping { nonce } => nonce.map(|nonce| ("nonce", nonce.get())),
        _ => None,
    };
    if let Some((name, raw)) = raw {
        text.pop();
        text.push_str(&format!(r#","{name}":{raw}}}"#));
    }
    text
}

/// What clients choose freely is pasted into frames for others: it may not break them.
fn passes_on(frame: &ClientFrame<'_>) {
    let mut out = Vec::new();
    match &frame.kind {
        ClientFrameKind::Send(send) => {
            let from = Address {
                user: UserId::new("mallory").expect("a valid name"),
                device: DeviceId::new("phone").expect("a valid name"),
            };
            let parts = MessageParts {
                seq: 1,
                id: send.id,
                from: &from,
                to: Some(&send.to),
                ts_ms: 1,
                body: send.body.as_bytes(),
                redelivered: true,
                ephemeral: send.ephemeral,
                traceparent: send.traceparent.as_deref().copied(),
            };
            write_message(&mut out, &parts);
            same_field(&out, "body", send.body);
        }
        ClientFrameKind::Ping { nonce: Some(nonce) } => {
            let nonce = (*nonce).to_owned();
            write_frame(
                &mut out,
                &ServerFrame::Pong(Pong {
                    nonce: nonce.clone(),
                }),
            );
            same_field(&out, "nonce", nonce.get());
        }
        _ => {}
    }
}

fn same_field(frame: &[u8], name: &str, expected: &str) {
    type Fields<'a> = std::collections::BTreeMap<String, &'a RawValue>;
    let fields: Fields<'_> = serde_json::from_slice(frame).expect("a frame of ours is JSON");
    assert_eq!(fields[name].get(), expected);
}

fn refusal_is_bounded(error: FrameError) {
    let codes = [
        ErrorCode::BadFrame,
        ErrorCode::UnknownType,
        ErrorCode::TooLarge,
    ];
    assert!(codes.contains(&error.code), "{error}");
    let bytes = error.message.len();
    assert!(
        (1..=ERROR_TEXT_BYTES_MAX).contains(&bytes),
        "{bytes} bytes of explanation"
    );
    let mut out = Vec::new();
    let frame = ErrorFrame {
        code: error.code,
        message: error.message,
        reference: error.reference,
        retry_after_ms: None,
    };
    write_frame(&mut out, &ServerFrame::Error(frame));
    serde_json::from_slice::<serde_json::Value>(&out).expect("a frame of ours is JSON");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_holds() {
        let dir = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../fuzz/corpus/client_frame"
        );
        let mut count = 0;
        for entry in std::fs::read_dir(dir).expect("the corpus is committed") {
            client_frame(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 10, "{count} inputs only");
    }

    #[test]
    fn a_refusal_does_not_repeat_a_long_frame() {
        for long in [
            "x".repeat(60_000),
            "\u{1}".repeat(10_000),
            "ü".repeat(30_000),
        ] {
            client_frame(json!({"type": "ack", "seq": long}).to_string().as_bytes());
            client_frame(json!({"type": "send", "id": long}).to_string().as_bytes());
            client_frame(
                json!({"type": "ping", long: 1, "ack": -1})
                    .to_string()
                    .as_bytes(),
            );
        }
    }
}
