//! JSON Schemas of all frames, generated from the Rust types.
//!
//! Server frames come from the structs they are written from. Client frames
//! are read by hand (see `client_frame`), so their shapes are described here
//! by structs of their own; a test feeds what these accept to the decoder.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

use crate::{Accepted, Address, Bye, DeviceId, ErrorFrame, Message, MessageId, Party, Pong};
use crate::{Receipt, Seq, TraceParent, UserId, Welcome};

macro_rules! string_schema {
    ($type:ty, $name:literal, $pattern:literal, $text:literal) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": $pattern, "description": $text})
            }
        }
    };
}

string_schema!(UserId, "UserId", "^[a-z0-9._+-]{1,64}$", "A user.");
string_schema!(
    DeviceId,
    "DeviceId",
    "^[a-zA-Z0-9._-]{1,64}$",
    "One device of a user."
);
string_schema!(
    MessageId,
    "MessageId",
    "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-7[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$",
    "A UUID of version 7."
);
string_schema!(
    TraceParent,
    "TraceParent",
    "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?$",
    "A `traceparent` of the W3C Trace Context."
);

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let user = generator.subschema_for::<UserId>();
        let device = generator.subschema_for::<DeviceId>();
        json_schema!({
            "type": "object",
            "description": "One device of one user.",
            "properties": {"user": user, "device": device},
            "required": ["user", "device"]
        })
    }
}

macro_rules! client_frame {
    ($(#[$doc:meta])* $name:ident $tag:literal { $($(#[$fdoc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "type", rename = $tag)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $type,)*
            /// Acknowledges every message up to this `seq`, whatever the frame.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub ack: Option<Seq>,
            /// Receipts up to this `rev` were seen.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub rev: Option<u64>,
        }
    };
}

client_frame! {
    /// `hello`: signs in.
    Hello "hello" {
        /// The bearer token, unless the request carried it in `Authorization`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
        /// Names this device.
        device: DeviceId,
        /// The client's name and version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<String>,
    }
}

client_frame! {
    /// `send`: a message for a user.
    Send "send" {
        /// Strictly increasing for each device.
        id: MessageId,
        /// The recipient.
        to: Party,
        /// Any JSON of at most `limits.body_bytes_max` bytes.
        body: serde_json::Value,
        /// Seconds the message may wait for its recipient.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_s: Option<u64>,
        /// Deliver if connected, never store.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ephemeral: Option<bool>,
        /// Where in the client's own trace the message belongs. Ignored when it is not well-formed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        traceparent: Option<TraceParent>,
    }
}

client_frame! {
    /// `ack`: cumulative acknowledgement.
    Ack "ack" {
        /// The last message handled.
        seq: Seq,
    }
}

client_frame! {
    /// `read`: the user has read up to this message.
    Read "read" {
        /// Who wrote it.
        from: UserId,
        /// The last message read.
        id: MessageId,
    }
}

client_frame! {
    /// `ping`: asks for a `pong`.
    Ping "ping" {
        /// Given back as it came; at most 256 bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nonce: Option<serde_json::Value>,
    }
}

/// All frames: direction, name and schema, in the order of the documentation.
pub fn all() -> Vec<(&'static str, &'static str, Schema)> {
    macro_rules! list {
        ($($direction:literal $name:literal $type:ty;)*) => {
            vec![$(($direction, $name, schemars::schema_for!($type)),)*]
        };
    }
    list! {
        "client" "hello" Hello;
        "client" "send" Send;
        "client" "ack" Ack;
        "client" "read" Read;
        "client" "ping" Ping;
        "server" "welcome" Welcome;
        "server" "accepted" Accepted;
        "server" "message" Message;
        "server" "receipt" Receipt;
        "server" "error" ErrorFrame;
        "server" "bye" Bye;
        "server" "pong" Pong;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClientFrame, Limits};

    #[test]
    fn what_the_schemas_describe_the_decoder_takes() {
        let id = MessageId::parse("0190163d-8694-739b-aea5-966c26f8ad91").unwrap();
        let user = UserId::new("bob").unwrap();
        let device = DeviceId::new("phone").unwrap();
        let (ack, rev) = (Some(3), Some(4));
        let frames = [
            serde_json::to_string(&Hello {
                token: Some("t".into()),
                device,
                client: None,
                ack,
                rev,
            }),
            serde_json::to_string(&Send {
                id,
                to: Party { user: user.clone() },
                body: serde_json::json!({"text": "hi"}),
                ttl_s: Some(5),
                ephemeral: Some(true),
                traceparent: TraceParent::parse(
                    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                ),
                ack,
                rev,
            }),
            serde_json::to_string(&Ack { seq: 9, ack, rev }),
            serde_json::to_string(&Read {
                from: user,
                id,
                ack,
                rev,
            }),
            serde_json::to_string(&Ping {
                nonce: Some(serde_json::json!([1])),
                ack,
                rev,
            }),
        ];
        for json in frames {
            let json = json.unwrap();
            let frame = ClientFrame::decode(&json, &Limits::default()).expect(&json);
            assert!(frame.ack.is_some() && frame.rev == Some(4), "{json}");
        }
    }
}
