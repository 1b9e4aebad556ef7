//! The broker's front door: what an edge and the admin API call.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_rt::ArbiterHandle;
use stonechat_actors::{
    ActorId, ActorRef, AskError, ChildSpec, StartError, Strategy, SupervisorSpec, Tree,
};
use stonechat_mailbox::{DeadLetter, Envelope, Store, StoreError, Unavailable};
use stonechat_protocol::{CloseReason, DeviceId, UserId};
use tokio::sync::oneshot;

use crate::config::BrokerConfig;
use crate::dispatcher;
use crate::offline_queue::{self, HandOver, OfflineQueue};
use crate::posting::Posted;
use crate::registry::{Anchor, Slot};
use crate::router::{self, RETRY_AFTER_MS, Route, Router};
use crate::session::{self, Connect, FromClient, Gone, Session};
use crate::shared::{CORE_CRASHES_MAX, CORE_CRASHES_WITHIN, Queue, Shared, now_ms};
use crate::sink::SinkHandle;
use crate::{Attach, AttachError, BrokerStats, Command, Connection, Disconnect, Fault, Input};

/// How long the router, a session or the store may take to connect a device.
const ATTACH_DEADLINE: Duration = Duration::from_secs(10);
/// How long a frame may wait for room in a session's inbox.
const INPUT_DEADLINE: Duration = Duration::from_secs(10);
/// How long a notice that a connection is gone may wait.
const GONE_DEADLINE: Duration = Duration::from_secs(60);
/// Acknowledgements, reads and marks that may wait for an offline queue.
const QUEUE_INBOX: u32 = 65_536;
/// Sessions that may be ending while as many as allowed are alive.
const SESSIONS_ENDING_MAX: usize = 65_536;
/// Connects and ends that may wait for the router.
const ROUTER_INBOX: u32 = 65_536;

/// Handle to the broker. Cheap to clone.
#[derive(Clone)]
pub struct Broker {
    shared: Arc<Shared>,
}

/// A connected device's way to its session. Dropping it detaches the device.
#[derive(Debug)]
pub struct SessionLink {
    tree: Tree,
    session: ActorRef<Session>,
    slot: Arc<Slot>,
}

/// A device is connected.
#[derive(Debug)]
pub struct Attached {
    /// To the session.
    pub link: SessionLink,
    /// For support and logs.
    pub session_id: String,
    /// Messages waiting for this device.
    pub pending: u64,
}

/// The session takes nothing more from this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// The session did not take the frame within the deadline; close the connection as overloaded.
    #[error("the session is too busy")]
    Busy,
    /// The session is gone; close the connection as failed.
    #[error("the session is gone")]
    Gone,
}

/// A session did not take a frame.
#[derive(Debug)]
pub enum Offered {
    /// Its inbox is full.
    Full(Untaken),
    /// It is gone.
    Gone,
}

/// A frame that a session had no room for, to be waited with.
pub struct Untaken(Box<FromClient>);

impl std::fmt::Debug for Untaken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Untaken").finish_non_exhaustive()
    }
}

impl SessionLink {
    pub(crate) fn new(tree: Tree, session: ActorRef<Session>, slot: Arc<Slot>) -> Self {
        Self {
            tree,
            session,
            slot,
        }
    }

    /// Hands a frame to the session, if its inbox has room.
    ///
    /// # Errors
    /// [`Offered::Full`] hands it back for [`SessionLink::wait`], during which the connection
    /// should not read on; [`Offered::Gone`]: close the connection.
    pub fn offer(&self, input: Input) -> Result<(), Offered> {
        // Counted here, not when the session gets to it: only then is it known how many were
        // unanswered when this one came.
        let unanswered = match input.command {
            Some(Command::Send { .. }) => self.slot.unanswered.fetch_add(1, Ordering::AcqRel) + 1,
            _ => 0,
        };
        let message = FromClient {
            connection: self.slot.connection,
            unanswered,
            input,
        };
        self.session.try_tell(message).map_err(|refused| {
            if refused.is_full() {
                Offered::Full(Untaken(Box::new(refused.into_inner())))
            } else {
                Offered::Gone
            }
        })
    }

    /// Waits until the session takes the frame.
    ///
    /// # Errors
    /// [`InputError`]: close the connection.
    pub async fn wait(&self, untaken: Untaken) -> Result<(), InputError> {
        let waited = self.session.tell(*untaken.0, INPUT_DEADLINE).await;
        waited.map_err(|refused| {
            if refused.is_full() {
                InputError::Busy
            } else {
                InputError::Gone
            }
        })
    }

    /// [`SessionLink::offer`], and [`SessionLink::wait`] if need be.
    ///
    /// # Errors
    /// [`InputError`]: close the connection.
    pub async fn input(&self, input: Input) -> Result<(), InputError> {
        match self.offer(input) {
            Ok(()) => Ok(()),
            Err(Offered::Full(untaken)) => self.wait(untaken).await,
            Err(Offered::Gone) => Err(InputError::Gone),
        }
    }
}

impl Drop for SessionLink {
    fn drop(&mut self) {
        let gone = Gone {
            connection: self.slot.connection,
        };
        if let Err(refused) = self.session.try_tell(gone)
            && refused.is_full()
        {
            let session = self.session.clone();
            let gone = refused.into_inner();
            self.tree.spawn_task("detach", async move {
                // Gone in the meantime: then there is nothing to detach from.
                let _ = session.tell(gone, GONE_DEADLINE).await;
            });
        }
    }
}

/// Why the broker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum BrokerStartError {
    /// Its actors have no thread to live on.
    #[error("the broker was given no arbiter; start at least one and pass its handle")]
    NoArbiter,
    /// An actor could not be started.
    #[error(transparent)]
    Actor(#[from] StartError),
}

impl Broker {
    /// Starts router and offline queues, the latter spread over `arbiters`.
    ///
    /// # Errors
    /// [`BrokerStartError`] when there is no arbiter, or a child cannot be started.
    pub fn start(
        config: BrokerConfig,
        store: Arc<dyn Store>,
        sink: &SinkHandle,
        tree: Tree,
        arbiters: &[ArbiterHandle],
    ) -> Result<Self, BrokerStartError> {
        let [first_arbiter, ..] = arbiters else {
            return Err(BrokerStartError::NoArbiter);
        };
        let root = tree.root();
        // Queues before sessions: stopped in reverse order, sessions first.
        let core = root.start_supervisor(SupervisorSpec::new("broker", Strategy::OneForOne))?;
        let sessions_max = config.sessions_max;
        let sessions = SupervisorSpec {
            // Those that are ending count until they have ended.
            children_max: sessions_max.saturating_add(SESSIONS_ENDING_MAX),
            escalate: false,
            ..SupervisorSpec::new("sessions", Strategy::Dynamic)
        };
        let sessions = root.start_supervisor(sessions)?;
        let count = match config.shards {
            0 => arbiters.len(),
            shards => shards,
        };
        let shared = Arc::new(Shared::new(config, store, tree, core.clone(), sessions));
        let mut queues = Vec::with_capacity(count);
        for index in 0..count {
            let held = Arc::clone(&shared);
            let spec = ChildSpec::new(format!("offline_queue.{index}"))
                .intensity(CORE_CRASHES_MAX, CORE_CRASHES_WITHIN)
                .inbox_capacity(QUEUE_INBOX);
            let arbiter = &arbiters[index % arbiters.len()];
            let home = Arc::<HandOver>::default();
            let kept = Arc::clone(&home);
            let actor = core.start_child(spec, arbiter, move |_| {
                OfflineQueue::new(Arc::clone(&held), index, Arc::clone(&kept))
            })?;
            queues.push(Queue { actor, home });
        }
        let held = Arc::clone(&shared);
        let spec = ChildSpec::new("router")
            .intensity(CORE_CRASHES_MAX, CORE_CRASHES_WITHIN)
            .inbox_capacity(ROUTER_INBOX);
        let router =
            core.start_child(spec, first_arbiter, move |_| Router::new(Arc::clone(&held)))?;
        let first = shared.queues.set(queues).is_ok()
            && shared.router.set(router).is_ok()
            && sink.target.set(Arc::clone(&shared)).is_ok();
        debug_assert!(first, "a sink serves one broker");
        Ok(Self { shared })
    }

    /// Connects a device.
    ///
    /// # Errors
    /// [`AttachError`]
    pub async fn attach(&self, attach: Attach) -> Result<Attached, AttachError> {
        if self.is_draining() {
            return Err(AttachError::Overloaded {
                retry_after_ms: RETRY_AFTER_MS,
            });
        }
        let store = &self.shared.store;
        let mailbox = match store.resident(&attach.user) {
            Some(mailbox) => mailbox,
            None => match store.open(&attach.user).await {
                Ok(Some(mailbox)) => mailbox,
                Ok(None) => return Err(AttachError::UnknownUser),
                Err(StoreError::Overloaded | StoreError::Unavailable(_)) => {
                    return Err(AttachError::Overloaded {
                        retry_after_ms: RETRY_AFTER_MS,
                    });
                }
                Err(error) => {
                    tracing::error!(user = %attach.user, %error, "a mailbox could not be opened");
                    return Err(AttachError::Internal);
                }
            },
        };
        let Some(router) = self.shared.router.get() else {
            return Err(AttachError::Internal);
        };
        let home = self.shared.home_on(&attach.home).map_err(|error| {
            tracing::warn!(%error, "a dispatcher could not be started");
            AttachError::Overloaded {
                retry_after_ms: RETRY_AFTER_MS,
            }
        })?;
        let mut tries = 0;
        loop {
            tries += 1;
            let (reply, answer) = oneshot::channel();
            let route = Route {
                mailbox: Arc::clone(&mailbox),
                arbiter: attach.home.clone(),
                home,
                connect: Connect {
                    device: attach.device.clone(),
                    outlet: attach.outlet.clone(),
                    ack: attach.ack,
                    rev: attach.rev,
                    traffic: Arc::clone(&attach.traffic),
                    reply,
                },
            };
            let routed = router.ask(route, ATTACH_DEADLINE).await;
            match routed {
                Ok(routed) => routed?,
                // The router restarts in place; what it was doing is not known, so ask again.
                Err(AskError::Panicked { .. }) if tries < 3 => continue,
                Err(AskError::Full | AskError::Timeout) => {
                    return Err(AttachError::Overloaded {
                        retry_after_ms: RETRY_AFTER_MS,
                    });
                }
                Err(_) => return Err(AttachError::Internal),
            }
            return match tokio::time::timeout(ATTACH_DEADLINE, answer).await {
                Ok(Ok(attached)) => attached,
                // The session failed while it was connecting the device.
                Ok(Err(_)) if tries < 3 => continue,
                Ok(Err(_)) => Err(AttachError::Internal),
                Err(_) => Err(AttachError::Overloaded {
                    retry_after_ms: RETRY_AFTER_MS,
                }),
            };
        }
    }

    /// Closes connections; returns how many.
    pub fn disconnect(&self, what: &Disconnect) -> usize {
        let close = |anchor: &Anchor| anchor.close(what.device.as_ref(), what.reason, None);
        self.shared
            .registry
            .with(&what.user, |entry| close(&entry.anchor))
            .unwrap_or(0)
    }

    /// The user's connected devices.
    pub fn connected_devices(&self, user: &UserId) -> Vec<DeviceId> {
        let devices = |anchor: &Anchor| {
            let slots = anchor.slots.lock();
            slots.iter().map(|slot| slot.device.clone()).collect()
        };
        self.shared
            .registry
            .with(user, |entry| devices(&entry.anchor))
            .unwrap_or_default()
    }

    /// The actor of a user's session, when there is one.
    pub fn session_actor(&self, user: &UserId) -> Option<ActorId> {
        let registry = &self.shared.registry;
        registry.with(user, |entry| entry.session.id())
    }

    /// Refuses new sessions from now on; [`Broker::drain`] does and closes connections as well.
    pub fn start_draining(&self) {
        self.shared.draining.store(true, Ordering::SeqCst);
    }

    /// Takes sessions again after a [`Broker::drain`].
    pub fn undrain(&self) {
        self.shared.draining.store(false, Ordering::SeqCst);
    }

    /// The user's connections.
    pub fn connections(&self, user: &UserId) -> Vec<Connection> {
        let registry = &self.shared.registry;
        let found = registry.with(user, |entry| Connection::all(&entry.anchor));
        found.unwrap_or_default()
    }

    /// Hears what becomes of the append of this very envelope.
    pub(crate) fn watch(
        &self,
        envelope: &Arc<Envelope>,
    ) -> oneshot::Receiver<Result<(), Unavailable>> {
        self.shared.watched.watch(envelope)
    }

    /// Figures.
    pub fn stats(&self) -> BrokerStats {
        BrokerStats {
            sessions: self.shared.registry.len() as u64,
            devices: self.shared.devices.load(Ordering::Relaxed),
        }
    }

    /// Refuses new sessions from now on and closes all connections with `reason`; returns
    /// when all are detached or the deadline passed, with how many are left.
    pub async fn drain(&self, reason: CloseReason, retry_after_ms: u64, deadline: Duration) -> u64 {
        self.start_draining();
        let left = || self.shared.devices.load(Ordering::SeqCst);
        let closing = async {
            while left() > 0 {
                // Again each time: a connect may have been under way.
                for entry in self.shared.registry.all() {
                    entry.anchor.close(None, reason, Some(retry_after_ms));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // What is left is the answer either way.
        let _ = tokio::time::timeout(deadline, closing).await;
        left()
    }

    /// No new sessions are taken.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// Makes an actor panic. `false` when fault injection is off or there is no such actor.
    pub fn inject(&self, fault: Fault) -> bool {
        let shared = &self.shared;
        if !shared.config.fault_injection {
            return false;
        }
        match fault {
            Fault::Session(user) => {
                let entry = shared.registry.get(&user);
                entry.is_some_and(|entry| entry.session.try_tell(session::Panic).is_ok())
            }
            Fault::Poison(user, id) => {
                let entry = shared.registry.get(&user);
                entry
                    .map(|entry| *entry.anchor.poison.lock() = Some(Box::new(id)))
                    .is_some()
            }
            Fault::Router => {
                let router = shared.router.get();
                router.is_some_and(|router| router.try_tell(router::Panic).is_ok())
            }
            Fault::Dispatcher(index) => {
                let dispatcher = shared.dispatcher(index);
                dispatcher.is_some_and(|actor| actor.try_tell(dispatcher::Panic).is_ok())
            }
            Fault::OfflineQueue(index) => {
                let queue = shared.queues().get(index);
                queue.is_some_and(|queue| queue.actor.try_tell(offline_queue::Panic).is_ok())
            }
        }
    }

    /// Puts a dead letter back: a new place at the end of its mailbox, delivered as any
    /// message, with a new time to live. A crash in between may leave the dead letter beside
    /// the message, never neither.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none of that number, or what the store says.
    pub async fn replay_dead_letter(&self, number: u64) -> Result<(), StoreError> {
        let store = &self.shared.store;
        let letter = self.dead_letter(number).await?;
        let old = &letter.stored.envelope;
        let Some(mailbox) = store.open(&letter.user).await? else {
            return Err(StoreError::UnknownUser(letter.user));
        };
        let sender = store.open(&old.from.user).await?;
        let ts_ms = now_ms();
        let ttl_ms = self.shared.config.limits.ttl_s_max.saturating_mul(1000);
        let envelope = Envelope {
            expires_ms: ts_ms.saturating_add(ttl_ms),
            ..Envelope::clone(old)
        };
        let posted = Posted {
            mailbox,
            sender,
            envelope,
        };
        for result in self.post(vec![posted]).await {
            result?;
        }
        store.take_dead_letter(number).await.map(|_| ())
    }

    /// One dead letter.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none of that number, or what the store says.
    pub async fn dead_letter(&self, number: u64) -> Result<DeadLetter, StoreError> {
        let after = number.wrapping_sub(1);
        let found = self.shared.store.dead_letters(after, 1).await?;
        found
            .into_iter()
            .find(|letter| letter.number == number && number > 0)
            .ok_or_else(|| StoreError::NotFound(format!("dead letter {number}")))
    }

    /// The store, for accounts, devices, dead letters and figures.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// The supervision tree.
    pub fn tree(&self) -> &Tree {
        &self.shared.tree
    }
}
