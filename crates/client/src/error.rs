//! Everything that can go wrong, typed, and saying what to do next.

use std::path::PathBuf;

use stonechat_protocol::{CloseReason, ErrorCode, MessageId, Seq};

use crate::resume::ResumeError;

/// Why a client could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The URL is not one of a WebSocket server.
    #[error("{url:?} is not a server address ({problem}): use ws://HOST:PORT or wss://HOST:PORT")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The device name is not allowed.
    #[error("the device name is not allowed: {0}")]
    Device(#[from] stonechat_protocol::IdError),
    /// Neither a token nor a source of tokens was given.
    #[error("no token was given: use token or token_source")]
    NoToken,
    /// The CA file cannot be used.
    #[error("the CA file {path} cannot be used: {problem}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The stored state is damaged.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// `connect` was called outside a tokio runtime.
    #[error("there is no tokio runtime here: call connect from async code")]
    NoRuntime,
}

/// Why a send was not taken. Nothing was queued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The body could not be written as JSON.
    #[error("the body cannot be written as JSON: {0}")]
    Body(#[from] serde_json::Error),
    /// The body is above the server's limit.
    #[error("the body has {bytes} bytes, at most {bytes_max} are allowed: send less")]
    TooLarge {
        /// Bytes of the encoded body.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The chosen id is not above the last one used.
    #[error("the id is not above {last}, the last one used: choose a later one, or none")]
    IdNotIncreasing {
        /// The last id used.
        last: MessageId,
    },
    /// As many sends as allowed are unanswered (`try_send` only).
    #[error("64 sends are unanswered: wait for an answer, or use send, which waits")]
    Full,
    /// An ephemeral message while not connected: it would be worth nothing later.
    #[error("not connected: an ephemeral message is not kept for later")]
    NotConnected,
    /// The client has ended.
    #[error("the client has ended: {0}")]
    Ended(Terminal),
}

/// Why a send was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The server refused it: it is not stored, and its id is used up.
    #[error("{code}: {message}")]
    Server {
        /// Why.
        code: ErrorCode,
        /// For a developer.
        message: String,
        /// When another try makes sense.
        retry_after_ms: Option<u64>,
    },
    /// It is above the limits the server told at sign-in; it was not sent.
    #[error("the message is too large for this server: {bytes} bytes, at most {bytes_max}")]
    TooLarge {
        /// Bytes of the encoded body.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The connection broke before the answer; ephemeral messages are not sent again.
    #[error("the connection broke: whether the ephemeral message arrived is not known")]
    ConnectionLost,
    /// The client ended first. The send is in
    /// [`Client::resume_state`](crate::Client::resume_state): continue from there and
    /// it is sent again under the same id.
    #[error("the client ended before the answer came: {0}")]
    Ended(Terminal),
}

impl Refused {
    /// Whether sending the same body again (under a new id) can succeed.
    pub fn may_retry(&self) -> bool {
        match self {
            Self::Server { code, .. } => matches!(
                code,
                ErrorCode::RateLimited
                    | ErrorCode::MailboxFull
                    | ErrorCode::StorageUnavailable
                    | ErrorCode::TooManyUnanswered
                    | ErrorCode::IdTooOld
                    | ErrorCode::Internal
            ),
            Self::ConnectionLost => true,
            Self::TooLarge { .. } | Self::Ended(_) => false,
        }
    }
}

/// Why an acknowledgement was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{seq} was not handed to the application yet (the last was {last}): acknowledge only what was handled"
)]
pub struct AckError {
    /// What was to be acknowledged.
    pub seq: Seq,
    /// The last that was handed out.
    pub last: Seq,
}

/// Why a read mark was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Marks of 1,024 conversations are waiting to be sent.
    #[error("read marks of 1024 conversations are waiting: try again once connected")]
    Full,
    /// The client has ended.
    #[error("the client has ended: {0}")]
    Ended(Terminal),
}

/// Why a connection ended, or did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DisconnectCause {
    /// The server said goodbye.
    #[error("the server closed the connection: {0}")]
    Bye(CloseReason),
    /// The server answered the upgrade with this HTTP status.
    #[error("the server refused the connection with HTTP status {status}")]
    Http {
        /// The status.
        status: u16,
    },
    /// The network failed, or nobody listens there.
    #[error("the connection failed: {0}")]
    Network(String),
    /// No connection within the time allowed.
    #[error("no connection within the time allowed")]
    ConnectTimeout,
    /// Connected, but no `welcome` within the time allowed.
    #[error("the server did not answer the sign-in in time")]
    SignInTimeout,
    /// Nothing was heard although the server was asked to answer: the connection is half-open.
    #[error("nothing was heard from the server any more")]
    HeartbeatLost,
    /// The network took nothing for too long.
    #[error("the network took nothing for too long")]
    WriteTimeout,
    /// The server broke the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// The application left too many events untaken; what was not taken is sent again.
    #[error("the application did not take its events")]
    Overrun,
    /// The source of tokens failed.
    #[error("no token could be had: {0}")]
    Token(String),
}

/// Why a client has ended for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Terminal {
    /// The application closed it.
    #[error("closed by the application")]
    Closed,
    /// The server gave a reason for which connecting again is of no use.
    #[error("{0}: {text}", text = .0.describe())]
    Refused(CloseReason),
    /// The server refused the upgrade for good: wrong address, or not a Stonechat server.
    #[error("HTTP status {status}: check the address of the server")]
    Http {
        /// The status.
        status: u16,
    },
    /// As many attempts as allowed failed in a row.
    #[error("gave up after {attempts} attempts, the last: {last}")]
    GaveUp {
        /// How many.
        attempts: u32,
        /// Why the last one failed.
        last: DisconnectCause,
    },
}
