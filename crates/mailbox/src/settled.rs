//! What a durable record does to the mailboxes in memory. Called by the committer once the batch is
//! synced, and by nobody before that; it decides nothing about what is written.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use stonechat_protocol::{DeviceId, Seq, UserId};

use crate::api::Envelope;
use crate::mailbox::{Mailbox, Recent, recent_bytes};
use crate::shared::Core;

/// A durable message takes its place; returns the place before.
pub(crate) fn place(core: &Core, mailbox: &Arc<Mailbox>, recent: Recent) -> Seq {
    let (seq, segment, at_ms) = (recent.seq, recent.segment, recent.at_ms);
    let memory = recent_bytes(&recent.envelope);
    let (prev, kept) = core.update(mailbox, |state| {
        let prev = state.last_seq;
        assert!(prev < seq, "the committer alone assigns places, in order");
        state.unqueue(recent.envelope.body.len() as u64);
        state.last_seq = seq;
        core.mark_dirty(mailbox, state);
        if state.removed {
            return (prev, false);
        }
        state.push(recent);
        if !state.aging {
            state.aging = true;
            core.upkeep.aging(mailbox, at_ms);
        }
        (prev, true)
    });
    if !kept {
        let totals = &core.totals;
        totals.recent_bytes.fetch_sub(memory, Ordering::Relaxed);
        core.table.live(segment, 0, 1);
    }
    prev
}

/// The sending device's window gets the id (contract D3).
pub(crate) fn remember_id(core: &Core, sender: &Arc<Mailbox>, envelope: &Envelope) {
    // A dead letter put back after its sender's account is gone has another mailbox here.
    if *sender.user() != envelope.from.user {
        return;
    }
    let mut state = sender.lock();
    if let Some(device) = state.device_mut(&envelope.from.device) {
        device.state.window.insert(envelope.id, envelope.ts_ms);
        core.mark_dirty(sender, &mut state);
    }
}

/// The mailbox of a removed account is emptied.
pub(crate) fn remove_user(core: &Core, user: &UserId, upto: Seq) {
    let Some(mailbox) = core.resident(user) else {
        return;
    };
    let freed = core.update(&mailbox, |state| {
        let upto = upto.max(state.last_seq);
        core.mark_dirty(&mailbox, state);
        state.clear(upto)
    });
    core.freed(&mailbox, freed);
}

/// A device that attached while its removal was on its way to the disk may have been
/// journaled before the removal: it is journaled once more.
pub(crate) fn attached_again(core: &Core, user: &UserId, device: &DeviceId) {
    let Some(mailbox) = core.resident(user) else {
        return;
    };
    let mut state = mailbox.lock();
    let first_cursor = state.first_cursor;
    if let Some(device) = state.device_mut(device) {
        device.unjournaled.get_or_insert(first_cursor);
        core.mark_lazy(&mailbox, &mut state);
    }
}
