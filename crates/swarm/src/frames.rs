//! The frames of the protocol as the engine needs them: read in place, written into a buffer.
//!
//! Fields the engine has no use for are not looked at. What does not fit is an error: a load test
//! that ignored it would report a broken server as a fast one.

use stonechat_protocol::MessageId;

use crate::mark::Mark;
use crate::roster::Roster;
use crate::scan::{Fields, NotAnObject, number, plain_string};
use crate::websocket::{opcode, write_masked};

/// A frame of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    Welcome {
        heartbeat_ms: u64,
        pending: u64,
        unacked_max: u64,
    },
    Accepted {
        id: MessageId,
        duplicate: bool,
    },
    Message(MessageFrame<'a>),
    Receipt {
        rev: u64,
        with: &'a [u8],
        delivered: Option<MessageId>,
        read: Option<MessageId>,
    },
    Error {
        code: &'a str,
        reference: Option<MessageId>,
        retry_after_ms: Option<u64>,
    },
    Bye {
        reason: &'a str,
        retry_after_ms: Option<u64>,
    },
    Pong,
    Unknown,
}

/// A `message` frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MessageFrame<'a> {
    pub(crate) seq: u64,
    pub(crate) id: MessageId,
    pub(crate) body: &'a [u8],
    /// As they stand; see [`user_and_device`].
    pub(crate) from: &'a [u8],
    pub(crate) to: &'a [u8],
    pub(crate) redelivered: bool,
    pub(crate) ephemeral: bool,
}

/// The text is not a frame of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadFrame;

impl From<NotAnObject> for BadFrame {
    fn from(_: NotAnObject) -> Self {
        Self
    }
}

#[derive(Default)]
struct Raw<'a> {
    kind: &'a [u8],
    id: &'a [u8],
    seq: &'a [u8],
    body: &'a [u8],
    from: &'a [u8],
    to: &'a [u8],
    rev: &'a [u8],
    with: &'a [u8],
    delivered: &'a [u8],
    read: &'a [u8],
    duplicate: &'a [u8],
    redelivered: &'a [u8],
    ephemeral: &'a [u8],
    code: &'a [u8],
    reference: &'a [u8],
    reason: &'a [u8],
    retry_after_ms: &'a [u8],
    heartbeat_ms: &'a [u8],
    pending: &'a [u8],
    limits: &'a [u8],
}

/// Reads a frame.
pub(crate) fn read(text: &[u8]) -> Result<Frame<'_>, BadFrame> {
    let mut raw = Raw::default();
    let mut fields = Fields::new(text)?;
    while let Some((name, value)) = fields.next()? {
        let field = match name {
            b"type" => &mut raw.kind,
            b"id" => &mut raw.id,
            b"seq" => &mut raw.seq,
            b"body" => &mut raw.body,
            b"from" => &mut raw.from,
            b"to" => &mut raw.to,
            b"rev" => &mut raw.rev,
            b"with" => &mut raw.with,
            b"delivered" => &mut raw.delivered,
            b"read" => &mut raw.read,
            b"duplicate" => &mut raw.duplicate,
            b"redelivered" => &mut raw.redelivered,
            b"ephemeral" => &mut raw.ephemeral,
            b"code" => &mut raw.code,
            b"ref" => &mut raw.reference,
            b"reason" => &mut raw.reason,
            b"retry_after_ms" => &mut raw.retry_after_ms,
            b"heartbeat_ms" => &mut raw.heartbeat_ms,
            b"pending" => &mut raw.pending,
            b"limits" => &mut raw.limits,
            _ => continue,
        };
        *field = value;
    }
    Ok(match plain_string(raw.kind).ok_or(BadFrame)? {
        b"message" => Frame::Message(MessageFrame {
            seq: number(raw.seq).ok_or(BadFrame)?,
            id: id(raw.id)?,
            body: (!raw.body.is_empty()).then_some(raw.body).ok_or(BadFrame)?,
            from: raw.from,
            to: raw.to,
            redelivered: flag(raw.redelivered)?,
            ephemeral: flag(raw.ephemeral)?,
        }),
        b"accepted" => Frame::Accepted {
            id: id(raw.id)?,
            duplicate: flag(raw.duplicate)?,
        },
        b"receipt" => Frame::Receipt {
            rev: number(raw.rev).ok_or(BadFrame)?,
            with: plain_string(raw.with).ok_or(BadFrame)?,
            delivered: id_or_null(raw.delivered)?,
            read: id_or_null(raw.read)?,
        },
        b"error" => Frame::Error {
            code: word(raw.code)?,
            reference: id_or_null(raw.reference)?,
            retry_after_ms: number(raw.retry_after_ms),
        },
        b"bye" => Frame::Bye {
            reason: word(raw.reason)?,
            retry_after_ms: number(raw.retry_after_ms),
        },
        b"pong" => Frame::Pong,
        b"welcome" => Frame::Welcome {
            heartbeat_ms: number(raw.heartbeat_ms).ok_or(BadFrame)?,
            pending: number(raw.pending).ok_or(BadFrame)?,
            unacked_max: unacked_max(raw.limits)?,
        },
        _ => Frame::Unknown,
    })
}

fn unacked_max(limits: &[u8]) -> Result<u64, BadFrame> {
    let mut fields = Fields::new(limits)?;
    while let Some((name, value)) = fields.next()? {
        if name == b"unacked_max" {
            return number(value).ok_or(BadFrame);
        }
    }
    Err(BadFrame)
}

/// User and device named in a `from` or `to` object; empty where there is none.
pub(crate) fn user_and_device(value: &[u8]) -> (&[u8], &[u8]) {
    let (mut user, mut device): (&[u8], &[u8]) = (b"", b"");
    if let Ok(mut fields) = Fields::new(value) {
        while let Ok(Some((name, value))) = fields.next() {
            match name {
                b"user" => user = plain_string(value).unwrap_or_default(),
                b"device" => device = plain_string(value).unwrap_or_default(),
                _ => {}
            }
        }
    }
    (user, device)
}

fn id(value: &[u8]) -> Result<MessageId, BadFrame> {
    MessageId::parse(word(value)?).map_err(|_| BadFrame)
}

fn id_or_null(value: &[u8]) -> Result<Option<MessageId>, BadFrame> {
    if value == b"null" {
        return Ok(None);
    }
    id(value).map(Some)
}

fn word(value: &[u8]) -> Result<&str, BadFrame> {
    std::str::from_utf8(plain_string(value).ok_or(BadFrame)?).map_err(|_| BadFrame)
}

/// Absent counts as false.
fn flag(value: &[u8]) -> Result<bool, BadFrame> {
    match value {
        b"" | b"false" => Ok(false),
        b"true" => Ok(true),
        _ => Err(BadFrame),
    }
}

/// What rides on a frame.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Riding {
    pub(crate) ack: Option<u64>,
    pub(crate) rev: Option<u64>,
}

fn put_number(out: &mut Vec<u8>, name: &[u8], n: u64) {
    out.extend_from_slice(name);
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

impl Riding {
    fn put(self, out: &mut Vec<u8>) {
        if let Some(ack) = self.ack {
            put_number(out, br#","ack":"#, ack);
        }
        if let Some(rev) = self.rev {
            put_number(out, br#","rev":"#, rev);
        }
    }
}

/// Appends `hello`.
pub(crate) fn write_hello(out: &mut Vec<u8>, roster: &Roster, user: u32, riding: Riding) {
    write_masked(out, opcode::TEXT, |out| {
        out.extend_from_slice(br#"{"type":"hello","token":""#);
        out.extend_from_slice(roster.token(user).as_bytes());
        out.extend_from_slice(br#"","device":""#);
        roster.put_device(out, user);
        out.push(b'"');
        riding.put(out);
        out.push(b'}');
    });
}

/// Appends `send`. The body comes last.
pub(crate) fn write_send(
    out: &mut Vec<u8>,
    roster: &Roster,
    id: MessageId,
    to: u32,
    (mark, body_bytes): (Mark, usize),
    riding: Riding,
) {
    write_masked(out, opcode::TEXT, |out| {
        out.extend_from_slice(br#"{"type":"send","id":""#);
        out.extend_from_slice(id.encode(&mut [0; 36]).as_bytes());
        out.extend_from_slice(br#"","to":{"user":""#);
        roster.put_name(out, to);
        out.extend_from_slice(br#""}"#);
        riding.put(out);
        out.extend_from_slice(br#","body":"#);
        mark.write(out, body_bytes, to, id);
        out.push(b'}');
    });
}

/// Appends `ack`.
pub(crate) fn write_ack(out: &mut Vec<u8>, seq: u64, rev: Option<u64>) {
    write_masked(out, opcode::TEXT, |out| {
        put_number(out, br#"{"type":"ack","seq":"#, seq);
        Riding { ack: None, rev }.put(out);
        out.push(b'}');
    });
}

/// Appends `read`.
pub(crate) fn write_read(out: &mut Vec<u8>, roster: &Roster, from: u32, id: MessageId) {
    write_masked(out, opcode::TEXT, |out| {
        out.extend_from_slice(br#"{"type":"read","from":""#);
        roster.put_name(out, from);
        out.extend_from_slice(br#"","id":""#);
        out.extend_from_slice(id.encode(&mut [0; 36]).as_bytes());
        out.extend_from_slice(br#""}"#);
    });
}

/// Appends `ping`.
pub(crate) fn write_ping(out: &mut Vec<u8>) {
    write_masked(out, opcode::TEXT, |out| {
        out.extend_from_slice(br#"{"type":"ping"}"#);
    });
}

#[cfg(test)]
mod tests {
    use stonechat_protocol::{ClientFrame, Limits, ServerFrame};

    use super::*;

    fn an_id() -> MessageId {
        MessageId::parse("0190163d-8694-739b-aea5-966c26f8ad91").unwrap()
    }

    fn payload(frame: &[u8]) -> &str {
        let header = crate::websocket::read_header(frame).unwrap();
        std::str::from_utf8(&frame[header.head_bytes..]).unwrap()
    }

    /// Each example of the server's frames in docs/protocol.md is understood as the protocol crate does.
    #[test]
    fn frames_of_the_protocol_page_are_read_as_the_protocol_crate_reads_them() {
        let page = include_str!("../../../docs/protocol.md");
        let mut seen = 0;
        for line in page.lines() {
            let text = line.split_once("< ").map_or(line, |(_, text)| text);
            if !text.starts_with("{\"type\":") {
                continue;
            }
            // Frames of clients, which are on the page too, are of types a client does not know.
            let Ok(Some(frame)) = ServerFrame::decode(text) else {
                continue;
            };
            seen += 1;
            let read = read(text.as_bytes()).unwrap();
            match (frame, read) {
                (
                    ServerFrame::Welcome(a),
                    Frame::Welcome {
                        heartbeat_ms,
                        pending,
                        unacked_max,
                    },
                ) => {
                    assert_eq!((a.heartbeat_ms, a.pending), (heartbeat_ms, pending));
                    assert_eq!(a.limits.unacked_max as u64, unacked_max);
                }
                (ServerFrame::Accepted(a), Frame::Accepted { id, duplicate }) => {
                    assert_eq!((a.id, a.duplicate), (id, duplicate));
                }
                (ServerFrame::Message(a), Frame::Message(b)) => {
                    assert_eq!((a.seq, a.id), (b.seq, b.id));
                    assert_eq!(a.body.get().as_bytes(), b.body);
                    assert_eq!((a.redelivered, a.ephemeral), (b.redelivered, b.ephemeral));
                    let from = user_and_device(b.from);
                    assert_eq!(a.from.user.as_str().as_bytes(), from.0);
                    assert_eq!(a.from.device.as_str().as_bytes(), from.1);
                    let to = a.to.map(|to| to.user.as_str().as_bytes().to_vec());
                    assert_eq!(to.unwrap_or_default(), user_and_device(b.to).0);
                }
                (
                    ServerFrame::Receipt(a),
                    Frame::Receipt {
                        rev,
                        with,
                        delivered,
                        read,
                    },
                ) => {
                    assert_eq!((a.rev, a.delivered, a.read), (rev, delivered, read));
                    assert_eq!(a.with.as_str().as_bytes(), with);
                }
                (
                    ServerFrame::Error(a),
                    Frame::Error {
                        reference,
                        retry_after_ms,
                        ..
                    },
                ) => {
                    assert_eq!((a.reference, a.retry_after_ms), (reference, retry_after_ms));
                }
                (ServerFrame::Bye(a), Frame::Bye { retry_after_ms, .. }) => {
                    assert_eq!(a.retry_after_ms, retry_after_ms);
                }
                (ServerFrame::Pong(_), Frame::Pong) => {}
                (a, b) => panic!("{text}: {a:?} is not {b:?}"),
            }
        }
        assert!(seen > 15, "the page has examples: {seen}");
    }

    #[test]
    fn frames_written_are_frames_of_the_protocol() {
        let roster = Roster::new("user", "phone", ["secret".to_owned()]);
        let riding = Riding {
            ack: Some(7),
            rev: Some(9),
        };
        let mark = Mark {
            sender: 1,
            number: 2,
            at_us: 3,
        };
        let mut out = Vec::new();
        write_send(&mut out, &roster, an_id(), 12, (mark, 200), riding);
        let text = payload(&out).to_owned();
        let frame = ClientFrame::decode(&text, &Limits::default()).unwrap();
        assert_eq!((frame.ack, frame.rev), (Some(7), Some(9)));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["to"]["user"], "user12");
        assert_eq!(value["id"], an_id().to_string());
        assert_eq!(value["body"].as_str().unwrap().len(), 198);
        for write in [
            |out: &mut Vec<u8>, roster: &Roster| write_hello(out, roster, 0, Riding::default()),
            |out: &mut Vec<u8>, _: &Roster| write_ack(out, 4, Some(1)),
            |out: &mut Vec<u8>, roster: &Roster| write_read(out, roster, 3, an_id()),
            |out: &mut Vec<u8>, _: &Roster| write_ping(out),
        ] {
            let mut out = Vec::new();
            write(&mut out, &roster);
            let text = payload(&out);
            assert!(
                ClientFrame::decode(text, &Limits::default()).is_ok(),
                "{text}"
            );
        }
    }

    #[test]
    fn what_lacks_a_field_is_refused() {
        for bad in [
            r#"{"type":"message","seq":1,"body":1}"#,
            r#"{"type":"message","seq":-1,"id":"0190163d-8694-739b-aea5-966c26f8ad91","body":1}"#,
            r#"{"type":"accepted"}"#,
            r#"{"type":"receipt","rev":1,"with":"a"}"#,
            r#"{"kind":"pong"}"#,
            "[]",
        ] {
            assert_eq!(read(bad.as_bytes()), Err(BadFrame), "{bad}");
        }
        assert_eq!(read(br#"{"type":"later"}"#), Ok(Frame::Unknown));
    }
}
