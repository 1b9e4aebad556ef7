//! Why an actor's life (or one generation of it) ended.
//!
//! Reasons are data: typed, cloneable and printable. This module decides nothing: what a supervisor does
//! about a reason is in `spec` and `task`.

use std::{backtrace::Backtrace, fmt, sync::Arc, time::Duration};

use crate::ActorId;

/// The stack at the moment of a panic, captured by the panic hook.
///
/// Capturing walks the frames; names are looked up only when it is printed, so a crash loop stays cheap.
#[derive(Clone)]
pub struct CrashTrace(Option<Arc<Backtrace>>);

impl CrashTrace {
    pub(crate) const NONE: Self = Self(None);

    pub(crate) fn capture() -> Self {
        Self(Some(Arc::new(Backtrace::force_capture())))
    }

    /// Whether there is anything to print.
    #[must_use]
    pub fn is_captured(&self) -> bool {
        self.0.is_some()
    }
}

impl fmt::Display for CrashTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(trace) => trace.fmt(f),
            None => f.write_str("no backtrace captured"),
        }
    }
}

impl fmt::Debug for CrashTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never resolve symbols because somebody printed a struct with `{:?}`.
        f.write_str(if self.is_captured() {
            "CrashTrace(captured)"
        } else {
            "CrashTrace(none)"
        })
    }
}

/// Why an actor, or one generation of it, ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ExitReason {
    /// It was done. Only a permanent child is started again.
    Normal,
    /// Somebody above asked it to end. Never restarted, never propagated over links.
    Shutdown,
    /// It gave up for a reason of its own.
    Failed(String),
    /// Somebody asked for a new generation, and why. Starts any child but a temporary one again, and is
    /// no failure: nothing is counted against it.
    Restarted(String),
    /// Code of the actor panicked.
    Panicked {
        /// Type name of the message being handled, or `"started"`, `"stopping"`, `"factory"`, `"timer"`,
        /// `"future"`, `"snapshot"`, `"drop"`, `"task"`.
        message_type: &'static str,
        /// The panic message.
        payload: String,
        /// `file:line:column` of the panic.
        location: String,
        /// Where it came from; printed on demand.
        backtrace: CrashTrace,
    },
    /// It failed more often than its `Intensity` allows.
    IntensityExceeded {
        /// Failures allowed within the window.
        restarts_max: u32,
        /// The window.
        within: Duration,
        /// The failure that was one too many.
        last: Arc<ExitReason>,
    },
    /// An actor it was linked to ended abnormally.
    Linked {
        /// The other actor.
        id: ActorId,
        /// The other actor's name.
        name: Arc<str>,
        /// Why that one ended.
        reason: Arc<ExitReason>,
    },
    /// It did not obey a stop within its deadline and was given up. Its code may still be running.
    Abandoned,
    /// The arbiter it lived on is gone.
    ArbiterGone,
}

impl ExitReason {
    /// Everything but `Normal` and `Shutdown`: what restarts a transient child and travels over links.
    #[must_use]
    pub fn is_abnormal(&self) -> bool {
        !matches!(self, Self::Normal | Self::Shutdown)
    }

    /// Whether this is, or was caused by, a panic of this very actor.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        match self {
            Self::Panicked { .. } => true,
            Self::IntensityExceeded { last, .. } => last.is_panic(),
            _ => false,
        }
    }

    /// A short, stable name for metrics and events.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Shutdown => "shutdown",
            Self::Failed(_) => "failed",
            Self::Restarted(_) => "restarted",
            Self::Panicked { .. } => "panicked",
            Self::IntensityExceeded { .. } => "intensity_exceeded",
            Self::Linked { .. } => "linked",
            Self::Abandoned => "abandoned",
            Self::ArbiterGone => "arbiter_gone",
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.write_str("ended normally"),
            Self::Shutdown => f.write_str("was shut down"),
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::Restarted(why) => write!(f, "was told to start again: {why}"),
            Self::Panicked {
                message_type,
                payload,
                location,
                ..
            } => {
                write!(f, "panicked in {message_type} at {location}: {payload}")
            }
            Self::IntensityExceeded {
                restarts_max,
                within,
                last,
            } => {
                write!(
                    f,
                    "failed more than {restarts_max} times within {within:?}, last: {last}"
                )
            }
            Self::Linked { name, reason, .. } => write!(f, "linked actor {name} {reason}"),
            Self::Abandoned => f.write_str("did not stop within its deadline and was abandoned"),
            Self::ArbiterGone => f.write_str("lost its arbiter"),
        }
    }
}

/// Told to whoever monitors an actor when that actor has ended for good (a restart is not an end).
#[derive(Clone, Debug)]
pub struct Down {
    /// The actor that ended.
    pub id: ActorId,
    /// Its name.
    pub name: Arc<str>,
    /// Why.
    pub reason: Arc<ExitReason>,
}
