//! The way of a device's sends to the journal, in the order of the sends.
//!
//! Each sending device has one line. Its head is classified, its recipient
//! looked up, and the message handed to the store; whatever the head has to
//! wait for (its window, a mailbox that is not in memory, a journal that is at
//! its limit), the rest waits behind it. So the journal holds a device's sends
//! in order, and a crash keeps a prefix of them (contract D2, D3).

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use smallvec::SmallVec;
use stonechat_actors::Ctx;
use stonechat_delivery::{
    Answer as SenderAnswer, Limited, Outbound, Outcome, RateLimits, SendDecision, TokenBucket,
    expiry,
};
use stonechat_mailbox::{Append, AppendError, Envelope, MailboxRef, StoreError};
use stonechat_protocol::{Address, DeviceId, ErrorCode, MessageId, UNACCEPTED_MAX, UserId};
use stonechat_trace::{Span, TraceRef};

use super::Session;
use crate::RateConfig;
use crate::figures::FIGURES;
use crate::router::RETRY_AFTER_MS;
use crate::settle::settle;
use crate::shared::now_ms;
use crate::traced;

/// A send, as it came.
pub(crate) struct Send {
    pub(crate) id: MessageId,
    pub(crate) to: UserId,
    pub(crate) body: Bytes,
    pub(crate) ttl_s: Option<u64>,
    /// Until it is in line for the journal, when it is followed.
    pub(crate) span: Option<Box<Span>>,
}

/// A send in line.
struct Waiting {
    send: Send,
    connection: u64,
    /// Classified as new by the `Outbound`, which now waits to hear of it.
    submitted: bool,
    recipient: Option<MailboxRef>,
}

/// One sending device.
pub(crate) struct Sender {
    pub(super) device: DeviceId,
    /// Absent until the device's window is loaded.
    pub(super) outbound: Option<Outbound>,
    line: VecDeque<Waiting>,
    /// Handed to the store by this very session and not heard of. The id alone would not do:
    /// news of an earlier session's send would be taken for news of its resend.
    pub(super) appended: Vec<(MessageId, Weak<Envelope>)>,
    /// The head waits for something; its coming calls `advance`.
    blocked: bool,
}

impl Sender {
    pub(crate) fn on_the_way(&self) -> usize {
        self.line.len() + self.outbound.as_ref().map_or(0, Outbound::in_flight)
    }

    /// Whether this session handed the message to the store and had not heard of it until now.
    pub(super) fn hears_of(&mut self, envelope: *const Envelope) -> bool {
        let at = self
            .appended
            .iter()
            .position(|(_, appended)| appended.as_ptr() == envelope);
        at.map(|at| self.appended.remove(at)).is_some()
    }

    /// Nothing is known of it that the store does not know.
    pub(super) fn is_idle(&self) -> bool {
        self.line.is_empty() && self.outbound.as_ref().is_none_or(Outbound::is_idle)
    }
}

/// What the head of a line came to.
enum Step {
    /// It is out of the line; answers to give.
    Done(SmallVec<[SenderAnswer; 1]>),
    /// It is refused without having been taken up.
    Refused(ErrorCode),
    /// It has to wait.
    Blocked,
}

impl Session {
    /// A `send` frame.
    pub(super) fn take_send(
        &mut self,
        (connection, unanswered): (u64, u32),
        send: Send,
        ephemeral: bool,
        ctx: &mut Ctx<Self>,
    ) {
        let Some(at) = self.device_at(connection) else {
            return;
        };
        FIGURES.received.increment(1);
        let slot = Arc::clone(&self.devices[at].slot);
        if unanswered as usize > UNACCEPTED_MAX {
            self.refuse_send(connection, send.id, ErrorCode::TooManyUnanswered, None);
            traced::refused(send.span, ErrorCode::TooManyUnanswered);
            return;
        }
        if ephemeral {
            self.send_ephemeral(connection, send, ctx);
            return;
        }
        let waiting = Waiting {
            send,
            connection,
            submitted: false,
            recipient: None,
        };
        if let Some(sender) = self.sender_mut(&slot.device) {
            sender.line.push_back(waiting);
            if !sender.blocked {
                self.advance(&slot.device, ctx);
            }
            return;
        }
        self.senders.push(Sender {
            device: slot.device.clone(),
            outbound: None,
            line: VecDeque::from([waiting]),
            appended: Vec::new(),
            blocked: true,
        });
        self.load_window(slot.device.clone(), ctx);
    }

    pub(super) fn sender_mut(&mut self, device: &DeviceId) -> Option<&mut Sender> {
        self.senders
            .iter_mut()
            .find(|sender| sender.device == *device)
    }

    /// Sends of an earlier session may still be on their way to the journal, so the window
    /// counts only after everything queued so far is through. (Signing in waits for the same, so
    /// no test can tell whether this does; it does not depend on that from here.)
    fn load_window(&mut self, device: DeviceId, ctx: &mut Ctx<Self>) {
        let work = self.shared.store.barrier();
        settle(self, ctx, work, move |me, through, ctx| {
            let window = me
                .anchor
                .mailbox
                .device(&device)
                .map(|state| state.window)
                .unwrap_or_default();
            let Some(sender) = me.sender_mut(&device) else {
                return;
            };
            if sender.outbound.is_some() {
                return;
            }
            match through {
                Ok(()) => {
                    sender.outbound = Some(Outbound::new(window));
                    sender.blocked = false;
                    me.advance(&device, ctx);
                }
                Err(error) => me.give_up_line(&device, &error),
            }
        });
    }

    /// The store is gone: nothing in line can be accepted.
    fn give_up_line(&mut self, device: &DeviceId, error: &StoreError) {
        tracing::warn!(user = %self.user(), %error, "sends are refused: the store does not accept");
        let Some(at) = self.senders.iter().position(|s| s.device == *device) else {
            return;
        };
        let sender = self.senders.swap_remove(at);
        for waiting in sender.line {
            self.refuse_send(
                waiting.connection,
                waiting.send.id,
                ErrorCode::StorageUnavailable,
                Some(RETRY_AFTER_MS),
            );
            traced::refused(waiting.send.span, ErrorCode::StorageUnavailable);
        }
    }

    /// Moves a device's line as far as it goes.
    fn advance(&mut self, device: &DeviceId, ctx: &mut Ctx<Self>) {
        loop {
            let Some(at) = self.senders.iter().position(|s| s.device == *device) else {
                return;
            };
            let sender = &mut self.senders[at];
            let Some(head) = sender.line.front() else {
                sender.blocked = false;
                if sender.line.capacity() > 8 {
                    sender.line = VecDeque::new();
                }
                return;
            };
            let (connection, id) = (head.connection, head.send.id);
            match self.step(at, device, ctx) {
                Step::Blocked => {
                    if let Some(sender) = self.sender_mut(device) {
                        sender.blocked = true;
                    }
                    return;
                }
                Step::Refused(code) => {
                    let refused = self.senders[at].line.pop_front();
                    traced::refused(refused.and_then(|head| head.send.span), code);
                    self.refuse_send(connection, id, code, None);
                }
                Step::Done(answers) => {
                    self.senders[at].line.pop_front();
                    self.give_answers(device, &answers);
                }
            }
        }
    }

    fn step(&mut self, at: usize, device: &DeviceId, ctx: &mut Ctx<Self>) -> Step {
        let sender = &mut self.senders[at];
        let (Some(outbound), Some(head)) = (sender.outbound.as_mut(), sender.line.front_mut())
        else {
            return Step::Blocked;
        };
        let id = head.send.id;
        if !head.submitted {
            match outbound.submit(id) {
                SendDecision::Fresh => {
                    head.submitted = true;
                    // Only what is new costs tokens: refusing the resend of something
                    // accepted would make its sender send it again under a new id.
                    let rate = &self.shared.config.rate;
                    let own = self.anchor.mailbox.messages_per_s();
                    if let Err(limited) = take_tokens(&mut self.rate, rate, own, &head.send) {
                        let retry = Some(limited.retry_after_ms);
                        traced::refused(head.send.span.take(), ErrorCode::RateLimited);
                        return Step::Done(outbound.refused(id, ErrorCode::RateLimited, retry));
                    }
                }
                SendDecision::Duplicate { ts_ms } => {
                    let outcome = Outcome::Accepted {
                        ts_ms,
                        duplicate: true,
                    };
                    traced::duplicate(head.send.span.take());
                    return Step::Done(SmallVec::from_iter([SenderAnswer { id, outcome }]));
                }
                SendDecision::DuplicateLater | SendDecision::InFlight => {
                    traced::duplicate(head.send.span.take());
                    return Step::Done(SmallVec::new());
                }
                SendDecision::TooOld => return Step::Refused(ErrorCode::IdTooOld),
                SendDecision::TooMany => return Step::Refused(ErrorCode::TooManyUnanswered),
            }
        }
        let recipient = match &head.recipient {
            Some(recipient) => Arc::clone(recipient),
            None if head.send.to == self.anchor.user => Arc::clone(&self.anchor.mailbox),
            None => match self.shared.store.resident(&head.send.to) {
                Some(recipient) => recipient,
                None => {
                    let wanted = (head.connection, id, head.send.to.clone());
                    self.look_up_recipient(device.clone(), wanted, ctx);
                    return Step::Blocked;
                }
            },
        };
        self.append(at, recipient, ctx)
    }

    fn look_up_recipient(
        &mut self,
        device: DeviceId,
        (connection, id, to): (u64, MessageId, UserId),
        ctx: &mut Ctx<Self>,
    ) {
        let work = self.shared.store.open(&to);
        // Never at once: the caller is in the middle of the line.
        ctx.spawn_then(work, move |me, opened, ctx| {
            let Some(sender) = me.sender_mut(&device) else {
                return;
            };
            let (Some(outbound), Some(head)) = (sender.outbound.as_mut(), sender.line.front_mut())
            else {
                sender.blocked = false;
                return;
            };
            // The line may have been cleared meanwhile, and filled again by a new connection.
            if head.submitted && head.connection == connection && head.send.id == id {
                let refused = match opened {
                    Ok(Some(recipient)) => {
                        head.recipient = Some(recipient);
                        None
                    }
                    Ok(None) => Some(ErrorCode::UnknownUser),
                    Err(error) => {
                        not_opened(&error);
                        Some(ErrorCode::StorageUnavailable)
                    }
                };
                if let Some(code) = refused {
                    traced::refused(head.send.span.take(), code);
                    let answers = outbound.refused(id, code, retry_after(code));
                    sender.line.pop_front();
                    me.give_answers(&device, &answers);
                }
            }
            me.advance(&device, ctx);
        });
    }

    fn append(&mut self, at: usize, recipient: MailboxRef, ctx: &mut Ctx<Self>) -> Step {
        let own = &self.anchor.mailbox;
        let sender = &mut self.senders[at];
        let (Some(outbound), Some(head)) = (sender.outbound.as_mut(), sender.line.front_mut())
        else {
            return Step::Blocked;
        };
        let ts_ms = now_ms();
        let id = head.send.id;
        let ttl_s_max = self.shared.config.limits.ttl_s_max;
        let envelope = Envelope {
            from: Address {
                user: self.anchor.user.clone(),
                device: sender.device.clone(),
            },
            to: head.send.to.clone(),
            id,
            ts_ms,
            expires_ms: expiry::expires_ms(ts_ms, head.send.ttl_s, ttl_s_max),
            body: std::mem::take(&mut head.send.body),
            trace: TraceRef::of(head.send.span.as_deref()),
        };
        // Before the committer can have it.
        if let Some(trace) = envelope.trace.get() {
            trace.queue();
        }
        let mut recipients: SmallVec<[MailboxRef; 2]> = SmallVec::new();
        let copy = envelope.to != self.anchor.user && own.has_other_device(&sender.device);
        head.recipient = Some(Arc::clone(&recipient));
        recipients.push(recipient);
        if copy {
            recipients.push(Arc::clone(own));
        }
        let envelope = Arc::new(envelope);
        let append = Append {
            envelope: Arc::clone(&envelope),
            sender: Arc::clone(own),
            recipients,
        };
        match self.shared.store.append(append) {
            Ok(()) => {
                sender.appended.push((id, Arc::downgrade(&envelope)));
                if let Some(span) = head.send.span.take() {
                    let queued = span.trace().queued();
                    span.end_at(queued);
                }
                Step::Done(SmallVec::new())
            }
            Err(AppendError::MailboxFull) => {
                traced::refused(head.send.span.take(), ErrorCode::MailboxFull);
                Step::Done(outbound.refused(id, ErrorCode::MailboxFull, None))
            }
            Err(AppendError::Unavailable(_)) => {
                traced::refused(head.send.span.take(), ErrorCode::StorageUnavailable);
                Step::Done(outbound.abandoned(id, Some(RETRY_AFTER_MS)))
            }
            Err(AppendError::Busy) => {
                // To be tried again.
                head.send.body = envelope.body.clone();
                let device = sender.device.clone();
                let ready = self.shared.store.ready();
                ctx.spawn_then(ready, move |me, (), ctx| me.advance(&device, ctx));
                Step::Blocked
            }
        }
    }

    /// The device's connection is gone: what was not handed to the store is forgotten, the
    /// device will send it again.
    pub(super) fn sender_disconnected(&mut self, device: &DeviceId) {
        let Some(at) = self.senders.iter().position(|s| s.device == *device) else {
            return;
        };
        let sender = &mut self.senders[at];
        let line = std::mem::take(&mut sender.line);
        if let Some(outbound) = &mut sender.outbound {
            for waiting in line.iter().filter(|waiting| waiting.submitted) {
                // Nobody is there to take the answers.
                let _ = outbound.abandoned(waiting.send.id, None);
            }
            outbound.disconnected();
        }
        sender.blocked = false;
        if sender.is_idle() {
            self.senders.swap_remove(at);
        }
    }
}

pub(super) fn take_tokens(
    bucket: &mut Option<Box<TokenBucket>>,
    rate: &RateConfig,
    own_per_s: Option<u32>,
    send: &Send,
) -> Result<(), Limited> {
    let limits = RateLimits {
        messages_per_s: own_per_s.unwrap_or(rate.messages_per_s),
        messages_burst: own_per_s.map_or(rate.messages_burst, |own| own.saturating_mul(2)),
        bytes_per_s: rate.bytes_per_s,
        bytes_burst: rate.bytes_burst,
    };
    let now = now_ms();
    let bytes = u32::try_from(send.body.len()).unwrap_or(u32::MAX);
    bucket
        .get_or_insert_with(|| Box::new(TokenBucket::new(&limits, now)))
        .take(&limits, bytes, now)
}

pub(super) fn not_opened(error: &StoreError) {
    match error {
        StoreError::Overloaded | StoreError::Unavailable(_) => {
            tracing::debug!(%error, "a mailbox could not be opened");
        }
        error => tracing::error!(%error, "a mailbox could not be opened"),
    }
}

/// Only what passes by itself is worth another try.
fn retry_after(code: ErrorCode) -> Option<u64> {
    (code == ErrorCode::StorageUnavailable).then_some(RETRY_AFTER_MS)
}
