//! The offline queues: each owns the mailboxes of a share of the users.
//!
//! It takes acknowledgements, moves the senders' receipts, and sweeps out what
//! expired. It keeps no message: what is not delivered now is read from the
//! store when somebody comes for it. So a panic in here costs a look into the
//! store (a resync of the sessions); marks that wait are handed on (`handover`).
//! Telling sessions of commits is the `dispatcher`'s.

mod handover;
mod steps;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::{HashMap, HashMapExt, HashSet, HashSetExt};
use futures_util::FutureExt;
use stonechat_actors::{Ctx, Handle, Supervised};
use stonechat_mailbox::{Receipt, StoreError};
use stonechat_protocol::{ErrorCode, UserId};

use self::handover::{Call, Carried, Done, Left, Turn, Waiting};
pub(crate) use self::handover::{Entrusted, HandOver, Matter};
use self::steps::Step;
pub(crate) use self::steps::{Ack, ReadUpTo};
use crate::dispatcher::RESYNC_INTERVAL_MS;
use crate::lagging::Lagging;
use crate::marks::Marks;
use crate::receipts::{Mark, Moved, RefuseTo, move_watermark};
use crate::session::{ReceiptMoved, Refuse};
use crate::settle::settle;
use crate::shared::{Shared, Told, now_ms};

/// Messages that leave in one sweep before others get a turn.
const EXPIRE_SLICE: usize = 10_000;
/// Untold receipts looked through for an older one of the same conversation. Beyond it both
/// are told, in order.
const UNTOLD_SEARCHED_MAX: usize = 64;
/// When it is looked again whether a receipt can be made durable.
const UNTOLD_AGAIN: Duration = Duration::from_millis(200);
/// When the store is asked again that had too much to do, and a queue told that was full.
const AGAIN: Duration = Duration::from_millis(50);
/// How often the store is told since when marks wait, while any do.
const WAITING_AGAIN: Duration = Duration::from_millis(200);
/// Calls of the store that may be waited for at a time; the runtime allows twice as many. What
/// is beyond waits for its turn.
const STORE_CALLS_MAX: usize = 512;

/// A mark on a conversation; asked of the sender's queue.
pub(crate) struct Watermark {
    pub(crate) sender: UserId,
    pub(crate) mark: Mark,
}

/// One offline queue.
pub(crate) struct OfflineQueue {
    shared: Arc<Shared>,
    index: usize,
    /// Where what waits goes should this generation panic.
    home: Arc<HandOver>,
    /// Users whose session could not be told.
    lagging: Lagging,
    /// Acknowledgements and reads waiting behind one that waits for the store: one at a time
    /// for each user, so that receipts move in order and a message that is said to be read
    /// does not leave the mailbox while it is looked for.
    steps: HashMap<UserId, VecDeque<Step>>,
    /// Users among them none of whose steps waits for the store yet.
    steps_turns: VecDeque<UserId>,
    /// What an acknowledgement delivered, while it is being forwarded.
    delivering: VecDeque<Watermark>,
    /// Marks waiting for the store: one at a time for each sender.
    marks: Marks,
    /// Marks waiting for room in the inbox of the sender's queue.
    outgoing: Marks,
    /// Whose steps, and whose marks, found the store with too much to do.
    steps_again: Vec<UserId>,
    marks_again: Vec<UserId>,
    /// A timer for these and for `outgoing` is set.
    again_set: bool,
    /// The store knows that marks wait.
    waiting_known: bool,
    /// Receipts whose acknowledgement is not known to be durable yet: telling them now and
    /// losing it in a crash would let a watermark step back.
    untold: Vec<(UserId, Receipt)>,
    /// The store was asked to say when what is in `untold` may be told.
    telling: bool,
}

impl OfflineQueue {
    pub(crate) fn new(shared: Arc<Shared>, index: usize, home: Arc<HandOver>) -> Self {
        Self {
            lagging: Lagging::new(Arc::clone(&shared)),
            shared,
            index,
            home,
            steps: HashMap::new(),
            steps_turns: VecDeque::new(),
            delivering: VecDeque::new(),
            marks: Marks::new(),
            outgoing: Marks::new(),
            steps_again: Vec::new(),
            marks_again: Vec::new(),
            again_set: false,
            waiting_known: false,
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

    /// Takes up what waits, as far as the store may be asked.
    fn take_up(&mut self, ctx: &mut Ctx<Self>) {
        while ctx.futures_len() < STORE_CALLS_MAX {
            if let Some((sender, mark)) = self.marks.next() {
                self.run_mark(sender, mark, ctx);
            } else if let Some(user) = self.steps_turns.pop_front() {
                self.run_steps(&user, ctx);
            } else {
                return;
            }
        }
    }

    fn forward(&mut self, sender: UserId, mark: Mark, ctx: &mut Ctx<Self>) {
        let Some(queue) = self.shared.queue_for(&sender) else {
            return;
        };
        if queue.actor.id() == ctx.myself().id() {
            self.move_mark(sender, mark, ctx);
        } else if !self.outgoing.is_empty() {
            refuse_too_many(self.outgoing.add(&sender, mark));
        } else if !self.pass_on(sender.clone(), mark) {
            self.outgoing.done(&sender);
            self.marks_wait(ctx);
            self.try_again(ctx);
        }
    }

    /// Tells the sender's queue of a mark. `false`: it has no room, and the mark waits.
    fn pass_on(&mut self, sender: UserId, mark: Mark) -> bool {
        let Some(queue) = self.shared.queue_for(&sender) else {
            return true;
        };
        let told = queue.entrust(Matter::Mark(Watermark { sender, mark }));
        if let Told::Full(Matter::Mark(Watermark { sender, mark })) = told {
            self.outgoing.put_back(&sender, mark);
            return false;
        }
        true
    }

    fn move_mark(&mut self, sender: UserId, mark: Mark, ctx: &mut Ctx<Self>) {
        if self.marks.has(&sender) || ctx.futures_len() >= STORE_CALLS_MAX {
            refuse_too_many(self.marks.add(&sender, mark));
            self.marks_wait(ctx);
        } else {
            self.run_mark(sender, mark, ctx);
        }
    }

    fn run_mark(&mut self, sender: UserId, mark: Mark, ctx: &mut Ctx<Self>) {
        let store = Arc::clone(&self.shared.store);
        let mut work = move_watermark(store, sender.clone(), mark, now_ms());
        match (&mut work).now_or_never() {
            Some(moved) => self.mark_done(&sender, moved, ctx),
            None => {
                let since = self.marks.begin(&sender, Instant::now());
                let turn = Turn::Marks(sender.clone(), since);
                let call = work.map(|moved| Done::Marked(sender, moved)).boxed();
                self.wait_for(turn, call, ctx);
                self.marks_wait(ctx);
            }
        }
    }

    /// Goes on when a call of the store is done, in this generation or the next.
    fn wait_for(&mut self, turn: Turn, call: Call, ctx: &mut Ctx<Self>) {
        ctx.spawn_then(Carried::new(turn, call, &self.home), Self::call_done);
    }

    fn call_done(&mut self, done: Done, ctx: &mut Ctx<Self>) {
        match done {
            Done::Acked(ack, outcome) => {
                let user = ack.mailbox.user().clone();
                let next = self.acked(ack, outcome, ctx);
                self.step_done(&user, next, ctx);
            }
            Done::Found(read, found) => {
                let user = read.reader.user().clone();
                let next = self.looked_up(read, found, ctx);
                self.step_done(&user, next, ctx);
            }
            Done::Marked(sender, moved) => self.mark_done(&sender, moved, ctx),
        }
        self.take_up(ctx);
    }

    /// What a crash would have to derive the waiting marks from stays on disk until they moved.
    fn marks_wait(&mut self, ctx: &mut Ctx<Self>) {
        if !self.waiting_known {
            self.tell_waiting(ctx);
        }
    }

    fn tell_waiting(&mut self, ctx: &mut Ctx<Self>) {
        let oldest = [self.marks.oldest(), self.outgoing.oldest()];
        let oldest = oldest.into_iter().flatten().min();
        self.shared.store.receipts_wait(self.index, oldest);
        self.waiting_known = oldest.is_some();
        if self.waiting_known {
            ctx.run_later(WAITING_AGAIN, Self::tell_waiting);
        }
    }

    fn mark_done(
        &mut self,
        sender: &UserId,
        moved: Result<Moved, (StoreError, Mark)>,
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
            Ok(Moved::Refused(refuse)) => refuse_read(&refuse, ErrorCode::UnknownMessage),
            Err((StoreError::Overloaded, mark)) => {
                self.marks.put_back(sender, mark);
                self.marks_again.push(sender.clone());
                self.try_again(ctx);
                return;
            }
            // The store has failed for good; the next start derives it again.
            Err((error, _)) => tracing::error!(%error, "a receipt could not be moved"),
        }
        self.marks.done(sender);
    }

    fn try_again(&mut self, ctx: &mut Ctx<Self>) {
        if self.again_set {
            return;
        }
        self.again_set = true;
        ctx.run_later(AGAIN, |me, ctx| {
            me.again_set = false;
            me.steps_turns.extend(std::mem::take(&mut me.steps_again));
            for sender in std::mem::take(&mut me.marks_again) {
                me.marks.done(&sender);
            }
            me.pass_on_waiting(ctx);
            me.take_up(ctx);
        });
    }

    /// Tells other queues what they had no room for.
    fn pass_on_waiting(&mut self, ctx: &mut Ctx<Self>) {
        let mut full = Vec::new();
        while let Some((sender, mark)) = self.outgoing.next() {
            if self.pass_on(sender.clone(), mark) {
                self.outgoing.done(&sender);
            } else {
                full.push(sender);
            }
        }
        for sender in full {
            self.outgoing.done(&sender);
        }
        if !self.outgoing.is_empty() {
            self.try_again(ctx);
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
            me.take_up(ctx);
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
            self.take_over(ctx);
            self.resync_everyone();
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({
            "queue": self.index,
            "lagging_sessions": self.lagging.len(),
            "users_with_waiting_acknowledgements": self.steps.len(),
            "users_with_waiting_receipts": self.marks.len(),
            "users_with_receipts_for_full_queues": self.outgoing.len(),
        })
    }
}

impl OfflineQueue {
    fn expire(&mut self, ctx: &mut Ctx<Self>) {
        let work = self.shared.store.expire(now_ms(), EXPIRE_SLICE);
        settle(self, ctx, work, |me, left, ctx| {
            match left {
                // A full slice: there may be more.
                Ok(left) if left >= EXPIRE_SLICE as u64 => {
                    ctx.run_later(Duration::from_millis(10), Self::expire);
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "expired messages could not be removed"),
            }
            me.take_up(ctx);
        });
    }
}

/// Reads are bounded; the reader says it again.
fn refuse_too_many(added: Result<(), RefuseTo>) {
    if let Err(refuse) = added {
        refuse_read(&refuse, ErrorCode::StorageUnavailable);
    }
}

/// A full or gone session: the client learns nothing, and nothing was changed.
fn refuse_read(refuse: &RefuseTo, code: ErrorCode) {
    let _ = refuse.session.try_tell(Refuse {
        connection: refuse.connection,
        id: refuse.id,
        code,
    });
}

impl Handle<Entrusted> for OfflineQueue {
    fn handle(&mut self, entrusted: Entrusted, ctx: &mut Ctx<Self>) {
        if let Some(matter) = entrusted.take() {
            self.attend_to(matter, ctx);
        }
    }
}

impl OfflineQueue {
    fn attend_to(&mut self, matter: Matter, ctx: &mut Ctx<Self>) {
        match matter {
            Matter::Mark(Watermark { sender, mark }) => self.move_mark(sender, mark, ctx),
            Matter::Read(read) => self.read_up_to(read, ctx),
        }
    }

    /// Takes up what the generation before left, in the order in which that had it.
    fn take_over(&mut self, ctx: &mut Ctx<Self>) {
        let Left { calls, waiting } = self.home.take();
        for (turn, call) in calls {
            match &turn {
                Turn::Steps(user) => {
                    self.steps.entry(user.clone()).or_default();
                }
                Turn::Marks(sender, since) => {
                    self.marks.begin(sender, *since);
                }
            }
            self.wait_for(turn, call, ctx);
        }
        for left in waiting {
            for (user, steps) in left.steps {
                if !steps.is_empty() && !self.steps.contains_key(&user) {
                    self.steps_turns.push_back(user.clone());
                }
                if !steps.is_empty() {
                    self.steps.entry(user).or_default().extend(steps);
                }
            }
            self.marks.take_over(left.marks);
            self.outgoing.take_over(left.outgoing);
            for Watermark { sender, mark } in left.delivering {
                self.forward(sender, mark, ctx);
            }
        }
        while let Some(matter) = self.home.next_matter() {
            self.attend_to(matter, ctx);
        }
        self.pass_on_waiting(ctx);
        self.take_up(ctx);
        self.marks_wait(ctx);
    }
}

/// Also at its end in order, where nobody comes after it: the marks that wait then are derived
/// again at the next start.
impl Drop for OfflineQueue {
    fn drop(&mut self) {
        self.home.leave(Waiting {
            steps: std::mem::take(&mut self.steps),
            marks: std::mem::replace(&mut self.marks, Marks::new()),
            outgoing: std::mem::replace(&mut self.outgoing, Marks::new()),
            delivering: std::mem::take(&mut self.delivering),
        });
    }
}

/// Fault injection.
pub(crate) struct Panic;

impl Handle<Panic> for OfflineQueue {
    fn handle(&mut self, _: Panic, _: &mut Ctx<Self>) {
        panic!("injected into an offline queue");
    }
}
