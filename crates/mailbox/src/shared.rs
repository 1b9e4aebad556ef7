//! What the store's threads share: resident mailboxes, totals, queues, the
//! database, and whether appends are accepted.
//!
//! Locks, in the order they may be taken: a load lock, `maintenance`, one
//! mailbox, then the leaf locks (commit queue, upkeep lists, segment table).
//! Never two mailboxes at once.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use dashmap::DashMap;
use parking_lot::{Mutex, MutexGuard};
use stonechat_protocol::{Seq, UserId};
use tokio::sync::Notify;

use crate::api::{Account, UserLimits};
use crate::config::StoreConfig;
use crate::error::{StoreError, Unavailable};
use crate::files::free_bytes;
use crate::housekeeper::Upkeep;
use crate::journal::Spare;
use crate::journal::segment::SegmentTable;
use crate::mailbox::{Freed, Mailbox, State};
use crate::queue::CommitQueue;
use crate::sledstore::{Database, Found};
use crate::telemetry::Telemetry;
use crate::{expire, fullest, overlap};

const LOAD_LOCKS: usize = 64;

/// Figures of the whole store, kept.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) messages: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) recent_bytes: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) purged: AtomicU64,
    pub(crate) dead: AtomicU64,
    pub(crate) syncs: AtomicU64,
}

impl Totals {
    /// Counts the difference of one mailbox's counters.
    fn adjust(&self, before: (u64, u64), after: (u64, u64)) {
        let add = |total: &AtomicU64, before: u64, after: u64| {
            // Wrapping on purpose: adding a negative difference.
            total.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        };
        add(&self.messages, before.0, after.0);
        add(&self.bytes, before.1, after.1);
    }
}

/// Shared by the store's handle and its threads.
pub(crate) struct Core {
    pub(crate) config: StoreConfig,
    /// How many times the data directory was opened, this time included.
    pub(crate) epoch: u64,
    pub(crate) opened: Instant,
    residents: DashMap<UserId, Arc<Mailbox>, ahash::RandomState>,
    load_locks: [Mutex<()>; LOAD_LOCKS],
    hasher: RandomState,
    pub(crate) accounts: DashMap<UserId, Option<Account>, ahash::RandomState>,
    pub(crate) totals: Totals,
    pub(crate) queue: CommitQueue,
    pub(crate) upkeep: Upkeep,
    pub(crate) table: Arc<SegmentTable>,
    pub(crate) spare: Arc<Spare>,
    /// Every record below this position is reflected in memory.
    pub(crate) applied: AtomicU64,
    database: ArcSwapOption<Database>,
    /// Held by whatever rewrites stored messages: one at a time.
    pub(crate) maintenance: Mutex<()>,
    /// Held by a checkpoint.
    pub(crate) checkpointing: Mutex<()>,
    /// Held by whoever numbers or removes a dead letter.
    pub(crate) dead_letters: Mutex<()>,
    /// The fullest mailboxes as last counted.
    pub(crate) fullest: Mutex<Option<fullest::Pass>>,
    /// Held by a backup.
    pub(crate) backing_up: Mutex<()>,
    /// A backup still has to copy the journal from this position on; `MAX`: there is none.
    pub(crate) journal_held: AtomicU64,
    /// Since when receipts wait to be put, by who waits.
    pub(crate) receipts_wait: Mutex<HashMap<usize, Instant>>,
    /// Every place given from now on is above this: what was given after the backup this
    /// store was restored from is never given again.
    pub(crate) seq_base: Seq,
    /// Up to this position what was sent to devices is not known: the store was restored.
    pub(crate) restored_upto: u64,
    /// Expired messages are being removed because they fill a mailbox.
    pub(crate) sweeping: Arc<AtomicBool>,
    /// The journal is being replayed.
    recovering: AtomicBool,
    status: AtomicU8,
    busy: AtomicBool,
    room: Notify,
    /// Threads end at once and write nothing more (tests simulate a crash).
    pub(crate) abandoned: AtomicBool,
    pub(crate) telemetry: Telemetry,
}

const OPEN: u8 = 0;
const DISK_FULL: u8 = 1;
const CLOSING: u8 = 2;
const FAILED: u8 = 3;

impl Core {
    pub(crate) fn new(
        config: StoreConfig,
        epoch: u64,
        database: Database,
        table: Arc<SegmentTable>,
        spare: Arc<Spare>,
    ) -> Self {
        Self {
            config,
            epoch,
            opened: Instant::now(),
            residents: DashMap::default(),
            load_locks: std::array::from_fn(|_| Mutex::new(())),
            hasher: RandomState::new(),
            accounts: DashMap::default(),
            totals: Totals::default(),
            queue: CommitQueue::default(),
            upkeep: Upkeep::default(),
            table,
            spare,
            applied: AtomicU64::new(0),
            database: ArcSwapOption::from_pointee(database),
            maintenance: Mutex::new(()),
            checkpointing: Mutex::new(()),
            dead_letters: Mutex::new(()),
            fullest: Mutex::new(None),
            backing_up: Mutex::new(()),
            journal_held: AtomicU64::new(u64::MAX),
            receipts_wait: Mutex::default(),
            seq_base: 0,
            restored_upto: 0,
            sweeping: Arc::default(),
            recovering: AtomicBool::new(true),
            status: AtomicU8::new(OPEN),
            busy: AtomicBool::new(false),
            room: Notify::new(),
            abandoned: AtomicBool::new(false),
            telemetry: Telemetry::new(),
        }
    }

    /// The database, unless the store is closed.
    pub(crate) fn database(&self) -> Result<Arc<Database>, StoreError> {
        self.database
            .load_full()
            .ok_or(StoreError::Unavailable(Unavailable::Closing))
    }

    /// Lets go of the database; the last user closes it.
    pub(crate) fn drop_database(&self) {
        self.database.store(None);
    }

    /// Milliseconds since the store was opened.
    pub(crate) fn uptime_ms(&self) -> u64 {
        self.opened.elapsed().as_millis() as u64
    }

    pub(crate) fn abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    // --- status

    pub(crate) fn unavailable(&self) -> Option<Unavailable> {
        match self.status.load(Ordering::Acquire) {
            OPEN => None,
            DISK_FULL => Some(Unavailable::DiskFull),
            CLOSING => Some(Unavailable::Closing),
            _ => Some(Unavailable::Failed),
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.status.load(Ordering::Acquire) == CLOSING
    }

    /// The replay is over.
    pub(crate) fn recovered(&self) {
        self.recovering.store(false, Ordering::Release);
    }

    /// Moves on to a status; one that is final is never left for a lesser one.
    pub(crate) fn set_unavailable(&self, why: Unavailable) -> bool {
        let value = match why {
            Unavailable::DiskFull => DISK_FULL,
            Unavailable::Closing => CLOSING,
            Unavailable::Failed => FAILED,
        };
        let before = self.status.fetch_max(value, Ordering::AcqRel);
        before < value
    }

    /// Whether so many bytes are free. Not to know is no reason to stop.
    pub(crate) fn has_free(&self, bytes: u64) -> bool {
        bytes == 0 || free_bytes(&self.config.dir).map_or(true, |free| free >= bytes)
    }

    /// Whether so many bytes may be used for what is only a convenience.
    pub(crate) fn has_room_beyond(&self, bytes: u64) -> bool {
        self.unavailable().is_none() && self.has_free(bytes + 2 * self.config.headroom_bytes)
    }

    /// Stops accepting before the database meets a full disk, which it does not survive.
    pub(crate) fn check_headroom(&self) -> Result<(), StoreError> {
        if self.has_free(self.config.headroom_bytes) {
            return Ok(());
        }
        if self.set_unavailable(Unavailable::DiskFull) {
            tracing::error!(
                headroom_bytes = self.config.headroom_bytes,
                "the disk is nearly full; accepting nothing until it has room"
            );
            self.spare.give_up();
            // It looks at a full disk from time to time.
            self.queue.wake();
        }
        Err(Unavailable::DiskFull.into())
    }

    /// The disk has room again.
    pub(crate) fn disk_has_room(&self) {
        let _ = self
            .status
            .compare_exchange(DISK_FULL, OPEN, Ordering::AcqRel, Ordering::Acquire);
        self.room.notify_waiters();
    }

    /// The database failed: sled's write errors are sticky, so this is final.
    pub(crate) fn database_failed(&self, error: StoreError) {
        if self.set_unavailable(Unavailable::Failed) {
            self.queue.fail(error);
            self.wake_waiters();
        }
    }

    // --- back-pressure

    fn journal_pressure(&self, percent: u64) -> bool {
        self.table.totals().1 > self.config.journal_bytes_max / 100 * percent
    }

    fn memory_pressure(&self, percent: u64) -> bool {
        let recent = self.totals.recent_bytes.load(Ordering::Relaxed);
        recent > self.config.recent_bytes_max / 100 * percent
    }

    /// Senders have to wait.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    /// Looks at the limits after they moved; wakes who waits when there is room again.
    pub(crate) fn update_pressure(&self) {
        if self.is_busy() {
            let queued = self.queue.bytes() > self.config.queue_bytes_max / 2;
            if !queued && !self.journal_pressure(80) && !self.memory_pressure(150) {
                self.busy.store(false, Ordering::Release);
                tracing::info!("journal and memory have room again");
                self.room.notify_waiters();
            }
        } else if self.journal_pressure(100) || self.memory_pressure(200) {
            self.set_busy();
        }
    }

    /// Senders wait from now on until there is room.
    pub(crate) fn set_busy(&self) {
        if !self.busy.swap(true, Ordering::AcqRel) {
            let (segments, journal_bytes) = self.table.totals();
            let recent_bytes = self.totals.recent_bytes.load(Ordering::Relaxed);
            tracing::info!(
                segments,
                journal_bytes,
                recent_bytes,
                "senders wait for the store"
            );
        }
        self.upkeep.poke();
    }

    /// The housekeeper should move messages whatever their age.
    pub(crate) fn wants_room(&self) -> bool {
        self.is_busy() || self.memory_pressure(100) || self.journal_pressure(50)
    }

    /// Ready once senders need not wait.
    pub(crate) async fn ready(self: Arc<Self>) {
        loop {
            let notified = self.room.notified();
            let mut notified = std::pin::pin!(notified);
            notified.as_mut().enable();
            let wait = match self.unavailable() {
                None => self.is_busy(),
                Some(Unavailable::DiskFull) => true,
                // There will be no room: the next append says so.
                Some(Unavailable::Closing | Unavailable::Failed) => false,
            };
            if !wait {
                return;
            }
            notified.await;
        }
    }

    /// Wakes everyone who waits for room, to learn that there will be none.
    pub(crate) fn wake_waiters(&self) {
        self.busy.store(false, Ordering::Release);
        self.room.notify_waiters();
    }

    /// What left before this time may be forgotten: receipts that follow from it were put, or
    /// had `grace` to be put in.
    pub(crate) fn forgets_before(&self, grace: Duration) -> Option<Instant> {
        let oldest = self.receipts_wait.lock().values().min().copied();
        match oldest {
            // The acknowledgement itself was a moment before.
            Some(since) => since.checked_sub(grace.max(self.config.receipt_grace)),
            None => Instant::now().checked_sub(grace),
        }
    }

    /// The first segment that is still needed once everything below `position` is in the
    /// database and copied by the backup under way, if there is one.
    pub(crate) fn first_needed(&self, position: u64, left_before: Option<Instant>) -> u64 {
        let held = self.journal_held.load(Ordering::Acquire);
        self.table.first_needed(position.min(held), left_before)
    }

    // --- mailboxes

    /// Changes a mailbox and keeps the totals in step.
    pub(crate) fn update<R>(&self, mailbox: &Mailbox, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = mailbox.lock();
        let before = (state.messages, state.bytes);
        let result = change(&mut state);
        let after = (state.messages, state.bytes);
        drop(state);
        if before != after {
            self.totals.adjust(before, after);
        }
        result
    }

    /// Accounts for what left a mailbox.
    pub(crate) fn freed(&self, mailbox: &Mailbox, freed: Freed) {
        self.totals
            .recent_bytes
            .fetch_sub(freed.memory_bytes, Ordering::Relaxed);
        for (segment, count) in freed.segments {
            self.table.live(segment, 0, count);
        }
        if !freed.chunks.is_empty() {
            self.upkeep.garbage(mailbox.user(), freed.chunks);
        }
    }

    /// The mailbox has to be written to the database before the journal may forget.
    pub(crate) fn mark_dirty(&self, mailbox: &Arc<Mailbox>, state: &mut State) {
        if !state.dirty {
            state.dirty = true;
            self.upkeep.dirty(mailbox);
        }
    }

    /// Something of the mailbox has to be journaled, soon.
    pub(crate) fn mark_lazy(&self, mailbox: &Arc<Mailbox>, state: &mut State) {
        self.mark_dirty(mailbox, state);
        if !state.lazy {
            state.lazy = true;
            self.queue.push_lazy(mailbox);
        }
    }

    pub(crate) fn resident(&self, user: &UserId) -> Option<Arc<Mailbox>> {
        let mailbox = self.resident_untouched(user)?;
        mailbox.touch();
        Some(mailbox)
    }

    /// A mailbox in memory, for a look that is no use of it.
    pub(crate) fn resident_untouched(&self, user: &UserId) -> Option<Arc<Mailbox>> {
        Some(Arc::clone(self.residents.get(user)?.value()))
    }

    /// Looks at every mailbox in memory. `look` must be quick.
    pub(crate) fn each_resident(&self, mut look: impl FnMut(&Arc<Mailbox>)) {
        for entry in &self.residents {
            look(entry.value());
        }
    }

    /// Mailboxes in memory.
    pub(crate) fn residents(&self) -> usize {
        self.residents.len()
    }

    fn load_lock(&self, user: &UserId) -> MutexGuard<'_, ()> {
        let slot = self.hasher.hash_one(user) as usize % LOAD_LOCKS;
        self.load_locks[slot].lock()
    }

    /// The mailbox from memory or the database, created empty when there is none.
    /// Blocks on the database. Returns the mailbox and the `lsn` it was stored with when
    /// it was not in memory.
    pub(crate) fn load(&self, user: &UserId) -> Result<(Arc<Mailbox>, Option<u64>), StoreError> {
        // Held over the look-up: otherwise a slow loader could bring back a mailbox that was
        // loaded, changed, stored and dropped by another meanwhile.
        let _guard = self.load_lock(user);
        if let Some(mailbox) = self.resident(user) {
            return Ok((mailbox, None));
        }
        let database = self.database()?;
        let mut meta = database.get_meta(user)?.unwrap_or_default();
        let lsn = meta.lsn;
        let floor = meta.floor;
        let stored = (meta.messages, meta.bytes);
        let Found { chunks, void, .. } = overlap::settled(&database, user, meta.migrated_upto)?;
        for key in void {
            database.messages.remove(key)?;
        }
        meta.expiry_minute = expire::registered(&database, user, meta.expiry_minute, &chunks)?;
        let gone: Vec<(Seq, u8)> = chunks
            .iter()
            .filter(|chunk| chunk.last() <= floor)
            .map(|chunk| (chunk.first, chunk.parts))
            .collect();
        if !gone.is_empty() {
            self.upkeep.garbage(user, gone);
        }
        let mut state = State::from_meta(meta, chunks);
        let account = database.get_account(user)?;
        state.limits = account.and_then(|account| UserLimits::boxed(&account.limits));
        state.restored(lsn <= self.restored_upto, self.seq_base);
        self.totals.adjust(stored, (state.messages, state.bytes));
        // The replay does this at its end, when it knows the last place.
        let changed =
            !self.recovering.load(Ordering::Acquire) && state.settle_connections(self.epoch);
        let mailbox = Arc::new(Mailbox::new(user.clone(), state));
        if changed {
            self.mark_dirty(&mailbox, &mut mailbox.lock());
        }
        self.residents.insert(user.clone(), Arc::clone(&mailbox));
        Ok((mailbox, Some(lsn)))
    }

    /// Drops idle mailboxes until `resident_max` are left, those unused for longest first
    /// (one round of the clock algorithm a call).
    pub(crate) fn evict(&self) {
        let excess = self
            .residents
            .len()
            .saturating_sub(self.config.resident_max);
        if excess == 0 {
            return;
        }
        let candidates: Vec<UserId> = self
            .residents
            .iter()
            .filter(|entry| Arc::strong_count(entry.value()) == 1 && !entry.value().take_touched())
            .map(|entry| entry.key().clone())
            .take(excess)
            .collect();
        for user in candidates {
            self.drop_idle(&user);
        }
    }

    /// Drops a mailbox from memory if nobody uses it and nothing of it is still to be written.
    pub(crate) fn drop_idle(&self, user: &UserId) {
        let _guard = self.load_lock(user);
        self.residents.remove_if(user, |_, mailbox| {
            // Nobody can gain a reference while the map's shard is locked.
            let state = mailbox.lock();
            Arc::strong_count(mailbox) == 1
                && !state.dirty
                && !state.lazy
                && !state.aging
                && state.recent.is_empty()
        });
    }
}
