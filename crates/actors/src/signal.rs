//! What a supervisor, a link or an admin tells an actor past its queue. Bounded: one stop, one order, a few
//! inspections.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::reason::ExitReason;

/// Inspections of one actor that may wait at a time.
pub(crate) const INSPECTIONS_MAX: usize = 16;

/// A group restart's order to one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Stop, drop the state, keep the inbox and wait.
    Halt,
    /// Start again. `fresh` forgets earlier failures.
    Resume {
        /// Whether the failure window starts empty.
        fresh: bool,
    },
}

/// Signals that wait for the actor's next turn.
#[derive(Default)]
pub(crate) struct Signals {
    /// The first stop wins, except that a shutdown overrides.
    pub(crate) stop: Option<Arc<ExitReason>>,
    pub(crate) order: Option<Order>,
    pub(crate) inspections: Vec<oneshot::Sender<serde_json::Value>>,
}

impl Signals {
    pub(crate) fn stop(&mut self, reason: Arc<ExitReason>) {
        if self.stop.is_none() || matches!(*reason, ExitReason::Shutdown) {
            self.stop = Some(reason);
        }
    }
}

/// Where an actor is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Running,
    /// Waits before a restart.
    Backoff,
    /// Part of a group restart, or waiting for an escalation's outcome.
    Halted,
    Ended,
}

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Backoff => "backoff",
            Self::Halted => "halted",
            Self::Ended => "ended",
        }
    }
}
