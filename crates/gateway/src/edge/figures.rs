//! Counters of the edge. Handles are taken once, so that a frame costs an
//! addition and not a look-up.

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

/// Counters that move with frames and bytes.
pub(crate) struct Figures {
    pub(crate) connections: Gauge,
    pub(crate) connections_total: Counter,
    pub(crate) frames_out: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) hello: Counter,
    pub(crate) send: Counter,
    pub(crate) ack: Counter,
    pub(crate) read: Counter,
    pub(crate) ping: Counter,
    pub(crate) refused: Counter,
    pub(crate) websocket_ping: Counter,
    pub(crate) websocket_pong: Counter,
    pub(crate) close: Counter,
}

impl Figures {
    /// Takes the handles; the recorder has to be installed before.
    pub(crate) fn new() -> Self {
        describe_gauge!("stonechat_connections", "WebSocket connections");
        describe_counter!(
            "stonechat_connections_opened_total",
            "WebSocket connections since the start"
        );
        describe_counter!(
            "stonechat_connections_refused_total",
            "Upgrades refused, by HTTP status"
        );
        describe_counter!(
            "stonechat_disconnects_total",
            "Connections ended, by reason"
        );
        describe_counter!(
            "stonechat_frames_received_total",
            "Frames from clients, by type"
        );
        describe_counter!("stonechat_frames_sent_total", "Frames to clients");
        describe_counter!(
            "stonechat_received_bytes_total",
            Unit::Bytes,
            "Bytes from clients, TLS not counted"
        );
        describe_counter!(
            "stonechat_sent_bytes_total",
            Unit::Bytes,
            "Bytes to clients, TLS not counted"
        );
        let frames_in =
            |kind: &'static str| counter!("stonechat_frames_received_total", "type" => kind);
        Self {
            connections: gauge!("stonechat_connections"),
            connections_total: counter!("stonechat_connections_opened_total"),
            frames_out: counter!("stonechat_frames_sent_total"),
            bytes_in: counter!("stonechat_received_bytes_total"),
            bytes_out: counter!("stonechat_sent_bytes_total"),
            hello: frames_in("hello"),
            send: frames_in("send"),
            ack: frames_in("ack"),
            read: frames_in("read"),
            ping: frames_in("ping"),
            refused: frames_in("refused"),
            websocket_ping: frames_in("websocket_ping"),
            websocket_pong: frames_in("websocket_pong"),
            close: frames_in("close"),
        }
    }

    /// A connection ended.
    pub(crate) fn disconnected(reason: &'static str) {
        counter!("stonechat_disconnects_total", "reason" => reason).increment(1);
    }

    /// An upgrade was refused.
    pub(crate) fn turned_away(status: u16) {
        counter!("stonechat_connections_refused_total", "status" => status.to_string())
            .increment(1);
    }
}
