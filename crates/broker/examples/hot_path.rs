//! The life of a message without sockets, threads and disk, for `cargo xtask bench guard` to count the
//! instructions of: a `send` is decoded, decided on, put into a journal batch in memory, accepted,
//! delivered, and acknowledged.
//!
//! One thread, no clock, no randomness: the same program counts the same every time. Scheduling, inboxes
//! and system calls are not in it; `cargo xtask bench relay` measures those.

use std::hint::black_box;

use bytes::Bytes;
use stonechat_delivery::{Effect, Feed, FeedLimits, FeedStart, Outbound, Outcome, SendDecision};
use stonechat_mailbox::{Envelope, guard};
use stonechat_protocol::{
    Accepted, Address, ClientFrame, ClientFrameKind, DeviceId, Limits, MessageId, MessageParts,
    UserId, write_accepted, write_message,
};
use stonechat_trace::TraceRef;

const BODY_BYTES: usize = 198;
const TS_MS: u64 = 1_700_000_000_000;
/// Greater than any pause between two acknowledgements here.
const WINDOW_BYTES: u32 = 1 << 20;

/// Both ends of one conversation, as the server sees them.
struct Conversation {
    limits: Limits,
    from: Address,
    outbound: Outbound,
    feed: Feed,
    batch: Vec<u8>,
    wire: Vec<u8>,
    seq: u64,
    lsn: u64,
}

fn main() {
    let messages = std::env::args().nth(1).and_then(|n| n.parse().ok());
    let messages: u64 = messages.unwrap_or(1_000);
    let mut conversation = Conversation {
        limits: Limits::default(),
        from: Address {
            user: UserId::new("alice").expect("a valid name"),
            device: DeviceId::new("phone").expect("a valid name"),
        },
        outbound: Outbound::default(),
        feed: Feed::new(
            FeedStart {
                cursor: 0,
                sent: 0,
                last_seq: 0,
            },
            FeedLimits {
                window_messages_max: 256,
                window_bytes_max: WINDOW_BYTES,
            },
        ),
        batch: Vec::with_capacity(4096),
        wire: Vec::with_capacity(4096),
        seq: 0,
        lsn: 0,
    };
    let body = "x".repeat(BODY_BYTES);
    let frames: Vec<(String, String)> = (1..=messages)
        .map(|n| {
            // A UUIDv7 whose time goes on by a millisecond each.
            let bits = u128::from(TS_MS + n) << 80 | 7 << 76 | 2 << 62 | u128::from(n);
            let id = MessageId::from_u128(bits);
            let send =
                format!(r#"{{"type":"send","id":"{id}","to":{{"user":"bob"}},"body":"{body}"}}"#);
            (send, format!(r#"{{"type":"ack","seq":{n}}}"#))
        })
        .collect();
    for (send, ack) in &frames {
        one_message(&mut conversation, send, ack);
    }
    assert_eq!(
        conversation.feed.cursor(),
        messages,
        "all were acknowledged"
    );
}

#[inline(never)]
fn one_message(conversation: &mut Conversation, send: &str, ack: &str) {
    let envelope = stage_decode(conversation, send);
    stage_submit(conversation, envelope.id);
    stage_journal(conversation, &envelope);
    stage_accept(conversation, envelope.id);
    stage_deliver(conversation, &envelope);
    stage_ack(conversation, ack);
}

#[inline(never)]
fn stage_decode(conversation: &Conversation, text: &str) -> Envelope {
    let frame = ClientFrame::decode(black_box(text), &conversation.limits);
    let ClientFrameKind::Send(send) = frame.expect("a good frame").kind else {
        panic!("it is a send");
    };
    Envelope {
        from: conversation.from.clone(),
        to: send.to,
        id: send.id,
        ts_ms: TS_MS,
        expires_ms: TS_MS + 1_000_000,
        body: Bytes::copy_from_slice(send.body.as_bytes()),
        trace: TraceRef::default(),
    }
}

#[inline(never)]
fn stage_submit(conversation: &mut Conversation, id: MessageId) {
    let decision = conversation.outbound.submit(black_box(id));
    assert_eq!(decision, SendDecision::Fresh);
}

#[inline(never)]
fn stage_journal(conversation: &mut Conversation, envelope: &Envelope) {
    conversation.seq += 1;
    let (seq, lsn) = (conversation.seq, conversation.lsn);
    guard::batch_of_one(&mut conversation.batch, envelope, seq, lsn);
    conversation.lsn += black_box(&conversation.batch).len() as u64;
}

#[inline(never)]
fn stage_accept(conversation: &mut Conversation, id: MessageId) {
    for answer in conversation.outbound.committed(id, TS_MS) {
        let Outcome::Accepted { ts_ms, duplicate } = answer.outcome else {
            panic!("it was accepted");
        };
        let accepted = Accepted {
            id: answer.id,
            ts_ms,
            duplicate,
            ephemeral: false,
        };
        conversation.wire.clear();
        write_accepted(&mut conversation.wire, &accepted);
        black_box(&conversation.wire);
    }
}

#[inline(never)]
fn stage_deliver(conversation: &mut Conversation, envelope: &Envelope) {
    let seq = conversation.seq;
    let size = envelope.body.len() as u32;
    for effect in conversation.feed.committed(seq - 1, seq, size, false) {
        let Effect::Deliver { seq, redelivered } = effect else {
            panic!("it is delivered live");
        };
        let parts = MessageParts {
            seq,
            id: envelope.id,
            from: &envelope.from,
            to: None,
            ts_ms: envelope.ts_ms,
            body: &envelope.body,
            redelivered,
            ephemeral: false,
            traceparent: None,
        };
        conversation.wire.clear();
        write_message(&mut conversation.wire, &parts);
        black_box(&conversation.wire);
    }
}

#[inline(never)]
fn stage_ack(conversation: &mut Conversation, text: &str) {
    let frame = ClientFrame::decode(black_box(text), &conversation.limits);
    let ack = frame.expect("a good frame").ack;
    let step = conversation.feed.ack(ack.expect("it acknowledges"));
    assert!(step.expect("it was sent").cursor.is_some());
}
