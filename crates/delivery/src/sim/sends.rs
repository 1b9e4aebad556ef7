//! The simulated server's side of sends: the sender's machine, its window, the
//! rate limit, and the answers.

use stonechat_protocol::{ErrorCode, IdWindow, MessageId, Seen, UNACCEPTED_MAX};

use super::coverage::Case;
use super::plan::DEVICES_MAX;
use super::transitions::{OutboundEvent, WindowEvent, WindowState};
use super::types::{Append, Dev, Down, Stage, index_of};
use super::world::World;
use super::{OutboundState, Sabotage};
use crate::{Answers, Outbound, Outcome, SendDecision, expiry};

/// Longest time a message waits, seconds.
const TTL_S_MAX: u64 = 3600;

impl World {
    pub(super) fn on_send(&mut self, ix: usize, msg: usize) {
        let dev = self.conns[ix].dev;
        if self.msgs[msg].ephemeral {
            self.hit(Case::SendEphemeral);
            self.send_ephemeral(msg);
            let (id, duplicate) = (self.msgs[msg].id, false);
            self.push_down(ix, Down::Accepted { id, duplicate });
            return;
        }
        let id = self.msgs[msg].id;
        self.conns[ix].unanswered += 1;
        let limits = self.rate_limits();
        let window = self.load_window(dev);
        let (now_ms, size) = (self.now_ms, self.msgs[msg].size);
        let early = self.sabotaged(Sabotage::LimitResends);
        let Some(session) = &mut self.sessions[dev.user] else {
            return;
        };
        if early && session.bucket.take(&limits, size, now_ms).is_err() {
            self.answer_error(ix, ErrorCode::RateLimited, msg);
            return;
        }
        let outbound = session.outbounds[dev.dev].get_or_insert_with(|| Outbound::new(window));
        let (state, window) = (outbound.state(), window_state(outbound.window()));
        let seen = outbound.window().classify(id);
        let decision = outbound.submit(id);
        let transitions = &mut self.coverage.transitions;
        transitions.window(window, seen_event(seen));
        transitions.outbound(state, decision_event(decision));
        if matches!(
            decision,
            SendDecision::InFlight | SendDecision::DuplicateLater | SendDecision::Duplicate { .. }
        ) && !self.msgs[msg].asked_twice
        {
            self.hit(Case::ResentAfterReconnect);
        }
        self.note(|| format!("message {msg} is {decision:?}"));
        let fresh_anyway = self.sabotaged(Sabotage::DuplicateAsFresh);
        match decision {
            SendDecision::Fresh => {
                self.hit(Case::SendFresh);
                self.on_fresh(msg);
            }
            SendDecision::Duplicate { .. } if fresh_anyway => self.hand_on(msg),
            SendDecision::Duplicate { .. } => {
                self.hit(Case::SendDuplicate);
                self.answer_accepted(ix, msg, true);
            }
            SendDecision::DuplicateLater => self.hit(Case::SendDuplicateLater),
            SendDecision::InFlight => self.hit(Case::SendInFlight),
            SendDecision::TooOld => {
                self.hit(Case::SendTooOld);
                self.answer_error(ix, ErrorCode::IdTooOld, msg);
            }
            SendDecision::TooMany => {
                self.hit(Case::SendTooMany);
                self.answer_error(ix, ErrorCode::TooManyUnanswered, msg);
            }
        }
    }

    fn load_window(&mut self, dev: Dev) -> IdWindow {
        let loaded = self.sessions[dev.user]
            .as_ref()
            .is_some_and(|session| session.outbounds[dev.dev].is_some());
        if loaded {
            return IdWindow::default();
        }
        let window = self.store.row(dev).window.clone();
        if self.sabotaged(Sabotage::SmallWindow) {
            let entries = window.entries();
            let kept = entries.range(entries.len().saturating_sub(8)..);
            return IdWindow::from_entries(kept.copied());
        }
        window
    }

    fn on_fresh(&mut self, msg: usize) {
        let limits = self.rate_limits();
        let (from, size, now_ms) = (self.msgs[msg].from, self.msgs[msg].size, self.now_ms);
        let Some(session) = &mut self.sessions[from.user] else {
            return;
        };
        let went_back = std::mem::replace(&mut session.bucket_ms, now_ms) > now_ms;
        let taken = session.bucket.take(&limits, size, now_ms);
        // Without its bytes it would have passed, or not.
        let without_bytes = session.bucket.clone().take(&limits, 0, now_ms);
        if went_back {
            self.hit(Case::BucketClockBack);
        }
        if let Err(limited) = taken {
            self.hit(match without_bytes {
                Ok(()) => Case::BucketShortOfBytes,
                Err(_) => Case::BucketShortOfMessages,
            });
            self.hit(Case::RefusedRateLimited);
            let retry = Some(limited.retry_after_ms);
            self.decide(msg, OutboundEvent::Refused, |outbound, id| {
                outbound.refused(id, ErrorCode::RateLimited, retry)
            });
            return;
        }
        self.hit(Case::BucketPaid);
        let ttl_s = self.msgs[msg].ttl_ms / 1000;
        self.hit(if ttl_s > TTL_S_MAX {
            Case::ExpiryCapped
        } else {
            Case::ExpiryAsked
        });
        self.msgs[msg].ts_ms = now_ms;
        self.msgs[msg].expires_ms = expiry::expires_ms(now_ms, Some(ttl_s), TTL_S_MAX);
        self.hand_on(msg);
    }

    pub(super) fn session_now(&self, user: usize) -> Option<u64> {
        self.sessions[user].as_ref().map(|session| session.number)
    }

    /// To the user's shard, in the order of the sends.
    fn hand_on(&mut self, msg: usize) {
        let user = self.msgs[msg].from.user;
        self.submitted[user] += 1;
        let shard = user % self.shards.len();
        let session = self.session_now(user).unwrap_or(0);
        self.shards[shard].push_back(Append {
            msg,
            mailboxes: Default::default(),
            session,
        });
    }

    /// Lets the sender's machine know and gives the answers it releases.
    pub(super) fn decide(
        &mut self,
        msg: usize,
        event: OutboundEvent,
        tell: impl FnOnce(&mut Outbound, MessageId) -> Answers,
    ) {
        let (from, id) = (self.msgs[msg].from, self.msgs[msg].id);
        let Some(session) = &mut self.sessions[from.user] else {
            return;
        };
        let conn = session.conns[from.dev];
        let Some(outbound) = &mut session.outbounds[from.dev] else {
            return;
        };
        let (state, window) = (outbound.state(), window_state(outbound.window()));
        let known = outbound.window().classify(id) != Seen::New;
        let answers = tell(outbound, id);
        let transitions = &mut self.coverage.transitions;
        transitions.outbound(state, event);
        if event == OutboundEvent::Committed {
            // A session that was made when it was stored already had it in its window.
            let event = match known {
                true => WindowEvent::Repeated,
                false => WindowEvent::Inserted,
            };
            transitions.window(window, event);
        }
        if answers.len() > 1 {
            self.hit(Case::AnswersSeveral);
        } else if answers.is_empty() && state == OutboundState::Unowed {
            self.hit(Case::AnswerToNobody);
        }
        let Some(ix) = conn else { return };
        for answer in answers {
            let msg = index_of(answer.id);
            match answer.outcome {
                Outcome::Accepted { duplicate, .. } => self.answer_accepted(ix, msg, duplicate),
                Outcome::Refused { code, .. } => self.answer_error(ix, code, msg),
            }
        }
    }

    fn answer_accepted(&mut self, ix: usize, msg: usize, duplicate: bool) {
        let case = if duplicate {
            Case::AnswerDuplicate
        } else {
            Case::AnswerAccepted
        };
        self.hit(case);
        self.check_answer(msg, duplicate);
        self.conns[ix].unanswered = self.conns[ix].unanswered.saturating_sub(1);
        let id = self.msgs[msg].id;
        self.push_down(ix, Down::Accepted { id, duplicate });
    }

    fn answer_error(&mut self, ix: usize, code: ErrorCode, msg: usize) {
        self.hit(Case::AnswerRefused);
        self.conns[ix].unanswered = self.conns[ix].unanswered.saturating_sub(1);
        let id = Some(self.msgs[msg].id);
        self.push_down(ix, Down::Error { code, id });
    }

    fn send_ephemeral(&mut self, msg: usize) {
        let (from, to) = (self.msgs[msg].from, self.msgs[msg].to);
        for ix in to
            .map_or([None; DEVICES_MAX], |to| self.conns_of(to))
            .into_iter()
            .flatten()
        {
            let conn = &self.conns[ix];
            if conn.dev != from && conn.stage == Stage::Attached && conn.down.len() < 100 {
                let redelivered = false;
                self.push_down(
                    ix,
                    Down::Message {
                        seq: 0,
                        msg,
                        redelivered,
                    },
                );
            }
        }
    }
}

fn window_state(window: &IdWindow) -> WindowState {
    match window.entries().len() {
        0 => WindowState::Empty,
        UNACCEPTED_MAX => WindowState::Full,
        _ => WindowState::Partial,
    }
}

fn seen_event(seen: Seen) -> WindowEvent {
    match seen {
        Seen::New => WindowEvent::New,
        Seen::Accepted { .. } => WindowEvent::Accepted,
        Seen::Below => WindowEvent::Below,
    }
}

fn decision_event(decision: SendDecision) -> OutboundEvent {
    match decision {
        SendDecision::Fresh => OutboundEvent::Fresh,
        SendDecision::Duplicate { .. } => OutboundEvent::Duplicate,
        SendDecision::DuplicateLater => OutboundEvent::DuplicateLater,
        SendDecision::InFlight => OutboundEvent::InFlight,
        SendDecision::TooOld => OutboundEvent::TooOld,
        SendDecision::TooMany => OutboundEvent::TooMany,
    }
}
