//! The housekeeper: the thread that moves messages from memory to the
//! database, writes bookkeeping down, and releases the journal.
//!
//! It wakes for what is due and otherwise sleeps. The steps themselves are in
//! `migrate` and `checkpoint`; here is only when they happen.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use stonechat_protocol::{Seq, UserId};
use tokio::sync::oneshot;

use crate::error::{StoreError, Unavailable};
use crate::mailbox::Mailbox;
use crate::queue::Job;
use crate::shared::Core;
use crate::{checkpoint, migrate};

/// How often it looks while there is something that will be due.
const TICK: Duration = Duration::from_millis(250);

/// How often idle mailboxes are looked for while there are too many in memory, and stored
/// messages that left are removed.
const SWEEP: Duration = Duration::from_secs(2);

/// Chunks to be removed from the database.
#[derive(Debug)]
pub(crate) struct Garbage {
    pub(crate) since: Instant,
    pub(crate) user: UserId,
    pub(crate) chunks: Vec<(Seq, u8)>,
}

/// What waits for the housekeeper. Bounded by resident mailboxes (each is in a list
/// once) and by the chunks of the mailboxes garbage comes from.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    lists: Mutex<Lists>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Lists {
    /// Mailboxes with recent messages, by when the first of them came.
    aging: VecDeque<(u64, Arc<Mailbox>)>,
    /// Mailboxes to be written to the database.
    dirty: Vec<Arc<Mailbox>>,
    garbage: VecDeque<Garbage>,
    poked: bool,
    idle: bool,
    stop: bool,
}

impl Upkeep {
    pub(crate) fn aging(&self, mailbox: &Arc<Mailbox>, at_ms: u64) {
        self.lists
            .lock()
            .aging
            .push_back((at_ms, Arc::clone(mailbox)));
    }

    pub(crate) fn dirty(&self, mailbox: &Arc<Mailbox>) {
        self.lists.lock().dirty.push(Arc::clone(mailbox));
    }

    pub(crate) fn garbage(&self, user: &UserId, chunks: Vec<(Seq, u8)>) {
        self.lists.lock().garbage.push_back(Garbage {
            since: Instant::now(),
            user: user.clone(),
            chunks,
        });
    }

    /// Takes the next mailbox whose recent messages began at or before `before_ms`.
    pub(crate) fn pop_aging(&self, before_ms: u64) -> Option<Arc<Mailbox>> {
        let mut lists = self.lists.lock();
        let next = lists.aging.pop_front_if(|(at_ms, _)| *at_ms <= before_ms);
        next.map(|(_, mailbox)| mailbox)
    }

    /// Mailboxes with recent messages.
    pub(crate) fn with_recent(&self) -> Vec<Arc<Mailbox>> {
        let lists = self.lists.lock();
        lists
            .aging
            .iter()
            .map(|(_, mailbox)| Arc::clone(mailbox))
            .collect()
    }

    pub(crate) fn take_dirty(&self) -> Vec<Arc<Mailbox>> {
        std::mem::take(&mut self.lists.lock().dirty)
    }

    pub(crate) fn pop_garbage(&self, before: Instant) -> Option<Garbage> {
        self.lists
            .lock()
            .garbage
            .pop_front_if(|garbage| garbage.since <= before)
    }

    /// Garbage old enough to go is waiting.
    fn garbage_due(&self, before: Instant) -> bool {
        let lists = self.lists.lock();
        lists
            .garbage
            .front()
            .is_some_and(|garbage| garbage.since <= before)
    }

    /// Something changed that it should look at now.
    pub(crate) fn poke(&self) {
        self.lists.lock().poked = true;
        self.wake.notify_one();
    }

    /// There is something that will be due some day.
    pub(crate) fn wake_if_idle(&self) {
        let mut lists = self.lists.lock();
        if std::mem::take(&mut lists.idle) {
            lists.poked = true;
            self.wake.notify_one();
        }
    }

    pub(crate) fn stop(&self) {
        self.lists.lock().stop = true;
        self.wake.notify_one();
    }

    /// Sleeps; `false`: the store is closing.
    fn sleep(&self, anything_ahead: bool) -> bool {
        let mut lists = self.lists.lock();
        if !lists.poked && !lists.stop {
            if anything_ahead || !lists.aging.is_empty() || !lists.garbage.is_empty() {
                self.wake.wait_for(&mut lists, TICK);
            } else {
                lists.idle = true;
                self.wake.wait(&mut lists);
            }
        }
        lists.idle = false;
        lists.poked = false;
        !lists.stop
    }
}

/// The thread's body. sled may panic on damaged files: that fails the store, not the process.
pub(crate) fn run(core: &Core) {
    if catch_unwind(AssertUnwindSafe(|| rounds(core))).is_err() {
        tracing::error!("the housekeeper panicked; accepting nothing more");
        core.database_failed(StoreError::Database("the housekeeper panicked".to_owned()));
    }
}

fn rounds(core: &Core) {
    let mut rotated = false;
    let mut swept = Instant::now();
    loop {
        // A segment that holds something will have to be released some day.
        let ahead = !journal_is_empty(core) || core.residents() > core.config.resident_max;
        if !core.upkeep.sleep(ahead) || core.abandoned() {
            return;
        }
        if core.unavailable() == Some(Unavailable::DiskFull) {
            // sled cannot survive a failed write: nothing is written until there is room.
            continue;
        }
        if core.unavailable() == Some(Unavailable::Failed) {
            return;
        }
        let sweep = swept.elapsed() >= SWEEP;
        if sweep {
            swept = Instant::now();
            core.evict();
        }
        if let Err(error) = round(core, &mut rotated, sweep) {
            match error {
                StoreError::Unavailable(_) => {}
                error => {
                    tracing::error!(%error, "the mailbox database failed; accepting nothing more");
                    core.database_failed(error);
                    return;
                }
            }
        }
    }
}

/// Only the segment being written is there, and nothing was written to it.
fn journal_is_empty(core: &Core) -> bool {
    let (segments, bytes) = core.table.totals();
    segments <= 1 && bytes <= crate::journal::segment::HEADER_BYTES as u64
}

fn round(core: &Core, rotated: &mut bool, swept: bool) -> Result<(), StoreError> {
    core.check_headroom()?;
    let pressed = core.wants_room();
    migrate::due(core, pressed)?;
    let old = core.table.active_age() >= Some(core.config.segment_age_max);
    // Where room is needed, the segment being written goes as well: once, and again whenever
    // it has become a good part of the journal.
    let large = core.table.active_bytes() > core.config.journal_bytes_max / 8;
    if old || (pressed && (large || !*rotated)) {
        rotate(core)?;
    }
    *rotated = pressed;
    let grace = core.config.receipt_grace;
    let before = core.forgets_before(grace);
    let position = core.applied.load(Ordering::Acquire);
    let first = core.first_needed(position, before);
    let releasable = core.table.oldest().is_some_and(|oldest| oldest < first);
    let garbage = (pressed || swept) && before.is_some_and(|limit| core.upkeep.garbage_due(limit));
    if releasable || garbage {
        checkpoint::run(core, grace)?;
    }
    core.update_pressure();
    core.telemetry.gauges(core);
    Ok(())
}

/// Has the committer start a new segment.
pub(crate) fn rotate(core: &Core) -> Result<(), StoreError> {
    ask(core, Job::Rotate)
}

/// Waits until everything lazy noted before is durable.
pub(crate) fn flush(core: &Core) -> Result<(), StoreError> {
    ask(core, Job::Flush)
}

/// Puts a job to the committer and waits for the answer. Not for the committer's own thread.
pub(crate) fn ask(
    core: &Core,
    job: impl FnOnce(crate::queue::Done) -> Job,
) -> Result<(), StoreError> {
    let (done, answer) = oneshot::channel();
    core.queue.push_job(job(done));
    answer
        .blocking_recv()
        .unwrap_or(Err(StoreError::Unavailable(Unavailable::Closing)))
}
