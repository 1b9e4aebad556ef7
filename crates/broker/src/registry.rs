//! User to session, readable from any thread without passing through an actor,
//! and what of a session survives its restart.
//!
//! The router alone adds and removes entries; everybody reads. Nothing here
//! decides anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;
use smallvec::SmallVec;
use stonechat_actors::ActorRef;
use stonechat_delivery::Attempts;
use stonechat_mailbox::MailboxRef;
use stonechat_protocol::{CloseReason, DeviceId, MessageId, Seq, UserId};

use crate::session::Session;
use crate::{Outlet, Traffic};

/// One connected device, as the session and the edge share it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) device: DeviceId,
    /// Number of the connection: tells a device's old connection from its new one.
    pub(crate) connection: u64,
    pub(crate) outlet: Outlet,
    /// When it connected, milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
    /// Greatest `seq` pushed to the outlet or known to have been sent before.
    pub(crate) sent: AtomicU64,
    /// Greatest `seq` the device acknowledged, which the store may not have heard of yet.
    pub(crate) acked: AtomicU64,
    /// Greatest receipt revision pushed to the outlet, or seen before by the client.
    pub(crate) receipts_told: AtomicU64,
    /// Sends taken from the connection and not yet answered.
    pub(crate) unanswered: AtomicU32,
    /// What the edge counts of the connection.
    pub(crate) traffic: Arc<Traffic>,
}

/// What of a session outlives a panic: plain facts the next generation starts from.
pub(crate) struct Anchor {
    pub(crate) user: UserId,
    pub(crate) mailbox: MailboxRef,
    pub(crate) slots: Mutex<SmallVec<[Arc<Slot>; 1]>>,
    /// Connects the router has passed on; see `router` for what it is compared with.
    pub(crate) connects: AtomicU32,
    /// Connects the session has taken up.
    pub(crate) connects_seen: AtomicU32,
    /// The `seq` being handled right now, 0 when none: names the culprit after a panic.
    pub(crate) handling: AtomicU64,
    /// Panics counted by message.
    pub(crate) attempts: Mutex<Option<Box<Attempts<Seq>>>>,
    /// The session wakes within `coalesce_ms` and its devices are in the middle of a conversation: what can
    /// share a write may wait in its inbox.
    pub(crate) patient: AtomicBool,
    /// Fault injection: panic when this message is handled.
    pub(crate) poison: Mutex<Option<Box<MessageId>>>,
}

impl Anchor {
    pub(crate) fn new(user: UserId, mailbox: MailboxRef) -> Self {
        Self {
            user,
            mailbox,
            slots: Mutex::default(),
            connects: AtomicU32::new(0),
            connects_seen: AtomicU32::new(0),
            handling: AtomicU64::new(0),
            attempts: Mutex::default(),
            patient: AtomicBool::new(false),
            poison: Mutex::default(),
        }
    }

    /// Fault injection: panics when this message was poisoned.
    pub(crate) fn panic_if_poisoned(&self, id: MessageId) {
        let poisoned = self.poison.lock().as_deref() == Some(&id);
        assert!(!poisoned, "injected by a poisoned message");
    }

    /// Closes all connections, or one device's; returns how many.
    pub(crate) fn close(
        &self,
        device: Option<&DeviceId>,
        reason: CloseReason,
        retry_after_ms: Option<u64>,
    ) -> usize {
        let slots = self.slots.lock();
        let chosen = slots
            .iter()
            .filter(|slot| device.is_none_or(|device| *device == slot.device));
        chosen
            .map(|slot| slot.outlet.close(reason, retry_after_ms))
            .count()
    }
}

/// A session and its anchor.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) session: ActorRef<Session>,
    pub(crate) anchor: Arc<Anchor>,
}

/// User to session.
#[derive(Default)]
pub(crate) struct Registry {
    entries: DashMap<UserId, Entry, ahash::RandomState>,
}

impl Registry {
    pub(crate) fn get(&self, user: &UserId) -> Option<Entry> {
        self.entries.get(user).map(|entry| entry.value().clone())
    }

    /// Looks at an entry without cloning it. The closure must not call the registry again.
    pub(crate) fn with<T>(&self, user: &UserId, look: impl FnOnce(&Entry) -> T) -> Option<T> {
        self.entries.get(user).map(|entry| look(entry.value()))
    }

    pub(crate) fn insert(&self, user: UserId, entry: Entry) {
        self.entries.insert(user, entry);
    }

    /// Removes the entry if it still is that session's.
    pub(crate) fn remove(&self, user: &UserId, session: &ActorRef<Session>) -> Option<Entry> {
        self.entries
            .remove_if(user, |_, entry| entry.session.id() == session.id())
            .map(|(_, entry)| entry)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All entries, as of about now.
    pub(crate) fn all(&self) -> Vec<Entry> {
        self.entries
            .iter()
            .map(|entry| entry.value().clone())
            .collect()
    }
}

impl crate::Connection {
    /// Those of a user.
    pub(crate) fn all(anchor: &Anchor) -> Vec<Self> {
        let slots = anchor.slots.lock();
        let slots = slots.iter().map(|slot| Self {
            device: slot.device.clone(),
            since_ms: slot.since_ms,
            unanswered: slot.unanswered.load(Ordering::Relaxed),
            peer: slot.traffic.peer(),
            traffic: slot.traffic.counts(),
        });
        slots.collect()
    }
}
