//! What a client says, read without copying.
//!
//! One pass over the text records where each known field stands (`fields`);
//! only the fields the frame's `type` asks for are then read. So a field that means nothing for this type is
//! ignored whatever it holds, and a body is never parsed beyond finding its end.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::fields::Fields;
use crate::{DeviceId, ErrorCode, Limits, MessageId, Seq, TraceParent, UserId};

/// A frame from a client. Borrowed from the text it was read from.
#[derive(Debug)]
pub struct ClientFrame<'a> {
    /// What it is.
    pub kind: ClientFrameKind<'a>,
    /// Cumulative acknowledgement riding on the frame (or the `ack` frame itself).
    pub ack: Option<Seq>,
    /// Receipts up to this revision were seen.
    pub rev: Option<u64>,
}

/// The kinds of client frames.
#[derive(Debug)]
pub enum ClientFrameKind<'a> {
    /// Signs in; always the first frame.
    Hello {
        /// The bearer token; may be absent when the HTTP request carried one.
        token: Option<Cow<'a, str>>,
        /// Names this device.
        device: DeviceId,
        /// The client's name and version, for logs; at most 128 bytes are kept.
        client: Option<Cow<'a, str>>,
    },
    /// A message for a user.
    Send(SendFrame<'a>),
    /// Acknowledgement only: see [`ClientFrame::ack`].
    Ack,
    /// The user has read a message.
    Read {
        /// Who wrote the message.
        from: UserId,
        /// The last message read.
        id: MessageId,
    },
    /// Asks for a `pong`.
    Ping {
        /// Any JSON of at most [`NONCE_BYTES_MAX`] bytes, given back as it came.
        nonce: Option<&'a RawValue>,
    },
}

/// A `send` frame.
#[derive(Debug)]
pub struct SendFrame<'a> {
    /// Chosen by the device; strictly increasing.
    pub id: MessageId,
    /// The recipient.
    pub to: UserId,
    /// Any JSON, as the sender wrote it.
    pub body: &'a str,
    /// Seconds the message may wait; the server's limit caps it.
    pub ttl_s: Option<u64>,
    /// Deliver if connected, never store.
    pub ephemeral: bool,
    /// Where in a trace of the client it belongs; absent too when it was not well-formed. Boxed:
    /// few have one, and every frame would be larger for it.
    pub traceparent: Option<Box<TraceParent>>,
}

/// Longest nonce of a `ping`, in bytes of JSON.
pub const NONCE_BYTES_MAX: usize = 256;

/// Longest explanation of an error, in bytes.
const MESSAGE_BYTES_MAX: usize = 200;

/// A frame that could not be taken, and what to answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct FrameError {
    /// The code for the client.
    pub code: ErrorCode,
    /// What is wrong, for a developer.
    pub message: String,
    /// The id of the `send` it answers, when it could be read.
    pub reference: Option<MessageId>,
}

impl FrameError {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        // The reason may quote the frame, which may be long.
        if message.len() > MESSAGE_BYTES_MAX {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        }
        Self {
            code,
            message,
            reference: None,
        }
    }
}

#[derive(Deserialize)]
struct To {
    user: UserId,
}

fn field<'a, T: Deserialize<'a>>(
    name: &'static str,
    raw: Option<&'a str>,
) -> Result<Option<T>, FrameError> {
    raw.map(|raw| {
        serde_json::from_str(raw)
            .map_err(|e| FrameError::new(ErrorCode::BadFrame, format!("field {name}: {e}")))
    })
    .transpose()
}

fn required<'a, T: Deserialize<'a>>(
    name: &'static str,
    raw: Option<&'a str>,
) -> Result<T, FrameError> {
    field(name, raw)?.ok_or_else(|| missing(name))
}

fn missing(name: &'static str) -> FrameError {
    FrameError::new(ErrorCode::BadFrame, format!("field {name} is missing"))
}

/// Greatest integer of the protocol: what every JSON reader can hold exactly.
const INTEGER_MAX: u64 = (1 << 53) - 1;

/// What stands between the quotes, of a string without escapes: most are, and need no second
/// pass of the JSON reader.
fn unescaped(raw: &str) -> Option<&str> {
    let inside = raw.strip_prefix('"')?.strip_suffix('"')?;
    (!inside.as_bytes().contains(&b'\\')).then_some(inside)
}

/// The user in `{"user":"name"}`, written as short as that.
fn short_to(raw: &str) -> Option<UserId> {
    let name = raw.strip_prefix("{\"user\":\"")?;
    // A name has no characters that could end it early: what is not one is left to the
    // JSON reader, which says what is wrong.
    UserId::new(name.strip_suffix("\"}")?).ok()
}

/// An id field.
fn message_id(name: &'static str, raw: Option<&str>) -> Result<MessageId, FrameError> {
    let short = raw.and_then(unescaped).and_then(|text| text.parse().ok());
    short.map_or_else(|| required(name, raw), Ok)
}

/// An integer of up to 15 digits, which needs no look at its size.
fn short_integer(raw: &str) -> Option<u64> {
    let digits = raw.as_bytes();
    let is_short = digits.len() <= 15 && digits.iter().all(u8::is_ascii_digit);
    is_short.then(|| {
        let add = |sum: u64, digit: &u8| sum * 10 + u64::from(digit - b'0');
        digits.iter().fold(0, add)
    })
}

fn integer(name: &'static str, raw: Option<&str>) -> Result<Option<u64>, FrameError> {
    if let Some(value) = raw.and_then(short_integer) {
        return Ok(Some(value));
    }
    let value: Option<u64> = field(name, raw)?;
    match value {
        Some(value) if value > INTEGER_MAX => Err(FrameError::new(
            ErrorCode::BadFrame,
            format!("field {name} is above 2^53 - 1"),
        )),
        value => Ok(value),
    }
}

/// A struct is read from an array as well, by its fields' order: that is not a frame.
fn is_object(json: &str) -> bool {
    json.trim_ascii_start().starts_with('{')
}

/// A string field; borrowed unless it has escapes.
fn text<'a>(name: &'static str, raw: Option<&'a str>) -> Result<Option<Cow<'a, str>>, FrameError> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Text<'b>(#[serde(borrow)] Cow<'b, str>);
    if let Some(text) = raw.and_then(unescaped) {
        return Ok(Some(Cow::Borrowed(text)));
    }
    Ok(field::<Text<'a>>(name, raw)?.map(|text| text.0))
}

impl<'a> ClientFrame<'a> {
    /// Reads one frame.
    ///
    /// # Errors
    /// [`FrameError`], ready to be sent back; for a `send` it names the id where it could be read.
    pub fn decode(json: &'a str, limits: &Limits) -> Result<Self, FrameError> {
        if !is_object(json) {
            let message = "a frame is a JSON object";
            return Err(FrameError::new(ErrorCode::BadFrame, message));
        }
        // In place: it is large enough for its copies to show.
        let mut fields = Fields::default();
        if fields.scan(json).is_none() {
            fields = Fields::read(json)
                .map_err(|e| FrameError::new(ErrorCode::BadFrame, format!("not a frame: {e}")))?;
        }
        let kind: Cow<'a, str> = text("type", fields.kind)?.ok_or_else(|| missing("type"))?;
        let mut ack = integer("ack", fields.ack)?;
        let rev = integer("rev", fields.rev)?;
        let kind = match &*kind {
            "send" => ClientFrameKind::Send(send(&fields, limits)?),
            "ack" => {
                let seq: Seq = integer("seq", fields.seq)?.ok_or_else(|| missing("seq"))?;
                ack = Some(ack.map_or(seq, |riding: Seq| riding.max(seq)));
                ClientFrameKind::Ack
            }
            "read" => ClientFrameKind::Read {
                from: required("from", fields.from)?,
                id: message_id("id", fields.id)?,
            },
            "ping" => {
                if fields
                    .nonce
                    .is_some_and(|n| n.get().len() > NONCE_BYTES_MAX)
                {
                    return Err(FrameError::new(
                        ErrorCode::TooLarge,
                        format!("a nonce has at most {NONCE_BYTES_MAX} bytes"),
                    ));
                }
                ClientFrameKind::Ping {
                    nonce: fields.nonce,
                }
            }
            "hello" => ClientFrameKind::Hello {
                token: text("token", fields.token)?,
                device: required("device", fields.device)?,
                client: text("client", fields.client)?,
            },
            other => {
                let mut name = other.to_owned();
                name.truncate(name.floor_char_boundary(32));
                return Err(FrameError::new(
                    ErrorCode::UnknownType,
                    format!("there is no frame of type {name:?} in this version"),
                ));
            }
        };
        Ok(Self { kind, ack, rev })
    }
}

/// Apart from the rest: few sends have one.
#[cold]
fn traceparent(raw: &str) -> Result<Option<Box<TraceParent>>, FrameError> {
    let text = text("traceparent", Some(raw))?;
    Ok(text
        .and_then(|text| TraceParent::parse(&text))
        .map(Box::new))
}

fn send<'a>(fields: &Fields<'a>, limits: &Limits) -> Result<SendFrame<'a>, FrameError> {
    let id = message_id("id", fields.id)?;
    let rest = || -> Result<SendFrame<'a>, FrameError> {
        if fields.to.is_some_and(|to| !is_object(to)) {
            let message = "field to is an object with a user";
            return Err(FrameError::new(ErrorCode::BadFrame, message));
        }
        let to = match fields.to.and_then(short_to) {
            Some(user) => user,
            None => required::<To>("to", fields.to)?.user,
        };
        let body = fields.body.ok_or_else(|| missing("body"))?;
        if body.len() > limits.body_bytes_max {
            return Err(FrameError::new(
                ErrorCode::TooLarge,
                format!(
                    "the body has {} bytes, at most {} are allowed",
                    body.len(),
                    limits.body_bytes_max
                ),
            ));
        }
        Ok(SendFrame {
            id,
            to,
            body,
            ttl_s: integer("ttl_s", fields.ttl_s)?,
            ephemeral: field("ephemeral", fields.ephemeral)?.unwrap_or(false),
            traceparent: match fields.traceparent {
                None => None,
                Some(raw) => traceparent(raw)?,
            },
        })
    };
    rest().map_err(|error| FrameError {
        reference: Some(id),
        ..error
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fields::same_by_both_readers;

    const ID: &str = "0190163d-8694-739b-aea5-966c26f8ad91";

    fn decode(json: &str) -> Result<ClientFrame<'_>, FrameError> {
        ClientFrame::decode(json, &Limits::default())
    }

    #[test]
    fn a_send_borrows_its_body() {
        let json = format!(
            r#"{{"type":"send","id":"{ID}","to":{{"user":"bob"}},"body":{{"a": [1, 2]}},"ack":7,"new":{{}}}}"#
        );
        let frame = decode(&json).unwrap();
        assert_eq!(frame.ack, Some(7));
        let ClientFrameKind::Send(send) = frame.kind else {
            panic!("not a send");
        };
        assert_eq!(send.body, r#"{"a": [1, 2]}"#);
        assert_eq!(send.to.as_str(), "bob");
        assert!(!send.ephemeral);
    }

    #[test]
    fn short_forms_and_long_ones_say_the_same() {
        let short = format!(
            r#"{{"type":"send","id":"{ID}","to":{{"user":"bob"}},"body":1,"ttl_s":0,"ack":12}}"#
        );
        let long = format!(
            r#"{{"type":"s\u0065nd","id":"\u0030{}","to":{{ "x":1, "user":"b\u006fb"}},"body":1,"ttl_s":-0,"ack":1200E-2}}"#,
            &ID[1..]
        );
        // As integers go, only the short form is one.
        assert_eq!(decode(&long).unwrap_err().code, ErrorCode::BadFrame);
        let long = long.replace("-0", "0").replace("1200E-2", "12");
        let (short, long) = (decode(&short).unwrap(), decode(&long).unwrap());
        assert_eq!(format!("{short:?}"), format!("{long:?}"));
        for to in [
            r#"{"user":"b\""}"#,
            r#"{"user":"b"","x":"a"}"#,
            r#"{"user":"b","user":"a"}"#,
        ] {
            let json = format!(r#"{{"type":"send","id":"{ID}","to":{to},"body":1}}"#);
            assert_eq!(decode(&json).unwrap_err().code, ErrorCode::BadFrame, "{to}");
        }
    }

    #[test]
    fn null_is_a_body() {
        let json = format!(r#"{{"type":"send","id":"{ID}","to":{{"user":"b"}},"body":null}}"#);
        assert!(decode(&json).is_ok());
    }

    #[test]
    fn a_traceparent_is_read_or_ignored_but_is_a_string() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let send = |traceparent: &str| {
            format!(
                r#"{{"type":"send","id":"{ID}","to":{{"user":"bob"}},"body":1,"traceparent":{traceparent}}}"#
            )
        };
        let escaped = parent.replacen('0', "\\u0030", 1);
        let cases = [
            (format!("\"{parent}\""), TraceParent::parse(parent)),
            (format!("\"{escaped}\""), TraceParent::parse(parent)),
            (format!("\"{}\"", parent.to_uppercase()), None),
            ("\"\"".to_owned(), None),
            ("null".to_owned(), None),
        ];
        for (text, expected) in cases {
            let json = send(&text);
            let ClientFrameKind::Send(read) = decode(&json).unwrap().kind else {
                panic!("not a send");
            };
            assert_eq!(read.traceparent.as_deref().copied(), expected, "{json}");
        }
        for odd in ["7", "{}", "[]", "true"] {
            let refused = decode(&send(odd)).unwrap_err();
            assert_eq!(refused.code, ErrorCode::BadFrame, "{odd}");
            assert_eq!(refused.reference.unwrap().to_string(), ID);
        }
    }

    #[test]
    fn fields_of_other_types_are_ignored() {
        assert!(decode(r#"{"type":"ping","seq":"x","to":3,"from":[]}"#).is_ok());
    }

    #[test]
    fn errors_name_code_and_message_id() {
        let missing = decode(r#"{"seq":1}"#).unwrap_err();
        assert_eq!(missing.code, ErrorCode::BadFrame);
        let unknown = decode(r#"{"type":"dance"}"#).unwrap_err();
        assert_eq!(unknown.code, ErrorCode::UnknownType);
        let json = format!(r#"{{"type":"send","id":"{ID}","to":{{"user":"BOB"}},"body":1}}"#);
        let bad_user = decode(&json).unwrap_err();
        assert_eq!(bad_user.code, ErrorCode::BadFrame);
        assert_eq!(bad_user.reference.unwrap().to_string(), ID);
        let body = "x".repeat(70_000);
        let json = format!(r#"{{"type":"send","id":"{ID}","to":{{"user":"b"}},"body":"{body}"}}"#);
        assert_eq!(decode(&json).unwrap_err().code, ErrorCode::TooLarge);
        assert_eq!(decode("[1]").unwrap_err().code, ErrorCode::BadFrame);
        assert_eq!(decode(r#"["ping"]"#).unwrap_err().code, ErrorCode::BadFrame);
        let json = format!(r#"{{"type":"send","id":"{ID}","to":["bob"],"body":1}}"#);
        assert_eq!(decode(&json).unwrap_err().code, ErrorCode::BadFrame);
        let above = decode(r#"{"type":"ack","seq":9007199254740992}"#).unwrap_err();
        assert_eq!(above.code, ErrorCode::BadFrame);
        assert_eq!(decode("{").unwrap_err().code, ErrorCode::BadFrame);
    }

    /// A member of a frame, plain or not, of a kind that fits or not.
    fn member() -> impl Strategy<Value = String> {
        let names = [
            "type",
            "id",
            "to",
            "body",
            "ttl_s",
            "ephemeral",
            "seq",
            "ack",
            "rev",
            "from",
            "nonce",
            "token",
            "traceparent",
            "new",
        ];
        let values = [
            "null",
            "true",
            "0",
            "17",
            "-1",
            "1.5",
            "01",
            "1e3",
            "9007199254740993",
            r#""send""#,
            r#""a\nb""#,
            r#""\u0041""#,
            "\"\u{1}\"",
            r#"{"user":"bob"}"#,
            r#"{"user" : "b\"ob"}"#,
            r#"[1, {"x":[]}]"#,
            "",
            "[",
            "{",
            ID,
            r#""00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01""#,
        ];
        let space = prop::sample::select(vec!["", " ", "\n\t"]);
        let name = prop::sample::select(names.to_vec());
        (name, prop::sample::select(values.to_vec()), space)
            .prop_map(|(name, value, space)| format!("{space}\"{name}\":{space}{value}{space}"))
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,200}") {
            let _ = decode(&text);
        }

        #[test]
        fn both_readers_agree(members in prop::collection::vec(member(), 0..5)) {
            same_by_both_readers(&format!("{{{}}}", members.join(",")));
        }

        #[test]
        fn ack_is_the_greater(seq in 0..=INTEGER_MAX, riding in 0..=INTEGER_MAX) {
            let json = format!(r#"{{"type":"ack","seq":{seq},"ack":{riding}}}"#);
            prop_assert_eq!(decode(&json).unwrap().ack, Some(seq.max(riding)));
        }
    }
}
