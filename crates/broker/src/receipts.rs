//! Carrying out a mark on a conversation: read what is stored, let
//! `stonechat_delivery::Receipts` decide, store what moved.
//!
//! Runs on behalf of the sender's offline queue, one mark of a sender at a
//! time, so that reading, deciding and storing cannot cross another's.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use stonechat_actors::ActorRef;
use stonechat_delivery::{Receipts, SenderDevices, Watermarks};
use stonechat_mailbox::{MailboxRef, Receipt, Store, StoreError};
use stonechat_protocol::{ErrorCode, MessageId, Seq, UserId};

use crate::session::Session;

/// Messages of the reader's mailbox looked through for one.
const FIND_SCAN_MAX: usize = 4096;

/// Whom to tell that a read was refused.
pub(crate) struct RefuseTo {
    pub(crate) session: ActorRef<Session>,
    pub(crate) connection: u64,
    pub(crate) id: MessageId,
}

/// Something that may move a conversation's watermarks.
pub(crate) enum Mark {
    /// A first device of `with` acknowledged up to this message.
    Delivered {
        with: UserId,
        id: MessageId,
        /// The place acknowledged, in the mailbox of `with`.
        upto: Seq,
    },
    /// `with` says it has read up to this message.
    Read {
        with: UserId,
        id: MessageId,
        /// The message's place while it is still in the mailbox of `with`.
        found: Option<Seq>,
        refuse: RefuseTo,
    },
}

impl Mark {
    /// Whether an older mark says nothing that this one does not.
    pub(crate) fn covers(&self, older: &Self) -> bool {
        matches!(
            (self, older),
            (Self::Delivered { with, .. }, Self::Delivered { with: other, .. }) if with == other
        )
    }
}

/// What became of a mark.
pub(crate) enum Moved {
    /// The watermarks moved: tell the sender.
    Receipt(Receipt),
    /// They were there already.
    Nothing,
    /// The read was of something never delivered, or of nobody's.
    Refused { refuse: RefuseTo, code: ErrorCode },
}

/// Applies a mark to the receipts of `sender`.
pub(crate) fn move_watermark(
    store: Arc<dyn Store>,
    sender: UserId,
    mark: Mark,
    now_ms: u64,
) -> BoxFuture<'static, Result<Moved, StoreError>> {
    async move {
        let mailbox = match store.resident(&sender) {
            Some(mailbox) => Some(mailbox),
            None => store.open(&sender).await?,
        };
        let Some(mailbox) = mailbox else {
            return Ok(match mark {
                // The account was removed in the meantime.
                Mark::Delivered { .. } | Mark::Read { found: Some(_), .. } => Moved::Nothing,
                Mark::Read { refuse, .. } => Moved::Refused {
                    refuse,
                    code: ErrorCode::UnknownMessage,
                },
            });
        };
        let with = match &mark {
            Mark::Delivered { with, .. } | Mark::Read { with, .. } => with.clone(),
        };
        let before = store.receipt(&mailbox, &with).await?;
        let marks = Watermarks {
            delivered: before.as_ref().and_then(|receipt| receipt.delivered),
            read: before.as_ref().and_then(|receipt| receipt.read),
        };
        let devices = if mailbox.devices() <= 1 {
            SenderDevices::One
        } else {
            SenderDevices::Several
        };
        let mut mark = mark;
        let mut receipts = Receipts::new(marks);
        if let Mark::Read { id, found, .. } = &mut mark
            && found.is_some()
            && devices == SenderDevices::Several
        {
            let delivered = place(&store, &sender, &with, marks.delivered).await?;
            let read = place(&store, &sender, &with, marks.read).await?;
            // It may have left since it was found. Only if it has not, what was not there just now
            // was before it.
            *found = place(&store, &sender, &with, Some(*id)).await?;
            if let Some(found) = *found {
                let before = found.saturating_sub(1);
                let (delivered, read) = (delivered.unwrap_or(before), read.unwrap_or(before));
                receipts = Receipts::at(marks, delivered, read);
            }
        }
        let moved = match mark {
            Mark::Delivered { id, upto, .. } => {
                if is_behind(&store, &sender, &with, marks, devices, (id, upto)).await? {
                    None
                } else {
                    receipts.delivered(id, upto)
                }
            }
            Mark::Read {
                id, found, refuse, ..
            } => match receipts.read(id, found, devices) {
                Ok(moved) => moved,
                Err(_) => {
                    return Ok(Moved::Refused {
                        refuse,
                        code: ErrorCode::UnknownMessage,
                    });
                }
            },
        };
        store_moved(&store, &mailbox, &with, moved, now_ms).await
    }
    .boxed()
}

/// The place of a message in the reader's mailbox, while it is in it.
async fn place(
    store: &Arc<dyn Store>,
    sender: &UserId,
    reader: &UserId,
    id: Option<MessageId>,
) -> Result<Option<Seq>, StoreError> {
    match (id, store.resident(reader)) {
        (Some(id), Some(mailbox)) => store.find(&mailbox, sender, id, FIND_SCAN_MAX).await,
        _ => Ok(None),
    }
}

/// Acknowledgements come in order, but a `read` may have moved `delivered` ahead of them: then
/// the watermark is a message still in the reader's mailbox, beyond what was acknowledged.
async fn is_behind(
    store: &Arc<dyn Store>,
    sender: &UserId,
    reader: &UserId,
    marks: Watermarks,
    devices: SenderDevices,
    (id, upto): (MessageId, Seq),
) -> Result<bool, StoreError> {
    let Some(delivered) = marks.delivered else {
        return Ok(false);
    };
    if devices == SenderDevices::One {
        return Ok(id <= delivered);
    }
    if marks.read != Some(delivered) {
        return Ok(false);
    }
    let Some(mailbox) = store.resident(reader) else {
        return Ok(false);
    };
    let at = store
        .find(&mailbox, sender, delivered, FIND_SCAN_MAX)
        .await?;
    Ok(at.is_some_and(|at| at > upto))
}

async fn store_moved(
    store: &Arc<dyn Store>,
    mailbox: &MailboxRef,
    with: &UserId,
    moved: Option<Watermarks>,
    now_ms: u64,
) -> Result<Moved, StoreError> {
    let Some(marks) = moved else {
        return Ok(Moved::Nothing);
    };
    let receipt = store
        .put_receipt(mailbox, with, marks.delivered, marks.read, now_ms)
        .await?;
    Ok(receipt.map_or(Moved::Nothing, Moved::Receipt))
}
