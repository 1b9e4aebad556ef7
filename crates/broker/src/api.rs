//! The words between the broker and an edge.
//!
//! An edge (WebSocket and JSON today, XMPP some day) turns its frames into
//! [`Input`]s and writes [`crate::Event`]s. Nothing here knows a socket, HTTP
//! or JSON.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use stonechat_protocol::{CloseReason, DeviceId, MessageId, Seq, UserId};
use stonechat_trace::Span;

use crate::{Outlet, Traffic};

/// A device wants to be connected. The edge has authenticated it.
#[derive(Debug)]
pub struct Attach {
    /// The user.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// Where its events go.
    pub outlet: Outlet,
    /// Arbiter of the connection. A session that has to be started is started there, so
    /// that the two share a thread.
    pub home: actix_rt::ArbiterHandle,
    /// Acknowledgement that came with the sign-in.
    pub ack: Option<Seq>,
    /// Last receipt revision the client has seen.
    pub rev: Option<u64>,
    /// Where the edge counts what goes over the connection.
    pub traffic: Arc<Traffic>,
}

/// Why a device could not be connected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// There is no such user (any more).
    #[error("there is no such user")]
    UnknownUser,
    /// The user has as many devices as allowed.
    #[error("the user has {0} devices, which is the limit; remove one first")]
    TooManyDevices(usize),
    /// Draining, or at a limit of sessions.
    #[error("the node takes no new sessions")]
    Overloaded {
        /// When to try again.
        retry_after_ms: u64,
    },
    /// The session or the store failed.
    #[error("the session could not be started")]
    Internal,
}

/// What a client asked for in one frame.
#[derive(Debug)]
pub enum Command {
    /// A message for a user.
    Send {
        /// Chosen by the device.
        id: MessageId,
        /// The recipient.
        to: UserId,
        /// As the sender encoded it; size already checked by the edge.
        body: Bytes,
        /// Seconds it may wait.
        ttl_s: Option<u64>,
        /// Not to be stored.
        ephemeral: bool,
        /// Of its way through the session, when the message is followed.
        span: Option<Box<Span>>,
    },
    /// The user has read messages.
    Read {
        /// Who wrote them.
        from: UserId,
        /// The last one read.
        id: MessageId,
    },
}

/// One frame of a client: a command and what rode on it.
#[derive(Debug, Default)]
pub struct Input {
    /// Cumulative acknowledgement.
    pub ack: Option<Seq>,
    /// Receipts seen up to here.
    pub rev: Option<u64>,
    /// The command; none for a bare acknowledgement.
    pub command: Option<Command>,
}

/// Which connections to close.
#[derive(Debug, Clone)]
pub struct Disconnect {
    /// Of this user.
    pub user: UserId,
    /// Only this device; all of them when absent.
    pub device: Option<DeviceId>,
    /// What to tell them.
    pub reason: CloseReason,
}

/// Figures of the broker.
#[derive(Debug, Clone, Default, Serialize)]
pub struct BrokerStats {
    /// Sessions alive, those without a device for the moment included.
    pub sessions: u64,
    /// Devices connected.
    pub devices: u64,
}

/// Where a panic is to be injected, for tests of supervision.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The session of a user.
    Session(UserId),
    /// The session of a user, each time it delivers the message with this id.
    Poison(UserId, MessageId),
    /// The router.
    Router,
    /// One offline queue.
    OfflineQueue(usize),
    /// One dispatcher; there are as many as threads that have had sessions.
    Dispatcher(usize),
}
