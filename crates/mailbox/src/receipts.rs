//! The watermarks of one user's conversations, in memory.
//!
//! Bounded by `receipts_max`: the conversation that has not moved for longest
//! is forgotten first. It never decides whether a watermark may move.

use std::collections::BTreeMap;

use ahash::HashMap;
use stonechat_protocol::{MessageId, UserId};

use crate::api::{MailboxRef, Receipt};
use crate::error::StoreError;
use crate::mailbox::Mailbox;
use crate::shared::Core;
use crate::sledstore::{Database, values};

/// Bits of `rev` below the number of the start: a start raises every later `rev`
/// above all that a crash may have forgotten. 2^25 starts stay below 2^53 (JSON).
const REV_BITS: u32 = 28;

/// All receipts of a user.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    by_peer: HashMap<UserId, Entry>,
    by_rev: BTreeMap<u64, UserId>,
    /// Peers whose receipt is to be written to the database.
    dirty: Vec<UserId>,
    /// Peers whose `read` moved and is to be journaled.
    unjournaled: Vec<UserId>,
}

#[derive(Debug)]
struct Entry {
    receipt: Receipt,
    dirty: bool,
    unjournaled: bool,
}

/// The next revision after `last` in the process numbered `epoch`.
pub(crate) fn next_rev(last: u64, epoch: u64) -> u64 {
    (last + 1).max(epoch << REV_BITS)
}

/// Moves a watermark; the receipts are loaded.
pub(crate) fn put_receipt(
    core: &Core,
    mailbox: &MailboxRef,
    with: &UserId,
    delivered: Option<MessageId>,
    read: Option<MessageId>,
    now_ms: u64,
) -> Option<Receipt> {
    let mut state = mailbox.lock();
    let rev = next_rev(state.rev_last, core.epoch);
    let receipts = state.receipts.as_mut()?;
    let (receipt, journal) = receipts.put(with, delivered, read, now_ms, rev)?;
    let gone = receipts.trim(core.config.receipts_max);
    state.rev_last = rev;
    if journal {
        core.mark_lazy(mailbox, &mut state);
    } else {
        core.mark_dirty(mailbox, &mut state);
    }
    drop(state);
    if !gone.is_empty() {
        tracing::info!(user = %mailbox.user(), receipts = gone.len(), "forgot the receipts of the longest quiet conversations");
    }
    Some(receipt)
}

/// Loads a mailbox's receipts unless they are there. Blocks on the database.
pub(crate) fn load_receipts(database: &Database, mailbox: &Mailbox) -> Result<(), StoreError> {
    if mailbox.lock().receipts.is_some() {
        return Ok(());
    }
    let stored = database.get_receipts(mailbox.user())?;
    let mut state = mailbox.lock();
    if state.receipts.is_none() {
        let last = stored.iter().map(|receipt| receipt.rev).max().unwrap_or(0);
        state.rev_last = state.rev_last.max(last);
        state.receipts = Some(Box::new(Receipts::from_stored(stored)));
    }
    Ok(())
}

/// Removes all of a user's receipts from the database.
pub(crate) fn remove_receipts(database: &Database, user: &UserId) -> Result<(), StoreError> {
    let prefix = values::user_prefix(user);
    for key in database.receipts.scan_prefix(prefix).keys() {
        database.receipts.remove(key?)?;
    }
    Ok(())
}

impl Receipts {
    /// Takes what the database holds.
    pub(crate) fn from_stored(stored: Vec<Receipt>) -> Self {
        let mut receipts = Self::default();
        for receipt in stored {
            receipts.set(receipt, false);
        }
        receipts
    }

    /// One conversation's watermarks.
    pub(crate) fn get(&self, with: &UserId) -> Option<&Receipt> {
        self.by_peer.get(with).map(|entry| &entry.receipt)
    }

    /// Sets a receipt as it is.
    pub(crate) fn set(&mut self, receipt: Receipt, dirty: bool) {
        let with = receipt.with.clone();
        let old = self.by_peer.get(&with);
        if let Some(old) = old {
            self.by_rev.remove(&old.receipt.rev);
        }
        let was_dirty = old.is_some_and(|old| old.dirty);
        let unjournaled = old.is_some_and(|old| old.unjournaled);
        if dirty && !was_dirty {
            self.dirty.push(with.clone());
        }
        self.by_rev.insert(receipt.rev, with.clone());
        let entry = Entry {
            receipt,
            dirty: dirty || was_dirty,
            unjournaled,
        };
        self.by_peer.insert(with, entry);
    }

    /// Moves watermarks; `None` when nothing changes. The second value says that it has
    /// to be journaled: `read` cannot be derived again.
    pub(crate) fn put(
        &mut self,
        with: &UserId,
        delivered: Option<MessageId>,
        read: Option<MessageId>,
        now_ms: u64,
        rev: u64,
    ) -> Option<(Receipt, bool)> {
        let old = self.get(with);
        let before = old.map_or((None, None), |old| (old.delivered, old.read));
        let after = (delivered.or(before.0), read.or(before.1));
        if before == after {
            return None;
        }
        let receipt = Receipt {
            with: with.clone(),
            rev,
            delivered: after.0,
            read: after.1,
            ts_ms: now_ms,
        };
        self.set(receipt.clone(), true);
        let journal = before.1 != after.1;
        if journal {
            self.mark_unjournaled(with);
        }
        Some((receipt, journal))
    }

    /// The receipt with this peer has (still) to be journaled.
    pub(crate) fn mark_unjournaled(&mut self, with: &UserId) {
        if let Some(entry) = self.by_peer.get_mut(with)
            && !entry.unjournaled
        {
            entry.unjournaled = true;
            self.unjournaled.push(with.clone());
        }
    }

    /// Forgets the longest unmoved beyond `max`; returns whom they were with.
    pub(crate) fn trim(&mut self, max: usize) -> Vec<UserId> {
        let mut gone = Vec::new();
        while self.by_peer.len() > max
            && let Some((_, with)) = self.by_rev.pop_first()
        {
            self.by_peer.remove(&with);
            gone.push(with);
        }
        gone
    }

    /// Receipts above `after` in order, at most `max`.
    pub(crate) fn after(&self, after: u64, max: usize) -> Vec<Receipt> {
        self.by_rev
            .range(after.saturating_add(1)..)
            .filter_map(|(_, with)| self.get(with).cloned())
            .take(max)
            .collect()
    }

    /// What is to be journaled; it counts as journaled from here on.
    pub(crate) fn take_unjournaled(&mut self) -> Vec<Receipt> {
        let peers = std::mem::take(&mut self.unjournaled);
        let entries = peers.iter().filter_map(|with| {
            let entry = self.by_peer.get_mut(with)?;
            entry.unjournaled = false;
            Some(entry.receipt.clone())
        });
        entries.collect()
    }

    /// Everything is to be stored (again).
    pub(crate) fn mark_all_dirty(&mut self) {
        self.dirty.clear();
        for (with, entry) in &mut self.by_peer {
            entry.dirty = true;
            self.dirty.push(with.clone());
        }
    }

    /// What is to be stored; it counts as stored from here on.
    pub(crate) fn take_dirty(&mut self) -> Vec<Receipt> {
        let peers = std::mem::take(&mut self.dirty);
        let entries = peers.iter().filter_map(|with| {
            let entry = self.by_peer.get_mut(with)?;
            entry.dirty = false;
            Some(entry.receipt.clone())
        });
        entries.collect()
    }
}
