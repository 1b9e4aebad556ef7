//! Opening: what the database holds plus a replay of the journal.
//!
//! Every mailbox is stored with the position (`lsn`) below which it reflects
//! the journal, so a record takes effect once, whatever housekeeping had done
//! before a crash. Two things are re-done regardless: messages that were not
//! migrated are taken into memory again, and `delivered` watermarks are derived
//! again from acknowledgements, because the sender's session may not have
//! stored them in time.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, OpenOptions};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use stonechat_protocol::{DeviceId, MessageId, Seq, UserId};

use crate::api::{Account, Envelope, Receipt};
use crate::error::StoreError;
use crate::files::{io_error, sync_dir};
use crate::journal::record::DeviceRecord;
use crate::journal::segment::{self, HEADER_BYTES, Header};
use crate::journal::{Record, ScanEnd};
use crate::layout::Layout;
use crate::mailbox::{Device, Mailbox, Recent, State, recent_bytes};
use crate::receipts::{load_receipts, next_rev, remove_receipts};
use crate::shared::Core;
use crate::sledstore::Database;
use crate::{expire, purge};

/// How often progress is logged.
const PROGRESS: Duration = Duration::from_secs(2);

/// A message a recipient's first device has not acknowledged yet, as far as replayed.
struct Unacknowledged {
    seq: Seq,
    from: UserId,
    id: MessageId,
}

/// What one sender's messages acknowledged by a first device of one recipient come to.
struct Derived {
    /// The last one, by place.
    seq: Seq,
    id: MessageId,
    /// The greatest id among them: the same unless the sender has devices whose clocks differ.
    id_max: MessageId,
}

impl Derived {
    fn note(
        derived: &mut HashMap<(UserId, UserId), Self>,
        key: (UserId, UserId),
        seq: Seq,
        id: MessageId,
    ) {
        let entry = derived.entry(key).or_insert(Self {
            seq,
            id,
            id_max: id,
        });
        if entry.seq < seq {
            entry.seq = seq;
            entry.id = id;
        }
        entry.id_max = entry.id_max.max(id);
    }

    /// Whether a stored watermark is at or before this one. It may be beyond when its message
    /// was taken out after it was acknowledged (a dead letter) and cannot be seen any more.
    fn replaces(&self, stored: Option<MessageId>) -> bool {
        stored.is_none_or(|stored| stored <= self.id_max)
    }
}

/// The state of a replay.
pub(crate) struct Recovery<'a> {
    core: &'a Core,
    database: Arc<Database>,
    /// Mailboxes touched, with the position they were stored at.
    touched: HashMap<UserId, (Arc<Mailbox>, u64)>,
    unacknowledged: HashMap<UserId, VecDeque<Unacknowledged>>,
    /// What was thrown away of each mailbox, by place.
    purged: HashMap<UserId, Seq>,
    /// For sender and recipient the last message acknowledged by a first device.
    derived: HashMap<(UserId, UserId), Derived>,
    records: u64,
    messages: u64,
    reported: Instant,
}

impl<'a> Recovery<'a> {
    pub(crate) fn new(core: &'a Core, database: Arc<Database>) -> Self {
        Self {
            core,
            database,
            touched: HashMap::new(),
            unacknowledged: HashMap::new(),
            purged: HashMap::new(),
            derived: HashMap::new(),
            records: 0,
            messages: 0,
            reported: Instant::now(),
        }
    }

    /// Replays one record of the batch at `lsn`.
    pub(crate) fn record(
        &mut self,
        segment: u64,
        lsn: u64,
        record: Record,
    ) -> Result<(), StoreError> {
        self.records += 1;
        if self.reported.elapsed() >= PROGRESS {
            self.reported = Instant::now();
            tracing::info!(
                segment,
                records = self.records,
                messages = self.messages,
                "replaying the journal"
            );
        }
        match record {
            Record::Message { envelope, places } => {
                self.messages += 1;
                for (user, seq) in places {
                    self.place(segment, lsn, &user, seq, &envelope)?;
                }
                self.remember_id(lsn, &envelope)
            }
            Record::Device(record) => self.device(lsn, &record),
            Record::Receipt { user, receipt } => self.receipt(lsn, &user, receipt),
            Record::RemoveMessage { user, seq, expired } => {
                self.remove_message(lsn, &user, seq, expired)
            }
            Record::RemoveDevice { user, device } => self.remove_device(lsn, &user, &device),
            Record::RemoveUser { user, upto } => self.remove_user(lsn, &user, upto),
            Record::Purge { user, upto } => self.purge(lsn, &user, upto),
            Record::Account(account) => self.account(lsn, &account),
            Record::Value { key, value } => {
                Database::put_parts(&self.database.values, key.as_bytes(), value.as_deref())
            }
            Record::Closed => Ok(()),
        }
    }

    /// The mailbox, and whether it does not reflect the record at `lsn` yet.
    fn mailbox(&mut self, user: &UserId, lsn: u64) -> Result<(Arc<Mailbox>, bool), StoreError> {
        if let Some((mailbox, stored)) = self.touched.get(user) {
            return Ok((Arc::clone(mailbox), lsn >= *stored));
        }
        let (mailbox, stored) = self.core.load(user)?;
        let stored = stored.unwrap_or(0);
        self.touched
            .insert(user.clone(), (Arc::clone(&mailbox), stored));
        Ok((mailbox, lsn >= stored))
    }

    fn place(
        &mut self,
        segment: u64,
        lsn: u64,
        user: &UserId,
        seq: Seq,
        envelope: &Arc<Envelope>,
    ) -> Result<(), StoreError> {
        let (mailbox, _) = self.mailbox(user, lsn)?;
        if envelope.from.user != *user {
            let tail = self.unacknowledged.entry(user.clone()).or_default();
            tail.push_back(Unacknowledged {
                seq,
                from: envelope.from.user.clone(),
                id: envelope.id,
            });
        }
        let memory = self.core.update(&mailbox, |state| {
            state.last_seq = state.last_seq.max(seq);
            state.assigned = state.last_seq;
            let known = state.recent.back().is_some_and(|last| last.seq >= seq);
            if seq <= state.migrated_upto || seq <= state.floor || state.removed || known {
                return 0;
            }
            state.push(Recent {
                seq,
                envelope: Arc::clone(envelope),
                segment,
                at_ms: 0,
            });
            recent_bytes(envelope)
        });
        self.core
            .totals
            .recent_bytes
            .fetch_add(memory, Ordering::Relaxed);
        Ok(())
    }

    fn remember_id(&mut self, lsn: u64, envelope: &Envelope) -> Result<(), StoreError> {
        let (mailbox, new) = self.mailbox(&envelope.from.user, lsn)?;
        if new && let Some(device) = mailbox.lock().device_mut(&envelope.from.device) {
            device.state.window.insert(envelope.id, envelope.ts_ms);
        }
        Ok(())
    }

    fn device(&mut self, lsn: u64, record: &DeviceRecord) -> Result<(), StoreError> {
        let (mailbox, new) = self.mailbox(&record.user, lsn)?;
        self.derive(record, &mailbox)?;
        if !new {
            return Ok(());
        }
        // Any number but this process's will do: it is settled at the end of the replay.
        let unknown = lsn <= self.core.restored_upto;
        let connected_epoch = if record.connected || unknown {
            self.core.epoch - 1
        } else {
            0
        };
        let freed = self.core.update(&mailbox, |state| {
            if state.removed {
                return None;
            }
            if state.device(&record.device).is_none() {
                state
                    .devices
                    .push(Box::new(Device::new(record.device.clone())));
            }
            let device = state.device_mut(&record.device)?;
            device.state.cursor = device.state.cursor.max(record.cursor);
            device.state.sent = record.sent.max(device.state.cursor);
            device.state.receipts_seen = device.state.receipts_seen.max(record.receipts_seen);
            device.state.last_seen_ms = record.last_seen_ms;
            device.connected_epoch = connected_epoch;
            state.first_cursor = state.first_cursor.max(record.cursor);
            Some(state.advance_floor())
        });
        if let Some(freed) = freed {
            self.core.freed(&mailbox, freed);
        }
        Ok(())
    }

    /// Notes what the record says was delivered to a first device.
    fn derive(&mut self, record: &DeviceRecord, mailbox: &Mailbox) -> Result<(), StoreError> {
        let mut delivered: Vec<Unacknowledged> = Vec::new();
        let tail = self.unacknowledged.entry(record.user.clone()).or_default();
        let begin = tail.front().map_or(Seq::MAX, |first| first.seq);
        while let Some(message) = tail.pop_front_if(|message| message.seq <= record.cursor) {
            if message.seq > record.first_before {
                delivered.push(message);
            }
        }
        let stored_upto = record.cursor.min(begin - 1);
        let purged = self.purged.get(&record.user).copied().unwrap_or(0);
        if stored_upto > record.first_before.max(purged) {
            self.stored(record, mailbox, stored_upto, &mut delivered)?;
            delivered.retain(|message| message.seq > purged);
        }
        for message in delivered {
            let key = (message.from, record.user.clone());
            Derived::note(&mut self.derived, key, message.seq, message.id);
        }
        Ok(())
    }

    /// Acknowledged messages that the journal no longer holds but the database still does.
    fn stored(
        &self,
        record: &DeviceRecord,
        mailbox: &Mailbox,
        upto: Seq,
        delivered: &mut Vec<Unacknowledged>,
    ) -> Result<(), StoreError> {
        let migrated_upto = mailbox.lock().migrated_upto;
        for chunk in self.database.chunks(&record.user, migrated_upto)?.chunks {
            if chunk.last() <= record.first_before || chunk.first > upto {
                continue;
            }
            let messages = self.database.get_chunk(&record.user, &chunk)?;
            let messages = messages.into_iter().flatten().filter(|message| {
                message.seq > record.first_before
                    && message.seq <= upto
                    && message.envelope.from.user != record.user
            });
            delivered.extend(messages.map(|message| Unacknowledged {
                seq: message.seq,
                from: message.envelope.from.user.clone(),
                id: message.envelope.id,
            }));
        }
        Ok(())
    }

    fn receipt(&mut self, lsn: u64, user: &UserId, receipt: Receipt) -> Result<(), StoreError> {
        let (mailbox, new) = self.mailbox(user, lsn)?;
        // What was read may be ahead of what was acknowledged.
        if let Some(id) = receipt.delivered
            && let Some(tail) = self.unacknowledged.get(&receipt.with)
            && let Some(message) = tail
                .iter()
                .find(|message| message.id == id && message.from == *user)
        {
            let key = (user.clone(), receipt.with.clone());
            Derived::note(&mut self.derived, key, message.seq, id);
        }
        if !new {
            return Ok(());
        }
        load_receipts(&self.database, &mailbox)?;
        let mut state = mailbox.lock();
        state.rev_last = state.rev_last.max(receipt.rev);
        if let Some(receipts) = &mut state.receipts
            && receipts
                .get(&receipt.with)
                .is_none_or(|old| old.rev < receipt.rev)
        {
            receipts.set(receipt, true);
        }
        Ok(())
    }

    fn remove_message(
        &mut self,
        lsn: u64,
        user: &UserId,
        seq: Seq,
        expired: bool,
    ) -> Result<(), StoreError> {
        if let Some(tail) = self.unacknowledged.get_mut(user) {
            tail.retain(|message| message.seq != seq);
        }
        let (mailbox, new) = self.mailbox(user, lsn)?;
        if new && expired {
            mailbox.lock().expired_total += 1;
        }
        // Whether new or not: it may have been taken into memory again by this replay.
        expire::take_out(self.core, &mailbox, seq)
    }

    fn remove_device(
        &mut self,
        lsn: u64,
        user: &UserId,
        device: &DeviceId,
    ) -> Result<(), StoreError> {
        let (mailbox, new) = self.mailbox(user, lsn)?;
        if new {
            let freed = self.core.update(&mailbox, |state| {
                state.devices.retain(|other| other.id != *device);
                state.advance_floor()
            });
            self.core.freed(&mailbox, freed);
        }
        Ok(())
    }

    fn remove_user(&mut self, lsn: u64, user: &UserId, upto: Seq) -> Result<(), StoreError> {
        let (mailbox, new) = self.mailbox(user, lsn)?;
        self.unacknowledged.remove(user);
        self.derived
            .retain(|(sender, with), _| sender != user && with != user);
        self.database.accounts.remove(user.as_str())?;
        if new {
            let freed = self.core.update(&mailbox, |state| {
                let upto = upto.max(state.last_seq);
                state.clear(upto)
            });
            self.core.freed(&mailbox, freed);
            remove_receipts(&self.database, user)?;
        }
        Ok(())
    }

    fn purge(&mut self, lsn: u64, user: &UserId, upto: Seq) -> Result<(), StoreError> {
        // What was thrown away was not delivered, whatever is acknowledged after it.
        if let Some(tail) = self.unacknowledged.get_mut(user) {
            tail.retain(|message| message.seq > upto);
        }
        self.purged.insert(user.clone(), upto);
        let (mailbox, _) = self.mailbox(user, lsn)?;
        purge::replay(self.core, &mailbox, upto);
        Ok(())
    }

    fn account(&mut self, lsn: u64, account: &Account) -> Result<(), StoreError> {
        let (mailbox, new) = self.mailbox(&account.user, lsn)?;
        if new {
            let freed = self.core.update(&mailbox, State::revive);
            self.core.freed(&mailbox, freed);
        }
        self.database.put_account(account)
    }

    /// Everything was replayed: derives receipts, settles connections, and hands the
    /// mailboxes over to housekeeping.
    pub(crate) fn finish(mut self, now_ms: u64) -> Result<(), StoreError> {
        let derived = std::mem::take(&mut self.derived);
        let receipts = derived.len();
        for ((sender, with), last) in derived {
            if self.database.get_account(&sender)?.is_none() {
                continue;
            }
            let (mailbox, _) = self.mailbox(&sender, 0)?;
            load_receipts(&self.database, &mailbox)?;
            let mut state = mailbox.lock();
            let rev = next_rev(state.rev_last, self.core.epoch);
            if let Some(receipts) = &mut state.receipts
                && last.replaces(receipts.get(&with).and_then(|old| old.delivered))
                && receipts
                    .put(&with, Some(last.id), None, now_ms, rev)
                    .is_some()
            {
                state.rev_last = rev;
            }
        }
        let mut live: HashMap<u64, u64> = HashMap::new();
        for (mailbox, _) in self.touched.values() {
            let mut state = mailbox.lock();
            state.settle_connections(self.core.epoch);
            self.core.mark_dirty(mailbox, &mut state);
            for recent in &state.recent {
                *live.entry(recent.segment).or_default() += 1;
            }
            if !state.recent.is_empty() {
                state.aging = true;
                self.core.upkeep.aging(mailbox, 0);
            }
        }
        for (segment, count) in live {
            self.core.table.live(segment, count, 0);
        }
        tracing::info!(
            records = self.records,
            messages = self.messages,
            mailboxes = self.touched.len(),
            receipts,
            "the journal was replayed"
        );
        Ok(())
    }
}

/// Cuts the torn tail, removes outdated segments, and says where the next segment starts.
pub(crate) fn tidy(core: &Core, layout: &Layout, end: &ScanEnd) -> Result<Header, StoreError> {
    let dir = layout.journal();
    if let Some(torn) = &end.torn {
        tracing::warn!(
            file = %torn.path.display(), kept_bytes = torn.keep, cut_bytes = torn.bytes,
            "cutting what was being written when the process stopped; nobody was told of it"
        );
        if torn.keep == 0 {
            fs::remove_file(&torn.path).map_err(io_error("removing", &torn.path))?;
        } else {
            OpenOptions::new()
                .write(true)
                .open(&torn.path)
                .and_then(|file| {
                    file.set_len(torn.keep)?;
                    file.sync_all()
                })
                .map_err(io_error("cutting", &torn.path))?;
        }
    }
    if let Some(path) = &end.prepared {
        fs::remove_file(path).map_err(io_error("removing", path))?;
    }
    for number in &end.outdated {
        let path = segment::path(&dir, *number);
        fs::remove_file(&path).map_err(io_error("removing", &path))?;
    }
    let mut segments = end.segments.clone();
    let mut next = Header { number: 1, base: 0 };
    if let Some(last) = segments.last().cloned() {
        next = Header {
            number: last.number + 1,
            base: last.end,
        };
        if last.bytes == HEADER_BYTES as u64 {
            // Nothing was ever written to it: it starts anew under its own number.
            let path = segment::path(&dir, last.number);
            fs::remove_file(&path).map_err(io_error("removing", &path))?;
            next = Header {
                number: last.number,
                base: last.end - last.bytes,
            };
            segments.pop();
        }
    }
    sync_dir(&dir)?;
    let now = Instant::now();
    for found in segments {
        core.table
            .add(found.number, found.end, found.bytes, Some(now));
    }
    Ok(next)
}
