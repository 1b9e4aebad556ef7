//! What the server says.
//!
//! The owned structs are for clients and for the schemas. The functions that
//! start with `write_` are for the server: they append a frame to a buffer
//! without building anything first, because two of them run for every message.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    Address, CloseReason, DeviceId, ErrorCode, Limits, MessageId, Seq, TraceParent, UserId,
};

/// A frame from the server, as a client reads it.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum ServerFrame {
    /// Signed in.
    Welcome(Welcome),
    /// One tick.
    Accepted(Accepted),
    /// A message for this device.
    Message(Message),
    /// A conversation's watermarks.
    Receipt(Receipt),
    /// A frame was refused.
    Error(ErrorFrame),
    /// The connection is about to be closed.
    Bye(Bye),
    /// Answers a `ping`.
    Pong(Pong),
}

/// A user, named in an object so that other kinds of addressees fit later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Party {
    /// The user.
    pub user: UserId,
}

macro_rules! frame {
    ($(#[$doc:meta])* $name:ident $tag:literal { $($(#[$fdoc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(tag = "type", rename = $tag)]
        pub struct $name { $($(#[$fdoc])* pub $field: $type,)* }
    };
}

frame! {
    /// `welcome`: signed in; messages follow.
    Welcome "welcome" {
        /// Whom the token names.
        user: UserId,
        /// This device.
        device: DeviceId,
        /// The session, for support and logs.
        session: String,
        /// The server's clock, milliseconds since the Unix epoch.
        server_time_ms: u64,
        /// The server pings when it heard nothing for this long, and closes after three times this long.
        heartbeat_ms: u64,
        /// Messages waiting for this device.
        pending: u64,
        /// What may be sent.
        limits: Limits,
    }
}

frame! {
    /// `accepted`: on disk; the server will not lose it.
    Accepted "accepted" {
        /// The `send` it answers.
        id: MessageId,
        /// When the server took it, milliseconds since the Unix epoch.
        ts_ms: u64,
        /// The id had been accepted before; nothing was stored again.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        duplicate: bool,
        /// The send was ephemeral: passed on to whoever is connected, not stored.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        ephemeral: bool,
    }
}

frame! {
    /// `message`: acknowledge it by its `seq`.
    Message "message" {
        /// Place in this user's mailbox; 0 for an ephemeral message, which is not acknowledged.
        seq: Seq,
        /// Id chosen by the sending device.
        id: MessageId,
        /// Who sent it.
        from: Address,
        /// Present on a copy of what another device of this user sent: to whom.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Party>,
        /// When the server took it, milliseconds since the Unix epoch.
        ts_ms: u64,
        /// The body as the sender wrote it.
        #[cfg_attr(feature = "schema", schemars(with = "serde_json::Value"))]
        body: Box<RawValue>,
        /// It was, or after a crash of the server may have been, sent to this device before.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        redelivered: bool,
        /// Not stored; not sent again.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        ephemeral: bool,
        /// The server's span of this delivery, when it traces the message.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        traceparent: Option<TraceParent>,
    }
}

frame! {
    /// `receipt`: everything this user sent to `with`, up to these messages in the order of acceptance.
    Receipt "receipt" {
        /// Increases with each change of any of this user's receipts.
        rev: u64,
        /// The other user.
        with: UserId,
        /// Last message delivered to one of the other user's devices.
        delivered: Option<MessageId>,
        /// Last message the other user said was read.
        read: Option<MessageId>,
        /// When it last moved, milliseconds since the Unix epoch.
        ts_ms: u64,
    }
}

frame! {
    /// `error`: a frame was refused; nothing was changed by it.
    ErrorFrame "error" {
        /// Why.
        code: ErrorCode,
        /// For a developer; may change between versions.
        message: String,
        /// The `send` it answers.
        #[serde(rename = "ref")]
        reference: Option<MessageId>,
        /// When another try makes sense.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    }
}

frame! {
    /// `bye`: the server closes the connection.
    Bye "bye" {
        /// Why.
        reason: CloseReason,
        /// Not before this should the client connect again; absent: its own back-off, if the reason allows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    }
}

frame! {
    /// `pong`: answers a `ping`.
    Pong "pong" {
        /// What the `ping` carried.
        #[cfg_attr(feature = "schema", schemars(with = "serde_json::Value"))]
        #[serde(default = "null")]
        nonce: Box<RawValue>,
    }
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

impl ServerFrame {
    /// Reads a frame. `Ok(None)` for a type this version does not know: ignore it.
    ///
    /// # Errors
    /// When the text is not JSON or a field has the wrong form.
    pub fn decode(json: &str) -> Result<Option<Self>, serde_json::Error> {
        #[derive(Deserialize)]
        struct Tag<'a> {
            #[serde(borrow, rename = "type")]
            kind: std::borrow::Cow<'a, str>,
        }
        let tag: Tag<'_> = serde_json::from_str(json)?;
        Ok(Some(match &*tag.kind {
            "message" => Self::Message(serde_json::from_str(json)?),
            "accepted" => Self::Accepted(serde_json::from_str(json)?),
            "receipt" => Self::Receipt(serde_json::from_str(json)?),
            "error" => Self::Error(serde_json::from_str(json)?),
            "pong" => Self::Pong(serde_json::from_str(json)?),
            "welcome" => Self::Welcome(serde_json::from_str(json)?),
            "bye" => Self::Bye(serde_json::from_str(json)?),
            _ => return Ok(None),
        }))
    }
}

/// What [`write_message`] writes.
#[derive(Debug, Clone, Copy)]
pub struct MessageParts<'a> {
    /// See [`Message::seq`].
    pub seq: Seq,
    /// See [`Message::id`].
    pub id: MessageId,
    /// See [`Message::from`].
    pub from: &'a Address,
    /// See [`Message::to`].
    pub to: Option<&'a UserId>,
    /// See [`Message::ts_ms`].
    pub ts_ms: u64,
    /// JSON text; the caller vouches for it.
    pub body: &'a [u8],
    /// See [`Message::redelivered`].
    pub redelivered: bool,
    /// See [`Message::ephemeral`].
    pub ephemeral: bool,
    /// See [`Message::traceparent`].
    pub traceparent: Option<TraceParent>,
}

// Names and ids consist of characters that JSON does not escape (`ids` module),
// so they are written as they are.
fn put_number(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

fn put_id(out: &mut Vec<u8>, id: MessageId) {
    out.push(b'"');
    out.extend_from_slice(id.encode(&mut [0; 36]).as_bytes());
    out.push(b'"');
}

fn put_id_or_null(out: &mut Vec<u8>, id: Option<MessageId>) {
    match id {
        Some(id) => put_id(out, id),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends a `message` frame.
pub fn write_message(out: &mut Vec<u8>, parts: &MessageParts<'_>) {
    out.reserve(parts.body.len() + 320);
    out.extend_from_slice(br#"{"type":"message","seq":"#);
    put_number(out, parts.seq);
    out.extend_from_slice(br#","id":"#);
    put_id(out, parts.id);
    out.extend_from_slice(br#","from":{"user":""#);
    out.extend_from_slice(parts.from.user.as_str().as_bytes());
    out.extend_from_slice(br#"","device":""#);
    out.extend_from_slice(parts.from.device.as_str().as_bytes());
    out.extend_from_slice(br#""}"#);
    if let Some(to) = parts.to {
        out.extend_from_slice(br#","to":{"user":""#);
        out.extend_from_slice(to.as_str().as_bytes());
        out.extend_from_slice(br#""}"#);
    }
    out.extend_from_slice(br#","ts_ms":"#);
    put_number(out, parts.ts_ms);
    out.extend_from_slice(br#","body":"#);
    out.extend_from_slice(parts.body);
    if parts.redelivered {
        out.extend_from_slice(br#","redelivered":true"#);
    }
    if parts.ephemeral {
        out.extend_from_slice(br#","ephemeral":true"#);
    }
    if let Some(traceparent) = parts.traceparent {
        put_traceparent(out, traceparent);
    }
    out.push(b'}');
}

/// Apart from the rest: few messages are traced.
#[cold]
fn put_traceparent(out: &mut Vec<u8>, traceparent: TraceParent) {
    out.extend_from_slice(format!(r#","traceparent":"{traceparent}""#).as_bytes());
}

/// Appends an `accepted` frame.
pub fn write_accepted(out: &mut Vec<u8>, frame: &Accepted) {
    out.extend_from_slice(br#"{"type":"accepted","id":"#);
    put_id(out, frame.id);
    out.extend_from_slice(br#","ts_ms":"#);
    put_number(out, frame.ts_ms);
    if frame.duplicate {
        out.extend_from_slice(br#","duplicate":true"#);
    }
    if frame.ephemeral {
        out.extend_from_slice(br#","ephemeral":true"#);
    }
    out.push(b'}');
}

/// Appends a `receipt` frame.
pub fn write_receipt(out: &mut Vec<u8>, frame: &Receipt) {
    out.extend_from_slice(br#"{"type":"receipt","rev":"#);
    put_number(out, frame.rev);
    out.extend_from_slice(br#","with":""#);
    out.extend_from_slice(frame.with.as_str().as_bytes());
    out.extend_from_slice(br#"","delivered":"#);
    put_id_or_null(out, frame.delivered);
    out.extend_from_slice(br#","read":"#);
    put_id_or_null(out, frame.read);
    out.extend_from_slice(br#","ts_ms":"#);
    put_number(out, frame.ts_ms);
    out.push(b'}');
}

/// Appends any frame; for those that are not on the hot path.
pub fn write_frame(out: &mut Vec<u8>, frame: &ServerFrame) {
    serde_json::to_writer(out, frame).expect("frames have string keys and a Vec takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> MessageId {
        MessageId::parse("0190163d-8694-739b-aea5-966c26f8ad91").unwrap()
    }

    /// The hand-written encoders and the derived ones say the same.
    #[test]
    fn hand_written_frames_equal_derived_ones() {
        let from = Address {
            user: UserId::new("a+b").unwrap(),
            device: DeviceId::new("Phone").unwrap(),
        };
        let to = UserId::new("bob").unwrap();
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let traceparent = TraceParent::parse(traceparent).unwrap();
        for redelivered in [false, true] {
            for to in [None, Some(&to)] {
                let mut out = Vec::new();
                write_message(
                    &mut out,
                    &MessageParts {
                        seq: 7,
                        id: id(),
                        from: &from,
                        to,
                        ts_ms: 9,
                        body: br#"{"x":"\u00e4"}"#,
                        redelivered,
                        ephemeral: false,
                        traceparent: redelivered.then_some(traceparent),
                    },
                );
                let text = String::from_utf8(out).unwrap();
                let Some(frame) = ServerFrame::decode(&text).unwrap() else {
                    panic!("unknown type");
                };
                assert_eq!(text.contains("traceparent"), redelivered);
                let mut derived = Vec::new();
                write_frame(&mut derived, &frame);
                assert_eq!(
                    serde_json::from_str::<serde_json::Value>(&text).unwrap(),
                    serde_json::from_slice::<serde_json::Value>(&derived).unwrap()
                );
            }
        }
        let accepted = Accepted {
            id: id(),
            ts_ms: 3,
            duplicate: true,
            ephemeral: false,
        };
        let mut out = Vec::new();
        write_accepted(&mut out, &accepted);
        assert_eq!(out, serde_json::to_vec(&accepted).unwrap());
        let receipt = Receipt {
            rev: 4,
            with: to,
            delivered: Some(id()),
            read: None,
            ts_ms: 5,
        };
        let mut out = Vec::new();
        write_receipt(&mut out, &receipt);
        assert_eq!(out, serde_json::to_vec(&receipt).unwrap());
    }

    #[test]
    fn unknown_types_are_skipped() {
        assert!(
            ServerFrame::decode(r#"{"type":"later"}"#)
                .unwrap()
                .is_none()
        );
        assert!(ServerFrame::decode("{}").is_err());
    }
}
