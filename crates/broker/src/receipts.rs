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
use stonechat_protocol::{MessageId, Seq, UserId};

use crate::session::Session;

/// Messages of the reader's mailbox looked through for one.
const FIND_SCAN_MAX: usize = 4096;

/// Whom to tell that a read was refused.
#[derive(Clone, Debug)]
pub(crate) struct RefuseTo {
    pub(crate) session: ActorRef<Session>,
    pub(crate) connection: u64,
    pub(crate) id: MessageId,
}

/// Something that may move a conversation's watermarks. `R` hears of it if it is refused.
#[derive(Clone, Debug)]
pub(crate) enum Mark<R = RefuseTo> {
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
        refuse: R,
    },
}

impl<R> Mark<R> {
    /// The other side of the conversation.
    pub(crate) fn with(&self) -> &UserId {
        match self {
            Self::Delivered { with, .. } | Self::Read { with, .. } => with,
        }
    }

    pub(crate) fn is_read(&self) -> bool {
        matches!(self, Self::Read { .. })
    }

    /// Whom to tell that it was refused, if anybody asked for it.
    pub(crate) fn refusal(self) -> Option<R> {
        match self {
            Self::Delivered { .. } => None,
            Self::Read { refuse, .. } => Some(refuse),
        }
    }
}

/// What became of a mark.
pub(crate) enum Moved {
    /// The watermarks moved: tell the sender.
    Receipt(Receipt),
    /// They were there already.
    Nothing,
    /// The read was of something never delivered, or of nobody's.
    Refused(RefuseTo),
}

/// Applies a mark to the receipts of `sender`. When the store could not be asked the mark comes
/// back with the reason.
pub(crate) fn move_watermark(
    store: Arc<dyn Store>,
    sender: UserId,
    mark: Mark,
    now_ms: u64,
) -> BoxFuture<'static, Result<Moved, (StoreError, Mark)>> {
    async move {
        match decide(&store, &sender, &mark, now_ms).await {
            Ok(Some(receipt)) => Ok(Moved::Receipt(receipt)),
            Ok(None) => Ok(Moved::Nothing),
            Err(Undecided::Unbelieved) => Ok(mark.refusal().map_or(Moved::Nothing, Moved::Refused)),
            Err(Undecided::Store(error)) => Err((error, mark)),
        }
    }
    .boxed()
}

/// Why a mark did not get as far as moving something or not.
enum Undecided {
    /// A read of something never delivered, or of nobody's.
    Unbelieved,
    Store(StoreError),
}

impl From<StoreError> for Undecided {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

async fn decide(
    store: &Arc<dyn Store>,
    sender: &UserId,
    mark: &Mark,
    now_ms: u64,
) -> Result<Option<Receipt>, Undecided> {
    let mailbox = match store.resident(sender) {
        Some(mailbox) => Some(mailbox),
        None => store.open(sender).await?,
    };
    let Some(mailbox) = mailbox else {
        return match mark {
            // The account was removed in the meantime.
            Mark::Delivered { .. } | Mark::Read { found: Some(_), .. } => Ok(None),
            Mark::Read { .. } => Err(Undecided::Unbelieved),
        };
    };
    let with = mark.with();
    let before = store.receipt(&mailbox, with).await?;
    let marks = Watermarks {
        delivered: before.as_ref().and_then(|receipt| receipt.delivered),
        read: before.as_ref().and_then(|receipt| receipt.read),
    };
    let devices = if mailbox.devices() <= 1 {
        SenderDevices::One
    } else {
        SenderDevices::Several
    };
    let moved = match mark {
        Mark::Delivered { id, upto, .. } => {
            if is_behind(store, sender, with, marks, devices, (*id, *upto)).await? {
                None
            } else {
                Receipts::new(marks).delivered(*id, *upto)
            }
        }
        Mark::Read { id, found, .. } => {
            let (mut receipts, place) = match (found, devices) {
                (Some(_), SenderDevices::Several) => {
                    at_places(store, sender, with, marks, *id).await?
                }
                _ => (Receipts::new(marks), *found),
            };
            match receipts.read(*id, place, devices) {
                Ok(moved) => moved,
                // It was in the mailbox when it was read, so it was the reader's to read. Whoever
                // acknowledged it since comes right behind.
                Err(_) if found.is_some() => None,
                Err(_) => return Err(Undecided::Unbelieved),
            }
        }
    };
    Ok(store_moved(store, &mailbox, with, moved, now_ms).await?)
}

/// The receipts of a conversation with the places of its watermarks, and the place of message
/// `id`: it may have left since it was found. Only if it has not, what was not there just now was
/// before it.
async fn at_places(
    store: &Arc<dyn Store>,
    sender: &UserId,
    with: &UserId,
    marks: Watermarks,
    id: MessageId,
) -> Result<(Receipts, Option<Seq>), StoreError> {
    let delivered = place(store, sender, with, marks.delivered).await?;
    let read = place(store, sender, with, marks.read).await?;
    let found = place(store, sender, with, Some(id)).await?;
    let receipts = found.map_or(Receipts::new(marks), |found| {
        let before = found.saturating_sub(1);
        let (delivered, read) = (delivered.unwrap_or(before), read.unwrap_or(before));
        Receipts::at(marks, delivered, read)
    });
    Ok((receipts, found))
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
) -> Result<Option<Receipt>, StoreError> {
    match moved {
        Some(marks) => {
            store
                .put_receipt(mailbox, with, marks.delivered, marks.read, now_ms)
                .await
        }
        None => Ok(None),
    }
}
