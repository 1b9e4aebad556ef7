//! Answers to sends: from the store's notices, or from the store itself when
//! notices may have been lost.

use std::sync::{Arc, Weak};
use std::time::Instant;

use stonechat_actors::{Ctx, Handle};
use stonechat_delivery::{Answer as SenderAnswer, Outcome};
use stonechat_mailbox::{Envelope, Unavailable};
use stonechat_protocol::{Accepted, DeviceId, ErrorCode, ErrorFrame, MessageId, Seen};

use super::{Session, decrement};
use crate::Event;
use crate::figures::{self, FIGURES};
use crate::router::RETRY_AFTER_MS;
use crate::settle::settle;

/// What became of an append; for the session of the sender.
pub(crate) struct Answer {
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) outcome: Result<(), Unavailable>,
    /// When the commit was heard of.
    pub(crate) since: Instant,
    /// Tell the device at once, even if a message that it could share a write with is likely.
    pub(crate) hurry: bool,
}

impl Session {
    pub(super) fn give_answers(&mut self, device: &DeviceId, answers: &[SenderAnswer]) {
        self.answer_sends(device, answers, None);
    }

    /// Tells a device; if it is in a conversation and the answers `may_wait` since then, with what it is
    /// told next. `false` when an answer waits for that: then a tick has to come.
    fn answer_sends(
        &mut self,
        device: &DeviceId,
        answers: &[SenderAnswer],
        may_wait: Option<Instant>,
    ) -> bool {
        let mut told = true;
        for answer in answers {
            let event = match answer.outcome {
                Outcome::Accepted { ts_ms, duplicate } => {
                    FIGURES.accepted.increment(1);
                    if duplicate {
                        FIGURES.duplicates.increment(1);
                    }
                    Event::Accepted(Accepted {
                        id: answer.id,
                        ts_ms,
                        duplicate,
                        ephemeral: false,
                    })
                }
                Outcome::Refused {
                    code,
                    retry_after_ms,
                } => {
                    figures::refused(code);
                    error_event(answer.id, code, retry_after_ms)
                }
            };
            if let Some(at) = self.device_named(device) {
                let may_wait = may_wait.filter(|_| self.devices[at].in_talk != [false; 2]);
                if may_wait.is_none() {
                    self.ride(at);
                }
                let slot = &self.devices[at].slot;
                decrement(&slot.unanswered);
                // A closed connection asks again when it is back.
                let _ = match may_wait {
                    None => slot.outlet.push(event),
                    Some(since) => slot.outlet.push_waiting(event, since),
                };
                told &= may_wait.is_none();
            }
        }
        told
    }

    pub(super) fn refuse_send(
        &mut self,
        connection: u64,
        id: MessageId,
        code: ErrorCode,
        retry_after_ms: Option<u64>,
    ) {
        figures::refused(code);
        if let Some(at) = self.device_at(connection) {
            let slot = &self.devices[at].slot;
            decrement(&slot.unanswered);
            let _ = slot.outlet.push(error_event(id, code, retry_after_ms));
        }
    }

    /// Answers may have been lost: what is in flight is found out from the store.
    pub(super) fn reconcile_senders(&mut self, ctx: &mut Ctx<Self>) {
        let unheard = self.senders.iter().filter(|s| !s.appended.is_empty());
        let unheard: Vec<_> = unheard
            .map(|sender| (sender.device.clone(), sender.appended.clone()))
            .collect();
        for (device, appended) in unheard {
            let work = self.shared.store.barrier();
            settle(self, ctx, work, move |me, through, _| {
                if through.is_ok() {
                    me.reconcile(&device, &appended);
                }
            });
        }
    }

    fn reconcile(&mut self, device: &DeviceId, appended: &[(MessageId, Weak<Envelope>)]) {
        let window = self
            .anchor
            .mailbox
            .device(device)
            .map(|state| state.window)
            .unwrap_or_default();
        for (id, envelope) in appended {
            let Some(sender) = self.sender_mut(device) else {
                return;
            };
            if !sender.hears_of(envelope.as_ptr()) {
                continue;
            }
            let Some(outbound) = sender.outbound.as_mut() else {
                return;
            };
            let answers = match window.classify(*id) {
                Seen::Accepted { ts_ms } => outbound.committed(*id, ts_ms),
                _ => outbound.abandoned(*id, Some(RETRY_AFTER_MS)),
            };
            self.give_answers(device, &answers);
        }
        self.forget_idle_sender(device);
    }

    /// The sender of a device that is gone stays only until all its sends were heard of.
    fn forget_idle_sender(&mut self, device: &DeviceId) {
        if self.device_named(device).is_none() {
            self.senders
                .retain(|sender| sender.device != *device || !sender.is_idle());
        }
    }
}

fn error_event(id: MessageId, code: ErrorCode, retry_after_ms: Option<u64>) -> Event {
    Event::Error(Box::new(ErrorFrame {
        code,
        message: code.describe().to_owned(),
        reference: Some(id),
        retry_after_ms,
    }))
}

impl Handle<Answer> for Session {
    fn handle(&mut self, answer: Answer, ctx: &mut Ctx<Self>) {
        let Answer {
            envelope,
            outcome,
            since,
            hurry,
        } = answer;
        let device = &envelope.from.device;
        // Unknown after a panic, or for a dead letter put back: nobody waits for it.
        let Some(sender) = self.sender_mut(device) else {
            return;
        };
        let mine = sender.hears_of(Arc::as_ptr(&envelope));
        let Some(outbound) = sender.outbound.as_mut() else {
            return;
        };
        let answers = match outcome {
            Ok(()) => outbound.committed(envelope.id, envelope.ts_ms),
            Err(_) if mine => outbound.abandoned(envelope.id, Some(RETRY_AFTER_MS)),
            // Of an earlier session's send: its resend, if there was one, has an answer of
            // its own to come.
            Err(_) => return,
        };
        self.busy |= !hurry;
        // It may have waited in the inbox already, also while there was a tick.
        let due = since + self.tick_length();
        let may_wait = !hurry && Instant::now() < due;
        if !self.answer_sends(device, &answers, may_wait.then_some(since)) {
            self.tick_by(due, ctx);
        }
        self.forget_idle_sender(device);
    }
}
