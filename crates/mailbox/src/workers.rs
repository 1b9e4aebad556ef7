//! Threads that do what may wait for the database, so that callers do not.
//!
//! Bounded: a job that finds the queue full is refused with
//! [`StoreError::Overloaded`]. A panic in a job (sled may panic on damaged
//! files) ends neither the thread nor the process; it fails the store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::{StoreError, Unavailable};
use crate::shared::Core;

/// Jobs that may wait.
const JOBS_MAX: usize = 65_536;

type Work = Box<dyn FnOnce(&Core) + Send>;

/// The pool.
pub(crate) struct Workers {
    jobs: Mutex<Option<Sender<Work>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    /// Starts `count` threads.
    pub(crate) fn start(core: &Arc<Core>, count: usize) -> Result<Self, StoreError> {
        let (sender, receiver) = bounded::<Work>(JOBS_MAX);
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let core = Arc::clone(core);
            let receiver = receiver.clone();
            threads.push(spawn(&format!("store-read-{index}"), move || {
                work(&core, &receiver);
            })?);
        }
        Ok(Self {
            jobs: Mutex::new(Some(sender)),
            threads: Mutex::new(threads),
        })
    }

    /// Runs a job on one of the threads.
    pub(crate) fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&Core) -> Result<R, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<R, StoreError>> {
        let (done, answer) = oneshot::channel();
        let work: Work = Box::new(move |core| {
            let result = job(core);
            if let Err(error @ StoreError::Database(_)) = &result {
                core.database_failed(StoreError::Database(error.to_string()));
            }
            // The caller may have given up waiting; the job is done either way.
            let _ = done.send(result);
        });
        let jobs = self.jobs.lock().clone();
        let refused = match jobs {
            None => Some(StoreError::Unavailable(Unavailable::Closing)),
            Some(jobs) => jobs.try_send(work).err().map(|_| StoreError::Overloaded),
        };
        Box::pin(async move {
            match refused {
                Some(error) => Err(error),
                None => answer
                    .await
                    .unwrap_or(Err(StoreError::Unavailable(Unavailable::Closing))),
            }
        })
    }

    /// Lets the threads finish what is queued and waits for them.
    pub(crate) fn stop(&self) {
        drop(self.jobs.lock().take());
        for thread in self.threads.lock().drain(..) {
            join(thread);
        }
    }
}

fn work(core: &Core, jobs: &Receiver<Work>) {
    for job in jobs {
        if core.abandoned() {
            return;
        }
        if let Some(faults) = &core.config.faults {
            faults.lookup();
        }
        if catch_unwind(AssertUnwindSafe(|| job(core))).is_err() {
            tracing::error!("reading the mailbox database panicked; accepting nothing more");
            core.database_failed(StoreError::Database("a read panicked".to_owned()));
        }
    }
}

/// Starts a named thread.
pub(crate) fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|source| StoreError::Io {
            action: "starting thread",
            path: name.into(),
            source,
        })
}

/// Waits for a thread; a panic in it was reported by the panic hook already.
pub(crate) fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of the store ended in a panic");
    }
}
