//! What waits for the committer.
//!
//! Bounds: appends by `queue_bytes_max`, the list of mailboxes with something
//! lazy to write by the number of resident mailboxes (each is in it once),
//! other jobs by their callers, who wait for the answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::api::Append;
use crate::error::StoreError;
use crate::journal::Record;
use crate::mailbox::Mailbox;

/// Answers whoever waits for a job.
pub(crate) type Done = oneshot::Sender<Result<(), StoreError>>;

/// Work for the committer.
#[derive(Debug)]
pub(crate) enum Job {
    /// Commit a message.
    Append(Append),
    /// Commit a record; answered when it is durable and applied. Boxed, as all that is large and
    /// rare, because every append is moved through the queue with room for the largest of these.
    Record { record: Box<Record>, done: Done },
    /// Answered when everything before is committed and the sink has returned.
    Barrier(Done),
    /// Answered when everything lazy that was noted before is durable, or with why it is not.
    Flush(Done),
    /// Start a new segment, so that the current one can be released.
    Rotate(Done),
    /// The database failed: tell the sink and accept nothing more.
    Fail(Box<StoreError>),
    /// Write the closing record and end.
    Close(Done),
}

impl Job {
    /// To commit a record.
    pub(crate) fn record(record: Record, done: Done) -> Self {
        let record = Box::new(record);
        Self::Record { record, done }
    }
}

// A message on its way is as large as an append, and no larger.
const _: () = assert!(size_of::<Job>() <= size_of::<Append>() + 16);

/// When the committer may take the next batch, if it is busy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) not_before: Instant,
    /// Messages of the batch before.
    pub(crate) last_count: u64,
}

/// Messages in the last batch and waiting from which on batches are spaced out: fewer, fuller
/// ones then cost less, and a message waits for one anyway.
const BUSY_APPENDS: u64 = 8;

/// What the committer takes in one go.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) jobs: VecDeque<Job>,
    pub(crate) lazy: Vec<Arc<Mailbox>>,
}

impl Work {
    /// Messages in it.
    pub(crate) fn appends(&self) -> u64 {
        let appends = self.jobs.iter().filter(|job| append_bytes(job) > 0);
        appends.count() as u64
    }
}

#[derive(Debug, Default)]
struct Inner {
    jobs: VecDeque<Job>,
    bytes: u64,
    appends: u64,
    lazy: Vec<Arc<Mailbox>>,
    lazy_since: Option<Instant>,
    /// Who waits for what is lazy to become durable in its own time.
    lazy_waiters: Vec<Done>,
    /// The committer sleeps.
    idle: bool,
    /// Look at something other than the queue.
    interrupted: bool,
    /// The committer ended: nobody will answer.
    ended: bool,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct CommitQueue {
    inner: Mutex<Inner>,
    wake: Condvar,
}

fn append_bytes(job: &Job) -> u64 {
    match job {
        Job::Append(append) => append.envelope.body.len() as u64 + 256,
        _ => 0,
    }
}

impl CommitQueue {
    /// Queues a job, unless appends for more than `bytes_max` wait already: then it comes
    /// back, as it does when the committer has ended.
    pub(crate) fn push(&self, job: Job, bytes_max: u64) -> Result<(), Box<Job>> {
        let bytes = append_bytes(&job);
        let mut inner = self.inner.lock();
        if inner.ended || (bytes > 0 && inner.bytes >= bytes_max) {
            return Err(Box::new(job));
        }
        inner.bytes += bytes;
        inner.appends += u64::from(bytes > 0);
        inner.jobs.push_back(job);
        let wake = std::mem::take(&mut inner.idle);
        drop(inner);
        if wake {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Queues a job that is not an append; its waiter hears nothing when the committer has ended.
    pub(crate) fn push_job(&self, job: Job) {
        // Dropping the job closes the waiter's channel, which it reports as closing.
        drop(self.push(job, u64::MAX));
    }

    /// The database failed.
    pub(crate) fn fail(&self, error: StoreError) {
        self.push_job(Job::Fail(Box::new(error)));
    }

    /// A mailbox has something to be journaled within the lazy interval.
    pub(crate) fn push_lazy(&self, mailbox: &Arc<Mailbox>) {
        self.add_lazy(|inner| inner.lazy.push(Arc::clone(mailbox)));
    }

    /// Answered when everything lazy that was noted before is durable. Hurries nothing: that
    /// is with the next batch, or when the lazy interval is over.
    pub(crate) fn push_lazy_waiter(&self, done: Done) {
        self.add_lazy(|inner| {
            // Dropped otherwise, which its waiter reports as closing.
            if !inner.ended {
                inner.lazy_waiters.push(done);
            }
        });
    }

    fn add_lazy(&self, add: impl FnOnce(&mut Inner)) {
        let mut inner = self.inner.lock();
        add(&mut inner);
        if inner.lazy_since.is_none() {
            inner.lazy_since = Some(Instant::now());
            let wake = std::mem::take(&mut inner.idle);
            drop(inner);
            if wake {
                self.wake.notify_one();
            }
        }
    }

    /// Waits for work and puts it into `work`, which is empty: jobs of at most about `bytes_max`,
    /// everything lazy. Nothing after `timeout`.
    pub(crate) fn take(
        &self,
        work: &mut Work,
        bytes_max: u64,
        lazy_flush: Duration,
        pace: Pace,
        timeout: Option<Duration>,
    ) {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut inner = self.inner.lock();
        while inner.jobs.is_empty() && !std::mem::take(&mut inner.interrupted) {
            let lazy = inner.lazy_since.map(|since| since + lazy_flush);
            let until = [lazy, deadline].into_iter().flatten().min();
            match until {
                Some(until) if until <= Instant::now() => break,
                Some(until) => {
                    // A lazy entry may come meanwhile and has to wake us only when nothing
                    // else bounds the sleep.
                    inner.idle = true;
                    self.wake.wait_until(&mut inner, until);
                }
                None => {
                    inner.idle = true;
                    self.wake.wait(&mut inner);
                }
            }
            inner.idle = false;
        }
        // Nobody wakes us here: whatever comes meanwhile is what is waited for.
        while pace.last_count + inner.appends >= BUSY_APPENDS
            && inner.bytes < bytes_max
            && Instant::now() < pace.not_before
            && !std::mem::take(&mut inner.interrupted)
        {
            self.wake.wait_until(&mut inner, pace.not_before);
        }
        debug_assert!(work.jobs.is_empty() && work.lazy.is_empty());
        if inner.bytes <= bytes_max {
            // All of it, without touching any: the two buffers change places.
            std::mem::swap(&mut work.jobs, &mut inner.jobs);
            inner.bytes = 0;
            inner.appends = 0;
        } else {
            let mut bytes = 0;
            while bytes < bytes_max
                && let Some(job) = inner.jobs.pop_front()
            {
                let size = append_bytes(&job);
                bytes += size;
                inner.bytes -= size;
                inner.appends -= u64::from(size > 0);
                work.jobs.push_back(job);
            }
        }
        std::mem::swap(&mut work.lazy, &mut inner.lazy);
        work.jobs
            .extend(inner.lazy_waiters.drain(..).map(Job::Flush));
        inner.lazy_since = None;
    }

    /// Nobody takes from the queue any more; what is left is handed back.
    pub(crate) fn end(&self) -> Vec<Job> {
        let mut inner = self.inner.lock();
        inner.ended = true;
        inner.bytes = 0;
        inner.appends = 0;
        inner.lazy_waiters.clear();
        inner.jobs.drain(..).collect()
    }

    /// Wakes the committer, to look at something other than the queue.
    pub(crate) fn wake(&self) {
        self.inner.lock().interrupted = true;
        self.wake.notify_one();
    }

    /// Bytes of appends waiting.
    pub(crate) fn bytes(&self) -> u64 {
        self.inner.lock().bytes
    }

    /// Appends waiting.
    pub(crate) fn appends(&self) -> u64 {
        self.inner.lock().appends
    }
}
