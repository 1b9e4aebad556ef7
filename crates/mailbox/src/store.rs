//! The store behind the trait: what answers at once, and what goes to a thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use stonechat_protocol::{DeviceId, MessageId, Seq, UserId};
use tokio::sync::oneshot;

use crate::api::{
    Account, AckOutcome, Append, DeadLetter, DeviceState, MailboxRef, ReadBatch, Receipt, Store,
    StoreStats,
};
use crate::error::{AppendError, StoreError, Unavailable};
use crate::journal::Record;
use crate::lifecycle::{Threads, close};
use crate::mailbox::Device;
use crate::queue::Job;
use crate::reads::{self, Ack, Delivered};
use crate::receipts::{load_receipts, put_receipt};
use crate::shared::Core;
use crate::sledstore::Database;
use crate::workers::{Workers, spawn};
use crate::{accounts, dead, expire, quota};

/// Longest name of a small value, bytes.
const VALUE_KEY_BYTES_MAX: usize = 256;
/// Largest small value, bytes.
const VALUE_BYTES_MAX: usize = 64 << 10;
/// Longest reason of a dead letter, bytes; what is beyond is cut.
pub(crate) const REASON_BYTES_MAX: usize = 4 << 10;

/// The store on this machine's disk: journal and sled.
pub struct JournalStore {
    pub(crate) core: Arc<Core>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) closing: Mutex<Option<Threads>>,
}

fn now<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

impl JournalStore {
    /// Queues a record and waits until it is durable.
    fn durable(&self, record: Record) -> BoxFuture<'static, Result<(), StoreError>> {
        if let Some(why) = self.core.unavailable() {
            return now(Err(why.into()));
        }
        let (done, answer) = oneshot::channel();
        self.core.queue.push_job(Job::record(record, done));
        Box::pin(async move {
            answer
                .await
                .unwrap_or(Err(StoreError::Unavailable(Unavailable::Closing)))
        })
    }
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
        quota::reserve(&self.core.config, &append)
            .inspect_err(|_| expire::soon(&self.core, &self.workers, &append))?;
        let queued = self
            .core
            .queue
            .push(Job::Append(append), self.core.config.queue_bytes_max);
        if let Err(back) = queued
            && let Job::Append(append) = *back
        {
            quota::release(&append.recipients, append.envelope.body.len());
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
        Box::pin(async move { answer.await.unwrap_or(Err(Unavailable::Closing.into())) })
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), StoreError>> {
        let (done, answer) = oneshot::channel();
        self.core.queue.push_job(Job::Flush(done));
        Box::pin(async move { answer.await.unwrap_or(Err(Unavailable::Closing.into())) })
    }

    fn flushed(&self) -> BoxFuture<'static, Result<(), StoreError>> {
        let (done, answer) = oneshot::channel();
        self.core.queue.push_lazy_waiter(done);
        Box::pin(async move { answer.await.unwrap_or(Err(Unavailable::Closing.into())) })
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

    fn receipts_wait(&self, waiter: usize, since: Option<Instant>) {
        let mut waiting = self.core.receipts_wait.lock();
        match since {
            Some(since) => waiting.insert(waiter, since),
            None => waiting.remove(&waiter),
        };
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
        self.workers
            .run(move |core| core.database()?.values(&prefix))
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
            purged_total: get(&totals.purged),
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
