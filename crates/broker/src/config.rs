//! The broker's settings. Units last, bounds in the text; checked where they are read.

use serde::{Deserialize, Serialize};
use stonechat_protocol::Limits;

/// Rates one user may send at, over all devices. A token bucket each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateConfig {
    /// Messages a second, sustained.
    pub messages_per_s: u32,
    /// Messages at once.
    pub messages_burst: u32,
    /// Bytes of bodies a second, sustained.
    pub bytes_per_s: u32,
    /// Bytes of bodies at once; at least the largest body.
    pub bytes_burst: u32,
}

impl Default for RateConfig {
    fn default() -> Self {
        Self {
            messages_per_s: 100,
            messages_burst: 400,
            bytes_per_s: 1024 * 1024,
            bytes_burst: 4 * 1024 * 1024,
        }
    }
}

/// Settings of sessions, router and offline queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerConfig {
    /// What clients are told they may send.
    pub limits: Limits,
    /// Rates of one user.
    pub rate: RateConfig,
    /// Offline-queue actors; users are spread over them. 0: one for each arbiter.
    pub shards: usize,
    /// Sessions at a time.
    pub sessions_max: usize,
    /// How long a session stays after its last device went, milliseconds.
    pub session_linger_ms: u64,
    /// How long acknowledgements on their way to the store, receipts, and answers to sends
    /// while the node is busy may wait for company, milliseconds.
    pub coalesce_ms: u64,
    /// Bytes of bodies sent to a device and not yet acknowledged; the server waits at this many.
    pub feed_window_bytes: usize,
    /// How often expired messages are swept out, milliseconds.
    pub expire_interval_ms: u64,
    /// Whether [`crate::Broker::inject`] does anything. For tests of supervision only.
    pub fault_injection: bool,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            rate: RateConfig::default(),
            shards: 0,
            sessions_max: 1_000_000,
            session_linger_ms: 5_000,
            coalesce_ms: 40,
            feed_window_bytes: 1024 * 1024,
            expire_interval_ms: 60_000,
            fault_injection: false,
        }
    }
}
