//! What all actors of the broker hold in common: configuration, store,
//! registry and each other's addresses. No decisions.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use stonechat_actors::{ActorRef, Supervisor, Tree};
use stonechat_mailbox::Store;
use stonechat_protocol::UserId;

use crate::config::BrokerConfig;
use crate::offline_queue::{CommitBatch, OfflineQueue};
use crate::registry::Registry;
use crate::router::Router;
use crate::sink::Watched;

/// Held by every actor of the broker.
pub(crate) struct Shared {
    pub(crate) config: BrokerConfig,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) tree: Tree,
    pub(crate) registry: Registry,
    pub(crate) sessions: Supervisor,
    pub(crate) queues: OnceLock<Vec<Queue>>,
    pub(crate) router: OnceLock<ActorRef<Router>>,
    pub(crate) draining: AtomicBool,
    pub(crate) devices: AtomicU64,
    /// Appends whose outcome somebody other than a session waits for.
    pub(crate) watched: Watched,
    next_connection: AtomicU64,
}

/// One offline queue, as seen from outside.
pub(crate) struct Queue {
    pub(crate) actor: ActorRef<OfflineQueue>,
    /// Notifications were lost on the way to it.
    pub(crate) lost: Arc<AtomicBool>,
}

impl Shared {
    pub(crate) fn new(
        config: BrokerConfig,
        store: Arc<dyn Store>,
        tree: Tree,
        sessions: Supervisor,
    ) -> Self {
        Self {
            config,
            store,
            tree,
            registry: Registry::default(),
            sessions,
            queues: OnceLock::new(),
            router: OnceLock::new(),
            draining: AtomicBool::new(false),
            devices: AtomicU64::new(0),
            watched: Watched::default(),
            next_connection: AtomicU64::new(1),
        }
    }

    pub(crate) fn queues(&self) -> &[Queue] {
        self.queues.get().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn queue_count(&self) -> usize {
        self.queues().len()
    }

    /// Which offline queue owns a user's mailbox.
    pub(crate) fn queue_of(&self, user: &UserId) -> usize {
        let mut hasher = DefaultHasher::new();
        user.hash(&mut hasher);
        let count = self.queue_count().max(1) as u64;
        usize::try_from(hasher.finish() % count).unwrap_or(0)
    }

    pub(crate) fn queue_for(&self, user: &UserId) -> Option<&Queue> {
        self.queues().get(self.queue_of(user))
    }

    /// Hands a batch to a queue, or notes that it has to catch up.
    pub(crate) fn notify(&self, queue: usize, batch: CommitBatch) {
        if let Some(queue) = self.queues().get(queue)
            && queue.actor.try_tell(batch).is_err()
        {
            queue.lost.store(true, Ordering::Release);
        }
    }

    pub(crate) fn next_connection(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
