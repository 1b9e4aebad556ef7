//! What the inbox synchronises with: the usual things in a build, a model checker's under test.
//!
//! The models of `model` run the inbox and the actor's task themselves, not a copy of them, with every
//! interleaving of these operations open. Only what decides who sees what goes through here: figures that
//! are merely read do not.

#[cfg(not(test))]
pub(crate) use {
    parking_lot::Mutex,
    std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64},
    tokio::time::timeout_at,
};

#[cfg(test)]
pub(crate) use {
    modelled::{Mutex, deadlines_pass, timeout_at},
    shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64},
};

#[cfg(test)]
mod modelled {
    use std::{cell::Cell, future::Future, pin::pin, task::Poll};

    use shuttle::{rand::Rng, sync::MutexGuard};

    /// The model's lock with the face of the usual one.
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    thread_local! {
        static DEADLINES_PASS: Cell<bool> = const { Cell::new(false) };
    }

    /// Whether deadlines may pass in the models of this thread. Where they may not, a lost wake-up shows as
    /// a deadlock.
    pub(crate) fn deadlines_pass(may: bool) {
        DEADLINES_PASS.with(|flag| flag.set(may));
    }

    /// Time is chance: a wait that is not over may be given up at any look at it.
    pub(crate) async fn timeout_at<F: Future>(
        _until: tokio::time::Instant,
        future: F,
    ) -> Result<F::Output, ()> {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(out) => Poll::Ready(Ok(out)),
            Poll::Pending if !DEADLINES_PASS.with(Cell::get) => Poll::Pending,
            Poll::Pending if shuttle::rand::thread_rng().gen_bool(0.3) => Poll::Ready(Err(())),
            Poll::Pending => {
                // Or nobody would look again, and time not pass.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await
    }
}
