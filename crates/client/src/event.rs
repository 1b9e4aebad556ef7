//! What a client tells its application.

use std::time::Duration;

use stonechat_protocol::{Accepted, ErrorFrame, Message, MessageId, Receipt, Welcome};

use crate::error::{DisconnectCause, Refused, Terminal};

/// Something the application should know, in the order in which it happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// Signed in, for the first time or again.
    Connected(Welcome),
    /// A message. Each `seq` is handed out once in the life of a client.
    Message(Message),
    /// A conversation's watermarks moved. When several receipts of one conversation wait
    /// to be taken, only the latest is kept: it says all that the others said.
    Receipt(Receipt),
    /// The connection ended; another attempt follows.
    Disconnected {
        /// Why.
        cause: DisconnectCause,
        /// When the next attempt is made.
        retry_in: Duration,
    },
    /// A send taken over from a [`ResumeState`](crate::ResumeState) was answered.
    Settled {
        /// The send.
        id: MessageId,
        /// The answer.
        result: Result<Accepted, Refused>,
    },
    /// The server refused a frame that was not a send.
    ServerError(ErrorFrame),
    /// Ephemeral messages or notices of the connection were left out because the
    /// application took no events. Stored messages and receipts never are.
    Lagged {
        /// How many.
        dropped: u64,
    },
    /// The last event: the client has ended.
    Terminal(Terminal),
}
