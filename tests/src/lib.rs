//! Harness of the black-box suites: the real binary, spoken to from outside.
//!
//! Everything here is independent of the server and of the project's own client: frames are plain
//! JSON values over a general WebSocket library (or over raw TCP, for what such a library refuses to
//! send), so that a mistake shared by both sides of the project cannot hide. It does not test
//! anything by itself; the suites in `tests/` do.
//!
//! A wait is always for a condition, with a deadline; nothing sleeps and hopes. Failures panic with
//! the last frames of the connection concerned and the end of the server's log.

pub mod admin;
pub mod binary;
pub mod connect;
pub mod crash;
pub mod node;
pub mod options;
pub mod otlp;
pub mod raw;
pub mod schemas;
pub mod talker;
pub mod traffic;
pub mod ws;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use admin::{Admin, Reply};
pub use connect::{Connect, Refused};
pub use node::{Endpoint, Node, Output};
pub use options::NodeOptions;
pub use raw::RawClient;
pub use ws::{Incoming, WsClient};

/// Longest any single step may take. Generous: the machine may be slow and busy with other suites.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Time between two looks at a condition that can only be polled.
const POLL_EVERY: Duration = Duration::from_millis(15);

/// A fresh message id: a UUID of version 7, greater than every one made before in this process.
pub fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// Holds back other heavy suites while it lives; two at a time would only time out together.
#[must_use = "the suite is heavy for as long as this lives"]
#[derive(Debug)]
pub struct Heavy {
    _guard: MutexGuard<'static, ()>,
}

/// Waits for the turn of a heavy suite.
pub fn heavy() -> Heavy {
    static TURN: Mutex<()> = Mutex::new(());
    Heavy {
        // A failed suite must not fail the ones after it.
        _guard: TURN.lock().unwrap_or_else(PoisonError::into_inner),
    }
}

/// Looks until `look` finds something.
///
/// # Panics
/// When it found nothing by the [`DEADLINE`].
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(DEADLINE, what, look)
}

/// [`eventually`] with its own deadline, for conditions known to take longer.
///
/// # Panics
/// When it found nothing by the deadline.
pub fn eventually_within<T>(
    deadline: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::sleep(POLL_EVERY);
    }
}

/// [`eventually`] for conditions that need the runtime.
///
/// # Panics
/// When it found nothing by the [`DEADLINE`].
pub async fn eventually_async<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(POLL_EVERY).await;
    }
}
