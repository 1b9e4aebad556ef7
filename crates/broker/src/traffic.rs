//! What went over one connection, for operators to look at.
//!
//! The edge counts and the broker keeps it beside the connection. Only the
//! connection's own thread writes, so counting is an ordinary addition; whoever
//! reads may see a figure that is a moment old. Nothing is decided by it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use stonechat_protocol::DeviceId;

/// The other end of a connection and what went over it so far.
#[derive(Debug, Default)]
pub struct Traffic {
    peer: Option<SocketAddr>,
    frames_received: AtomicU64,
    frames_sent: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

/// What went over a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrafficCounts {
    /// Frames from the client.
    pub frames_received: u64,
    /// Frames to the client.
    pub frames_sent: u64,
    /// Bytes from the client, TLS not counted.
    pub received_bytes: u64,
    /// Bytes to the client, TLS not counted.
    pub sent_bytes: u64,
}

/// A connection as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Of which device.
    pub device: DeviceId,
    /// Since when, milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Sends taken from it and not yet answered.
    pub unanswered: u32,
    /// Where it comes from.
    pub peer: Option<SocketAddr>,
    /// What went over it so far.
    pub traffic: TrafficCounts,
}

/// Without the lock of an atomic addition, which a single writer does not need.
fn add(to: &AtomicU64, more: u64) {
    to.store(
        to.load(Ordering::Relaxed).wrapping_add(more),
        Ordering::Relaxed,
    );
}

impl Traffic {
    /// Nothing went over it yet.
    pub fn with(peer: Option<SocketAddr>) -> Self {
        Self {
            peer,
            ..Self::default()
        }
    }

    /// Where the client connects from.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// A frame came. For the connection's thread only, like all that counts.
    pub fn frame_received(&self) {
        add(&self.frames_received, 1);
    }

    /// Bytes came.
    pub fn received(&self, bytes: usize) {
        add(&self.received_bytes, bytes as u64);
    }

    /// Frames went.
    pub fn frames_sent(&self, count: usize) {
        add(&self.frames_sent, count as u64);
    }

    /// Bytes went.
    pub fn sent(&self, bytes: usize) {
        add(&self.sent_bytes, bytes as u64);
    }

    /// What it has come to.
    pub fn counts(&self) -> TrafficCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        TrafficCounts {
            frames_received: of(&self.frames_received),
            frames_sent: of(&self.frames_sent),
            received_bytes: of(&self.received_bytes),
            sent_bytes: of(&self.sent_bytes),
        }
    }
}
