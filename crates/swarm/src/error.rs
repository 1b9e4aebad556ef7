//! Why a load run cannot go on. What a server answers to single frames is counted, not an error.

use std::io;
use std::path::PathBuf;

/// Why a load run cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// A socket or the poller failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The deadline passed.
    #[error("{what} was not reached in time: {state}; is the server up, and is it overloaded?")]
    Deadline {
        /// What was waited for.
        what: &'static str,
        /// How far it got.
        state: String,
    },
    /// A process of the swarm could not go on.
    #[error("{name} of the swarm: {what}")]
    Process {
        /// Which one.
        name: String,
        /// What happened.
        what: String,
    },
    /// Somebody stopped the run before everything could be checked.
    #[error("the run was stopped before everything could be checked; its users are left in place")]
    Stopped,
    /// The admin API did not do what was asked.
    #[error("the admin API at {base}: {what}; check its address and its secret")]
    Admin {
        /// Where it should be.
        base: String,
        /// What it said.
        what: String,
    },
    /// A server that the swarm was to start does not do what it should.
    #[error("the server that was started: {what}; its log is {}", log.display())]
    Spawn {
        /// What it does not do.
        what: String,
        /// Where it says why.
        log: PathBuf,
    },
    /// A fault that was asked for cannot be had.
    #[error("{0}")]
    Chaos(String),
    /// Somebody wants it to end.
    #[error("interrupted: there is no verdict")]
    Interrupted,
    /// The server broke the protocol, or ended a connection that should have stayed.
    #[error(
        "user {user}: {what}; see the server's log, and docs/protocol.md for what it should do"
    )]
    Server {
        /// Which simulated user.
        user: u32,
        /// What happened.
        what: String,
    },
}

impl SwarmError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
