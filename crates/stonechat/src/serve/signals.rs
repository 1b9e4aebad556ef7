//! Signals the server listens to. What they mean is decided elsewhere.

use tokio::signal::unix::{self, SignalKind};

use crate::exit::{Exit, Failure};

/// A signal that came.
pub(super) enum Signal {
    /// SIGTERM or SIGINT.
    End {
        /// Its name.
        name: &'static str,
        /// Its number.
        number: i32,
    },
    /// SIGHUP.
    Reload,
}

/// Listens from the moment it is made.
pub(super) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            unix::signal(kind).map_err(|error| {
                Failure::new(
                    Exit::Software,
                    format!("signals cannot be listened to: {error}"),
                )
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The next signal. Nothing is lost when this is dropped before it is ready.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::End {
                name: "SIGTERM",
                number: SignalKind::terminate().as_raw_value(),
            },
            _ = self.interrupt.recv() => Signal::End {
                name: "SIGINT",
                number: SignalKind::interrupt().as_raw_value(),
            },
            _ = self.hangup.recv() => Signal::Reload,
        }
    }

    /// The number of the next signal that asks to end; others are passed over.
    pub(super) async fn next_end(&mut self) -> i32 {
        loop {
            if let Signal::End { number, .. } = self.next().await {
                return number;
            }
        }
    }
}
