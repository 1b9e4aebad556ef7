//! What an application keeps so that it survives its own crash.
//!
//! This module writes nothing to disk: when and where to store the state is
//! the application's decision, best in the same transaction as the effects of
//! the messages it has handled.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use stonechat_protocol::{MessageId, Seq, UNACCEPTED_MAX, UserId};

/// Where a client stands. Serialise it to JSON, and give it back to
/// [`ClientBuilder::resume`](crate::ClientBuilder::resume) after a restart.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ResumeState {
    /// Everything up to here was handled by the application.
    pub last_seq: Seq,
    /// Receipts up to this revision were handled by the application.
    pub last_rev: u64,
    /// The greatest message id this device has used.
    pub last_id: Option<MessageId>,
    /// Sends without an answer, oldest first; at most
    /// [`UNACCEPTED_MAX`].
    pub unanswered: Vec<PendingSend>,
}

/// A send whose answer has not come yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PendingSend {
    /// Its id: a resend under the same id is recognised by the server.
    pub id: MessageId,
    /// The recipient.
    pub to: UserId,
    /// The body as JSON.
    pub body: Box<RawValue>,
    /// Seconds it may wait for the recipient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
}

/// Why a stored state cannot be continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// More sends than may be unanswered at a time.
    #[error(
        "the stored state holds {found} unanswered sends, at most 64 are possible: it is damaged"
    )]
    TooMany {
        /// How many there were.
        found: usize,
    },
    /// The ids of the sends do not increase.
    #[error("the ids in the stored state do not increase at {id}: it is damaged")]
    Order {
        /// The first id that is not above the one before it.
        id: MessageId,
    },
}

impl ResumeState {
    /// Checks what the rest of the crate relies on.
    pub(crate) fn check(&self) -> Result<(), ResumeError> {
        if self.unanswered.len() > UNACCEPTED_MAX {
            return Err(ResumeError::TooMany {
                found: self.unanswered.len(),
            });
        }
        for pair in self.unanswered.windows(2) {
            if pair[1].id <= pair[0].id {
                return Err(ResumeError::Order { id: pair[1].id });
            }
        }
        Ok(())
    }

    /// The greatest id that must not be used again.
    pub(crate) fn greatest_id(&self) -> Option<MessageId> {
        self.last_id.max(self.unanswered.last().map(|send| send.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(n: u128) -> PendingSend {
        PendingSend {
            id: MessageId::from_u128((7 << 76) | (2 << 62) | n),
            to: UserId::new("bob").unwrap(),
            body: RawValue::from_string("{\"a\": 1}".to_owned()).unwrap(),
            ttl_s: None,
        }
    }

    #[test]
    fn survives_json() {
        let state = ResumeState {
            last_seq: 7,
            last_rev: 3,
            last_id: Some(send(9).id),
            unanswered: vec![send(1), send(2)],
        };
        let text = serde_json::to_string(&state).unwrap();
        let back: ResumeState = serde_json::from_str(&text).unwrap();
        assert_eq!(back.last_seq, 7);
        assert_eq!(back.unanswered[1].body.get(), "{\"a\": 1}");
        assert_eq!(back.greatest_id(), Some(send(9).id));
        assert_eq!(back.check(), Ok(()));
    }

    #[test]
    fn damage_is_noticed() {
        let unordered = ResumeState {
            unanswered: vec![send(2), send(2)],
            ..ResumeState::default()
        };
        assert_eq!(
            unordered.check(),
            Err(ResumeError::Order { id: send(2).id })
        );
        let many = ResumeState {
            unanswered: (0..65).map(send).collect(),
            ..ResumeState::default()
        };
        assert_eq!(many.check(), Err(ResumeError::TooMany { found: 65 }));
        assert_eq!(many.greatest_id(), Some(send(64).id));
    }
}
