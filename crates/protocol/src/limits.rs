//! Limits a client has to know: they are told in `welcome`.

use serde::{Deserialize, Serialize};

use crate::UNACCEPTED_MAX;

/// What a client may send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Limits {
    /// Sends of one device that may be unanswered. Fixed by the protocol at 64.
    pub unaccepted_max: usize,
    /// Messages sent to a device and not yet acknowledged; the server waits at this many.
    pub unacked_max: usize,
    /// Bytes of an encoded body.
    pub body_bytes_max: usize,
    /// Bytes of a WebSocket message, frame overhead not counted.
    pub frame_bytes_max: usize,
    /// Longest time a message waits for its recipient, seconds.
    pub ttl_s_max: u64,
    /// Devices of a user.
    pub devices_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unaccepted_max: UNACCEPTED_MAX,
            unacked_max: 256,
            body_bytes_max: 64 * 1024,
            frame_bytes_max: 72 * 1024,
            ttl_s_max: 30 * 24 * 60 * 60,
            devices_max: 16,
        }
    }
}
