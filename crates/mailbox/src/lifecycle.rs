//! Opening, closing, and (for tests) crashing the store.
//!
//! The order of both matters: at the start nothing is accepted before the
//! replay is over and a fresh segment is durable; at the end nothing is
//! released before everything that was queued is written.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::api::CommitSink;
use crate::committer::Committer;
use crate::config::StoreConfig;
use crate::error::{StoreError, Unavailable};
use crate::journal::segment::SegmentTable;
use crate::journal::{JournalWriter, PrepareLimits, Spare, scan};
use crate::layout::Layout;
use crate::queue::Job;
use crate::recover::{self, Recovery};
use crate::reserve::Reserve;
use crate::shared::Core;
use crate::sledstore::caught::caught;
use crate::sledstore::values::Meta;
use crate::sledstore::{Database, TREES};
use crate::store::JournalStore;
use crate::workers::{Workers, join, spawn};
use crate::{backup, checkpoint, dead, housekeeper, migrate};

/// What ends when the store is closed.
pub(crate) struct Threads {
    committer: JoinHandle<()>,
    housekeeper: JoinHandle<()>,
    preparer: JoinHandle<()>,
    layout: Layout,
}

impl JournalStore {
    /// Opens the store, replaying the journal, and starts its threads. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]: the directory is in use, damaged, of a later version, or cannot be
    /// written to; or a setting is out of bounds.
    pub fn open(config: StoreConfig, sink: Box<dyn CommitSink>) -> Result<Arc<Self>, StoreError> {
        config.validate().map_err(StoreError::Config)?;
        caught(|| Self::open_valid(config, sink))
    }

    fn open_valid(config: StoreConfig, sink: Box<dyn CommitSink>) -> Result<Arc<Self>, StoreError> {
        let layout = Layout::open(&config.dir)?;
        layout.remove_leftovers()?;
        let database = Database::open(&layout.database(), config.sled_cache_bytes)?;
        let epoch = database.number("epoch")? + 1;
        let first = database.number(checkpoint::FIRST_SEGMENT)?;
        let position = database.number(checkpoint::POSITION)?;
        let table = Arc::new(SegmentTable::default());
        let spare = Arc::new(Spare::new(layout.journal()));
        let seq_base = database.number(backup::SEQ_BASE)?;
        let restored_upto = database.number(backup::RESTORED_UPTO)?;
        let mut core = Core::new(config, epoch, database, Arc::clone(&table), spare);
        core.seq_base = seq_base;
        core.restored_upto = restored_upto;
        let core = Arc::new(core);
        let database = core.database()?;
        count_stored(&core, &database)?;

        let mut recovery = Recovery::new(&core, Arc::clone(&database));
        let end = scan(
            &layout.journal(),
            first,
            position,
            |segment, lsn, record| recovery.record(segment, lsn, record),
        )?;
        let header = recover::tidy(&core, &layout, &end)?;
        recovery.finish(core.config.clock.now_ms())?;
        core.recovered();

        let faults = core.config.faults.clone();
        let limits = PrepareLimits {
            from_bytes: core.config.prepare_from_bytes,
            bytes_max: core.config.segment_bytes_max,
        };
        let spare = Arc::clone(&core.spare);
        let dir = layout.journal();
        let writer = JournalWriter::start(dir, header, table, faults.clone(), spare, limits)?;
        core.applied.store(writer.end(), Ordering::Release);
        database.set_number("epoch", epoch)?;
        if first == 0 {
            database.set_number(checkpoint::FIRST_SEGMENT, header.number)?;
        }
        database.sync()?;
        drop(database);

        let reserve = Reserve::new(layout.reserve(), core.config.reserve_bytes, faults);
        if let Err(error) = reserve.take() {
            tracing::warn!(%error, "cannot set disk space aside; a full disk may stop the store for good");
        }
        Self::start(core, writer, sink, reserve, layout)
    }

    fn start(
        core: Arc<Core>,
        writer: JournalWriter,
        sink: Box<dyn CommitSink>,
        reserve: Reserve,
        layout: Layout,
    ) -> Result<Arc<Self>, StoreError> {
        let workers = Arc::new(Workers::start(&core, core.config.reader_threads)?);
        let committer = Committer::new(Arc::clone(&core), writer, sink, reserve);
        let committer = spawn("store-commit", move || committer.run())?;
        let keeper = Arc::clone(&core);
        let housekeeper = spawn("store-keep", move || housekeeper::run(&keeper))?;
        core.upkeep.poke();
        let room = Arc::clone(&core);
        let preparer = spawn("store-prepare", move || {
            room.spare.run(|bytes| room.has_room_beyond(bytes));
        })?;
        let threads = Threads {
            committer,
            housekeeper,
            preparer,
            layout,
        };
        Ok(Arc::new(Self {
            core,
            workers,
            closing: Mutex::new(Some(threads)),
        }))
    }

    /// Moves all recent messages to the database now, whatever their age. Blocks.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn migrate_now(&self) -> Result<(), StoreError> {
        migrate::due(&self.core, true)
    }

    /// Writes a checkpoint now and releases every segment that is not needed, without waiting
    /// for `receipt_grace`: for tests and tools. Blocks.
    ///
    /// # Errors
    /// [`StoreError`] of the database or the journal.
    pub fn checkpoint_now(&self) -> Result<(), StoreError> {
        housekeeper::rotate(&self.core)?;
        checkpoint::run(&self.core, Duration::ZERO)
    }

    /// Makes durable what the database holds: what a crash may keep of it beyond the last
    /// checkpoint. For tests of recovery. Blocks.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    #[doc(hidden)]
    pub fn sync_database_now(&self) -> Result<(), StoreError> {
        self.core.database()?.sync()
    }

    /// Ends all threads as they are, without writing anything more, and copies the data
    /// directory as a `kill -9` would have left it to `image`. For tests of recovery.
    ///
    /// # Errors
    /// [`StoreError`] when the copy fails.
    #[doc(hidden)]
    pub fn crash_into(&self, image: &Path) -> Result<(), StoreError> {
        self.crash_into_after(image, || ())
    }

    /// The same, for a test that holds up those who read: `let_go` is called when nobody writes any more.
    ///
    /// # Errors
    /// As [`JournalStore::crash_into`].
    #[doc(hidden)]
    pub fn crash_into_after(&self, image: &Path, let_go: impl FnOnce()) -> Result<(), StoreError> {
        let threads = self.closing.lock().take();
        self.core.abandoned.store(true, Ordering::Release);
        self.core.queue.wake();
        self.core.upkeep.stop();
        self.core.spare.end(true);
        if let Some(threads) = threads {
            join(threads.committer);
            join(threads.housekeeper);
            join(threads.preparer);
            let_go();
            self.workers.stop();
            drop(self.core.backing_up.lock());
            crate::files::copy_dir(&self.core.config.dir, image)?;
        }
        self.core.drop_database();
        Ok(())
    }
}

/// Counts what the database holds: one pass over the mailboxes' bookkeeping.
fn count_stored(core: &Core, database: &Database) -> Result<(), StoreError> {
    let totals = &core.totals;
    for entry in &database.meta {
        let (key, value) = entry?;
        let (messages, bytes, _) = Meta::decode_counters(&value)
            .map_err(|error| database.damaged(TREES[0], &key, &error))?;
        totals.messages.fetch_add(messages, Ordering::Relaxed);
        totals.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
    let dead = dead::count(database)?;
    totals.dead.store(dead, Ordering::Relaxed);
    Ok(())
}

impl Drop for JournalStore {
    fn drop(&mut self) {
        if let Some(threads) = self.closing.lock().take()
            && let Err(error) = close(&self.core, &self.workers, threads)
        {
            tracing::error!(%error, "closing the store failed");
        }
    }
}

/// Ends the threads in order, everything written down. Blocks.
pub(crate) fn close(core: &Core, workers: &Workers, threads: Threads) -> Result<(), StoreError> {
    core.set_unavailable(Unavailable::Closing);
    core.wake_waiters();
    core.upkeep.stop();
    join(threads.housekeeper);
    workers.stop();
    // A backup under way has seen that the store closes.
    drop(core.backing_up.lock());
    let failed = core.unavailable() == Some(Unavailable::Failed);
    let written = if failed {
        Err(Unavailable::Failed.into())
    } else {
        // A checkpoint shortens the next start; the journal alone would do.
        checkpoint::run(core, core.config.receipt_grace).and_then(|()| core.database()?.sync())
    };
    let closed = housekeeper::ask(core, Job::Close);
    join(threads.committer);
    core.spare.end(false);
    join(threads.preparer);
    core.drop_database();
    drop(threads.layout);
    written.and(closed)
}
