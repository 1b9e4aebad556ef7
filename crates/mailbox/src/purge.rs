//! Throwing away what waits in a mailbox because an operator says so (contract
//! D5: counted, reported, and never by itself).
//!
//! A record in the journal says so first; the mailbox is emptied as the record
//! takes effect, before anything can be told that it did.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use stonechat_protocol::{Seq, UserId};

use crate::admin::Purged;
use crate::error::StoreError;
use crate::housekeeper::ask;
use crate::journal::Record;
use crate::mailbox::{Freed, Mailbox, State};
use crate::queue::Job;
use crate::shared::Core;

/// Removes everything up to `upto`, or all that is there now. Blocks until it is durable.
pub(crate) fn run(
    core: &Core,
    mailbox: &Arc<Mailbox>,
    upto: Option<Seq>,
) -> Result<Purged, StoreError> {
    let (upto, messages) = {
        let state = mailbox.lock();
        if state.removed {
            return Err(StoreError::UnknownUser(mailbox.user().clone()));
        }
        let upto = upto.unwrap_or(Seq::MAX).min(state.last_seq);
        (upto, state.messages - state.held_above(upto))
    };
    if messages == 0 {
        return Ok(Purged { messages, upto });
    }
    ask(core, |done| {
        let record = Record::Purge {
            user: mailbox.user().clone(),
            upto,
        };
        Job::record(record, done)
    })?;
    tracing::info!(user = %mailbox.user(), messages, upto, "mailbox purged");
    Ok(Purged { messages, upto })
}

/// The record is durable. `mailbox` is in memory for as long as somebody waits for the purge.
pub(crate) fn apply(core: &Core, user: &UserId, upto: Seq) {
    if let Some(mailbox) = core.resident(user) {
        let freed = empty(core, &mailbox, upto);
        core.totals
            .purged
            .fetch_add(freed.messages, Ordering::Relaxed);
        core.telemetry.purged(freed.messages);
        core.freed(&mailbox, freed);
    }
}

/// The record is replayed. Harmless if the mailbox reflects it: places are never used again.
pub(crate) fn replay(core: &Core, mailbox: &Arc<Mailbox>, upto: Seq) {
    let freed = empty(core, mailbox, upto);
    core.freed(mailbox, freed);
}

fn empty(core: &Core, mailbox: &Arc<Mailbox>, upto: Seq) -> Freed {
    core.update(mailbox, |state: &mut State| {
        core.mark_dirty(mailbox, state);
        let upto = upto.min(state.last_seq);
        state.drop_upto(upto)
    })
}
