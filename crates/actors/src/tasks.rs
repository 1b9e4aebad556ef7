//! Tasks that are not actors: connections, accept loops, exporters.
//!
//! A supervised task's panic is caught, counted and kept in the crash ring like an actor's, and whoever
//! started it can be told. It is not restarted and has no inbox; a shutdown of the tree does not wait for it.

use std::{
    borrow::Cow,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use actix_rt::ArbiterHandle;
use pin_project_lite::pin_project;

use crate::{
    ActorId,
    error::StartError,
    panics::{QuietPanics, drop_guarded, guard},
    reason::ExitReason,
    tree::{Tree, TreeShared},
    watchdog::Pulse,
};

type OnPanic = Box<dyn FnOnce(&ExitReason)>;

/// Shown by the watchdog as "a task".
const TASK_TURN: ActorId = ActorId(u64::MAX);

/// Counts a live task.
struct Alive(Arc<TreeShared>);

impl Alive {
    fn new(tree: &Arc<TreeShared>) -> Self {
        tree.totals.tasks_live.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(tree))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.totals.tasks_live.fetch_sub(1, Ordering::Relaxed);
    }
}

pin_project! {
    struct Task<F> {
        #[pin]
        future: Option<F>,
        name: Cow<'static, str>,
        on_panic: Option<OnPanic>,
        alive: Alive,
        pulse: Arc<Pulse>,
    }
}

impl<F: Future<Output = ()>> Future for Task<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let _quiet = QuietPanics::enter();
        this.pulse.begin(TASK_TURN);
        let outcome = match this.future.as_mut().as_pin_mut() {
            Some(future) => guard("task", || future.poll(cx)),
            None => Ok(Poll::Ready(())),
        };
        let outcome = match outcome {
            Ok(Poll::Pending) => {
                this.pulse.end();
                return Poll::Pending;
            }
            Ok(Poll::Ready(())) => Ok(()),
            Err(crash) => Err(crash),
        };
        // Its destructors run here, where a panic is caught.
        let dropped = guard("drop", || this.future.set(None));
        for crash in [outcome, dropped].into_iter().filter_map(Result::err) {
            this.alive.0.record_task_crash(this.name, &crash);
            if let Some(on_panic) = this.on_panic.take()
                && let Err(also) = guard("on_panic", || on_panic(&crash))
            {
                this.alive.0.record_task_crash(this.name, &also);
            }
        }
        if let Err(crash) = drop_guarded(this.on_panic.take()) {
            this.alive.0.record_task_crash(this.name, &crash);
        }
        this.pulse.end();
        Poll::Ready(())
    }
}

/// A running task; dropping this leaves it running.
#[derive(Debug)]
pub struct TaskHandle(tokio::task::JoinHandle<()>);

impl TaskHandle {
    /// Ends the task where it waits.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether it has ended, in whatever way.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits until it has ended, in whatever way.
    pub async fn ended(self) {
        // An error means it was aborted; a panic never gets this far.
        let _ = self.0.await;
    }
}

impl Tree {
    /// Runs a future as a task on the current arbiter.
    ///
    /// # Panics
    /// When the current thread is not an arbiter's.
    pub fn spawn_task<F>(&self, name: impl Into<Cow<'static, str>>, future: F) -> TaskHandle
    where
        F: Future<Output = ()> + 'static,
    {
        self.spawn_here(name.into(), future, None)
    }

    /// Like [`Tree::spawn_task`]; `on_panic` is told, on the same arbiter, if the task panics.
    ///
    /// # Panics
    /// When the current thread is not an arbiter's.
    pub fn spawn_task_or<F>(
        &self,
        name: impl Into<Cow<'static, str>>,
        future: F,
        on_panic: impl FnOnce(&ExitReason) + 'static,
    ) -> TaskHandle
    where
        F: Future<Output = ()> + 'static,
    {
        self.spawn_here(name.into(), future, Some(Box::new(on_panic)))
    }

    /// Runs what `make` makes as a task on another arbiter.
    pub fn spawn_task_on<F>(
        &self,
        arbiter: &ArbiterHandle,
        name: impl Into<Cow<'static, str>>,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> Result<(), StartError>
    where
        F: Future<Output = ()> + 'static,
    {
        let (tree, name) = (self.clone(), name.into());
        // `make` runs inside the task, so that its panic is caught too.
        let sent = arbiter.spawn_fn(move || {
            tree.spawn_here(name, async move { make().await }, None);
        });
        if sent {
            Ok(())
        } else {
            Err(StartError::ArbiterGone)
        }
    }

    fn spawn_here<F>(
        &self,
        name: Cow<'static, str>,
        future: F,
        on_panic: Option<OnPanic>,
    ) -> TaskHandle
    where
        F: Future<Output = ()> + 'static,
    {
        let task = Task {
            future: Some(future),
            name,
            on_panic,
            alive: Alive::new(&self.shared),
            pulse: self.shared.pulse(),
        };
        #[allow(
            clippy::disallowed_methods,
            reason = "this is where supervised tasks come from"
        )]
        TaskHandle(actix_rt::spawn(task))
    }
}
