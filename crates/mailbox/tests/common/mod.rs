//! What the suites share: a store with a sink that records, a clock that
//! stands still until moved, and short ways to say things.
//!
//! It asserts nothing by itself except that what it waits for happens.

#![allow(dead_code, reason = "every suite uses a part of it")]

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use smallvec::SmallVec;
use stonechat_mailbox::{
    Account, Append, AppendError, Clock, CommitSink, Committed, Envelope, Faults, JournalStore,
    MailboxRef, Store, StoreConfig, StoreError, Unavailable, WriteFault,
};
use stonechat_protocol::{Address, DeviceId, MessageId, Seq, UserId};

/// Longest wait for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// Where the manual clock starts.
pub(crate) const START_MS: u64 = 1_700_000_000_000;
/// Lifetime of messages in tests unless said otherwise.
pub(crate) const TTL_MS: u64 = 86_400_000;

/// Runs a future to its end.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime starts")
        .block_on(async { tokio::time::timeout(DEADLINE, future).await })
        .expect("the answer comes before the deadline")
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).expect("a user name")
}

pub(crate) fn device(name: &str) -> DeviceId {
    DeviceId::new(name).expect("a device name")
}

/// The `n`th message id.
pub(crate) fn id(n: u64) -> MessageId {
    // Version 7 and variant 2, as a client would make it.
    let high = (u128::from(n) << 80) | (0x7 << 76) | (0x2 << 62);
    MessageId::from_u128(high)
}

/// What the sink heard of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) id: MessageId,
    /// Recipient, place before, place.
    pub(crate) result: Result<Vec<(UserId, Seq, Seq)>, Unavailable>,
}

/// What the sink heard.
#[derive(Default)]
pub(crate) struct Log {
    heard: Mutex<Vec<Heard>>,
    failed: Mutex<Vec<String>>,
    changed: Condvar,
}

impl Log {
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().clone()
    }

    pub(crate) fn failed(&self) -> Vec<String> {
        self.failed.lock().clone()
    }

    /// Waits until `count` appends were heard of.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Heard> {
        let deadline = Instant::now() + DEADLINE;
        let mut heard = self.heard.lock();
        while heard.len() < count {
            assert!(
                !self.changed.wait_until(&mut heard, deadline).timed_out(),
                "the sink heard of {} appends, not of {count}",
                heard.len()
            );
        }
        heard.clone()
    }
}

struct Sink(Arc<Log>);

impl CommitSink for Sink {
    fn committed(&mut self, batch: Vec<Committed>) {
        let mut heard = self.0.heard.lock();
        for committed in batch {
            let result = committed.result.map(|places| {
                let places = places.into_iter();
                places
                    .map(|place| (place.mailbox.user().clone(), place.prev, place.seq))
                    .collect()
            });
            heard.push(Heard {
                id: committed.envelope.id,
                result,
            });
        }
        self.0.changed.notify_all();
    }

    fn failed(&mut self, error: &StoreError) {
        self.0.failed.lock().push(error.to_string());
        self.0.changed.notify_all();
    }
}

/// A clock to be moved by hand.
#[derive(Clone)]
pub(crate) struct Time(Arc<AtomicU64>);

impl Default for Time {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(START_MS)))
    }
}

impl Time {
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn pass(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }

    pub(crate) fn clock(&self) -> Clock {
        let time = self.clone();
        Clock::new(move || time.now())
    }
}

/// Disk faults that can be switched on.
#[derive(Default)]
pub(crate) struct Disk {
    /// Bytes that can still be written; negative: no limit.
    room: AtomicI64,
    limited: AtomicU64,
    short: AtomicU64,
    syncs_to_fail: AtomicU64,
}

impl Disk {
    /// From now on only `bytes` fit.
    pub(crate) fn fill_up(&self, bytes: i64) {
        self.room.store(bytes, Ordering::SeqCst);
        self.limited.store(1, Ordering::SeqCst);
    }

    /// A failing write leaves a part behind.
    pub(crate) fn write_short(&self) {
        self.short.store(1, Ordering::SeqCst);
    }

    /// There is room again.
    pub(crate) fn make_room(&self) {
        self.limited.store(0, Ordering::SeqCst);
    }

    /// Syncs fail from now on.
    pub(crate) fn break_sync(&self) {
        self.syncs_to_fail.store(u64::MAX, Ordering::SeqCst);
    }

    /// The next sync fails, and no other.
    pub(crate) fn break_next_sync(&self) {
        self.syncs_to_fail.store(1, Ordering::SeqCst);
    }
}

impl Faults for Disk {
    fn write(&self, bytes: usize) -> WriteFault {
        if self.limited.load(Ordering::SeqCst) == 0 {
            return WriteFault::None;
        }
        let room = self.room.fetch_sub(bytes as i64, Ordering::SeqCst);
        if room >= bytes as i64 {
            return WriteFault::None;
        }
        self.room.store(room, Ordering::SeqCst);
        let error = io::Error::from(io::ErrorKind::StorageFull);
        if self.short.load(Ordering::SeqCst) == 1 {
            WriteFault::Short(bytes / 2, error)
        } else {
            WriteFault::Fail(error)
        }
    }

    fn sync(&self) -> Option<io::Error> {
        let fewer = |left: u64| left.checked_sub(1);
        self.syncs_to_fail
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer)
            .is_ok()
            .then(|| io::Error::other("injected sync failure"))
    }
}

/// Settings for tests: small, fast, nothing by itself in the background.
pub(crate) fn config(dir: &Path, time: &Time) -> StoreConfig {
    StoreConfig {
        segment_bytes_max: 64 << 10,
        journal_bytes_max: 64 << 20,
        sled_cache_bytes: 4 << 20,
        reserve_bytes: 64 << 10,
        receipt_grace: Duration::ZERO,
        migrate_after: Duration::from_secs(3600),
        segment_age_max: Duration::from_secs(3600),
        lazy_flush: Duration::from_millis(5),
        disk_probe: Duration::from_millis(5),
        clock: time.clock(),
        ..StoreConfig::new(dir)
    }
}

/// A store and what its sink heard.
pub(crate) struct Node {
    pub(crate) store: Arc<JournalStore>,
    pub(crate) log: Arc<Log>,
    pub(crate) time: Time,
    /// Everything is moved to the database at every barrier.
    pub(crate) migrates: bool,
}

impl Node {
    pub(crate) fn open(dir: &Path) -> Self {
        let time = Time::default();
        Self::with(config(dir, &time), time)
    }

    /// With settings that are not the usual ones, and a clock to turn.
    pub(crate) fn tuned(dir: &Path, tune: impl FnOnce(&mut StoreConfig)) -> (Self, Time) {
        let time = Time::default();
        let mut config = config(dir, &time);
        tune(&mut config);
        (Self::with(config, time.clone()), time)
    }

    pub(crate) fn with(config: StoreConfig, time: Time) -> Self {
        Self::try_with(config, time).expect("the store opens")
    }

    pub(crate) fn try_with(config: StoreConfig, time: Time) -> Result<Self, StoreError> {
        let log = Arc::new(Log::default());
        let store = JournalStore::open(config, Box::new(Sink(Arc::clone(&log))))?;
        Ok(Self {
            store,
            log,
            time,
            migrates: false,
        })
    }

    /// Creates an account.
    pub(crate) fn create(&self, name: &str) -> MailboxRef {
        let account = Account {
            user: user(name),
            created_ms: self.time.now(),
            tokens_valid_from_ms: 0,
            disabled: false,
            limits: Default::default(),
        };
        wait(self.store.put_account(account)).expect("the account is stored");
        self.mailbox(name)
    }

    /// Opens the mailbox of an existing account.
    pub(crate) fn mailbox(&self, name: &str) -> MailboxRef {
        wait(self.store.open(&user(name)))
            .expect("opening works")
            .expect("the user exists")
    }

    pub(crate) fn attach(
        &self,
        mailbox: &MailboxRef,
        name: &str,
    ) -> stonechat_mailbox::DeviceState {
        wait(self.store.attach(mailbox, &device(name), self.time.now())).expect("attaches")
    }

    pub(crate) fn envelope(
        &self,
        from: &MailboxRef,
        to: &UserId,
        n: u64,
        body: &[u8],
    ) -> Arc<Envelope> {
        Arc::new(Envelope {
            from: Address {
                user: from.user().clone(),
                device: device("phone"),
            },
            to: to.clone(),
            id: id(n),
            ts_ms: self.time.now(),
            expires_ms: self.time.now() + TTL_MS,
            body: Bytes::copy_from_slice(body),
            trace: Default::default(),
        })
    }

    /// Queues message `n` with a body that says so.
    pub(crate) fn send(
        &self,
        from: &MailboxRef,
        to: &MailboxRef,
        n: u64,
    ) -> Result<(), AppendError> {
        let body = body(n, 40);
        self.send_envelope(self.envelope(from, to.user(), n, &body), from, &[to])
    }

    pub(crate) fn send_envelope(
        &self,
        envelope: Arc<Envelope>,
        from: &MailboxRef,
        to: &[&MailboxRef],
    ) -> Result<(), AppendError> {
        let recipients: SmallVec<[MailboxRef; 2]> = to.iter().map(|to| Arc::clone(to)).collect();
        self.store.append(Append {
            envelope,
            sender: Arc::clone(from),
            recipients,
        })
    }

    pub(crate) fn barrier(&self) {
        wait(self.store.barrier()).expect("the barrier is reached");
        if self.migrates {
            self.store.migrate_now().expect("migrates");
        }
    }

    /// Everything held above `after`: place and id.
    pub(crate) fn held(&self, mailbox: &MailboxRef, after: Seq) -> Vec<(Seq, MessageId)> {
        let mut all = Vec::new();
        let mut upto = after;
        loop {
            let batch = wait(self.store.read(mailbox, upto, 7, 1 << 20)).expect("reads");
            all.extend(batch.messages.iter().map(|m| (m.seq, m.envelope.id)));
            assert!(batch.upto >= upto, "a read never goes back");
            upto = batch.upto;
            if batch.end {
                return all;
            }
            assert!(
                !batch.messages.is_empty(),
                "a read that is not at the end yields something"
            );
        }
    }

    pub(crate) fn ack(
        &self,
        mailbox: &MailboxRef,
        name: &str,
        upto: Seq,
    ) -> stonechat_mailbox::AckOutcome {
        wait(self.store.ack(mailbox, &device(name), upto)).expect("acknowledges")
    }

    pub(crate) fn close(&self) {
        wait(self.store.close()).expect("closes");
    }
}

/// A body of `bytes` that depends on `n`, and is no JSON.
pub(crate) fn body(n: u64, bytes: usize) -> Vec<u8> {
    let mut body = n.to_be_bytes().to_vec();
    body.resize(bytes.max(8), n as u8);
    body
}

/// The journal's segments in `dir`, in order, without files that were only prepared.
pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<_> = std::fs::read_dir(dir.join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "log"))
        .filter(|path| std::fs::read(path).unwrap().iter().any(|byte| *byte != 0))
        .collect();
    segments.sort();
    segments
}

/// Bytes of a segment that hold its header and batches; zeros may follow.
pub(crate) fn used_bytes(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    let mut at = 40;
    while bytes[at..].starts_with(b"SCbf") {
        let payload = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap());
        at += 36 + payload as usize;
    }
    at as u64
}
