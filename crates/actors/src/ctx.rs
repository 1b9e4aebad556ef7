//! What an actor's code can do from inside: stop, set timers, run futures, look at itself.
//!
//! Everything started here belongs to the current generation and ends with it.

use std::{
    fmt,
    future::Future,
    num::NonZeroU64,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::{
    ActorId,
    actor_ref::ActorRef,
    reason::ExitReason,
    supervised::Supervised,
    supervisor::Supervisor,
    timers::{Fire, INTERVAL_MIN, TIMERS_MAX, Timer, Timers},
};

/// Futures one generation may have in flight; asking for more fails the actor.
pub const FUTURES_MAX: usize = 1024;

pub(crate) type Then<A> = Box<dyn FnOnce(&mut A, &mut Ctx<A>)>;
pub(crate) type Futures<A> = FuturesUnordered<Pin<Box<dyn Future<Output = Then<A>>>>>;

/// The inside of a running actor.
pub struct Ctx<A: Supervised> {
    me: ActorRef<A>,
    pub(crate) stop: Option<Arc<ExitReason>>,
    pub(crate) timers: Option<Box<Timers<A>>>,
    pub(crate) futures: Option<Box<Futures<A>>>,
    /// Never reset, so that a handle from an earlier generation matches nothing.
    timer_id_next: NonZeroU64,
    /// The interval that is firing now, unless it cancelled itself.
    pub(crate) firing: Option<u64>,
    /// A timer or future was added since they were last polled.
    pub(crate) unpolled: bool,
}

impl<A: Supervised> Ctx<A> {
    pub(crate) fn new(me: ActorRef<A>) -> Self {
        Self {
            me,
            stop: None,
            timers: None,
            futures: None,
            timer_id_next: NonZeroU64::MIN,
            firing: None,
            unpolled: false,
        }
    }

    pub(crate) fn me(&self) -> &ActorRef<A> {
        &self.me
    }

    /// A handle to this actor.
    #[must_use]
    pub fn myself(&self) -> ActorRef<A> {
        self.me.clone()
    }

    /// This actor's id.
    #[must_use]
    pub fn id(&self) -> ActorId {
        self.me.id()
    }

    /// This actor's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.me.name()
    }

    /// The supervisor this actor lives under: start siblings with it.
    #[must_use]
    pub fn supervisor(&self) -> Supervisor {
        Supervisor::from_node(Arc::clone(&self.me.cell.core.sup))
    }

    /// Ends this generation after the current message; what waits in the inbox is dropped unless the
    /// restart policy starts the actor again. The first reason given counts.
    pub fn stop(&mut self, reason: ExitReason) {
        if self.stop.is_none() {
            self.stop = Some(Arc::new(reason));
        }
    }

    /// The current generation, 1 for the first.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.me.cell.core.generation.load(Ordering::Relaxed)
    }

    /// Why the previous generation ended.
    #[must_use]
    pub fn last_exit(&self) -> Option<Arc<ExitReason>> {
        self.me.cell.core.last_exit()
    }

    /// Runs `f` once, after `delay`. A panic in it is treated like one in a handler.
    ///
    /// At most [`TIMERS_MAX`] at a time; beyond that the actor fails and starts again without timers.
    pub fn run_later(
        &mut self,
        delay: Duration,
        f: impl FnOnce(&mut A, &mut Self) + 'static,
    ) -> TimerHandle {
        self.add_timer(delay, Fire::Once(Box::new(f)))
    }

    /// Runs `f` every `period` (at least a millisecond), first after one period. Periods missed because the
    /// actor was busy are skipped, not made up for. Limits as for [`Ctx::run_later`].
    pub fn run_interval(
        &mut self,
        period: Duration,
        f: impl FnMut(&mut A, &mut Self) + 'static,
    ) -> TimerHandle {
        let period = period.max(INTERVAL_MIN);
        self.add_timer(period, Fire::Every(period, Box::new(f)))
    }

    fn add_timer(&mut self, delay: Duration, fire: Fire<A>) -> TimerHandle {
        let id = self.timer_id_next;
        self.timer_id_next = id.saturating_add(1);
        // Centuries ahead is as good as never, and an overflow would panic.
        let now = Instant::now();
        let at = now
            .checked_add(delay)
            .unwrap_or(now + Duration::from_secs(3_000_000_000));
        self.put_timer(Timer {
            id: id.get(),
            at,
            fire,
        });
        TimerHandle { id }
    }

    pub(crate) fn put_timer(&mut self, timer: Timer<A>) {
        let timers = self.timers.get_or_insert_with(|| Box::new(Timers::new()));
        if timers.add(timer) {
            self.unpolled = true;
        } else {
            self.stop(ExitReason::Failed(format!(
                "more than {TIMERS_MAX} timers at a time"
            )));
        }
    }

    /// Cancels a timer; `false` when it has fired, was cancelled, or belongs to an earlier generation.
    pub fn cancel_timer(&mut self, handle: TimerHandle) -> bool {
        if self.firing == Some(handle.id.get()) {
            self.firing = None;
            return true;
        }
        self.timers
            .as_mut()
            .is_some_and(|timers| timers.remove(handle.id.get()))
    }

    /// Has a timer fire at `at` if that is earlier than it would; nothing where there is no such timer any more.
    pub fn hasten_timer(&mut self, handle: TimerHandle, at: std::time::Instant) {
        if let Some(timers) = self.timers.as_mut()
            && timers.hasten(handle.id.get(), at.into())
        {
            self.unpolled = true;
        }
    }

    /// Runs `future` on this arbiter beside the messages, and `then` with its output, between two messages.
    /// A panic in either is treated like one in a handler. Dropped unfinished when the generation ends.
    ///
    /// At most [`FUTURES_MAX`] at a time; beyond that the actor fails and starts again without them.
    pub fn spawn_then<F, T>(&mut self, future: F, then: T)
    where
        F: Future + 'static,
        T: FnOnce(&mut A, F::Output, &mut Self) + 'static,
    {
        let futures = self
            .futures
            .get_or_insert_with(|| Box::new(FuturesUnordered::new()));
        if futures.len() >= FUTURES_MAX {
            self.stop(ExitReason::Failed(format!(
                "more than {FUTURES_MAX} futures at a time"
            )));
            return;
        }
        futures.push(Box::pin(async move {
            let out = future.await;
            Box::new(move |actor: &mut A, ctx: &mut Self| then(actor, out, ctx)) as Then<A>
        }));
        self.unpolled = true;
    }

    /// Futures in flight.
    #[must_use]
    pub fn futures_len(&self) -> usize {
        self.futures.as_ref().map_or(0, |futures| futures.len())
    }
}

impl<A: Supervised> fmt::Debug for Ctx<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ctx")
            .field("actor", &self.me)
            .finish_non_exhaustive()
    }
}

/// A timer that was set; dropping it leaves it set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerHandle {
    id: NonZeroU64,
}

impl TimerHandle {
    /// See [`Ctx::cancel_timer`].
    pub fn cancel<A: Supervised>(self, ctx: &mut Ctx<A>) -> bool {
        ctx.cancel_timer(self)
    }
}
