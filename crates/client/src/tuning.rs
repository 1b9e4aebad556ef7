//! Limits and times of a client, with their defaults.

/// Limits and times. Change them with
/// [`ClientBuilder::tune`](crate::ClientBuilder::tune).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tuning {
    /// First back-off, doubled with each failed attempt; the delay is a random part of it.
    pub backoff_ms_base: u64,
    /// The back-off grows no further.
    pub backoff_ms_max: u64,
    /// Failed attempts in a row after which the client gives up; `None`: never.
    pub attempts_max: Option<u32>,
    /// A connection that lived this long makes the back-off start over.
    pub stable_ms: u64,
    /// The server's `retry_after_ms` is honoured up to this.
    pub retry_after_ms_max: u64,
    /// Time for TCP, TLS and the WebSocket handshake together.
    pub connect_ms_max: u64,
    /// Time from `hello` to `welcome`.
    pub sign_in_ms_max: u64,
    /// The network may take nothing for this long.
    pub write_ms_max: u64,
    /// Once the connection was silent for the server's `heartbeat_ms`, the client asks; this
    /// long (or `heartbeat_ms`, if less) it waits for a sign of life.
    pub pong_ms_max: u64,
    /// Time [`Client::close`](crate::Client::close) gives unanswered sends.
    pub close_ms_max: u64,
    /// An acknowledgement waits this long for others to join it.
    pub ack_delay_ms: u64,
    /// So many handled messages are acknowledged at once. No more than half of the
    /// server's `unacked_max` is ever left waiting.
    pub ack_every: u64,
    /// A confirmed receipt revision waits this long for a frame to ride on.
    pub rev_delay_ms: u64,
    /// Events that may wait for the application.
    pub events_max: usize,
    /// Bytes of message bodies that may wait for the application.
    pub event_bytes_max: usize,
    /// Longest frame taken from the server, bytes.
    pub frame_bytes_max: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            backoff_ms_base: 200,
            backoff_ms_max: 30_000,
            attempts_max: None,
            stable_ms: 10_000,
            retry_after_ms_max: 600_000,
            connect_ms_max: 10_000,
            sign_in_ms_max: 10_000,
            write_ms_max: 10_000,
            pong_ms_max: 10_000,
            close_ms_max: 5_000,
            ack_delay_ms: 50,
            ack_every: 32,
            rev_delay_ms: 2_000,
            events_max: 1_024,
            event_bytes_max: 32 * 1024 * 1024,
            frame_bytes_max: 1024 * 1024,
        }
    }
}

impl Tuning {
    /// Upper bound of the delay before attempt number `attempt` (1 is the first retry).
    pub(crate) fn backoff_ms(&self, attempt: u32) -> u64 {
        let doublings = attempt.saturating_sub(1).min(32);
        self.backoff_ms_base
            .saturating_mul(1 << doublings)
            .min(self.backoff_ms_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_bound() {
        let tuning = Tuning::default();
        let first: Vec<u64> = (1..=9).map(|n| tuning.backoff_ms(n)).collect();
        assert_eq!(
            first,
            [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000]
        );
        assert_eq!(tuning.backoff_ms(u32::MAX), 30_000);
    }
}
