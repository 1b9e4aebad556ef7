//! The future that is an actor: one task on an arbiter that owns the value of the current generation and
//! carries it through start, messages, crash, restart and end.
//!
//! The inbox and the handles are not here (see `cell`), which is why they survive whatever happens to the
//! value. All code of the actor runs inside `guard`; nothing of it runs while this thread is unwinding.
//! Decisions about *other* children are not taken here either: those go to the keeper (see `group`).

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use futures_util::StreamExt;
use tokio::time::{Instant, Sleep};

use crate::{
    actor_ref::ActorRef,
    cell::{Cell, Core},
    ctx::Ctx,
    inbox::{Inbox, Stack},
    panics::{QuietPanics, drop_guarded, guard},
    reason::ExitReason,
    spec::Failures,
    supervised::{Factory, Supervised},
    timers::Fire,
    watchdog::Pulse,
};

/// Messages, timers and futures handled before the arbiter's other tasks get a turn.
const TURNS_PER_POLL_MAX: u32 = 64;

/// An actor that has not reached its arbiter yet. `Send`, because it holds no value.
pub(crate) struct Launch<A: Supervised> {
    parts: Option<(Arc<Cell<A>>, Factory<A>)>,
}

impl<A: Supervised> Launch<A> {
    pub(crate) fn new(cell: Arc<Cell<A>>, factory: Factory<A>) -> Self {
        Self {
            parts: Some((cell, factory)),
        }
    }

    /// The task, on the thread it will run on.
    pub(crate) fn task(mut self) -> Option<ActorTask<A>> {
        let (cell, factory) = self.parts.take()?;
        let pulse = cell.core.sup.tree.pulse();
        let thread = pulse.number.load(Ordering::Relaxed);
        cell.core.thread.store(thread, Ordering::Relaxed);
        Some(ActorTask {
            value: None,
            ctx: Ctx::new(ActorRef { cell }),
            factory,
            batch: Stack::new(),
            failures: None,
            step: Step::Start,
            pulse,
        })
    }

    /// Becomes a task on the current arbiter.
    pub(crate) fn go(self) {
        if let Some(task) = self.task() {
            #[allow(
                clippy::disallowed_methods,
                reason = "this is where supervised tasks come from"
            )]
            actix_rt::spawn(task);
        }
    }
}

impl<A: Supervised> Drop for Launch<A> {
    fn drop(&mut self) {
        if let Some((cell, _)) = self.parts.take() {
            cell.finish(&Arc::new(ExitReason::ArbiterGone), 0);
        }
    }
}

pub(crate) enum Step {
    Start,
    Run,
    Backoff(Pin<Box<Sleep>>),
    Halted,
    Done,
}

pub(crate) enum Next {
    /// Look at the step again.
    Again,
    /// Nothing to do until woken.
    Sleep,
    /// More to do, but others first.
    Yield,
}

pub(crate) struct ActorTask<A: Supervised> {
    pub(crate) value: Option<A>,
    pub(crate) ctx: Ctx<A>,
    pub(crate) factory: Factory<A>,
    /// Taken from the inbox and not handled yet; survives a restart like the inbox itself.
    pub(crate) batch: Stack<A>,
    /// Allocated with the first failure.
    pub(crate) failures: Option<Box<Failures>>,
    pub(crate) step: Step,
    pub(crate) pulse: Arc<Pulse>,
}

impl<A: Supervised> Future for ActorTask<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let _quiet = QuietPanics::enter();
        this.pulse.begin(this.ctx.id());
        let outcome = this.drive(cx);
        this.pulse.end();
        outcome
    }
}

impl<A: Supervised> ActorTask<A> {
    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.cell().inbox.has_signals() {
                self.obey();
            }
            let next = match &mut self.step {
                Step::Done => return Poll::Ready(()),
                Step::Start => self.start(),
                Step::Run => self.run(cx),
                Step::Backoff(pause) => match pause.as_mut().poll(cx) {
                    Poll::Ready(()) => {
                        self.step = Step::Start;
                        Next::Again
                    }
                    Poll::Pending => self.wait_for_signals(cx),
                },
                Step::Halted => self.wait_for_signals(cx),
            };
            match next {
                Next::Again => {}
                Next::Sleep => return Poll::Pending,
                Next::Yield => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }

    pub(crate) fn cell(&self) -> &Arc<Cell<A>> {
        &self.ctx.me().cell
    }

    pub(crate) fn core(&self) -> &Core {
        &self.cell().core
    }

    fn wait_for_signals(&self, cx: &mut Context<'_>) -> Next {
        if self.cell().inbox.park_for_signals(cx.waker()) {
            Next::Sleep
        } else {
            Next::Again
        }
    }

    fn run(&mut self, cx: &mut Context<'_>) -> Next {
        let mut turns_left = TURNS_PER_POLL_MAX;
        let faulty = self.core().sup.tree.faults.armed();
        loop {
            if let Some(reason) = self.ctx.stop.take() {
                self.exit(reason);
                return Next::Yield;
            }
            if self.cell().inbox.has_signals() {
                return Next::Again;
            }
            if turns_left == 0 {
                return Next::Yield;
            }
            turns_left -= 1;
            let turn = match self.due_timer(cx) {
                Ok(false) => match self.ready_future(cx) {
                    Ok(false) => self.next_message(faulty, cx),
                    other => other,
                },
                other => other,
            };
            match turn {
                Ok(true) => {}
                Ok(false) => return Next::Sleep,
                Err(crash) => return self.crashed_yielding(crash),
            }
        }
    }

    /// Fires one timer that is due.
    fn due_timer(&mut self, cx: &mut Context<'_>) -> Result<bool, Arc<ExitReason>> {
        let armed = !self.ctx.unpolled;
        let Some(timers) = self.ctx.timers.as_mut() else {
            return Ok(false);
        };
        let Some(timer) = timers.pop_due(armed, cx) else {
            if timers.is_empty() {
                self.ctx.timers = None;
            }
            return Ok(false);
        };
        // The alarm is spent: the next look must set it again.
        self.ctx.unpolled = true;
        let (Some(value), ctx) = (self.value.as_mut(), &mut self.ctx) else {
            return Ok(false);
        };
        match timer.fire {
            Fire::Once(f) => guard("timer", || f(value, ctx))?,
            Fire::Every(period, mut f) => {
                ctx.firing = Some(timer.id);
                guard("timer", || f(value, ctx))?;
                if ctx.firing.take().is_some() {
                    let now = Instant::now();
                    let at = Some(timer.at + period)
                        .filter(|at| *at > now)
                        .unwrap_or(now + period);
                    ctx.put_timer(crate::timers::Timer {
                        id: timer.id,
                        at,
                        fire: Fire::Every(period, f),
                    });
                }
            }
        }
        Ok(true)
    }

    /// Polls the futures; runs the continuation of one that is done.
    fn ready_future(&mut self, cx: &mut Context<'_>) -> Result<bool, Arc<ExitReason>> {
        self.ctx.unpolled = false;
        let Some(futures) = self.ctx.futures.as_mut() else {
            return Ok(false);
        };
        match guard("future", || futures.poll_next_unpin(cx))? {
            Poll::Ready(Some(then)) => {
                let (Some(value), ctx) = (self.value.as_mut(), &mut self.ctx) else {
                    return Ok(false);
                };
                guard("future", || then(value, ctx))?;
                Ok(true)
            }
            Poll::Ready(None) => {
                self.ctx.futures = None;
                Ok(false)
            }
            Poll::Pending => Ok(false),
        }
    }

    /// Handles one message.
    fn next_message(
        &mut self,
        faulty: bool,
        cx: &mut Context<'_>,
    ) -> Result<bool, Arc<ExitReason>> {
        if self.batch.is_empty() {
            match Inbox::take(self.cell(), cx.waker()) {
                Some(batch) => self.batch = batch,
                None => return Ok(false),
            }
        } else {
            Inbox::take_up(self.cell());
        }
        let Some(mut envelope) = self.batch.pop() else {
            return Ok(true);
        };
        let (Some(value), ctx) = (self.value.as_mut(), &mut self.ctx) else {
            return Ok(false);
        };
        let outcome = guard("message", || {
            if faulty {
                cell_of(ctx).core.sup.tree.faults.strike(A::KIND);
            }
            envelope.run.run(value, ctx);
        });
        match outcome {
            Ok(()) => {
                guard("drop", || drop(envelope))?;
                Ok(true)
            }
            Err(crash) => {
                let crash = named(crash, envelope.run.label());
                envelope.run.fail(&crash);
                if let Err(also) = drop_guarded(envelope) {
                    self.record(&also);
                }
                Err(crash)
            }
        }
    }

    pub(crate) fn crashed_yielding(&mut self, crash: Arc<ExitReason>) -> Next {
        self.crashed(crash);
        // A crash loop must not keep the arbiter from its other tasks.
        Next::Yield
    }
}

fn cell_of<A: Supervised>(ctx: &Ctx<A>) -> &Cell<A> {
    &ctx.me().cell
}

/// The panic's reason with the message's type in place of the general label.
fn named(crash: Arc<ExitReason>, label: &'static str) -> Arc<ExitReason> {
    match Arc::unwrap_or_clone(crash) {
        ExitReason::Panicked {
            payload,
            location,
            backtrace,
            ..
        } => Arc::new(ExitReason::Panicked {
            message_type: label,
            payload,
            location,
            backtrace,
        }),
        other => Arc::new(other),
    }
}

impl<A: Supervised> Drop for ActorTask<A> {
    /// The arbiter ended under the actor.
    fn drop(&mut self) {
        if !matches!(self.step, Step::Done) {
            let _quiet = QuietPanics::enter();
            let reason = Arc::new(ExitReason::ArbiterGone);
            self.core().set_last_exit(&reason);
            self.end(&reason);
        }
    }
}

/// There is one of each for every connected user: growth should be a decision. (Under test they hold what
/// the models of `model` need.)
#[cfg(not(test))]
const _: () = {
    struct Empty;
    impl Supervised for Empty {
        const KIND: &'static str = "empty";
    }
    assert!(size_of::<ActorTask<Empty>>() <= 136);
    assert!(size_of::<Cell<Empty>>() <= 208);
};
