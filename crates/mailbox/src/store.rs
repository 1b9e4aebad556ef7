//! The store behind the trait: what answers at once, and what goes to a thread.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use stonechat_protocol::{DeviceId, MessageId, Seq, UserId};
use tokio::sync::oneshot;

use crate::api::{
    Account, AckOutcome, Append, AppendError, CommitSink, DeadLetter, DeviceState, MailboxRef,
    ReadBatch, Receipt, Store, StoreError, StoreStats, Unavailable,
};
use crate::committer::Committer;
use crate::config::StoreConfig;
use crate::journal::segment::SegmentTable;
use crate::journal::{JournalWriter, Record, scan};
use crate::layout::Layout;
use crate::mailbox::Device;
use crate::queue::Job;
use crate::reads::{self, Ack, Delivered};
use crate::receipts::next_rev;
use crate::recover::{self, Recovery, load_receipts};
use crate::reserve::Reserve;
use crate::shared::Core;
use crate::sledstore::{Database, TREES};
use crate::workers::{Workers, join, spawn};
use crate::{accounts, checkpoint, dead, expire, housekeeper, migrate};

/// Longest name of a small value, bytes.
const VALUE_KEY_BYTES_MAX: usize = 256;
/// Largest small value, bytes.
const VALUE_BYTES_MAX: usize = 64 << 10;
/// Longest reason of a dead letter, bytes; what is beyond is cut.
pub(crate) const REASON_BYTES_MAX: usize = 4 << 10;

/// The store on this machine's disk: journal and sled.
pub struct JournalStore {
    core: Arc<Core>,
    workers: Arc<Workers>,
    closing: Arc<Mutex<Option<Threads>>>,
}

/// What ends when the store is closed.
struct Threads {
    committer: JoinHandle<()>,
    housekeeper: JoinHandle<()>,
    layout: Layout,
}

fn now<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

impl JournalStore {
    /// Opens the store, replaying the journal, and starts its threads. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]: the directory is in use, damaged, of a later version, or cannot be
    /// written to; or a setting is out of bounds.
    pub fn open(config: StoreConfig, sink: Box<dyn CommitSink>) -> Result<Arc<Self>, StoreError> {
        config.validate().map_err(StoreError::Config)?;
        let layout = Layout::open(&config.dir)?;
        layout.remove_leftovers()?;
        let database = Database::open(&layout.database(), config.sled_cache_bytes)?;
        let epoch = database.number("epoch")? + 1;
        let first = database.number(checkpoint::FIRST_SEGMENT)?;
        let position = database.number(checkpoint::POSITION)?;
        let table = Arc::new(SegmentTable::default());
        let core = Arc::new(Core::new(config, epoch, database, Arc::clone(&table)));
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
        let writer = JournalWriter::start(layout.journal(), header, table, faults.clone())?;
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
        let threads = Threads {
            committer,
            housekeeper,
            layout,
        };
        Ok(Arc::new(Self {
            core,
            workers,
            closing: Arc::new(Mutex::new(Some(threads))),
        }))
    }

    /// Moves all recent messages to the database now, whatever their age. Blocks.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn migrate_now(&self) -> Result<(), StoreError> {
        migrate::due(&self.core, true)
    }

    /// Writes a checkpoint now and releases every segment that is not needed. Blocks.
    ///
    /// # Errors
    /// [`StoreError`] of the database or the journal.
    pub fn checkpoint_now(&self) -> Result<(), StoreError> {
        housekeeper::rotate(&self.core)?;
        checkpoint::run(&self.core, Duration::ZERO)
    }

    /// Ends all threads as they are, without writing anything more, and copies the data
    /// directory as a `kill -9` would have left it to `image`. For tests of recovery.
    ///
    /// # Errors
    /// [`StoreError`] when the copy fails.
    #[doc(hidden)]
    pub fn crash_into(&self, image: &Path) -> Result<(), StoreError> {
        let threads = self.closing.lock().take();
        self.core.abandoned.store(true, Ordering::Release);
        self.core.queue.wake();
        self.core.upkeep.stop();
        if let Some(threads) = threads {
            join(threads.committer);
            join(threads.housekeeper);
            self.workers.stop();
            crate::files::copy_dir(&self.core.config.dir, image)?;
        }
        self.core.drop_database();
        Ok(())
    }

    /// Queues a record and waits until it is durable.
    fn durable(&self, record: Record) -> BoxFuture<'static, Result<(), StoreError>> {
        if let Some(why) = self.core.unavailable() {
            return now(Err(why.into()));
        }
        let (done, answer) = oneshot::channel();
        self.core.queue.push_job(Job::Record { record, done });
        Box::pin(async move {
            answer
                .await
                .unwrap_or(Err(StoreError::Unavailable(Unavailable::Closing)))
        })
    }

    /// Refuses what does not fit the mailboxes, and counts what does as queued.
    fn reserve_quota(&self, append: &Append) -> Result<(), AppendError> {
        let config = &self.core.config;
        let bytes = append.envelope.body.len() as u64;
        for (index, mailbox) in append.recipients.iter().enumerate() {
            // The sender's own copy: its owner did not ask for it, so it may go to twice the
            // limit before it stops him from sending.
            let times = if index == 0 { 1 } else { 2 };
            let mut state = mailbox.lock();
            let messages = state.messages + state.queued_messages + 1;
            let held = state.bytes + state.queued_bytes + bytes;
            if messages > config.quota_messages * times || held > config.quota_bytes * times {
                drop(state);
                self.release_quota(append, index);
                return Err(AppendError::MailboxFull);
            }
            state.queued_messages += 1;
            state.queued_bytes += bytes;
        }
        Ok(())
    }

    fn release_quota(&self, append: &Append, recipients: usize) {
        for mailbox in &append.recipients[..recipients] {
            mailbox.lock().unqueue(append.envelope.body.len() as u64);
        }
    }
}

/// Counts what the database holds: one pass over the mailboxes' bookkeeping.
fn count_stored(core: &Core, database: &Database) -> Result<(), StoreError> {
    use crate::sledstore::values::Meta;

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

impl Store for JournalStore {
    fn resident(&self, user: &UserId) -> Option<MailboxRef> {
        let mailbox = self.core.resident(user)?;
        let removed = mailbox.lock().removed;
        (!removed).then_some(mailbox)
    }

    fn open(&self, user: &UserId) -> BoxFuture<'static, Result<Option<MailboxRef>, StoreError>> {
        if let Some(Some(_)) = self.core.accounts.get(user).as_deref()
            && let Some(mailbox) = self.resident(user)
        {
            return now(Ok(Some(mailbox)));
        }
        let user = user.clone();
        self.workers.run(move |core| {
            if accounts::get(core, &user)?.is_none() {
                return Ok(None);
            }
            core.load(&user).map(|(mailbox, _)| Some(mailbox))
        })
    }

    fn append(&self, append: Append) -> Result<(), AppendError> {
        if let Some(why) = self.core.unavailable() {
            return Err(AppendError::Unavailable(why));
        }
        if self.core.is_busy() {
            return Err(AppendError::Busy);
        }
        self.reserve_quota(&append)?;
        let queued = self
            .core
            .queue
            .push(Job::Append(append), self.core.config.queue_bytes_max);
        if let Err(back) = queued
            && let Job::Append(append) = *back
        {
            self.release_quota(&append, append.recipients.len());
            if let Some(why) = self.core.unavailable() {
                return Err(AppendError::Unavailable(why));
            }
            self.core.set_busy();
            // The committer may have emptied the queue in between.
            self.core.queue.wake();
            self.core.update_pressure();
            return Err(AppendError::Busy);
        }
        Ok(())
    }

    fn ready(&self) -> BoxFuture<'static, ()> {
        Box::pin(Arc::clone(&self.core).ready())
    }

    fn barrier(&self) -> BoxFuture<'static, Result<(), StoreError>> {
        let (done, answer) = oneshot::channel();
        self.core.queue.push_job(Job::Barrier(done));
        Box::pin(async move {
            answer
                .await
                .unwrap_or(Err(StoreError::Unavailable(Unavailable::Closing)))
        })
    }

    fn read(
        &self,
        mailbox: &MailboxRef,
        after: Seq,
        messages_max: usize,
        bytes_max: usize,
    ) -> BoxFuture<'static, Result<ReadBatch, StoreError>> {
        let now_ms = self.core.config.clock.now_ms();
        if let Some(batch) = reads::from_memory(mailbox, after, messages_max, bytes_max, now_ms) {
            return now(Ok(batch));
        }
        let mailbox = Arc::clone(mailbox);
        self.workers
            .run(move |core| reads::from_database(core, &mailbox, after, messages_max, bytes_max))
    }

    fn attach(
        &self,
        mailbox: &MailboxRef,
        device: &DeviceId,
        now_ms: u64,
    ) -> BoxFuture<'static, Result<DeviceState, StoreError>> {
        let mut state = mailbox.lock();
        if state.removed {
            return now(Err(StoreError::UnknownUser(mailbox.user().clone())));
        }
        let devices_max = self.core.config.devices_max;
        if state.device(device).is_none() {
            if state.devices.len() >= devices_max {
                return now(Err(StoreError::TooManyDevices {
                    user: mailbox.user().clone(),
                    devices_max,
                }));
            }
            state.devices.push(Box::new(Device::new(device.clone())));
        }
        let first_cursor = state.first_cursor;
        let epoch = self.core.epoch;
        let attached = state.device_mut(device).map(|device| {
            device.connected_epoch = epoch;
            device.state.last_seen_ms = now_ms;
            device.unjournaled.get_or_insert(first_cursor);
            device.state.clone()
        });
        self.core.mark_lazy(mailbox, &mut state);
        drop(state);
        now(attached.ok_or_else(|| StoreError::NotFound(format!("device {device}"))))
    }

    fn detach(&self, mailbox: &MailboxRef, device: &DeviceId, sent: Seq, now_ms: u64) {
        let mut state = mailbox.lock();
        let first_cursor = state.first_cursor;
        let sent = sent.min(state.last_seq);
        if let Some(device) = state.device_mut(device) {
            device.connected_epoch = 0;
            device.state.sent = device.state.sent.max(sent);
            device.state.last_seen_ms = now_ms;
            device.unjournaled.get_or_insert(first_cursor);
            self.core.mark_lazy(mailbox, &mut state);
        }
    }

    fn ack(
        &self,
        mailbox: &MailboxRef,
        device: &DeviceId,
        upto: Seq,
    ) -> BoxFuture<'static, Result<AckOutcome, StoreError>> {
        match reads::acknowledge(&self.core, mailbox, device, upto, Delivered::default()) {
            Ack::Done(outcome) => now(Ok(outcome)),
            Ack::Unknown => now(Err(StoreError::NotFound(format!(
                "device {device} of {}",
                mailbox.user()
            )))),
            Ack::Needs(..) => {
                let mailbox = Arc::clone(mailbox);
                let device = device.clone();
                self.workers
                    .run(move |core| reads::acknowledge_stored(core, &mailbox, &device, upto))
            }
        }
    }

    fn remove_device(
        &self,
        mailbox: &MailboxRef,
        device: &DeviceId,
    ) -> BoxFuture<'static, Result<(), StoreError>> {
        let freed = self.core.update(mailbox, |state| {
            state.device(device)?;
            state.devices.retain(|other| other.id != *device);
            self.core.mark_dirty(mailbox, state);
            Some(state.advance_floor())
        });
        let Some(freed) = freed else {
            return now(Err(StoreError::NotFound(format!(
                "device {device} of {}",
                mailbox.user()
            ))));
        };
        self.core.freed(mailbox, freed);
        self.durable(Record::RemoveDevice {
            user: mailbox.user().clone(),
            device: device.clone(),
        })
    }

    fn put_receipt(
        &self,
        mailbox: &MailboxRef,
        with: &UserId,
        delivered: Option<MessageId>,
        read: Option<MessageId>,
        now_ms: u64,
    ) -> BoxFuture<'static, Result<Option<Receipt>, StoreError>> {
        if mailbox.lock().receipts.is_some() {
            return now(Ok(put_receipt(
                &self.core, mailbox, with, delivered, read, now_ms,
            )));
        }
        let (mailbox, with) = (Arc::clone(mailbox), with.clone());
        self.workers.run(move |core| {
            load_receipts(&*core.database()?, &mailbox)?;
            Ok(put_receipt(core, &mailbox, &with, delivered, read, now_ms))
        })
    }

    fn receipt(
        &self,
        mailbox: &MailboxRef,
        with: &UserId,
    ) -> BoxFuture<'static, Result<Option<Receipt>, StoreError>> {
        if let Some(receipts) = &mailbox.lock().receipts {
            return now(Ok(receipts.get(with).cloned()));
        }
        let (mailbox, with) = (Arc::clone(mailbox), with.clone());
        self.workers.run(move |core| {
            load_receipts(&*core.database()?, &mailbox)?;
            let state = mailbox.lock();
            Ok(state
                .receipts
                .as_ref()
                .and_then(|all| all.get(&with).cloned()))
        })
    }

    fn receipts_after(
        &self,
        mailbox: &MailboxRef,
        after: u64,
        max: usize,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        if let Some(receipts) = &mailbox.lock().receipts {
            return now(Ok(receipts.after(after, max)));
        }
        let mailbox = Arc::clone(mailbox);
        self.workers.run(move |core| {
            load_receipts(&*core.database()?, &mailbox)?;
            let state = mailbox.lock();
            Ok(state
                .receipts
                .as_ref()
                .map_or_else(Vec::new, |all| all.after(after, max)))
        })
    }

    fn receipts_seen(&self, mailbox: &MailboxRef, device: &DeviceId, rev: u64) {
        let mut state = mailbox.lock();
        let first_cursor = state.first_cursor;
        if let Some(device) = state.device_mut(device)
            && device.state.receipts_seen < rev
        {
            device.state.receipts_seen = rev;
            device.unjournaled.get_or_insert(first_cursor);
            self.core.mark_lazy(mailbox, &mut state);
        }
    }

    fn find(
        &self,
        mailbox: &MailboxRef,
        from: &UserId,
        id: MessageId,
        scan_max: usize,
    ) -> BoxFuture<'static, Result<Option<Seq>, StoreError>> {
        let (found, seen, more) = reads::find_recent(mailbox, from, id, scan_max);
        if found.is_some() || seen >= scan_max || !more {
            return now(Ok(found));
        }
        let (mailbox, from) = (Arc::clone(mailbox), from.clone());
        self.workers
            .run(move |core| reads::find(core, &mailbox, &from, id, scan_max))
    }

    fn dead_letter(
        &self,
        mailbox: &MailboxRef,
        seq: Seq,
        mut reason: String,
        now_ms: u64,
    ) -> BoxFuture<'static, Result<u64, StoreError>> {
        if let Some(why) = self.core.unavailable() {
            return now(Err(why.into()));
        }
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        let mailbox = Arc::clone(mailbox);
        self.workers
            .run(move |core| dead::put(core, &mailbox, seq, reason, now_ms))
    }

    fn dead_letters(
        &self,
        after: u64,
        max: usize,
    ) -> BoxFuture<'static, Result<Vec<DeadLetter>, StoreError>> {
        self.workers
            .run(move |core| core.database()?.get_dead(after.saturating_add(1), max))
    }

    fn take_dead_letter(&self, number: u64) -> BoxFuture<'static, Result<DeadLetter, StoreError>> {
        self.workers.run(move |core| dead::take(core, number))
    }

    fn expire(
        &self,
        now_ms: u64,
        messages_max: usize,
    ) -> BoxFuture<'static, Result<u64, StoreError>> {
        if let Some(why) = self.core.unavailable() {
            return now(Err(why.into()));
        }
        self.workers
            .run(move |core| expire::run(core, now_ms, messages_max as u64))
    }

    fn put_account(&self, account: Account) -> BoxFuture<'static, Result<(), StoreError>> {
        let put = self.workers.run({
            let account = account.clone();
            move |core| accounts::put(core, &account)
        });
        let core = Arc::clone(&self.core);
        Box::pin(async move {
            put.await?;
            accounts::durable(&core, Record::Account(account)).await
        })
    }

    fn account(&self, user: &UserId) -> BoxFuture<'static, Result<Option<Account>, StoreError>> {
        if let Some(account) = self.core.accounts.get(user) {
            return now(Ok(account.clone()));
        }
        let user = user.clone();
        self.workers.run(move |core| accounts::get(core, &user))
    }

    fn accounts(
        &self,
        after: Option<&UserId>,
        max: usize,
    ) -> BoxFuture<'static, Result<Vec<Account>, StoreError>> {
        let after = after.cloned();
        self.workers
            .run(move |core| accounts::list(core, after.as_ref(), max))
    }

    fn remove_account(&self, user: &UserId) -> BoxFuture<'static, Result<(), StoreError>> {
        if let Some(why) = self.core.unavailable() {
            return now(Err(why.into()));
        }
        let user = user.clone();
        self.workers.run(move |core| accounts::remove(core, &user))
    }

    fn put_value(
        &self,
        key: &str,
        value: Option<Bytes>,
    ) -> BoxFuture<'static, Result<(), StoreError>> {
        if key.is_empty() || key.len() > VALUE_KEY_BYTES_MAX || key.contains('\0') {
            return now(Err(StoreError::TooLarge(
                "the name of a value has 1 to 256 bytes, none of them 0",
            )));
        }
        if value
            .as_ref()
            .is_some_and(|value| value.len() > VALUE_BYTES_MAX)
        {
            return now(Err(StoreError::TooLarge("a value has at most 65536 bytes")));
        }
        let key = key.to_owned();
        let put = self.workers.run({
            let (key, value) = (key.clone(), value.clone());
            move |core| {
                Database::put_parts(&core.database()?.values, key.as_bytes(), value.as_deref())
            }
        });
        let core = Arc::clone(&self.core);
        Box::pin(async move {
            put.await?;
            accounts::durable(&core, Record::Value { key, value }).await
        })
    }

    fn values(&self, prefix: &str) -> BoxFuture<'static, Result<Vec<(String, Bytes)>, StoreError>> {
        let prefix = prefix.to_owned();
        self.workers.run(move |core| {
            let database = core.database()?;
            let found = Database::get_parts(
                &database.values,
                prefix.as_bytes(),
                prefix.as_bytes(),
                usize::MAX,
            )?;
            Ok(found
                .into_iter()
                .map(|(key, value)| {
                    (
                        String::from_utf8_lossy(&key).into_owned(),
                        Bytes::from(value),
                    )
                })
                .collect())
        })
    }

    fn stats(&self) -> StoreStats {
        let (segments, journal_bytes) = self.core.table.totals();
        let totals = &self.core.totals;
        let get = |total: &std::sync::atomic::AtomicU64| total.load(Ordering::Relaxed);
        StoreStats {
            messages: get(&totals.messages),
            bytes: get(&totals.bytes),
            segments,
            journal_bytes,
            sled_bytes: self.core.database().map_or(0, |database| database.bytes()),
            recent_bytes: get(&totals.recent_bytes),
            queued: self.core.queue.appends(),
            syncs_total: get(&totals.syncs),
            expired_total: get(&totals.expired),
            dead_letters: get(&totals.dead),
            resident: self.core.residents() as u64,
        }
    }

    fn unavailable(&self) -> Option<Unavailable> {
        self.core.unavailable()
    }

    fn close(&self) -> BoxFuture<'static, Result<(), StoreError>> {
        let Some(threads) = self.closing.lock().take() else {
            return now(Ok(()));
        };
        let (done, answer) = oneshot::channel();
        let core = Arc::clone(&self.core);
        let workers = Arc::clone(&self.workers);
        let started = spawn("store-close", move || {
            let _ = done.send(close(&core, &workers, threads));
        });
        Box::pin(async move {
            started?;
            answer
                .await
                .unwrap_or(Err(StoreError::Unavailable(Unavailable::Failed)))
        })
    }
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
fn close(core: &Core, workers: &Workers, threads: Threads) -> Result<(), StoreError> {
    core.set_unavailable(Unavailable::Closing);
    core.wake_waiters();
    core.upkeep.stop();
    join(threads.housekeeper);
    workers.stop();
    let failed = core.unavailable() == Some(Unavailable::Failed);
    let written = if failed {
        Err(Unavailable::Failed.into())
    } else {
        // A checkpoint shortens the next start; the journal alone would do.
        checkpoint::run(core, core.config.receipt_grace).and_then(|()| core.database()?.sync())
    };
    let closed = housekeeper::ask(core, Job::Close);
    join(threads.committer);
    core.drop_database();
    drop(threads.layout);
    written.and(closed)
}

/// Moves a watermark; the receipts are loaded.
fn put_receipt(
    core: &Core,
    mailbox: &MailboxRef,
    with: &UserId,
    delivered: Option<MessageId>,
    read: Option<MessageId>,
    now_ms: u64,
) -> Option<Receipt> {
    let mut state = mailbox.lock();
    let rev = next_rev(state.rev_last, core.epoch);
    let receipts = state.receipts.as_mut()?;
    let (receipt, journal) = receipts.put(with, delivered, read, now_ms, rev)?;
    let gone = receipts.trim(core.config.receipts_max);
    state.rev_last = rev;
    if journal {
        core.mark_lazy(mailbox, &mut state);
    } else {
        core.mark_dirty(mailbox, &mut state);
    }
    drop(state);
    if !gone.is_empty() {
        tracing::info!(user = %mailbox.user(), receipts = gone.len(), "forgot the receipts of the longest quiet conversations");
    }
    Some(receipt)
}
