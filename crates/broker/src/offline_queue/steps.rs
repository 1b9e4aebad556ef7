//! What a user's devices say of the messages they got, one at a time for each
//! user: acknowledgements, and what was read.
//!
//! Nothing of it is given up when the store is behind: what waits is bounded by
//! the devices, for acknowledgements are cumulative, and by [`READS_MAX`].

use std::collections::VecDeque;

use futures_util::FutureExt;
use stonechat_actors::{Ctx, Handle};
use stonechat_mailbox::{AckOutcome, MailboxRef, StoreError};
use stonechat_protocol::{DeviceId, ErrorCode, MessageId, Seq, UserId};
use stonechat_trace::Span;

use super::handover::{Call, Done, Turn};
use super::{OfflineQueue, STORE_CALLS_MAX, Watermark, refuse_read, refuse_too_many};
use crate::receipts::{Mark, RefuseTo};
use crate::traced;

/// Messages looked through for one that was read but not yet acknowledged.
const FIND_SCAN_MAX: usize = 4096;
/// Reads of one user that may wait for the store; beyond it they are refused.
const READS_MAX: usize = 256;

/// A device acknowledged.
pub(crate) struct Ack {
    pub(crate) mailbox: MailboxRef,
    pub(crate) device: DeviceId,
    pub(crate) upto: Seq,
    /// Of messages acknowledged by it that are followed.
    pub(crate) spans: Vec<Span>,
}

/// A user read something; asked of the reader's queue.
pub(crate) struct ReadUpTo {
    pub(crate) reader: MailboxRef,
    pub(crate) from: UserId,
    pub(crate) id: MessageId,
    pub(crate) refuse: RefuseTo,
}

/// What a user's devices say of the messages they got.
pub(super) enum Step {
    Ack(Ack),
    Read(ReadUpTo),
}

impl Handle<Ack> for OfflineQueue {
    fn handle(&mut self, ack: Ack, ctx: &mut Ctx<Self>) {
        let user = ack.mailbox.user().clone();
        if let Some(waiting) = self.steps.get_mut(&user) {
            merge(waiting, ack);
        } else {
            self.first_step(user, Step::Ack(ack), ctx);
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
        Some(other) => {
            other.upto = other.upto.max(ack.upto);
            other.spans.extend(ack.spans);
        }
        None => waiting.push_back(Step::Ack(ack)),
    }
}

impl OfflineQueue {
    /// The only step of this user is taken now if the store may be asked, otherwise in turn.
    fn first_step(&mut self, user: UserId, step: Step, ctx: &mut Ctx<Self>) {
        if ctx.futures_len() < STORE_CALLS_MAX {
            self.run_step(&user, step, ctx);
        } else {
            self.steps.insert(user.clone(), VecDeque::from([step]));
            self.steps_turns.push_back(user);
        }
    }

    /// Takes a user's steps until one has to wait.
    pub(super) fn run_steps(&mut self, user: &UserId, ctx: &mut Ctx<Self>) {
        while let Some(step) = self.steps.get_mut(user).and_then(VecDeque::pop_front) {
            if !self.run_step(user, step, ctx) {
                return;
            }
        }
        self.steps.remove(user);
    }

    /// `false`: the user's next step has to wait.
    fn run_step(&mut self, user: &UserId, step: Step, ctx: &mut Ctx<Self>) -> bool {
        let store = &self.shared.store;
        match step {
            Step::Ack(ack) => {
                let mut work = store.ack(&ack.mailbox, &ack.device, ack.upto);
                if let Some(outcome) = (&mut work).now_or_never() {
                    return self.acked(ack, outcome, ctx);
                }
                let call = work.map(|outcome| Done::Acked(ack, outcome)).boxed();
                self.step_waits(user, call, ctx);
            }
            Step::Read(read) => {
                let mut work = store.find(&read.reader, &read.from, read.id, FIND_SCAN_MAX);
                if let Some(found) = (&mut work).now_or_never() {
                    return self.looked_up(read, found, ctx);
                }
                let call = work.map(|found| Done::Found(read, found)).boxed();
                self.step_waits(user, call, ctx);
            }
        }
        false
    }

    fn step_waits(&mut self, user: &UserId, call: Call, ctx: &mut Ctx<Self>) {
        self.steps.entry(user.clone()).or_default();
        self.wait_for(Turn::Steps(user.clone()), call, ctx);
    }

    pub(super) fn step_done(&mut self, user: &UserId, next: bool, ctx: &mut Ctx<Self>) {
        if next {
            self.run_steps(user, ctx);
        }
    }

    /// The store has too much to do for a step: it comes first when it is asked again.
    fn step_again(&mut self, user: UserId, step: Step, ctx: &mut Ctx<Self>) -> bool {
        self.steps.entry(user.clone()).or_default().push_front(step);
        self.steps_again.push(user);
        self.try_again(ctx);
        false
    }

    /// `false`: it has to be done again.
    pub(super) fn acked(
        &mut self,
        ack: Ack,
        outcome: Result<AckOutcome, StoreError>,
        ctx: &mut Ctx<Self>,
    ) -> bool {
        let reader = ack.mailbox.user();
        match outcome {
            Ok(outcome) => {
                if !ack.spans.is_empty() {
                    self.end_when_durable(ack.spans, ctx);
                }
                let delivered = outcome.delivered.into_iter();
                let delivered = delivered.filter(|(sender, _)| sender != reader);
                self.delivering
                    .extend(delivered.map(|(sender, id)| Watermark {
                        sender,
                        mark: Mark::Delivered {
                            with: reader.clone(),
                            id,
                            upto: ack.upto,
                        },
                    }));
                while let Some(Watermark { sender, mark }) = self.delivering.pop_front() {
                    self.forward(sender, mark, ctx);
                }
            }
            Err(StoreError::Overloaded) => {
                return self.step_again(reader.clone(), Step::Ack(ack), ctx);
            }
            // The device was removed, or the account: nothing waits for it any more.
            Err(StoreError::NotFound(_) | StoreError::UnknownUser(_)) => {}
            Err(error) => tracing::error!(%error, "an acknowledgement could not be stored"),
        }
        true
    }

    /// Beyond what may be waited for they end unfinished.
    fn end_when_durable(&mut self, spans: Vec<Span>, ctx: &mut Ctx<Self>) {
        if ctx.futures_len() < STORE_CALLS_MAX {
            let flushed = self.shared.store.flushed();
            ctx.spawn_then(flushed, move |me, flushed, ctx| {
                traced::ack_durable(spans, flushed.is_ok());
                me.take_up(ctx);
            });
        }
    }

    /// `false`: it has to be done again.
    pub(super) fn looked_up(
        &mut self,
        read: ReadUpTo,
        found: Result<Option<Seq>, StoreError>,
        ctx: &mut Ctx<Self>,
    ) -> bool {
        match found {
            Ok(found) => {
                let mark = Mark::Read {
                    with: read.reader.user().clone(),
                    id: read.id,
                    found,
                    refuse: read.refuse,
                };
                self.forward(read.from, mark, ctx);
            }
            Err(StoreError::Overloaded) => {
                let user = read.reader.user().clone();
                return self.step_again(user, Step::Read(read), ctx);
            }
            Err(error) => {
                tracing::error!(%error, "a mailbox could not be searched");
                refuse_read(&read.refuse, ErrorCode::Internal);
            }
        }
        true
    }
}

impl OfflineQueue {
    pub(super) fn read_up_to(&mut self, read: ReadUpTo, ctx: &mut Ctx<Self>) {
        let user = read.reader.user().clone();
        match self.steps.get_mut(&user) {
            Some(waiting) if waiting.len() < READS_MAX => waiting.push_back(Step::Read(read)),
            Some(_) => refuse_too_many(Err(read.refuse)),
            None => self.first_step(user, Step::Read(read), ctx),
        }
    }
}
