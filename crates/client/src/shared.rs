//! The engine behind a lock, and what hangs on it: who waits for an answer,
//! for a slot, for an event, for a change of state.
//!
//! The lock is held for one step of the engine at a time and never across an
//! `await`. Nothing here decides anything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stonechat_protocol::{MessageId, UNACCEPTED_MAX, Welcome};
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::time::Instant;

use crate::engine::{Engine, Outcome, OutgoingSend};
use crate::error::{SendError, Terminal};

/// Where a client stands, for those who wait for it.
#[derive(Debug, Clone)]
pub(crate) enum Status {
    Offline,
    Online(Arc<Welcome>),
    Ended(Terminal),
}

struct Inner {
    engine: Engine,
    /// At most one for each unanswered send.
    waiters: HashMap<MessageId, oneshot::Sender<Outcome>>,
}

pub(crate) struct Shared {
    inner: Mutex<Inner>,
    started: Instant,
    /// One permit for each send that may still become unanswered.
    pub(crate) slots: Semaphore,
    /// Wakes the driver.
    pub(crate) wake: Notify,
    /// Wakes `Events::next`.
    pub(crate) events: Notify,
    pub(crate) status: watch::Sender<Status>,
    /// The driver is done: the goodbye is written.
    pub(crate) finished: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new(engine: Engine, unanswered: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                engine,
                waiters: HashMap::new(),
            }),
            started: Instant::now(),
            slots: Semaphore::new(UNACCEPTED_MAX.saturating_sub(unanswered)),
            wake: Notify::new(),
            events: Notify::new(),
            status: watch::Sender::new(Status::Offline),
            finished: watch::Sender::new(false),
        }
    }

    /// When `ms` of the engine's time is.
    pub(crate) fn instant(&self, ms: u64) -> Instant {
        // Far beyond any deadline in use, and within what an `Instant` can hold.
        const YEAR_MS: u64 = 365 * 24 * 60 * 60 * 1_000;
        self.started + Duration::from_millis(ms.min(self.now_ms().saturating_add(YEAR_MS)))
    }

    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// One step of the engine; afterwards everybody concerned is told.
    pub(crate) fn with<T>(&self, step: impl FnOnce(&mut Engine, u64) -> T) -> T {
        self.with_inner(|inner, now_ms| step(&mut inner.engine, now_ms))
    }

    /// Like [`Shared::with`], and the driver looks for something to write.
    pub(crate) fn with_wake<T>(&self, step: impl FnOnce(&mut Engine, u64) -> T) -> T {
        let result = self.with(step);
        self.wake.notify_one();
        result
    }

    fn with_inner<T>(&self, step: impl FnOnce(&mut Inner, u64) -> T) -> T {
        // A panic inside a step is a bug that has been reported; a poisoned lock would
        // only turn it into many.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let result = step(&mut inner, self.now_ms());
        while let Some((id, outcome)) = inner.engine.take_outcome() {
            if let Some(waiter) = inner.waiters.remove(&id) {
                // The application may have dropped the future: it does not want to know.
                let _ = waiter.send(outcome);
            }
            self.slots.add_permits(1);
        }
        if inner.engine.has_event() {
            self.events.notify_one();
        }
        self.publish(&inner.engine);
        result
    }

    fn publish(&self, engine: &Engine) {
        self.status.send_if_modified(|status| {
            let new = match (engine.ended(), engine.online_welcome(), &*status) {
                (Some(_), _, Status::Ended(_)) | (None, None, Status::Offline) => return false,
                (Some(terminal), ..) => Status::Ended(terminal.clone()),
                (None, Some(welcome), Status::Online(old)) if old.session == welcome.session => {
                    return false;
                }
                (None, Some(welcome), _) => Status::Online(Arc::new(welcome.clone())),
                (None, None, _) => Status::Offline,
            };
            *status = new;
            true
        });
        if engine.ended().is_some() {
            self.slots.close();
        }
    }

    /// Queues a send; the caller holds a slot and has forgotten it. Gives it back on failure.
    pub(crate) fn submit(
        &self,
        send: OutgoingSend,
        id: Option<MessageId>,
    ) -> Result<(MessageId, oneshot::Receiver<Outcome>), SendError> {
        let unix_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
        let result = self.with_inner(|inner, _| {
            let id = inner.engine.submit(send, id, unix_ms)?;
            let (sender, receiver) = oneshot::channel();
            inner.waiters.insert(id, sender);
            Ok((id, receiver))
        });
        if result.is_err() {
            self.slots.add_permits(1);
        }
        self.wake.notify_one();
        result
    }

    /// Why the client ended; to be asked only when it has.
    pub(crate) fn terminal(&self) -> Terminal {
        self.with(|engine, _| engine.ended().cloned())
            .unwrap_or(Terminal::Closed)
    }
}
