//! Handles: how the rest of the program talks to an actor. Cheap to clone, usable from any thread.
//!
//! A handle stays valid over restarts. It does not keep its actor alive, and dropping the last one does
//! not end it: an actor ends when it is told to or when it fails for good.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use tokio::{sync::oneshot, time::Instant};

use crate::{
    ActorId,
    cell::{Cell, Node},
    error::{AskError, TellError, TooManyWatchers, TrySendError},
    inbox::{Envelope, Refusal},
    reason::{Down, ExitReason},
    send::{Asked, TellTo, deliver, tell_cell},
    signal::Phase,
    supervised::{Ask, Handle, Supervised},
    sync::timeout_at,
};

/// An inbox's figures at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct InboxStats {
    /// Messages that wait (and slots already promised to waiting senders).
    pub depth: u32,
    /// The most there ever were.
    pub high_water: u32,
    /// The most there may be.
    pub capacity: u32,
    /// Messages taken up for handling since the first start.
    pub handled_total: u64,
    /// Time senders have spent waiting for room, summed over them; counted when a wait ends.
    pub blocked_ns_total: u64,
    /// The current generation, 1 for the first.
    pub generation: u32,
    /// Restarts so far.
    pub restarts: u32,
}

/// A handle to a supervised actor.
pub struct ActorRef<A: Supervised> {
    pub(crate) cell: Arc<Cell<A>>,
}

impl<A: Supervised> Clone for ActorRef<A> {
    fn clone(&self) -> Self {
        Self {
            cell: Arc::clone(&self.cell),
        }
    }
}

impl<A: Supervised> fmt::Debug for ActorRef<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorRef")
            .field("id", &self.id())
            .field("name", &self.name())
            .finish()
    }
}

impl<A: Supervised> PartialEq for ActorRef<A> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.cell, &other.cell)
    }
}

impl<A: Supervised> Eq for ActorRef<A> {}

impl<A: Supervised> ActorRef<A> {
    /// The actor's id, unique in this tree.
    #[must_use]
    pub fn id(&self) -> ActorId {
        self.cell.core.id
    }

    /// The actor's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.cell.core.name
    }

    /// Whether it has not ended for good (it may be between two generations).
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.cell.core.phase() != Phase::Ended
    }

    /// Puts a message into the inbox if there is room now and nobody waits in line for it.
    pub fn try_tell<M: Send + 'static>(&self, msg: M) -> Result<(), TrySendError<M>>
    where
        A: Handle<M>,
    {
        self.cell.try_tell(msg, || false)
    }

    /// Puts a message into the inbox as [`ActorRef::try_tell`] does, and leaves the actor asleep if `may_wait`:
    /// it handles the message with the next one, or when a timer of its own wakes it. For what is cheap beside
    /// the waking, and told to an actor that is sure to wake soon.
    ///
    /// `may_wait` is asked while the inbox is locked, so it must be quick and tell nobody anything. An actor
    /// that takes its consent back in a handler or a timer is not left asleep over a message that was put in
    /// with it.
    pub fn try_tell_lazily<M: Send + 'static>(
        &self,
        msg: M,
        may_wait: impl FnOnce() -> bool,
    ) -> Result<(), TrySendError<M>>
    where
        A: Handle<M>,
    {
        self.cell.try_tell(msg, may_wait)
    }

    /// Puts a message into the inbox, waiting in line for room until the deadline.
    ///
    /// # Panics
    /// When it has to wait outside a tokio runtime with a timer (every arbiter has one).
    pub async fn tell<M: Send + 'static>(
        &self,
        msg: M,
        deadline: Duration,
    ) -> Result<(), TellError<M>>
    where
        A: Handle<M>,
    {
        tell_cell(&self.cell, msg, deadline).await
    }

    /// Asks and waits for the answer; the deadline covers the wait for room and the answer.
    ///
    /// An asker that gives up before its question is taken up is not answered and costs no handling.
    pub async fn ask<M: Send + 'static>(
        &self,
        msg: M,
        deadline: Duration,
    ) -> Result<A::Reply, AskError>
    where
        A: Ask<M>,
    {
        let until = Instant::now() + deadline;
        let (tx, rx) = oneshot::channel();
        let envelope = Envelope::new(Asked::<A, M> {
            question: Some(msg),
            answer: Some(tx),
        });
        match deliver(&self.cell, envelope, until).await {
            Ok(()) => {}
            Err((Refusal::Full, _)) => return Err(AskError::Full),
            Err((Refusal::Closed, _)) => return Err(AskError::Closed),
        }
        match timeout_at(until, rx).await {
            Ok(Ok(Ok(reply))) => Ok(reply),
            Ok(Ok(Err(reason))) => Err(AskError::Panicked(reason)),
            Ok(Err(_dropped)) => Err(AskError::Closed),
            Err(_elapsed) => Err(AskError::Timeout),
        }
    }

    /// Asks the actor to end. Overtakes what waits in the inbox; whether it is started again is up to its
    /// restart policy (`Shutdown` always ends it). Returns at once.
    pub fn stop(&self, reason: ExitReason) {
        self.cell.stop(&Arc::new(reason));
    }

    /// Waits until the actor has ended for good and says why.
    pub async fn ended(&self) -> Arc<ExitReason> {
        self.cell.core.reached(|phase| phase == Phase::Ended).await;
        self.cell
            .core
            .last_exit()
            .unwrap_or_else(|| Arc::new(ExitReason::Normal))
    }

    /// Tells `to` when this actor has ended for good; at once if it has. The notice takes a place in the
    /// inbox of `to` even when that is full: there is one for each monitor, and a lost one could not be
    /// made up for.
    pub fn monitor(&self, to: TellTo<Down>) -> Result<Monitor, TooManyWatchers> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let monitor_id = NEXT.fetch_add(1, Ordering::Relaxed);
        if let Some(to) = self.cell.core.add_monitor(monitor_id, to)? {
            let reason = self
                .cell
                .core
                .last_exit()
                .unwrap_or_else(|| Arc::new(ExitReason::Normal));
            to.notice(self.cell.core.down(&reason));
        }
        let cell: Arc<dyn Node> = self.cell.clone();
        Ok(Monitor {
            target: Arc::downgrade(&cell),
            monitor_id,
        })
    }

    /// Ties two actors together: when a generation of one ends abnormally, the other is stopped with
    /// [`ExitReason::Linked`]. A link fires once; whoever is restarted links again. Linking to an actor that
    /// has ended abnormally fires at once.
    pub fn link<B: Supervised>(&self, other: &ActorRef<B>) -> Result<(), TooManyWatchers> {
        let this: Arc<dyn Node> = self.cell.clone();
        let that: Arc<dyn Node> = other.cell.clone();
        if this.id() == that.id() {
            return Ok(());
        }
        link_halves((&this, &self.cell.core), (&that, &other.cell.core))
    }

    /// Unties two actors.
    pub fn unlink<B: Supervised>(&self, other: &ActorRef<B>) {
        self.cell.core.remove_link(other.id());
        other.cell.core.remove_link(self.id());
    }

    /// The inbox's figures, read without asking the actor.
    #[must_use]
    pub fn stats(&self) -> InboxStats {
        let inbox = &self.cell.inbox;
        InboxStats {
            depth: inbox.depth(),
            high_water: inbox.high_water(),
            capacity: inbox.capacity(),
            handled_total: inbox.handled_total(),
            blocked_ns_total: inbox.blocked_ns_total.load(Ordering::Relaxed),
            generation: self.cell.core.generation.load(Ordering::Relaxed),
            restarts: self.cell.core.restarts.load(Ordering::Relaxed),
        }
    }

    /// A handle that only knows it takes `M`.
    #[must_use]
    pub fn recipient<M: Send + 'static>(&self) -> TellTo<M>
    where
        A: Handle<M>,
    {
        TellTo(self.cell.clone())
    }
}

type Half<'a> = (&'a Arc<dyn Node>, &'a crate::cell::Core);

fn link_halves(a: Half<'_>, b: Half<'_>) -> Result<(), TooManyWatchers> {
    let a_lives = a.1.add_link(b.0.id(), Arc::downgrade(b.0))?;
    let b_lives = match b.1.add_link(a.0.id(), Arc::downgrade(a.0)) {
        Ok(lives) => lives,
        Err(refused) => {
            a.1.remove_link(b.0.id());
            return Err(refused);
        }
    };
    for (dead, alive, dead_lives) in [(a, b, a_lives), (b, a, b_lives)] {
        if dead_lives {
            continue;
        }
        alive.1.remove_link(dead.0.id());
        if let Some(reason) = dead.1.last_exit().filter(|reason| reason.is_abnormal()) {
            alive.0.stop(&Arc::new(ExitReason::Linked {
                id: dead.0.id(),
                name: Arc::from(dead.0.name()),
                reason,
            }));
        }
    }
    Ok(())
}

/// A monitor that was set; dropping it leaves it set.
pub struct Monitor {
    target: Weak<dyn Node>,
    monitor_id: u64,
}

impl Monitor {
    /// Takes the monitor back. A notice already on its way still arrives.
    pub fn cancel(self) {
        if let Some(target) = self.target.upgrade()
            && let Some(core) = target.core()
        {
            core.remove_monitor(self.monitor_id);
        }
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("monitor_id", &self.monitor_id)
            .finish_non_exhaustive()
    }
}
