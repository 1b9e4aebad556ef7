//! What a mailbox store promises: the types and the trait.
//!
//! The store keeps bytes and positions. It decides nothing about delivery: who
//! may send, what is sent again and when is `delivery`'s business. Every call
//! is asynchronous in spirit (appends answer through a [`CommitSink`], reads
//! through a future), so that a store on another machine fits the same trait.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use stonechat_protocol::{Address, DeviceId, IdWindow, MessageId, Seq, UserId};
use stonechat_trace::TraceRef;

use crate::admin::StoreAdmin;
use crate::error::{AppendError, StoreError, Unavailable};

/// One accepted message, shared by all mailboxes and sessions it passes through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Sending device.
    pub from: Address,
    /// The user it was addressed to.
    pub to: UserId,
    /// Id chosen by the sending device.
    pub id: MessageId,
    /// When the server took it, milliseconds since the Unix epoch.
    pub ts_ms: u64,
    /// When it stops being worth delivering, milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// The body as the sender encoded it. Never parsed, never logged.
    pub body: Bytes,
    /// Followed while it is in memory; never stored.
    pub trace: TraceRef,
}

/// A message at its place in one mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its place.
    pub seq: Seq,
    /// The message.
    pub envelope: Arc<Envelope>,
}

/// An open mailbox: a cheap, cloneable handle that keeps the mailbox's
/// bookkeeping resident. Obtained from [`Store::open`].
pub type MailboxRef = Arc<crate::Mailbox>;

/// A message to be made durable. The caller has already decided that it is new
/// (not a resend) and who gets it.
#[derive(Debug)]
pub struct Append {
    /// The message.
    pub envelope: Arc<Envelope>,
    /// The sender's mailbox: its idempotency window gets the id.
    pub sender: MailboxRef,
    /// Mailboxes the message goes to, in this order: the recipient, then the
    /// sender's own when it has other devices (or is the recipient).
    pub recipients: SmallVec<[MailboxRef; 2]>,
}

/// One mailbox's place for a committed message.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The mailbox.
    pub mailbox: MailboxRef,
    /// Greatest committed `seq` of this mailbox before this message. Lets a
    /// reader that stands exactly there take the message without a gap.
    pub prev: Seq,
    /// The message's place.
    pub seq: Seq,
}

/// What became of one append, in the order of the appends.
#[derive(Debug)]
pub struct Committed {
    /// The message.
    pub envelope: Arc<Envelope>,
    /// The mailbox of its sender, as it was given.
    pub sender: MailboxRef,
    /// Its places, now durable; or why it was given up (nothing is stored then).
    pub result: Result<SmallVec<[Placed; 2]>, Unavailable>,
}

/// Told of commits, on the committer's thread. Must not block and must not panic.
pub trait CommitSink: Send + 'static {
    /// A batch is about to be written and synced; [`CommitSink::committed`] tells its messages.
    fn writing(&mut self) {}
    /// A batch is durable (`fdatasync` returned), or was given up.
    fn committed(&mut self, batch: Vec<Committed>);
    /// A write or sync failed for good: the node must stop accepting and exit non-zero.
    fn failed(&mut self, error: &StoreError);
}

/// What is known of one device of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceState {
    /// Everything up to here is acknowledged by the device.
    pub cursor: Seq,
    /// Everything up to here was (or may have been, after a crash) sent to the device before.
    pub sent: Seq,
    /// Receipts up to this revision were seen by the device.
    pub receipts_seen: u64,
    /// Ids accepted from the device.
    pub window: IdWindow,
    /// When it last connected, milliseconds since the Unix epoch.
    pub last_seen_ms: u64,
}

/// A conversation's watermarks, kept with the sender (contract D8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The other user: who received and read.
    pub with: UserId,
    /// Increases with every change of any receipt of this user.
    pub rev: u64,
    /// Last message, in the order of acceptance, acknowledged by one of the peer's devices.
    pub delivered: Option<MessageId>,
    /// Last message, in the order of acceptance, the peer said was read.
    pub read: Option<MessageId>,
    /// When it last moved, milliseconds since the Unix epoch.
    pub ts_ms: u64,
}

/// What an acknowledgement moved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AckOutcome {
    /// The device's cursor now.
    pub cursor: Seq,
    /// Senders whose messages were acknowledged by a *first* device: for each
    /// the last such message, in the order of acceptance.
    pub delivered: Vec<(UserId, MessageId)>,
}

/// Messages read from a mailbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadBatch {
    /// In increasing order of `seq`; nothing live between `after` and the last one is left out.
    pub messages: Vec<Stored>,
    /// Everything up to here has been looked at: continue after it. At least the last
    /// message's `seq`; the greatest committed `seq` when the end was reached.
    pub upto: Seq,
    /// The end of the mailbox was reached.
    pub end: bool,
}

/// Counters of one mailbox, kept, not scanned for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxStats {
    /// Messages held.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Greatest committed `seq`.
    pub last_seq: Seq,
    /// Messages that left by TTL, ever.
    pub expired_total: u64,
}

/// An account: the user exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The name.
    pub user: UserId,
    /// When it was created, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Tokens issued before this time are void, milliseconds since the Unix epoch.
    pub tokens_valid_from_ms: u64,
    /// May not sign in.
    pub disabled: bool,
    /// What holds for this user instead of what is configured for all.
    #[serde(default)]
    pub limits: UserLimits,
}

/// Limits of one user; what is absent is as configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserLimits {
    /// Messages the user may send a second, sustained; twice as many at once.
    pub messages_per_s: Option<u32>,
    /// Messages the user's mailbox holds.
    pub mailbox_messages_max: Option<u64>,
    /// Bytes of bodies the user's mailbox holds.
    pub mailbox_bytes_max: Option<u64>,
}

impl UserLimits {
    /// Everything is as configured.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// As a mailbox keeps them: most have none.
    pub(crate) fn boxed(&self) -> Option<Box<Self>> {
        (!self.is_none()).then(|| Box::new(*self))
    }
}

/// A message whose handling kept failing, taken out of its mailbox (contract D7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Number of the entry, increasing.
    pub number: u64,
    /// Whose mailbox it was in.
    pub user: UserId,
    /// The message at the place it had.
    pub stored: Stored,
    /// Why it was taken out.
    pub reason: String,
    /// When, milliseconds since the Unix epoch.
    pub ts_ms: u64,
}

/// Figures of the whole store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStats {
    /// Messages held in all mailboxes.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Segments of the journal on disk.
    pub segments: u64,
    /// Bytes of the journal on disk.
    pub journal_bytes: u64,
    /// Bytes sled takes on disk.
    pub sled_bytes: u64,
    /// Bytes of recent messages held in memory.
    pub recent_bytes: u64,
    /// Appends waiting for the committer.
    pub queued: u64,
    /// Data syncs of the journal since the start.
    pub syncs_total: u64,
    /// Messages that left by TTL since the start.
    pub expired_total: u64,
    /// Messages thrown away by operators since the start.
    pub purged_total: u64,
    /// Dead letters held.
    pub dead_letters: u64,
    /// Mailboxes in memory.
    pub resident: u64,
}

/// A durable store of mailboxes.
///
/// Calls that return a [`BoxFuture`] are ready at once when the answer is in
/// memory; otherwise the work runs on the store's own threads. Dropping a
/// future does not undo the call.
pub trait Store: StoreAdmin + Send + Sync + 'static {
    /// The mailbox of an existing user if it is resident: never blocks.
    fn resident(&self, user: &UserId) -> Option<MailboxRef>;
    /// The mailbox of an existing user, loading it when needed; `None`: no such user.
    fn open(&self, user: &UserId) -> BoxFuture<'static, Result<Option<MailboxRef>, StoreError>>;

    /// Queues a message to be committed. Appends commit in the order of the calls;
    /// the sink hears of each exactly once.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing changed then.
    fn append(&self, append: Append) -> Result<(), AppendError>;
    /// Ready when an append that was refused as [`AppendError::Busy`] is worth another try.
    fn ready(&self) -> BoxFuture<'static, ()>;
    /// Ready when everything appended before the call has been committed (or given up)
    /// and the sink has returned from hearing of it.
    fn barrier(&self) -> BoxFuture<'static, Result<(), StoreError>>;

    /// Ready when everything journaled lazily that was noted before the call is durable (or
    /// cannot become so). Hurries nothing. What is derived from an acknowledgement is told to
    /// others only after this, or a crash could take it back.
    fn flushed(&self) -> BoxFuture<'static, Result<(), StoreError>>;

    /// Makes everything journaled lazily that was noted before the call durable, now. Costs a
    /// sync, shared with whatever else waits for one.
    fn flush(&self) -> BoxFuture<'static, Result<(), StoreError>>;

    /// Up to `messages_max` messages and `bytes_max` bytes (at least one message) after `after`.
    fn read(
        &self,
        mailbox: &MailboxRef,
        after: Seq,
        messages_max: usize,
        bytes_max: usize,
    ) -> BoxFuture<'static, Result<ReadBatch, StoreError>>;

    /// The device connected: registers it when new (its cursor is 0: it gets everything still
    /// held), notes that it is connected, and returns its state.
    fn attach(
        &self,
        mailbox: &MailboxRef,
        device: &DeviceId,
        now_ms: u64,
    ) -> BoxFuture<'static, Result<DeviceState, StoreError>>;
    /// The device went; everything up to `sent` had been sent to it. Journaled lazily.
    fn detach(&self, mailbox: &MailboxRef, device: &DeviceId, sent: Seq, now_ms: u64);
    /// Cumulative acknowledgement; moves the cursor forward only. Journaled lazily: a crash may
    /// undo the last ones, which costs a redelivery. Messages acknowledged by all devices leave.
    fn ack(
        &self,
        mailbox: &MailboxRef,
        device: &DeviceId,
        upto: Seq,
    ) -> BoxFuture<'static, Result<AckOutcome, StoreError>>;
    /// Forgets a device: its cursor holds nothing back any more.
    fn remove_device(
        &self,
        mailbox: &MailboxRef,
        device: &DeviceId,
    ) -> BoxFuture<'static, Result<(), StoreError>>;

    /// Moves a conversation's watermarks of the sender `mailbox`; the change is the caller's
    /// decision. Returns the receipt with its new `rev`, or `None` when nothing changed.
    /// Durable lazily: after a crash delivered watermarks are derived from the journal again.
    fn put_receipt(
        &self,
        mailbox: &MailboxRef,
        with: &UserId,
        delivered: Option<MessageId>,
        read: Option<MessageId>,
        now_ms: u64,
    ) -> BoxFuture<'static, Result<Option<Receipt>, StoreError>>;
    /// One conversation's watermarks.
    fn receipt(
        &self,
        mailbox: &MailboxRef,
        with: &UserId,
    ) -> BoxFuture<'static, Result<Option<Receipt>, StoreError>>;
    /// Says since when the oldest acknowledgement waits whose receipt could not be put yet; `None`:
    /// none does. What a crash would derive such receipts from is kept until they were put, at the
    /// price of a longer journal. `waiter` tells those who say so apart.
    fn receipts_wait(&self, waiter: usize, since: Option<Instant>);
    /// Watermarks with `rev` above `after`, in increasing order of `rev`, at most `max`.
    fn receipts_after(
        &self,
        mailbox: &MailboxRef,
        after: u64,
        max: usize,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>>;
    /// The device has seen receipts up to `rev`. Lazy.
    fn receipts_seen(&self, mailbox: &MailboxRef, device: &DeviceId, rev: u64);
    /// The place of a message still held, searched among at most `scan_max` of the newest.
    fn find(
        &self,
        mailbox: &MailboxRef,
        from: &UserId,
        id: MessageId,
        scan_max: usize,
    ) -> BoxFuture<'static, Result<Option<Seq>, StoreError>>;

    /// Takes a message out of its mailbox into the dead letters. Durable when ready.
    fn dead_letter(
        &self,
        mailbox: &MailboxRef,
        seq: Seq,
        reason: String,
        now_ms: u64,
    ) -> BoxFuture<'static, Result<u64, StoreError>>;
    /// Dead letters with numbers above `after`, at most `max`.
    fn dead_letters(
        &self,
        after: u64,
        max: usize,
    ) -> BoxFuture<'static, Result<Vec<DeadLetter>, StoreError>>;
    /// Removes a dead letter and returns it. Durable when ready.
    fn take_dead_letter(&self, number: u64) -> BoxFuture<'static, Result<DeadLetter, StoreError>>;

    /// Removes what has expired, in slices of at most `messages_max`; returns how many left.
    fn expire(
        &self,
        now_ms: u64,
        messages_max: usize,
    ) -> BoxFuture<'static, Result<u64, StoreError>>;

    /// Creates or changes an account. Durable when ready.
    fn put_account(&self, account: Account) -> BoxFuture<'static, Result<(), StoreError>>;
    /// Looks up an account: from memory, never blocks for accounts seen before.
    fn account(&self, user: &UserId) -> BoxFuture<'static, Result<Option<Account>, StoreError>>;
    /// Accounts with names above `after`, at most `max`, in order.
    fn accounts(
        &self,
        after: Option<&UserId>,
        max: usize,
    ) -> BoxFuture<'static, Result<Vec<Account>, StoreError>>;
    /// Removes an account and its mailbox. Durable when ready.
    fn remove_account(&self, user: &UserId) -> BoxFuture<'static, Result<(), StoreError>>;
    /// A small durable value by name (signing keys, revoked tokens, ...); at most 64 KiB.
    fn put_value(
        &self,
        key: &str,
        value: Option<Bytes>,
    ) -> BoxFuture<'static, Result<(), StoreError>>;
    /// Values whose names start with `prefix`.
    fn values(&self, prefix: &str) -> BoxFuture<'static, Result<Vec<(String, Bytes)>, StoreError>>;

    /// Figures of the whole store.
    fn stats(&self) -> StoreStats;
    /// `None` while the store accepts.
    fn unavailable(&self) -> Option<Unavailable>;
    /// Commits what is queued, writes everything down, releases the directory.
    fn close(&self) -> BoxFuture<'static, Result<(), StoreError>>;
}
