//! Error codes and close reasons: every way the server says no, or goodbye.
//!
//! The texts here are the ones `docs/protocol.md` lists; a test holds the
//! tables there to these enums.

use serde::{Deserialize, Deserializer, Serialize};

macro_rules! coded {
    ($(#[$doc:meta])* $name:ident { $($(#[doc = $text:literal])+ $variant:ident = $code:literal $(, $close:literal)?;)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[doc = $text])+ $variant,)+
            /// One that this build does not know: later servers may have more. Never sent.
            #[cfg_attr(feature = "schema", schemars(skip))]
            Unknown,
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let code = std::borrow::Cow::<'de, str>::deserialize(d)?;
                let known = Self::ALL.iter().find(|known| known.as_str() == code);
                Ok(known.copied().unwrap_or(Self::Unknown))
            }
        }

        impl $name {
            /// All of them, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The code as it stands on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ Self::Unknown => "unknown" }
            }

            /// What it means, in a sentence.
            pub fn describe(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($text),+).trim_ascii(),)+
                    Self::Unknown => "A code this build does not know.",
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

coded! {
    /// Why a frame was refused. The connection stays open unless a `bye` follows.
    ErrorCode {
        /// The frame is not JSON, not an object, or a field has the wrong form. Mend the client.
        BadFrame = "bad_frame";
        /// The `type` is not one of this protocol version. Mend the client or use an older server's types.
        UnknownType = "unknown_type";
        /// A known frame in the wrong place: a second `hello`.
        UnexpectedFrame = "unexpected_frame";
        /// Token missing, wrong, expired, revoked or of a disabled user. Get a new token.
        Unauthorized = "unauthorized";
        /// There is no such user. Check the name.
        UnknownUser = "unknown_user";
        /// Body or frame above the limit told in `welcome`. Send less.
        TooLarge = "too_large";
        /// Too many messages or bytes in a short time. Try again after `retry_after_ms`.
        RateLimited = "rate_limited";
        /// The recipient has too much waiting. Try again later under a new id.
        MailboxFull = "mailbox_full";
        /// The server cannot store at the moment. Try again after `retry_after_ms`.
        StorageUnavailable = "storage_unavailable";
        /// The id does not increase and is not among the last 64 accepted: nothing was sent. Use a new id.
        IdTooOld = "id_too_old";
        /// More than 64 sends are unanswered. Wait for answers.
        TooManyUnanswered = "too_many_unanswered";
        /// An `ack` above what was sent to this device. Nothing was acknowledged.
        BadAck = "bad_ack";
        /// A `read` of a message that was never delivered. Nothing changed.
        UnknownMessage = "unknown_message";
        /// The user has as many devices as allowed. Remove one first.
        TooManyDevices = "too_many_devices";
        /// The server failed while handling the frame; it was not accepted. Send it again.
        Internal = "internal";
    }
}

coded! {
    /// Why the server closes a connection: the `reason` of `bye`.
    CloseReason {
        /// The server stops or restarts. Connect again after `retry_after_ms`.
        Shutdown = "shutdown";
        /// The same device connected again; the newer connection stays.
        Replaced = "replaced";
        /// No valid `hello` within the time allowed.
        AuthTimeout = "auth_timeout";
        /// Token missing, wrong, expired, revoked or of a disabled user.
        Unauthorized = "unauthorized";
        /// Token, user or device was revoked, disabled or removed while connected.
        Revoked = "revoked";
        /// Nothing was heard for longer than the heartbeat allows.
        HeartbeatTimeout = "heartbeat_timeout";
        /// The client did not read fast enough: a write took too long or too much was queued.
        SlowConsumer = "slow_consumer";
        /// A breach of the WebSocket protocol.
        ProtocolError = "protocol_error";
        /// A text frame that is not UTF-8.
        InvalidUtf8 = "invalid_utf8";
        /// A binary frame; this protocol speaks text.
        UnsupportedData = "unsupported_data";
        /// A frame or message above the limit.
        TooLarge = "too_large";
        /// Too many refused frames in a row.
        TooManyErrors = "too_many_errors";
        /// The user has as many devices as allowed.
        TooManyDevices = "too_many_devices";
        /// The server has no room for more connections or sessions.
        Overloaded = "overloaded";
        /// The server failed. Connect again; nothing accepted is lost.
        Internal = "internal";
    }
}

impl CloseReason {
    /// The WebSocket close code that goes with the reason: RFC 6455 where it
    /// has one, else from the range for applications.
    pub fn websocket_code(self) -> u16 {
        match self {
            Self::Shutdown => 1001,
            Self::ProtocolError => 1002,
            Self::UnsupportedData => 1003,
            Self::InvalidUtf8 => 1007,
            Self::TooManyErrors => 1008,
            Self::TooLarge => 1009,
            Self::Internal | Self::Unknown => 1011,
            Self::Overloaded => 1013,
            Self::Replaced => 4001,
            Self::AuthTimeout => 4002,
            Self::Unauthorized => 4003,
            Self::Revoked => 4004,
            Self::HeartbeatTimeout => 4005,
            Self::SlowConsumer => 4006,
            Self::TooManyDevices => 4007,
        }
    }

    /// Whether connecting again with the same credentials can help.
    pub fn may_retry(self) -> bool {
        !matches!(
            self,
            Self::Unauthorized | Self::Revoked | Self::Replaced | Self::TooManyDevices
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_on_the_wire_are_those_of_serde() {
        for code in ErrorCode::ALL {
            assert_eq!(
                serde_json::to_string(code).unwrap(),
                format!("\"{}\"", code.as_str())
            );
            assert!(code.describe().ends_with('.'));
        }
        for reason in CloseReason::ALL {
            assert_eq!(
                serde_json::to_string(reason).unwrap(),
                format!("\"{}\"", reason.as_str())
            );
        }
        let later: ErrorCode = serde_json::from_str("\"of_a_later_version\"").unwrap();
        assert_eq!(later, ErrorCode::Unknown);
    }
}
