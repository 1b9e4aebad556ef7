//! Messages that no session sends: service messages, imports, dead letters put
//! back. They are durable and delivered as any other.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use stonechat_mailbox::{Append, AppendError, Envelope, MailboxRef, StoreError, Unavailable};
use tokio::sync::oneshot;

use crate::broker::Broker;

/// How long one message may wait for the store to have room.
const ROOM_DEADLINE: Duration = Duration::from_secs(30);

/// A message and the mailbox it goes to.
#[derive(Debug)]
pub struct Posted {
    /// The mailbox.
    pub mailbox: MailboxRef,
    /// Whose window remembers the id; the recipient's mailbox when there is no such sender.
    pub sender: Option<MailboxRef>,
    /// The message.
    pub envelope: Envelope,
}

/// What the sink will say.
type Outcome = oneshot::Receiver<Result<(), Unavailable>>;

impl Broker {
    /// Stores messages in this order, waiting when the store is busy; ready when all of them
    /// are durable or refused.
    ///
    /// # Errors
    /// For each message [`StoreError::TooLarge`] when its mailbox is full,
    /// [`StoreError::Overloaded`] when there was no room in time, or why the store accepts
    /// nothing.
    pub async fn post(&self, messages: Vec<Posted>) -> Vec<Result<(), StoreError>> {
        let mut queued = Vec::with_capacity(messages.len());
        for message in messages {
            queued.push(self.queue(message).await);
        }
        if let Err(error) = self.store().barrier().await {
            // Who waits below hears it from the sink, or finds it gone.
            tracing::debug!(%error, "the store ended while messages were posted");
        }
        let mut results = Vec::with_capacity(queued.len());
        for outcome in queued {
            results.push(match outcome {
                Ok(outcome) => settled(outcome).await,
                Err(error) => Err(error),
            });
        }
        results
    }

    async fn queue(&self, message: Posted) -> Result<Outcome, StoreError> {
        let store = self.store();
        let envelope = Arc::new(message.envelope);
        let deadline = tokio::time::Instant::now() + ROOM_DEADLINE;
        loop {
            // Only the sink can tell: the disk may be full at one moment and have room at the
            // next.
            let outcome = self.watch(&envelope);
            let mut recipients = SmallVec::new();
            recipients.push(Arc::clone(&message.mailbox));
            let sender = message.sender.as_ref().unwrap_or(&message.mailbox);
            let append = Append {
                envelope: Arc::clone(&envelope),
                sender: Arc::clone(sender),
                recipients,
            };
            match store.append(append) {
                Ok(()) => return Ok(outcome),
                Err(AppendError::MailboxFull) => {
                    return Err(StoreError::TooLarge(
                        "the mailbox is full; its owner has to fetch or the operator to raise mailbox limits",
                    ));
                }
                Err(AppendError::Unavailable(why)) => return Err(why.into()),
                Err(AppendError::Busy) => {
                    if tokio::time::timeout_at(deadline, store.ready())
                        .await
                        .is_err()
                    {
                        return Err(StoreError::Overloaded);
                    }
                }
            }
        }
    }
}

async fn settled(outcome: Outcome) -> Result<(), StoreError> {
    outcome.await.map_err(|_| Unavailable::Failed)??;
    Ok(())
}
