//! What a client writes.

use serde::Serialize;
use serde_json::value::RawValue;
use stonechat_protocol::{DeviceId, MessageId, Party, Seq, TraceParent, UserId};

/// Acknowledgement and receipt revision riding on a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Riding {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ack: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rev: Option<u64>,
}

/// A frame of the client, written as the protocol says.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Outgoing<'a> {
    Hello {
        token: &'a str,
        device: &'a DeviceId,
        client: &'a str,
        #[serde(flatten)]
        riding: Riding,
    },
    Send(SendOut<'a>),
    Ack {
        seq: Seq,
        #[serde(skip_serializing_if = "Option::is_none")]
        rev: Option<u64>,
    },
    Read {
        from: &'a UserId,
        id: MessageId,
        #[serde(flatten)]
        riding: Riding,
    },
    Ping {
        nonce: u64,
        #[serde(flatten)]
        riding: Riding,
    },
}

#[derive(Serialize)]
pub(super) struct SendOut<'a> {
    pub(super) id: MessageId,
    pub(super) to: &'a Party,
    pub(super) body: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ttl_s: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) ephemeral: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) traceparent: Option<TraceParent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ack: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rev: Option<u64>,
}

impl Outgoing<'_> {
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).expect("frames have string keys and hold JSON")
    }
}

#[cfg(test)]
mod tests {
    use stonechat_protocol::{ClientFrame, ClientFrameKind, Limits};

    use super::*;

    /// The server's own reader takes every frame, riders included.
    #[test]
    fn the_protocol_reads_what_is_written() {
        let device = DeviceId::new("phone").unwrap();
        let user = UserId::new("bob").unwrap();
        let to = Party { user: user.clone() };
        let id = MessageId::parse("0190163d-8694-739b-aea5-966c26f8ad91").unwrap();
        let body = RawValue::from_string("{\"a\": [null]}".to_owned()).unwrap();
        let riding = Riding {
            ack: Some(7),
            rev: Some(3),
        };
        let frames = [
            Outgoing::Hello {
                token: "t\"k",
                device: &device,
                client: "x/1",
                riding,
            },
            Outgoing::Send(SendOut {
                id,
                to: &to,
                body: &body,
                ttl_s: Some(9),
                ephemeral: true,
                traceparent: TraceParent::parse(
                    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                ),
                ack: Some(7),
                rev: Some(3),
            }),
            Outgoing::Ack {
                seq: 7,
                rev: Some(3),
            },
            Outgoing::Read {
                from: &user,
                id,
                riding,
            },
            Outgoing::Ping { nonce: 5, riding },
        ];
        for (at, frame) in frames.iter().enumerate() {
            let text = frame.text();
            let read = ClientFrame::decode(&text, &Limits::default()).unwrap();
            assert_eq!((read.ack, read.rev), (Some(7), Some(3)), "{text}");
            match (at, read.kind) {
                (0, ClientFrameKind::Hello { token, .. }) => assert_eq!(token.unwrap(), "t\"k"),
                (1, ClientFrameKind::Send(send)) => {
                    assert_eq!(send.body, body.get());
                    assert_eq!((send.ttl_s, send.ephemeral), (Some(9), true));
                    assert!(send.traceparent.is_some());
                }
                (2, ClientFrameKind::Ack) => {}
                (3, ClientFrameKind::Read { from, .. }) => assert_eq!(from, user),
                (4, ClientFrameKind::Ping { nonce }) => assert_eq!(nonce.unwrap().get(), "5"),
                (_, other) => panic!("{text} was read as {other:?}"),
            }
        }
    }
}
