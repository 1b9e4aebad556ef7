//! What can be refused, each error saying what to do next. No behaviour.

use std::{fmt, sync::Arc};

use crate::reason::ExitReason;

/// A message could not be put into an inbox at once. It is handed back.
pub enum TrySendError<M> {
    /// The inbox is full: wait with `tell`, refuse the caller, or slow down.
    Full(M),
    /// The actor has ended: look it up again or give up.
    Closed(M),
}

/// A message could not be put into an inbox within the deadline. It is handed back.
pub enum TellError<M> {
    /// The inbox stayed full until the deadline, or too many senders were waiting already.
    Full(M),
    /// The actor has ended: look it up again or give up.
    Closed(M),
}

impl<M> TrySendError<M> {
    /// The message that was not sent.
    pub fn into_inner(self) -> M {
        match self {
            Self::Full(msg) | Self::Closed(msg) => msg,
        }
    }

    /// Whether the inbox was full (otherwise the actor has ended).
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }
}

impl<M> TellError<M> {
    /// The message that was not sent.
    pub fn into_inner(self) -> M {
        match self {
            Self::Full(msg) | Self::Closed(msg) => msg,
        }
    }

    /// Whether the inbox was full (otherwise the actor has ended).
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }
}

macro_rules! describe {
    ($name:ident) => {
        // By hand: a message need not be printable, and must not be printed.
        impl<M> fmt::Display for $name<M> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    Self::Full(_) => "the actor's inbox is full: slow down or try again later",
                    Self::Closed(_) => "the actor has ended: look it up again",
                })
            }
        }

        impl<M> fmt::Debug for $name<M> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    Self::Full(_) => concat!(stringify!($name), "::Full"),
                    Self::Closed(_) => concat!(stringify!($name), "::Closed"),
                })
            }
        }

        impl<M> std::error::Error for $name<M> {}
    };
}

describe!(TrySendError);
describe!(TellError);

/// An `ask` got no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AskError {
    /// No room in the inbox before the deadline; the question was not asked.
    #[error("the actor's inbox is full: the question was not asked, try again later")]
    Full,
    /// The actor has ended, before or after it received the question.
    #[error("the actor has ended: look it up again")]
    Closed,
    /// The question was asked and not answered in time. It may still be handled.
    #[error("no answer within the deadline: the question may still be handled")]
    Timeout,
    /// Handling the question panicked. The actor has been restarted (or ended); asking again may crash it again.
    #[error("the actor {0}")]
    Panicked(Arc<ExitReason>),
}

/// A child or supervisor could not be started.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The supervisor is stopping or has ended.
    #[error("the supervisor is shutting down: start nothing more under it")]
    ShuttingDown,
    /// The arbiter's thread has ended.
    #[error("the arbiter is gone: choose a live one")]
    ArbiterGone,
    /// The supervisor has as many children as it may have.
    #[error("the supervisor already has {children_max} children: end some or raise children_max")]
    TooManyChildren {
        /// The limit.
        children_max: usize,
    },
    /// The spec breaks a rule.
    #[error("bad child spec: {0}")]
    BadSpec(&'static str),
}

/// A monitor or link could not be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the actor already has {watchers_max} monitors or links: drop some first")]
pub struct TooManyWatchers {
    /// The limit.
    pub watchers_max: usize,
}

/// A state snapshot could not be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InspectError {
    /// No live node has this id.
    #[error("no live actor has this id: take a fresh tree snapshot")]
    NotFound,
    /// The actor did not answer in time: it is busy or blocked.
    #[error("the actor did not answer in time: it is busy or its arbiter is blocked")]
    Timeout,
    /// The actor ended or crashed before it could answer.
    #[error("the actor ended or crashed before it could answer")]
    Gone,
    /// Too many inspections of this actor wait already.
    #[error("too many inspections of this actor are waiting: try again later")]
    Busy,
}

/// The tree's own thread could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the supervision thread could not be started: {0}; raise the process's thread limit")]
pub struct TreeError(#[from] pub(crate) std::io::Error);
