//! The offline queues: each owns the mailboxes of a share of the users.
//!
//! It takes acknowledgements, moves the senders' receipts, and sweeps out what
//! expired. It keeps no message: what is not delivered now is read from the
//! store when somebody comes for it. So a panic in here costs a look into the
//! store (a resync of the sessions) and nothing else. Telling sessions of
//! commits is the `dispatcher`'s.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ahash::{HashMap, HashMapExt, HashSet, HashSetExt};
use stonechat_actors::{ActorRef, Ctx, Handle, Supervised};
use stonechat_mailbox::{MailboxRef, Receipt, StoreError};
use stonechat_protocol::{DeviceId, ErrorCode, MessageId, Seq, UserId};

use crate::dispatcher::RESYNC_INTERVAL_MS;
use crate::lagging::Lagging;
use crate::receipts::{Mark, Moved, move_watermark};
use crate::session::{ReceiptMoved, Refuse, Session};
use crate::settle::settle;
use crate::shared::{Shared, now_ms};

/// How long a mark may wait for room in another queue's inbox.
const FORWARD_DEADLINE: Duration = Duration::from_secs(30);
/// Messages looked through for one that was read but not yet acknowledged.
const FIND_SCAN_MAX: usize = 4096;
/// Messages that leave in one sweep before others get a turn.
const EXPIRE_SLICE: usize = 10_000;
/// Marks of one user that may wait for the store; more than there are conversations kept
/// unless the store was told otherwise. Beyond it the oldest goes.
const MARKS_MAX: usize = 16_384;
/// Waiting marks looked through for an older one that a new one makes superfluous.
const MARKS_SEARCHED_MAX: usize = 64;
/// Reads of one user that may wait for the store; beyond it they are refused.
const READS_MAX: usize = 256;
/// Untold receipts looked through for an older one of the same conversation. Beyond it both
/// are told, in order.
const UNTOLD_SEARCHED_MAX: usize = 64;
/// When it is looked again whether a receipt can be made durable.
const UNTOLD_AGAIN: Duration = Duration::from_millis(200);
/// Calls of the store that may be waited for at a time; the runtime allows twice as many.
const STORE_CALLS_MAX: usize = 512;

/// A device acknowledged.
pub(crate) struct Ack {
    pub(crate) mailbox: MailboxRef,
    pub(crate) device: DeviceId,
    pub(crate) upto: Seq,
}

/// A user read something; asked of the reader's queue.
pub(crate) struct ReadUpTo {
    pub(crate) reader: MailboxRef,
    pub(crate) from: UserId,
    pub(crate) id: MessageId,
    pub(crate) session: ActorRef<Session>,
    pub(crate) connection: u64,
}

/// What a user's devices say of the messages they got.
enum Step {
    Ack(Ack),
    Read(ReadUpTo),
}

/// A mark on a conversation; asked of the sender's queue.
pub(crate) struct Watermark {
    pub(crate) sender: UserId,
    pub(crate) mark: Mark,
}

/// One offline queue.
pub(crate) struct OfflineQueue {
    shared: Arc<Shared>,
    index: usize,
    /// Users whose session could not be told.
    lagging: Lagging,
    /// Acknowledgements and reads waiting behind one that waits for the store: one at a time
    /// for each user, so that receipts move in order and a message that is said to be read
    /// does not leave the mailbox while it is looked for.
    steps: HashMap<UserId, VecDeque<Step>>,
    /// Marks waiting behind one that waits for the store: one at a time for each user.
    marks: HashMap<UserId, VecDeque<Mark>>,
    /// Receipts whose acknowledgement is not known to be durable yet: telling them now and
    /// losing it in a crash would let a watermark step back.
    untold: Vec<(UserId, Receipt)>,
    /// The store was asked to say when what is in `untold` may be told.
    telling: bool,
}

impl OfflineQueue {
    pub(crate) fn new(shared: Arc<Shared>, index: usize) -> Self {
        Self {
            lagging: Lagging::new(Arc::clone(&shared)),
            shared,
            index,
            steps: HashMap::new(),
            marks: HashMap::new(),
            untold: Vec::new(),
            telling: false,
        }
    }

    fn resync_everyone(&mut self) {
        let (shared, index) = (Arc::clone(&self.shared), self.index);
        self.lagging
            .add_all(|anchor| shared.queue_of(&anchor.user) == index);
        self.lagging.resync();
    }

    fn forward(&mut self, sender: UserId, mark: Mark, ctx: &mut Ctx<Self>) {
        let Some(queue) = self.shared.queue_for(&sender) else {
            return;
        };
        if queue.actor.id() == ctx.myself().id() {
            self.move_mark(sender, mark, ctx);
        } else if let Err(refused) = queue.actor.try_tell(Watermark { sender, mark })
            && refused.is_full()
        {
            if ctx.futures_len() >= STORE_CALLS_MAX {
                tracing::warn!("a receipt was not passed on: too many wait for a full queue");
                return;
            }
            let actor = queue.actor.clone();
            let watermark = refused.into_inner();
            ctx.spawn_then(
                async move { actor.tell(watermark, FORWARD_DEADLINE).await.is_ok() },
                |_, told, _| {
                    if !told {
                        tracing::warn!("a receipt was not passed on: an offline queue stayed full");
                    }
                },
            );
        }
    }

    fn move_mark(&mut self, sender: UserId, mark: Mark, ctx: &mut Ctx<Self>) {
        if let Some(waiting) = self.marks.get_mut(&sender) {
            let newest = waiting.len().saturating_sub(MARKS_SEARCHED_MAX);
            let older = (newest..waiting.len()).find(|&at| mark.covers(&waiting[at]));
            if let Some(older) = older {
                waiting.remove(older);
            } else if waiting.len() >= MARKS_MAX {
                waiting.pop_front();
            }
            waiting.push_back(mark);
            return;
        }
        if ctx.futures_len() >= STORE_CALLS_MAX {
            // The next acknowledgement or read of the conversation says more than this one.
            tracing::warn!(
                queue = self.index,
                "a receipt was skipped: the store is behind"
            );
            return;
        }
        self.marks.insert(sender.clone(), VecDeque::new());
        self.run_mark(sender, mark, ctx);
    }

    fn run_mark(&mut self, sender: UserId, mark: Mark, ctx: &mut Ctx<Self>) {
        let work = move_watermark(
            Arc::clone(&self.shared.store),
            sender.clone(),
            mark,
            now_ms(),
        );
        settle(self, ctx, work, move |me, moved, ctx| {
            me.mark_done(&sender, moved, ctx);
            match me.marks.get_mut(&sender).and_then(VecDeque::pop_front) {
                Some(next) => me.run_mark(sender, next, ctx),
                None => {
                    me.marks.remove(&sender);
                }
            }
        });
    }

    fn mark_done(
        &mut self,
        sender: &UserId,
        moved: Result<Moved, StoreError>,
        ctx: &mut Ctx<Self>,
    ) {
        match moved {
            Ok(Moved::Receipt(receipt)) => {
                // Bounded: one a conversation, for those that moved since the last flush.
                let same =
                    |(user, old): &(UserId, Receipt)| *user == *sender && old.with == receipt.with;
                if self.untold.len() < UNTOLD_SEARCHED_MAX {
                    self.untold.retain(|entry| !same(entry));
                }
                self.untold.push((sender.clone(), receipt));
                self.tell_when_durable(ctx);
            }
            Ok(Moved::Nothing) => {}
            Ok(Moved::Refused { refuse, code }) => {
                // A full or gone session: the client learns nothing, and nothing was changed.
                let _ = refuse.session.try_tell(Refuse {
                    connection: refuse.connection,
                    id: refuse.id,
                    code,
                });
            }
            Err(error) => tracing::error!(%error, "a receipt could not be moved"),
        }
    }

    fn tell_when_durable(&mut self, ctx: &mut Ctx<Self>) {
        if self.telling || self.untold.is_empty() {
            return;
        }
        self.telling = true;
        let receipts = std::mem::take(&mut self.untold);
        let flushed = self.shared.store.flushed();
        ctx.spawn_then(flushed, move |me, flushed, ctx| {
            if flushed.is_err() {
                // A full disk gets room again. Has the store failed for good, the node is about to stop.
                me.keep_untold(receipts);
                ctx.run_later(UNTOLD_AGAIN, |me, ctx| {
                    me.telling = false;
                    me.tell_when_durable(ctx);
                });
                return;
            }
            me.telling = false;
            for (sender, receipt) in receipts {
                me.lagging.tell(&sender, ReceiptMoved(receipt));
            }
            me.tell_when_durable(ctx);
        });
    }

    /// Puts receipts back before those that moved meanwhile: of each conversation the latest.
    fn keep_untold(&mut self, earlier: Vec<(UserId, Receipt)>) {
        let later = std::mem::replace(&mut self.untold, earlier);
        self.untold.extend(later);
        let mut seen = HashSet::new();
        self.untold.reverse();
        self.untold
            .retain(|(sender, receipt)| seen.insert((sender.clone(), receipt.with.clone())));
        self.untold.reverse();
    }
}

impl Supervised for OfflineQueue {
    const KIND: &'static str = "offline_queue";

    fn started(&mut self, ctx: &mut Ctx<Self>) {
        ctx.run_interval(Duration::from_millis(RESYNC_INTERVAL_MS), |me, _| {
            if me.lagging.len() > 0 {
                me.lagging.resync();
            }
        });
        if self.index == 0 {
            let every = Duration::from_millis(self.shared.config.expire_interval_ms.max(1));
            ctx.run_interval(every, Self::expire);
        }
        if ctx.generation() > 1 {
            self.resync_everyone();
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({
            "queue": self.index,
            "lagging_sessions": self.lagging.len(),
            "users_with_waiting_receipts": self.marks.len(),
        })
    }
}

impl OfflineQueue {
    fn expire(&mut self, ctx: &mut Ctx<Self>) {
        let work = self.shared.store.expire(now_ms(), EXPIRE_SLICE);
        settle(self, ctx, work, |_, left, ctx| match left {
            // A full slice: there may be more.
            Ok(left) if left >= EXPIRE_SLICE as u64 => {
                ctx.run_later(Duration::from_millis(10), Self::expire);
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "expired messages could not be removed"),
        });
    }
}

impl Handle<Ack> for OfflineQueue {
    fn handle(&mut self, ack: Ack, ctx: &mut Ctx<Self>) {
        let user = ack.mailbox.user();
        if let Some(waiting) = self.steps.get_mut(user) {
            merge(waiting, ack);
        } else if ctx.futures_len() >= STORE_CALLS_MAX {
            // Comes up again when the client acknowledges more, or connects again.
            self.lagging.add(user.clone());
        } else {
            self.steps.insert(user.clone(), VecDeque::new());
            self.run_ack(ack, ctx);
        }
    }
}

/// Acknowledgements are cumulative: of each device the furthest is enough, but what was read
/// before it must still be found.
fn merge(waiting: &mut VecDeque<Step>, ack: Ack) {
    let since_read = waiting.iter_mut().rev().map_while(|step| match step {
        Step::Ack(other) => Some(other),
        Step::Read(_) => None,
    });
    let mut since_read = since_read;
    match since_read.find(|other| other.device == ack.device) {
        Some(other) => other.upto = other.upto.max(ack.upto),
        None => waiting.push_back(Step::Ack(ack)),
    }
}

impl OfflineQueue {
    /// The store is done with a step of this user.
    fn next_step(&mut self, user: &UserId, ctx: &mut Ctx<Self>) {
        match self.steps.get_mut(user).and_then(VecDeque::pop_front) {
            Some(Step::Ack(ack)) => self.run_ack(ack, ctx),
            Some(Step::Read(read)) => self.run_read(read, ctx),
            None => {
                self.steps.remove(user);
            }
        }
    }

    fn run_ack(&mut self, ack: Ack, ctx: &mut Ctx<Self>) {
        let work = self.shared.store.ack(&ack.mailbox, &ack.device, ack.upto);
        settle(self, ctx, work, move |me, outcome, ctx| {
            let reader = ack.mailbox.user();
            match outcome {
                Ok(outcome) => {
                    for (sender, id) in outcome.delivered {
                        if sender != *reader {
                            let mark = Mark::Delivered {
                                with: reader.clone(),
                                id,
                                upto: ack.upto,
                            };
                            me.forward(sender, mark, ctx);
                        }
                    }
                }
                // The device was removed, or the account: nothing waits for it any more.
                Err(StoreError::NotFound(_) | StoreError::UnknownUser(_)) => {}
                Err(error) => tracing::error!(%error, "an acknowledgement could not be stored"),
            }
            me.next_step(reader, ctx);
        });
    }
}

impl Handle<ReadUpTo> for OfflineQueue {
    fn handle(&mut self, read: ReadUpTo, ctx: &mut Ctx<Self>) {
        let user = read.reader.user();
        match self.steps.get_mut(user) {
            Some(waiting) if waiting.len() < READS_MAX => waiting.push_back(Step::Read(read)),
            None if ctx.futures_len() < STORE_CALLS_MAX => {
                self.steps.insert(user.clone(), VecDeque::new());
                self.run_read(read, ctx);
            }
            _ => refuse_read(&read),
        }
    }
}

/// A full or gone session: the client learns nothing, and nothing was changed.
fn refuse_read(read: &ReadUpTo) {
    let _ = read.session.try_tell(Refuse {
        connection: read.connection,
        id: read.id,
        code: ErrorCode::Internal,
    });
}

impl OfflineQueue {
    fn run_read(&mut self, read: ReadUpTo, ctx: &mut Ctx<Self>) {
        let work = self
            .shared
            .store
            .find(&read.reader, &read.from, read.id, FIND_SCAN_MAX);
        settle(self, ctx, work, move |me, found, ctx| {
            let reader = Arc::clone(&read.reader);
            match found {
                Ok(found) => {
                    let mark = Mark::Read {
                        with: reader.user().clone(),
                        id: read.id,
                        found,
                        refuse: crate::receipts::RefuseTo {
                            session: read.session,
                            connection: read.connection,
                            id: read.id,
                        },
                    };
                    me.forward(read.from, mark, ctx);
                }
                Err(error) => {
                    if !matches!(error, StoreError::Overloaded) {
                        tracing::error!(%error, "a mailbox could not be searched");
                    }
                    refuse_read(&read);
                }
            }
            me.next_step(reader.user(), ctx);
        });
    }
}

impl Handle<Watermark> for OfflineQueue {
    fn handle(&mut self, watermark: Watermark, ctx: &mut Ctx<Self>) {
        self.move_mark(watermark.sender, watermark.mark, ctx);
    }
}

/// Fault injection.
pub(crate) struct Panic;

impl Handle<Panic> for OfflineQueue {
    fn handle(&mut self, _: Panic, _: &mut Ctx<Self>) {
        panic!("injected into an offline queue");
    }
}
