//! How a message gets into an inbox: envelopes, the ways to wait for room, and handles that forget the actor's
//! type.
//!
//! The bound itself is `inbox`'s; this is its one user.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use crate::{
    cell::Cell,
    ctx::Ctx,
    error::{TellError, TrySendError},
    inbox::{Envelope, Inbox, Refusal, Run, Slot},
    reason::ExitReason,
    signal::Phase,
    supervised::{Ask, Handle, Supervised},
    sync::timeout_at,
};

struct Told<M>(Option<M>);

impl<A: Handle<M>, M: Send + 'static> Run<A> for Told<M> {
    fn run(&mut self, actor: &mut A, ctx: &mut Ctx<A>) {
        if let Some(msg) = self.0.take() {
            actor.handle(msg, ctx);
        }
    }

    fn label(&self) -> &'static str {
        std::any::type_name::<M>()
    }

    fn fail(&mut self, _reason: &Arc<ExitReason>) {}
}

/// A question and where its answer goes.
pub(crate) struct Asked<A: Ask<M>, M: Send + 'static> {
    pub(crate) question: Option<M>,
    pub(crate) answer: Option<oneshot::Sender<Result<A::Reply, Arc<ExitReason>>>>,
}

impl<A: Ask<M>, M: Send + 'static> Run<A> for Asked<A, M> {
    fn run(&mut self, actor: &mut A, ctx: &mut Ctx<A>) {
        let Some(question) = self.question.take() else {
            return;
        };
        if self.answer.as_ref().is_some_and(oneshot::Sender::is_closed) {
            // The asker gave up while the question waited: nobody would hear the answer.
            return;
        }
        let reply = actor.ask(question, ctx);
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(Ok(reply));
        }
    }

    fn label(&self) -> &'static str {
        std::any::type_name::<M>()
    }

    fn fail(&mut self, reason: &Arc<ExitReason>) {
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(Err(Arc::clone(reason)));
        }
    }
}

impl<A: Supervised> Cell<A> {
    pub(crate) fn try_tell<M: Send + 'static>(
        &self,
        msg: M,
        may_wait: impl FnOnce() -> bool,
    ) -> Result<(), TrySendError<M>>
    where
        A: Handle<M>,
    {
        if self.inbox.looks_full() && self.core.phase() != Phase::Ended {
            return Err(TrySendError::Full(msg));
        }
        self.inbox
            .offer_lazily(Envelope::new(Told(Some(msg))), may_wait)
            .map_err(|(refusal, mut envelope)| {
                // Full or closed, the message was never run, so it is still there.
                let msg = envelope
                    .run
                    .0
                    .take()
                    .expect("a refused envelope still holds its message");
                match refusal {
                    Refusal::Full => TrySendError::Full(msg),
                    Refusal::Closed => TrySendError::Closed(msg),
                }
            })
    }
}

pub(crate) async fn tell_cell<A: Handle<M>, M: Send + 'static>(
    cell: &Arc<Cell<A>>,
    msg: M,
    deadline: Duration,
) -> Result<(), TellError<M>> {
    let msg = match cell.try_tell(msg, || false) {
        Ok(()) => return Ok(()),
        Err(TrySendError::Closed(msg)) => return Err(TellError::Closed(msg)),
        Err(TrySendError::Full(msg)) => msg,
    };
    match wait_for_slot(cell, Instant::now() + deadline).await {
        Ok(slot) => cell
            .inbox
            .offer_in_slot(slot, Envelope::new(Told(Some(msg))))
            .map_err(|mut envelope| {
                TellError::Closed(
                    envelope
                        .run
                        .0
                        .take()
                        .expect("a refused envelope still holds its message"),
                )
            }),
        Err(Refusal::Full) => Err(TellError::Full(msg)),
        Err(Refusal::Closed) => Err(TellError::Closed(msg)),
    }
}

pub(crate) async fn deliver<A: Supervised, R: Run<A> + 'static>(
    cell: &Arc<Cell<A>>,
    envelope: Box<Envelope<A, R>>,
    until: Instant,
) -> Result<(), (Refusal, Box<Envelope<A, R>>)> {
    let envelope = match cell.inbox.offer(envelope) {
        Ok(()) => return Ok(()),
        Err((Refusal::Full, envelope)) => envelope,
        Err(closed) => return Err(closed),
    };
    match wait_for_slot(cell, until).await {
        Ok(slot) => cell
            .inbox
            .offer_in_slot(slot, envelope)
            .map_err(|envelope| (Refusal::Closed, envelope)),
        Err(refusal) => Err((refusal, envelope)),
    }
}

/// Adds the time since it was made to the inbox's blocked time, also when the waiting future is dropped.
struct BlockedTime<'a, A: Supervised>(&'a Inbox<A>, std::time::Instant);

impl<A: Supervised> Drop for BlockedTime<'_, A> {
    fn drop(&mut self) {
        let waited_ns = u64::try_from(self.1.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0
            .blocked_ns_total
            .fetch_add(waited_ns, Ordering::Relaxed);
    }
}

async fn wait_for_slot<A: Supervised>(
    cell: &Arc<Cell<A>>,
    until: Instant,
) -> Result<Slot<A>, Refusal> {
    let _blocked = BlockedTime(&cell.inbox, std::time::Instant::now());
    let turn = Inbox::wait_for_slot(cell)?;
    match timeout_at(until, turn).await {
        Ok(Ok(slot)) => Ok(slot),
        Ok(Err(_dropped)) => Err(Refusal::Closed),
        Err(_elapsed) => Err(Refusal::Full),
    }
}

type TellFuture<M> = Pin<Box<dyn Future<Output = Result<(), TellError<M>>> + Send>>;

pub(crate) trait Takes<M>: Send + Sync {
    fn try_tell(&self, msg: M) -> Result<(), TrySendError<M>>;
    fn tell(self: Arc<Self>, msg: M, deadline: Duration) -> TellFuture<M>;
    fn notice(&self, msg: M);
}

impl<A: Handle<M>, M: Send + 'static> Takes<M> for Cell<A> {
    fn try_tell(&self, msg: M) -> Result<(), TrySendError<M>> {
        Self::try_tell(self, msg, || false)
    }

    fn tell(self: Arc<Self>, msg: M, deadline: Duration) -> TellFuture<M> {
        Box::pin(async move { tell_cell(&self, msg, deadline).await })
    }

    fn notice(&self, msg: M) {
        // `false`: the watcher has ended, there is nobody left to tell.
        let _ = self.inbox.offer_notice(Envelope::new(Told(Some(msg))));
    }
}

struct FromFn<F>(F);

impl<F, M> Takes<M> for FromFn<F>
where
    F: Fn(M) -> Result<(), TrySendError<M>> + Send + Sync,
    M: Send + 'static,
{
    fn try_tell(&self, msg: M) -> Result<(), TrySendError<M>> {
        (self.0)(msg)
    }

    fn tell(self: Arc<Self>, msg: M, _deadline: Duration) -> TellFuture<M> {
        let outcome = (self.0)(msg).map_err(|refused| match refused {
            TrySendError::Full(msg) => TellError::Full(msg),
            TrySendError::Closed(msg) => TellError::Closed(msg),
        });
        Box::pin(std::future::ready(outcome))
    }

    fn notice(&self, msg: M) {
        // A function's own bound is its own business.
        let _ = (self.0)(msg);
    }
}

/// A handle that only knows it takes messages of type `M`.
pub struct TellTo<M>(pub(crate) Arc<dyn Takes<M>>);

impl<M> Clone for TellTo<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M> fmt::Debug for TellTo<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TellTo<{}>", std::any::type_name::<M>())
    }
}

impl<M: Send + 'static> TellTo<M> {
    /// Wraps a function that takes messages without waiting: for receivers that are not actors.
    pub fn from_fn(
        take: impl Fn(M) -> Result<(), TrySendError<M>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(FromFn(take)))
    }

    /// See [`crate::ActorRef::try_tell`].
    pub fn try_tell(&self, msg: M) -> Result<(), TrySendError<M>> {
        self.0.try_tell(msg)
    }

    /// See [`crate::ActorRef::tell`].
    pub async fn tell(&self, msg: M, deadline: Duration) -> Result<(), TellError<M>> {
        match self.0.try_tell(msg) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(msg)) => Err(TellError::Closed(msg)),
            Err(TrySendError::Full(msg)) => Arc::clone(&self.0).tell(msg, deadline).await,
        }
    }

    pub(crate) fn notice(&self, msg: M) {
        self.0.notice(msg);
    }
}
