//! One mailbox in memory: positions, devices, recent messages and the index of
//! stored chunks, under one lock that is never held across a file operation.
//!
//! Bookkeeping only. It does not write: what has to be written down is flagged
//! here and fetched by the committer and the housekeeper.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;
use stonechat_protocol::{DeviceId, Seq, UserId};

use crate::api::{DeviceState, MailboxStats, Stored, UserLimits};
pub(crate) use crate::parts::{Chunk, Device, Freed, Recent, recent_bytes};
use crate::quota::Rate;
use crate::receipts::Receipts;
use crate::sledstore::values::Meta;

/// An open mailbox. Cheap to keep; all reads answer from memory.
pub struct Mailbox {
    user: UserId,
    /// Used since the last sweep of idle mailboxes.
    touched: AtomicBool,
    /// Left here by the broker for its sink; see [`Mailbox::home`].
    home: AtomicU32,
    /// Of the limits what every send asks for, without the lock; see `quota`.
    pub(crate) rate: Rate,
    state: Mutex<State>,
}

/// What is under the lock.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Greatest `seq` assigned, by the committer alone.
    pub(crate) assigned: Seq,
    /// Greatest `seq` committed.
    pub(crate) last_seq: Seq,
    /// Everything up to here has left.
    pub(crate) floor: Seq,
    /// Greatest cursor any device ever had.
    pub(crate) first_cursor: Seq,
    /// Everything up to here was moved to the database or has left.
    pub(crate) migrated_upto: Seq,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) queued_messages: u64,
    pub(crate) queued_bytes: u64,
    pub(crate) expired_total: u64,
    pub(crate) rev_last: u64,
    /// The entry in the expiry index; 0: none.
    pub(crate) expiry_minute: u64,
    /// At most every expiry in `recent` is at or after this.
    pub(crate) recent_expires_ms_min: u64,
    pub(crate) devices: SmallVec<[Box<Device>; 1]>,
    pub(crate) recent: VecDeque<Recent>,
    pub(crate) chunks: Vec<Chunk>,
    /// Loaded on first use.
    pub(crate) receipts: Option<Box<Receipts>>,
    /// Limits of this user's own.
    pub(crate) limits: Option<Box<UserLimits>>,
    /// The account is gone: nothing is kept any more.
    pub(crate) removed: bool,
    /// In the list of mailboxes to be written to the database.
    pub(crate) dirty: bool,
    /// In the list of mailboxes with something to be journaled.
    pub(crate) lazy: bool,
    /// In the queue of mailboxes with messages to be migrated.
    pub(crate) aging: bool,
}

impl Mailbox {
    pub(crate) fn new(user: UserId, state: State) -> Self {
        Self {
            user,
            touched: AtomicBool::new(true),
            home: AtomicU32::new(0),
            rate: Rate::of(state.limits.as_deref()),
            state: Mutex::new(state),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(crate) fn touch(&self) {
        self.touched.store(true, Ordering::Relaxed);
    }

    /// Whether it was used since the last question.
    pub(crate) fn take_touched(&self) -> bool {
        self.touched.swap(false, Ordering::Relaxed)
    }

    /// The number last given to [`Mailbox::set_home`]; 0 until then. Neither interpreted nor
    /// stored here: it saves the sink a look-up for every message.
    pub fn home(&self) -> u32 {
        self.home.load(Ordering::Acquire)
    }

    /// Notes where the user's session lives. What is committed after the session's next look
    /// at the mailbox is announced with this number to be seen.
    pub fn set_home(&self, home: u32) {
        self.home.store(home, Ordering::Release);
    }

    /// Whose it is.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// Greatest committed `seq`.
    pub fn last_seq(&self) -> Seq {
        self.lock().last_seq
    }

    /// Registered devices.
    pub fn devices(&self) -> usize {
        self.lock().devices.len()
    }

    /// A device other than this one is registered.
    pub fn has_other_device(&self, device: &DeviceId) -> bool {
        self.lock().devices.iter().any(|other| other.id != *device)
    }

    /// What is known of a device.
    pub fn device(&self, device: &DeviceId) -> Option<DeviceState> {
        self.lock()
            .device(device)
            .map(|device| device.state.clone())
    }

    /// What is known of all devices.
    pub fn device_states(&self) -> Vec<(DeviceId, DeviceState)> {
        let state = self.lock();
        let devices = state.devices.iter();
        devices
            .map(|device| (device.id.clone(), device.state.clone()))
            .collect()
    }

    /// Counters. `bytes` of stored messages go down by whole chunks of at most 16 KiB.
    pub fn stats(&self) -> MailboxStats {
        let state = self.lock();
        MailboxStats {
            messages: state.messages,
            bytes: state.bytes,
            last_seq: state.last_seq,
            expired_total: state.expired_total,
        }
    }

    /// Messages held above the device's cursor; all that are held for an unknown device.
    pub fn pending(&self, device: &DeviceId) -> u64 {
        let state = self.lock();
        let cursor = state.device(device).map_or(0, |device| device.state.cursor);
        state.held_above(cursor)
    }

    /// Messages held above `cursor`: what a device has left that stands there.
    pub fn pending_after(&self, cursor: Seq) -> u64 {
        self.lock().held_above(cursor)
    }

    /// Greatest revision given to any receipt of this user.
    pub fn receipts_rev(&self) -> u64 {
        self.lock().rev_last
    }

    /// When the oldest message held was accepted, milliseconds since the Unix epoch.
    pub fn oldest_ms(&self) -> Option<u64> {
        let state = self.lock();
        let stored = state.chunks.first().map(|chunk| chunk.ts_ms_first);
        stored.or_else(|| state.recent.front().map(|recent| recent.envelope.ts_ms))
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("user", &self.user)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl State {
    pub(crate) fn device(&self, id: &DeviceId) -> Option<&Device> {
        self.devices
            .iter()
            .map(|d| &**d)
            .find(|device| device.id == *id)
    }

    pub(crate) fn device_mut(&mut self, id: &DeviceId) -> Option<&mut Device> {
        self.devices
            .iter_mut()
            .map(|d| &mut **d)
            .find(|device| device.id == *id)
    }

    /// Messages held above `after`.
    pub(crate) fn held_above(&self, after: Seq) -> u64 {
        let after = after.max(self.floor);
        let chunks = &self.chunks[self.chunks.partition_point(|chunk| chunk.last() <= after)..];
        let stored: u64 = chunks.iter().map(|chunk| chunk.above(after)).sum();
        stored + (self.recent.len() - self.recent_after(after)) as u64
    }

    /// Index of the first recent message above `after`.
    pub(crate) fn recent_after(&self, after: Seq) -> usize {
        self.recent.partition_point(|recent| recent.seq <= after)
    }

    /// A queued append was committed or given up.
    pub(crate) fn unqueue(&mut self, bytes: u64) {
        self.queued_messages = self.queued_messages.saturating_sub(1);
        self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
    }

    /// A committed message takes its place.
    pub(crate) fn push(&mut self, recent: Recent) {
        debug_assert!(self.recent.back().is_none_or(|last| last.seq < recent.seq));
        self.messages += 1;
        self.bytes += recent.envelope.body.len() as u64;
        if self.recent.is_empty() {
            self.recent_expires_ms_min = u64::MAX;
        }
        self.recent_expires_ms_min = self.recent_expires_ms_min.min(recent.envelope.expires_ms);
        self.recent.push_back(recent);
    }

    /// Everything every device has acknowledged leaves.
    pub(crate) fn advance_floor(&mut self) -> Freed {
        let slowest = self.devices.iter().map(|device| device.state.cursor).min();
        let floor = slowest.unwrap_or(0).max(self.floor);
        self.drop_upto(floor)
    }

    /// Everything up to `floor` leaves.
    pub(crate) fn drop_upto(&mut self, floor: Seq) -> Freed {
        let mut freed = Freed::default();
        if floor <= self.floor {
            return freed;
        }
        let before = self.floor;
        let stored = self.chunks.partition_point(|chunk| chunk.last() <= floor);
        for chunk in self.chunks.drain(..stored) {
            freed.messages += chunk.above(before);
            freed.bytes += u64::from(chunk.body_bytes);
            freed.chunks.push((chunk.first, chunk.parts));
        }
        if let Some(cut) = self.chunks.first() {
            freed.messages += cut.above(before) - cut.above(floor);
        }
        while let Some(recent) = self.recent.pop_front_if(|recent| recent.seq <= floor) {
            freed.messages += 1;
            freed.bytes += recent.envelope.body.len() as u64;
            freed.recent(&recent);
        }
        self.shrink();
        self.floor = floor;
        self.settle(&freed);
        freed
    }

    /// An idle mailbox should not keep the memory of a busy time.
    fn shrink(&mut self) {
        if self.recent.is_empty() && self.recent.capacity() > 4 {
            self.recent = VecDeque::new();
        }
        if self.chunks.is_empty() {
            self.chunks = Vec::new();
        }
    }

    fn settle(&mut self, freed: &Freed) {
        self.messages -= freed.messages;
        self.bytes -= freed.bytes;
    }

    /// Takes recent messages out wherever they are: expired ones, a dead letter.
    pub(crate) fn remove_recent(&mut self, mut gone: impl FnMut(&Recent) -> bool) -> Freed {
        let mut freed = Freed::default();
        self.recent.retain(|recent| {
            let goes = gone(recent);
            if goes {
                freed.messages += 1;
                freed.bytes += recent.envelope.body.len() as u64;
                freed.recent(recent);
            }
            !goes
        });
        let expiries = self.recent.iter().map(|recent| recent.envelope.expires_ms);
        self.recent_expires_ms_min = expiries.min().unwrap_or(u64::MAX);
        self.shrink();
        self.settle(&freed);
        freed
    }

    /// The first `count` recent messages are now stored as `chunks`. Messages that left
    /// meanwhile leave the index at once.
    pub(crate) fn migrated(&mut self, upto: Seq, chunks: Vec<Chunk>) -> Freed {
        let mut freed = Freed::default();
        while let Some(recent) = self.recent.pop_front_if(|recent| recent.seq <= upto) {
            freed.recent(&recent);
        }
        self.shrink();
        self.migrated_upto = self.migrated_upto.max(upto);
        for chunk in chunks {
            if chunk.last() <= self.floor {
                freed.chunks.push((chunk.first, chunk.parts));
            } else {
                // Bytes of messages of this chunk that left while they were recent come back
                // until the chunk goes: the counter speaks of what is held on disk.
                self.chunks.push(chunk);
            }
        }
        self.recount_bytes();
        freed
    }

    /// Bytes of bodies held, from the index.
    pub(crate) fn recount_bytes(&mut self) {
        let stored: u64 = self
            .chunks
            .iter()
            .map(|chunk| u64::from(chunk.body_bytes))
            .sum();
        let recent: u64 = self
            .recent
            .iter()
            .map(|recent| recent.envelope.body.len() as u64)
            .sum();
        self.bytes = stored + recent;
    }

    /// Recent messages above `after` that are alive at `now_ms`, for a read.
    pub(crate) fn recent_from(&self, after: Seq) -> impl Iterator<Item = Stored> + '_ {
        self.recent
            .range(self.recent_after(after)..)
            .map(|recent| Stored {
                seq: recent.seq,
                envelope: Arc::clone(&recent.envelope),
            })
    }

    /// What is to be stored of it; everything below `lsn` is reflected.
    pub(crate) fn meta(&self, lsn: u64) -> Meta {
        Meta {
            lsn,
            last_seq: self.last_seq,
            floor: self.floor,
            first_cursor: self.first_cursor,
            migrated_upto: self.migrated_upto,
            messages: self.messages,
            bytes: self.bytes,
            expired_total: self.expired_total,
            rev_last: self.rev_last,
            expiry_minute: self.expiry_minute,
            removed: self.removed,
            devices: self
                .devices
                .iter()
                .map(|device| (**device).clone())
                .collect(),
        }
    }

    /// The state a stored record and its chunks describe.
    pub(crate) fn from_meta(meta: Meta, mut chunks: Vec<Chunk>) -> Self {
        chunks.retain(|chunk| chunk.last() > meta.floor);
        let messages = chunks.iter().map(|chunk| chunk.above(meta.floor)).sum();
        let mut state = Self {
            assigned: meta.last_seq,
            last_seq: meta.last_seq,
            floor: meta.floor,
            first_cursor: meta.first_cursor,
            // A fold since the last checkpoint may reach further than is noted. Were its end
            // taken from the journal as well, chunks would overlap, and the next start drop one.
            migrated_upto: chunks.last().map_or(0, Chunk::last).max(meta.migrated_upto),
            messages,
            expired_total: meta.expired_total,
            rev_last: meta.rev_last,
            expiry_minute: meta.expiry_minute,
            devices: meta.devices.into_iter().map(Box::new).collect(),
            removed: meta.removed,
            chunks,
            ..Self::default()
        };
        state.recount_bytes();
        state
    }

    /// The store came from a backup: places up to `seq_base` may have been given after it.
    /// `unknown`: so may messages have been sent to any device.
    pub(crate) fn restored(&mut self, unknown: bool, seq_base: Seq) {
        self.last_seq = self.last_seq.max(seq_base);
        self.assigned = self.last_seq;
        if unknown {
            for device in &mut self.devices {
                // Settled as one that was connected when the process died.
                device.connected_epoch = device.connected_epoch.max(1);
            }
        }
    }

    /// Devices that were connected in an earlier process and never detached: their
    /// messages may all have been sent. Returns whether there were any.
    pub(crate) fn settle_connections(&mut self, epoch: u64) -> bool {
        let last_seq = self.last_seq;
        let mut changed = false;
        for device in &mut self.devices {
            if device.connected_epoch != 0 && device.connected_epoch != epoch {
                device.connected_epoch = 0;
                device.state.sent = last_seq;
                changed = true;
            }
        }
        changed
    }

    /// There is an account again; what came in between is not its.
    pub(crate) fn revive(&mut self) -> Freed {
        if !self.removed {
            return Freed::default();
        }
        self.removed = false;
        self.drop_upto(self.last_seq)
    }

    /// The account goes: everything but the place of the next message is forgotten.
    pub(crate) fn clear(&mut self, upto: Seq) -> Freed {
        let mut freed = self.drop_upto(upto);
        let rest = self.remove_recent(|_| true);
        freed.messages += rest.messages;
        freed.bytes += rest.bytes;
        freed.memory_bytes += rest.memory_bytes;
        freed.segments.extend(rest.segments);
        self.devices.clear();
        self.receipts = Some(Box::default());
        self.removed = true;
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connected user costs about this, whatever else is idle.
    #[test]
    fn an_idle_mailbox_is_small() {
        let bytes = size_of::<Mailbox>() + size_of::<Device>();
        assert!(bytes <= 500, "{bytes} bytes");
    }

    #[test]
    fn an_emptied_mailbox_gives_its_memory_back() {
        let mut state = State::default();
        let phone = DeviceId::new("phone").unwrap();
        state.devices.push(Box::new(Device::new(phone)));
        for seq in 1..=1000 {
            state.last_seq = seq;
            state.push(Recent {
                seq,
                envelope: Arc::new(crate::api::Envelope {
                    from: stonechat_protocol::Address {
                        user: UserId::new("alice").unwrap(),
                        device: DeviceId::new("phone").unwrap(),
                    },
                    to: UserId::new("bob").unwrap(),
                    id: stonechat_protocol::MessageId::from_u128(u128::from(seq)),
                    ts_ms: 0,
                    expires_ms: 1,
                    body: bytes::Bytes::from_static(b"body"),
                    trace: stonechat_trace::TraceRef::default(),
                }),
                segment: seq / 600,
                at_ms: 0,
            });
        }
        assert_eq!(state.held_above(400), 600);
        state.devices[0].state.cursor = 1000;
        let freed = state.advance_floor();
        assert_eq!((freed.messages, freed.bytes), (1000, 4000));
        assert_eq!(freed.segments[..], [(0, 599), (1, 401)]);
        assert_eq!(
            (state.messages, state.bytes, state.recent.capacity()),
            (0, 0, 0)
        );
        assert_eq!(state.advance_floor(), Freed::default());
    }
}
