//! What simulated users do, as the engine sees it.
//!
//! A behaviour keeps what it needs to know of each user itself, by the user's place in the roster.
//! It does no IO: it calls back into [`User`]. Whatever it returns as an error ends the run, so that
//! a benchmark cannot report figures of a server that broke its word.

use stonechat_protocol::MessageId;

use crate::User;

/// A send that is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Its id.
    pub id: MessageId,
    /// To whom.
    pub to: u32,
    /// Which of the sender's messages.
    pub number: u64,
    /// When it was meant to be sent, microseconds on the engine's clock.
    pub at_us: u64,
    /// Bytes of its body.
    pub body_bytes: usize,
}

/// A message that arrived, never seen before on this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// Its place in the mailbox.
    pub seq: u64,
    /// Its id.
    pub id: MessageId,
    /// The body as it stands.
    pub body: &'a [u8],
    /// `from` and `to` as they stand; `to` is empty where there is none.
    pub from: &'a [u8],
    /// See `from`.
    pub to: &'a [u8],
}

/// How the server broke the protocol on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Breach<'a> {
    /// A message whose `seq` did not increase, and that was not marked `redelivered`. It is dropped.
    #[error("after seq {after}: seq {}, id {} again or late", message.seq, message.id)]
    Seq {
        /// The greatest `seq` before it.
        after: u64,
        /// The message.
        message: Incoming<'a>,
    },
    /// An `accepted` for something else than the oldest send that is unanswered.
    #[error("not the next answer: accepted {id}, due {due:?}")]
    Answer {
        /// What was answered.
        id: MessageId,
        /// What was to be answered.
        due: Option<MessageId>,
    },
    /// A text that is no frame of the protocol, or one in the wrong place. It is dropped.
    #[error("{what}: {text}")]
    Frame {
        /// What is wrong.
        what: &'static str,
        /// Its beginning.
        text: &'a str,
    },
}

/// Where a conversation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The other user, when the name is one of the roster's.
    pub with: Option<u32>,
    /// Last message delivered.
    pub delivered: Option<MessageId>,
    /// Last message read.
    pub read: Option<MessageId>,
}

/// An `error` frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused<'a> {
    /// The code.
    pub code: &'a str,
    /// The send it refuses.
    pub sent: Option<Sent>,
    /// When another try makes sense.
    pub retry_after_ms: Option<u64>,
}

/// What simulated users do. Everything has a default: nothing, or for what should not happen an error.
pub trait Behaviour {
    /// The user is signed in.
    ///
    /// # Errors
    /// Ends the run.
    fn on_welcome(&mut self, user: &mut User<'_>, pending: u64) -> Result<(), String> {
        let _ = (user, pending);
        Ok(())
    }

    /// A message arrived. It counts as taken over when this returns.
    ///
    /// # Errors
    /// Ends the run.
    fn on_message(&mut self, user: &mut User<'_>, message: &Incoming<'_>) -> Result<(), String> {
        let _ = (user, message);
        Ok(())
    }

    /// A send was accepted.
    ///
    /// # Errors
    /// Ends the run.
    fn on_accepted(&mut self, user: &mut User<'_>, sent: &Sent) -> Result<(), String> {
        let _ = (user, sent);
        Ok(())
    }

    /// A receipt moved.
    ///
    /// # Errors
    /// Ends the run.
    fn on_receipt(&mut self, user: &mut User<'_>, receipt: &Receipt) -> Result<(), String> {
        let _ = (user, receipt);
        Ok(())
    }

    /// The time asked for with [`User::wake_at`] has come.
    ///
    /// # Errors
    /// Ends the run.
    fn on_timer(&mut self, user: &mut User<'_>) -> Result<(), String> {
        let _ = user;
        Ok(())
    }

    /// A frame was refused.
    ///
    /// # Errors
    /// Ends the run; so does the default.
    fn on_refused(&mut self, user: &mut User<'_>, refused: &Refused<'_>) -> Result<(), String> {
        let _ = user;
        Err(format!("refused: {refused:?}"))
    }

    /// The connection ended without being asked to.
    ///
    /// # Errors
    /// Ends the run; so does the default.
    fn on_end(&mut self, user: &mut User<'_>, why: &str) -> Result<(), String> {
        let _ = user;
        Err(format!("the connection ended: {why}"))
    }

    /// A message came again, marked as such, and was dropped.
    fn on_redelivered(&mut self, user: &mut User<'_>, message: &Incoming<'_>) {
        let _ = (user, message);
    }

    /// The server broke the protocol.
    ///
    /// # Errors
    /// Ends the run; so does the default.
    fn on_breach(&mut self, user: &mut User<'_>, breach: &Breach<'_>) -> Result<(), String> {
        let _ = user;
        Err(breach.to_string())
    }

    /// Asked after each turn of the loop: is all done?
    fn finished(&mut self) -> bool {
        false
    }
}
