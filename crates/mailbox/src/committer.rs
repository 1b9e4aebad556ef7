//! The committer: the one thread that assigns `seq`s and owns the journal.
//!
//! A round takes what waits, writes it as one batch, syncs once, applies it to
//! the mailboxes and tells the sink, in this order: nobody hears of a message
//! before it is durable (contract D1). It sleeps when there is nothing to do.
//!
//! It does not know sockets, devices' windows or retries, and does not read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use smallvec::SmallVec;
use stonechat_protocol::{DeviceId, Seq, UserId};

use crate::api::{Append, CommitSink, Committed, Placed};
use crate::error::{StoreError, Unavailable};
use crate::journal::{JournalWriter, Record, WriteError, frame, record};
use crate::mailbox::{Mailbox, Recent, recent_bytes};
use crate::purge;
use crate::queue::{Done, Job, Pace, Work};
use crate::reserve::Reserve;
use crate::settled::{attached_again, place, remember_id, remove_user};
use crate::shared::Core;

/// Runs until the store is closed or abandoned.
pub(crate) struct Committer {
    core: Arc<Core>,
    writer: JournalWriter,
    sink: Box<dyn CommitSink>,
    reserve: Reserve,
    buffer: Vec<u8>,
    /// What the round is about; empty between rounds.
    work: Work,
    /// Someone waits for the answer to a close.
    closing: Option<Done>,
}

/// What one batch consists of, apart from the bytes.
#[derive(Default)]
struct Batch {
    appends: Vec<(Append, SmallVec<[Seq; 2]>)>,
    records: Vec<(Box<Record>, Done)>,
    /// Answered after the batch.
    barriers: Vec<Done>,
    flushes: Vec<Done>,
    rotations: Vec<Done>,
    /// What was lazily written, to be written again should the batch fail.
    devices: Vec<(Arc<Mailbox>, DeviceId, Seq)>,
    receipts: Vec<(Arc<Mailbox>, UserId)>,
    count: u32,
}

impl Committer {
    pub(crate) fn new(
        core: Arc<Core>,
        writer: JournalWriter,
        sink: Box<dyn CommitSink>,
        reserve: Reserve,
    ) -> Self {
        Self {
            core,
            writer,
            sink,
            reserve,
            buffer: Vec::new(),
            work: Work::default(),
            closing: None,
        }
    }

    /// The thread's body.
    pub(crate) fn run(mut self) {
        if catch_unwind(AssertUnwindSafe(|| self.rounds())).is_err() {
            // Whoever waits learns it from the closed channel.
            self.fail(&StoreError::Database("the committer panicked".to_owned()));
            drop(self.core.queue.end());
        }
    }

    fn rounds(&mut self) {
        let config = self.core.config.clone();
        // A batch goes into one segment, which should not be much longer than it may be.
        let batch_bytes_max = (config.batch_bytes_max as u64).min(config.segment_bytes_max);
        let mut pace = Pace {
            not_before: Instant::now(),
            last_count: 0,
        };
        loop {
            let full = self.core.unavailable() == Some(Unavailable::DiskFull);
            let timeout = full.then_some(config.disk_probe);
            self.core.queue.take(
                &mut self.work,
                batch_bytes_max,
                config.lazy_flush,
                pace,
                timeout,
            );
            if self.core.abandoned() {
                drop(self.core.queue.end());
                return;
            }
            pace = Pace {
                not_before: Instant::now() + config.commit_interval,
                last_count: self.work.appends(),
            };
            if full {
                self.probe_disk();
            }
            self.round();
            if let Some(done) = self.closing.take() {
                self.end();
                // The waiter may have given up; the work is done either way.
                let _ = done.send(Ok(()));
                return;
            }
        }
    }

    /// Answers what came in after the close.
    fn end(&mut self) {
        for job in self.core.queue.end() {
            match job {
                Job::Append(append) => self.sink.committed(vec![Committed {
                    envelope: append.envelope,
                    sender: append.sender,
                    result: Err(Unavailable::Closing),
                }]),
                Job::Record { done, .. }
                | Job::Barrier(done)
                | Job::Flush(done)
                | Job::Rotate(done) => {
                    let _ = done.send(Err(Unavailable::Closing.into()));
                }
                Job::Close(done) => {
                    let _ = done.send(Ok(()));
                }
                Job::Fail(error) => self.sink.failed(&error),
            }
        }
    }

    fn round(&mut self) {
        let batch = self.encode();
        if batch.count == 0 {
            self.answer(batch, &Ok(()));
            return;
        }
        let refused = self
            .core
            .unavailable()
            .filter(|why| *why != Unavailable::Closing);
        let result = match refused {
            Some(why) => Err(why),
            None => {
                self.sink.writing();
                self.write(batch.count)
            }
        };
        match result {
            Ok(()) => self.apply(batch),
            Err(why) => self.give_up(batch, why),
        }
        self.core.update_pressure();
    }

    /// Assigns places and puts everything into the buffer.
    fn encode(&mut self) -> Batch {
        let mut work = std::mem::take(&mut self.work);
        let mut batch = Batch {
            appends: Vec::with_capacity(work.jobs.len()),
            ..Batch::default()
        };
        frame::begin(&mut self.buffer);
        // Positions first: a device record then never speaks of a message behind it.
        for mailbox in work.lazy.drain(..) {
            self.encode_lazy(&mailbox, &mut batch);
        }
        for job in work.jobs.drain(..) {
            match job {
                Job::Append(append) => {
                    let places: SmallVec<[Seq; 2]> = append
                        .recipients
                        .iter()
                        .map(|mailbox| assign(mailbox))
                        .collect();
                    record::put_message(
                        &mut self.buffer,
                        &append.envelope,
                        append
                            .recipients
                            .iter()
                            .map(|mailbox| mailbox.user())
                            .zip(places.iter().copied()),
                    );
                    batch.appends.push((append, places));
                    batch.count += 1;
                }
                Job::Record { record, done } => {
                    record.put(&mut self.buffer);
                    batch.records.push((record, done));
                    batch.count += 1;
                }
                Job::Barrier(done) => batch.barriers.push(done),
                Job::Flush(done) => batch.flushes.push(done),
                Job::Rotate(done) => batch.rotations.push(done),
                Job::Fail(error) => self.sink.failed(&error),
                Job::Close(done) => {
                    Record::Closed.put(&mut self.buffer);
                    batch.count += 1;
                    self.closing = Some(done);
                }
            }
        }
        self.work = work;
        batch
    }

    fn encode_lazy(&mut self, mailbox: &Arc<Mailbox>, batch: &mut Batch) {
        let mut state = mailbox.lock();
        state.lazy = false;
        let user = mailbox.user();
        // In the order in which they moved the furthest cursor: a replay derives what was
        // delivered from the stretch each record adds to it.
        let mut moved: SmallVec<[(Seq, usize); 2]> = state
            .devices
            .iter_mut()
            .enumerate()
            .filter_map(|(at, device)| Some((device.unjournaled.take()?, at)))
            .collect();
        moved.sort_unstable();
        for (first_before, at) in moved {
            let device = &state.devices[at];
            let connected = device.connected_epoch != 0;
            record::put_device(
                &mut self.buffer,
                user,
                &device.id,
                &device.state,
                connected,
                first_before,
            );
            batch
                .devices
                .push((Arc::clone(mailbox), device.id.clone(), first_before));
            batch.count += 1;
        }
        if let Some(receipts) = &mut state.receipts {
            for receipt in receipts.take_unjournaled() {
                record::put_receipt(&mut self.buffer, user, &receipt);
                batch.receipts.push((Arc::clone(mailbox), receipt.with));
                batch.count += 1;
            }
        }
    }

    /// Writes and syncs the buffer.
    fn write(&mut self, records: u32) -> Result<(), Unavailable> {
        let config = &self.core.config;
        let used = self.writer.segment_bytes();
        let full = used + self.buffer.len() as u64 > config.segment_bytes_max;
        let old = self
            .writer
            .age()
            .is_some_and(|age| age >= config.segment_age_max);
        if self.writer.age().is_some() && (full || old || self.writer.is_outdone()) {
            self.writer.rotate().map_err(|error| self.failed(error))?;
        }
        match self.writer.write(&mut self.buffer, records) {
            Ok(took) => {
                self.core.totals.syncs.fetch_add(1, Ordering::Relaxed);
                self.core.telemetry.synced(took);
                Ok(())
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&mut self, error: WriteError) -> Unavailable {
        match error {
            WriteError::Undone(error) => {
                tracing::error!(%error, "cannot write to the journal; accepting nothing until the disk has room");
                if self.core.set_unavailable(Unavailable::DiskFull) {
                    self.core.spare.give_up();
                    self.reserve.give_up();
                }
                Unavailable::DiskFull
            }
            WriteError::Final(error) => {
                self.fail(&error);
                Unavailable::Failed
            }
        }
    }

    fn fail(&mut self, error: &StoreError) {
        tracing::error!(%error, "the journal failed; accepting nothing more, restart after checking the disk");
        self.core.set_unavailable(Unavailable::Failed);
        self.core.wake_waiters();
        self.sink.failed(error);
    }

    fn probe_disk(&mut self) {
        // A little more than what it stops at, or it would stop again at once.
        let config = &self.core.config;
        let wanted = config.headroom_bytes / 4 * 5;
        if wanted > 0 && !self.core.has_free(wanted + config.reserve_bytes) {
            return;
        }
        match self.reserve.take() {
            Ok(()) => {
                tracing::info!("the disk has room again; accepting messages");
                self.core.disk_has_room();
            }
            Err(error) => tracing::debug!(%error, "the disk is still full"),
        }
    }

    /// The batch is durable: it takes effect, then the sink and all waiters hear of it.
    fn apply(&mut self, mut batch: Batch) {
        let segment = self.writer.number();
        let at_ms = self.core.uptime_ms();
        let messages = batch.appends.len();
        // Counted before they can be seen: the housekeeper may move one at once.
        let placements = batch
            .appends
            .iter()
            .map(|(_, seqs)| seqs.len() as u64)
            .sum();
        let memory = batch.appends.iter();
        let memory =
            memory.map(|(append, seqs)| recent_bytes(&append.envelope) * seqs.len() as u64);
        let totals = &self.core.totals;
        totals
            .recent_bytes
            .fetch_add(memory.sum(), Ordering::Relaxed);
        self.core.table.live(segment, placements, 0);
        let mut committed = Vec::with_capacity(messages);
        for (append, seqs) in batch.appends.drain(..) {
            let Append {
                envelope,
                sender,
                recipients,
            } = append;
            let places = recipients.into_iter().zip(seqs).map(|(mailbox, seq)| {
                let recent = Recent {
                    seq,
                    envelope: Arc::clone(&envelope),
                    segment,
                    at_ms,
                };
                let prev = place(&self.core, &mailbox, recent);
                Placed { mailbox, prev, seq }
            });
            let places = places.collect();
            remember_id(&self.core, &sender, &envelope);
            committed.push(Committed {
                envelope,
                sender,
                result: Ok(places),
            });
        }
        for (record, _) in &batch.records {
            match &**record {
                Record::Purge { user, upto } => purge::apply(&self.core, user, *upto),
                Record::RemoveUser { user, upto } => remove_user(&self.core, user, *upto),
                Record::RemoveDevice { user, device } => attached_again(&self.core, user, device),
                _ => {}
            }
        }
        self.core
            .applied
            .store(self.writer.end(), Ordering::Release);
        self.core.telemetry.batch(messages);
        self.core.upkeep.wake_if_idle();
        if !committed.is_empty() {
            self.sink.committed(committed);
        }
        self.answer(batch, &Ok(()));
    }

    /// Nothing of the batch is stored.
    fn give_up(&mut self, mut batch: Batch, why: Unavailable) {
        for (mailbox, device, first_before) in batch.devices.drain(..) {
            let mut state = mailbox.lock();
            if let Some(device) = state.device_mut(&device) {
                let before = device.unjournaled.unwrap_or(first_before);
                device.unjournaled = Some(before.min(first_before));
                self.core.mark_lazy(&mailbox, &mut state);
            }
        }
        for (mailbox, with) in batch.receipts.drain(..) {
            let mut state = mailbox.lock();
            if let Some(receipts) = &mut state.receipts {
                receipts.mark_unjournaled(&with);
                self.core.mark_lazy(&mailbox, &mut state);
            }
        }
        let given_up: Vec<Committed> = batch
            .appends
            .drain(..)
            .map(|(append, _)| {
                for mailbox in &append.recipients {
                    mailbox.lock().unqueue(append.envelope.body.len() as u64);
                }
                Committed {
                    envelope: append.envelope,
                    sender: append.sender,
                    result: Err(why),
                }
            })
            .collect();
        if !given_up.is_empty() {
            self.sink.committed(given_up);
        }
        self.answer(batch, &Err(why));
    }

    fn answer(&mut self, batch: Batch, result: &Result<(), Unavailable>) {
        let result = || result.map_err(StoreError::from);
        // Waiters may have given up; what they asked for happened all the same.
        for (_, done) in batch.records {
            let _ = done.send(result());
        }
        for done in batch.flushes {
            let _ = done.send(result());
        }
        for done in batch.barriers {
            // Given up is over as well.
            let _ = done.send(Ok(()));
        }
        for done in batch.rotations {
            let rotated = if self.writer.age().is_some() && self.core.unavailable().is_none() {
                self.writer.rotate().map_err(|error| self.failed(error))
            } else {
                Ok(())
            };
            let _ = done.send(rotated.map_err(StoreError::from));
        }
    }
}

/// The next place in a mailbox. Places of a batch that fails are never used again.
fn assign(mailbox: &Mailbox) -> Seq {
    let mut state = mailbox.lock();
    state.assigned = state.assigned.max(state.last_seq) + 1;
    state.assigned
}
