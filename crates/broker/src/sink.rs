//! From the committer's thread to the dispatchers: who is told of a commit.
//!
//! Runs on the committer's thread, so it only sorts and hands on. When a
//! dispatcher's inbox is full the notification is dropped and its sessions catch
//! up: what is durable is in the store, a notification is only a hint. Users
//! without a session are nobody's: nothing is handed on for them.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use stonechat_mailbox::{CommitSink, Committed, Envelope, StoreError, Unavailable};
use tokio::sync::{oneshot, watch};

use crate::dispatcher::{CommitBatch, Notice};
use crate::shared::Shared;
use crate::traced;

/// Appends somebody waits for, one for each dead letter that is being put back.
#[derive(Default)]
pub(crate) struct Watched(Mutex<Vec<(Arc<Envelope>, Outcome)>>);

type Outcome = oneshot::Sender<Result<(), Unavailable>>;

impl Watched {
    /// Tells what becomes of the append of this very envelope.
    pub(crate) fn watch(
        &self,
        envelope: &Arc<Envelope>,
    ) -> oneshot::Receiver<Result<(), Unavailable>> {
        let (tell, outcome) = oneshot::channel();
        let mut watched = self.0.lock();
        watched.retain(|(_, waiter)| !waiter.is_closed());
        watched.push((Arc::clone(envelope), tell));
        outcome
    }

    fn tell(&self, batch: &[Committed]) {
        let mut watched = self.0.lock();
        if watched.is_empty() {
            return;
        }
        for committed in batch {
            let found =
                |(envelope, _): &(Arc<Envelope>, _)| Arc::ptr_eq(envelope, &committed.envelope);
            if let Some(at) = watched.iter().position(found) {
                let (_, tell) = watched.swap_remove(at);
                // Whoever asked may have given up.
                let _ = tell.send(committed.result.as_ref().map(|_| ()).map_err(|why| *why));
            }
        }
    }
}

/// The store's end: give it to the store when opening it.
struct Sink {
    target: Arc<OnceLock<Arc<Shared>>>,
    failed: watch::Sender<Option<String>>,
    batches: Vec<Vec<Notice>>,
    /// When the last batch began to be written, if anything is traced.
    begun: Option<Instant>,
}

/// The broker's end: give it to [`crate::Broker::start`].
#[derive(Clone)]
pub struct SinkHandle {
    pub(crate) target: Arc<OnceLock<Arc<Shared>>>,
    failed: watch::Receiver<Option<String>>,
}

impl SinkHandle {
    /// Ready when a write or sync of the store failed for good, with what it said. The node
    /// must then stop accepting and exit non-zero.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        let said = failed
            .wait_for(Option::is_some)
            .await
            .map(|said| said.clone());
        match said {
            Ok(said) => said.unwrap_or_default(),
            // The store is closed: it cannot fail any more.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Makes the two ends.
pub fn commit_sink() -> (Box<dyn CommitSink>, SinkHandle) {
    let target = Arc::new(OnceLock::new());
    let (sender, failed) = watch::channel(None);
    let sink = Sink {
        target: Arc::clone(&target),
        failed: sender,
        batches: Vec::new(),
        begun: None,
    };
    (Box::new(sink), SinkHandle { target, failed })
}

/// Sorts a notice by the thread it is for. `messages` is how many the commit has.
fn add(batches: &mut Vec<Vec<Notice>>, messages: usize, home: u32, notice: Notice) {
    let Some(at) = (home as usize).checked_sub(1) else {
        return;
    };
    if batches.len() <= at {
        batches.resize_with(at + 1, Vec::new);
    }
    let homes = batches.len();
    let batch = &mut batches[at];
    if batch.is_empty() {
        // Most messages make two notices, one for each end, and threads have about as many each.
        batch.reserve(2 * messages / homes);
    }
    batch.push(notice);
}

impl CommitSink for Sink {
    fn writing(&mut self) {
        if stonechat_trace::is_on() {
            self.begun = Some(Instant::now());
        }
    }

    fn committed(&mut self, batch: Vec<Committed>) {
        // Before the broker has started nobody is connected, so nobody waits to hear.
        let Some(shared) = self.target.get() else {
            return;
        };
        shared.watched.tell(&batch);
        let messages = batch.len();
        for committed in batch {
            if let Some(trace) = committed.envelope.trace.get() {
                let begun = self.begun.unwrap_or_else(Instant::now);
                traced::committed(trace, &committed, messages, begun);
            }
            let Committed {
                envelope,
                sender,
                result,
            } = committed;
            let outcome = match result {
                Ok(places) => {
                    for placed in places {
                        // Set before a session looks at its mailbox, which it does after this
                        // message took its place there, or we see the number here.
                        let home = placed.mailbox.home();
                        let notice = Notice::Placed {
                            user: placed.mailbox.user().clone(),
                            prev: placed.prev,
                            seq: placed.seq,
                            envelope: Arc::clone(&envelope),
                        };
                        add(&mut self.batches, messages, home, notice);
                    }
                    Ok(())
                }
                Err(why) => Err(why),
            };
            let answer = Notice::Answer { envelope, outcome };
            add(&mut self.batches, messages, sender.home(), answer);
        }
        for (at, notices) in self.batches.iter_mut().enumerate() {
            if !notices.is_empty() {
                let notices = std::mem::take(notices);
                shared.dispatch(at, CommitBatch { notices, messages });
            }
        }
    }

    fn failed(&mut self, error: &StoreError) {
        self.failed.send_replace(Some(error.to_string()));
    }
}
