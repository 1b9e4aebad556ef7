//! What all actors of the broker hold in common: configuration, store,
//! registry and each other's addresses. No decisions.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_rt::ArbiterHandle;
use parking_lot::RwLock;
use stonechat_actors::{ActorRef, ChildSpec, StartError, Supervisor, Tree};
use stonechat_mailbox::Store;
use stonechat_protocol::UserId;

use crate::config::BrokerConfig;
use crate::dispatcher::{CommitBatch, Dispatcher};
use crate::offline_queue::{Entrusted, HandOver, Matter, OfflineQueue};
use crate::registry::Registry;
use crate::router::Router;
use crate::sink::Watched;

/// Crashes of the router, an offline queue or a dispatcher tolerated in
/// [`CORE_CRASHES_WITHIN`] before the node as a whole is held to be sick.
pub(crate) const CORE_CRASHES_MAX: u32 = 50;
pub(crate) const CORE_CRASHES_WITHIN: Duration = Duration::from_secs(60);
/// Commits that may wait for a dispatcher.
const DISPATCHER_INBOX: u32 = 4096;

/// Held by every actor of the broker.
pub(crate) struct Shared {
    pub(crate) config: BrokerConfig,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) tree: Tree,
    pub(crate) registry: Registry,
    pub(crate) sessions: Supervisor,
    pub(crate) queues: OnceLock<Vec<Queue>>,
    pub(crate) router: OnceLock<ActorRef<Router>>,
    /// Supervises router, offline queues and dispatchers.
    core: Supervisor,
    dispatchers: RwLock<Dispatchers>,
    pub(crate) draining: AtomicBool,
    pub(crate) devices: AtomicU64,
    /// Appends whose outcome somebody other than a session waits for.
    pub(crate) watched: Watched,
    next_connection: AtomicU64,
    hasher: ahash::RandomState,
}

/// One offline queue, as seen from outside.
pub(crate) struct Queue {
    pub(crate) actor: ActorRef<OfflineQueue>,
    pub(crate) home: Arc<HandOver>,
}

/// What came of telling an offline queue something.
pub(crate) enum Told {
    Yes,
    /// It has no room: here the message is again.
    Full(Matter),
    /// It has ended, as it does with the node.
    Ended,
}

impl Queue {
    /// Tells it something that nobody would tell it again, so that a panic does not lose it.
    pub(crate) fn entrust(&self, matter: Matter) -> Told {
        match self.actor.try_tell(Entrusted::new(matter, &self.home)) {
            Ok(()) => Told::Yes,
            Err(refused) if refused.is_full() => match refused.into_inner().take() {
                Some(matter) => Told::Full(matter),
                None => Told::Ended,
            },
            Err(refused) => {
                drop(refused.into_inner().take());
                Told::Ended
            }
        }
    }
}

/// The dispatchers, in the order of their numbers, and which thread has which.
#[derive(Default)]
pub(crate) struct Dispatchers {
    all: Vec<Dispatch>,
    by_thread: HashMap<ThreadId, u32>,
}

/// One dispatcher, as seen from outside.
struct Dispatch {
    actor: ActorRef<Dispatcher>,
    /// Notifications were lost on the way to it.
    lost: Arc<AtomicBool>,
}

impl Shared {
    pub(crate) fn new(
        config: BrokerConfig,
        store: Arc<dyn Store>,
        tree: Tree,
        core: Supervisor,
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
            core,
            dispatchers: RwLock::default(),
            draining: AtomicBool::new(false),
            devices: AtomicU64::new(0),
            watched: Watched::default(),
            next_connection: AtomicU64::new(1),
            hasher: ahash::RandomState::new(),
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
        let count = self.queue_count().max(1) as u64;
        usize::try_from(self.hasher.hash_one(user) % count).unwrap_or(0)
    }

    pub(crate) fn queue_for(&self, user: &UserId) -> Option<&Queue> {
        self.queues().get(self.queue_of(user))
    }

    /// The number of the dispatcher for sessions that are started from this thread; started on
    /// `arbiter`, the one they will live on, when there is none yet.
    pub(crate) fn home_on(self: &Arc<Self>, arbiter: &ArbiterHandle) -> Result<u32, StartError> {
        let thread = std::thread::current().id();
        if let Some(home) = self.dispatchers.read().by_thread.get(&thread) {
            return Ok(*home);
        }
        let mut dispatchers = self.dispatchers.write();
        let home = u32::try_from(dispatchers.all.len() + 1).unwrap_or(u32::MAX);
        let lost = Arc::default();
        let (held, flag) = (Arc::clone(self), Arc::clone(&lost));
        let spec = ChildSpec::new(format!("dispatcher.{home}"))
            .intensity(CORE_CRASHES_MAX, CORE_CRASHES_WITHIN)
            .inbox_capacity(DISPATCHER_INBOX);
        let actor = self.core.start_child(spec, arbiter, move |_| {
            Dispatcher::new(Arc::clone(&held), home, Arc::clone(&flag))
        })?;
        dispatchers.all.push(Dispatch { actor, lost });
        dispatchers.by_thread.insert(thread, home);
        Ok(home)
    }

    /// Hands a batch to the dispatcher at `at`, or notes that its sessions have to catch up.
    pub(crate) fn dispatch(&self, at: usize, batch: CommitBatch) {
        if let Some(dispatch) = self.dispatchers.read().all.get(at)
            && dispatch.actor.try_tell(batch).is_err()
        {
            dispatch.lost.store(true, Ordering::Release);
        }
    }

    /// The dispatcher at `at`, for fault injection.
    pub(crate) fn dispatcher(&self, at: usize) -> Option<ActorRef<Dispatcher>> {
        let dispatchers = self.dispatchers.read();
        dispatchers
            .all
            .get(at)
            .map(|dispatch| dispatch.actor.clone())
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
