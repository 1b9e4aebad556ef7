//! The sends of one device: which are new, which are resends, and the answers
//! to them in the order of the sends (contract D3).
//!
//! A device's ids strictly increase and at most [`UNACCEPTED_MAX`] of its sends
//! are unanswered. Commits come back in the order of the sends and answers are
//! given in that order too, so whatever a device has no answer for yet is, if it
//! was accepted, among the last [`UNACCEPTED_MAX`] accepted ids: the window
//! recognises every resend. An answer given out of order would break that
//! argument, which is why they queue here.
//!
//! Not here: ephemeral sends (never stored, so never in the window; answer them
//! straight away) and limits. A rate limit must be asked only after `submit` said
//! [`SendDecision::Fresh`]: a resend of something accepted that is told
//! `rate_limited` would be sent once more under a new id.
//!
//! The window must be the store's after everything this device has sent is
//! committed or given up: a session that restarts waits for the store's barrier
//! before it loads it, or a resend of something on its way would look new. For
//! the same reason [`Outbound::refused`] and [`Outbound::abandoned`] must only
//! hear of sends this very machine called fresh: what became of an earlier
//! session's send would be taken for news of its resend. That one was
//! *committed* is true whoever hears it.

use std::collections::VecDeque;

use smallvec::SmallVec;
use stonechat_protocol::{ErrorCode, IdWindow, MessageId, Seen, UNACCEPTED_MAX};

/// What to do with a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendDecision {
    /// New: append it, then report [`Outbound::committed`], [`Outbound::refused`] or
    /// [`Outbound::abandoned`].
    Fresh,
    /// Accepted before: answer `accepted` with `duplicate` now.
    Duplicate {
        /// When it was accepted, milliseconds since the Unix epoch.
        ts_ms: u64,
    },
    /// Accepted before, but earlier sends are still unanswered: nothing to do, the answer
    /// comes with theirs.
    DuplicateLater,
    /// A resend of one that is being committed: nothing to do, it is answered with that one.
    InFlight,
    /// Not above the greatest id accepted or in flight, and neither of them: answer
    /// `id_too_old`. Nothing was accepted under this id.
    TooOld,
    /// [`UNACCEPTED_MAX`] sends are unanswered: answer `too_many_unanswered`.
    TooMany,
}

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable.
    Accepted {
        /// When the server accepted it, milliseconds since the Unix epoch.
        ts_ms: u64,
        /// The send was a resend.
        duplicate: bool,
    },
    /// It was not accepted, and nothing of it is stored.
    Refused {
        /// Why.
        code: ErrorCode,
        /// When to try again, if that is known.
        retry_after_ms: Option<u64>,
    },
}

/// An answer to give to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Id of the send.
    pub id: MessageId,
    /// What became of it.
    pub outcome: Outcome,
}

/// Answers to give now, in order; at most [`UNACCEPTED_MAX`].
pub type Answers = SmallVec<[Answer; 1]>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Being committed. `owed`: this connection waits for the answer; `resent`: it asked
    /// by a resend, so the answer says `duplicate`.
    Committing { owed: bool, resent: bool },
    /// One more send of an id that is being committed.
    Waiting,
    /// Decided, waits for earlier answers.
    Decided(Outcome),
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    id: MessageId,
    state: State,
}

/// One sending device. No heap beyond the window while nothing is in flight.
#[derive(Debug, Default)]
pub struct Outbound {
    window: IdWindow,
    /// In the order of the sends; ids being committed increase. At most [`UNACCEPTED_MAX`].
    slots: VecDeque<Slot>,
}

impl Outbound {
    /// Starts from the window the store kept for the device.
    pub fn new(window: IdWindow) -> Self {
        Self {
            window,
            slots: VecDeque::new(),
        }
    }

    /// Classifies a send. After [`SendDecision::Fresh`] it counts as in flight.
    pub fn submit(&mut self, id: MessageId) -> SendDecision {
        if let Seen::Accepted { ts_ms } = self.window.classify(id) {
            return self.duplicate(id, ts_ms);
        }
        let committing = self.position_committing(id);
        if let Some(at) = committing {
            return self.resent_in_flight(at);
        }
        let newest = self.newest_committing().max(self.window.last());
        if newest.is_some_and(|newest| id <= newest) {
            return SendDecision::TooOld;
        }
        if self.slots.len() >= UNACCEPTED_MAX {
            return SendDecision::TooMany;
        }
        self.slots.push_back(Slot {
            id,
            state: State::Committing {
                owed: true,
                resent: false,
            },
        });
        SendDecision::Fresh
    }

    /// A send is durable. Call in the order of the commits.
    pub fn committed(&mut self, id: MessageId, ts_ms: u64) -> Answers {
        self.window.insert(id, ts_ms);
        self.decide(id, |duplicate| Outcome::Accepted { ts_ms, duplicate })
    }

    /// A fresh send was refused before it was queued (mailbox full, no such user, …).
    pub fn refused(
        &mut self,
        id: MessageId,
        code: ErrorCode,
        retry_after_ms: Option<u64>,
    ) -> Answers {
        self.decide(id, |_| Outcome::Refused {
            code,
            retry_after_ms,
        })
    }

    /// The store, or what stands before it, gave a fresh send up: not accepted. The device
    /// may send it again; if a later one was accepted meanwhile, only under a new id.
    pub fn abandoned(&mut self, id: MessageId, retry_after_ms: Option<u64>) -> Answers {
        self.refused(id, ErrorCode::StorageUnavailable, retry_after_ms)
    }

    /// The connection is gone or was replaced: nobody waits for answers any more. What is
    /// in flight stays in flight.
    pub fn disconnected(&mut self) {
        self.slots
            .retain(|slot| matches!(slot.state, State::Committing { .. }));
        for slot in &mut self.slots {
            slot.state = State::Committing {
                owed: false,
                resent: false,
            };
        }
        self.release_memory();
    }

    /// Sends that are being committed.
    pub fn in_flight(&self) -> usize {
        self.slots
            .iter()
            .filter(|slot| matches!(slot.state, State::Committing { .. }))
            .count()
    }

    /// Their ids, in order; for asking the store what became of them when notices were lost.
    pub fn in_flight_ids(&self) -> impl Iterator<Item = MessageId> + '_ {
        self.slots
            .iter()
            .filter(|slot| matches!(slot.state, State::Committing { .. }))
            .map(|slot| slot.id)
    }

    /// Nothing in flight, no answer owed: the store knows all that is here, so the machine
    /// may be dropped and made again at the next send.
    pub fn is_idle(&self) -> bool {
        self.slots.is_empty()
    }

    /// Ids accepted so far.
    pub fn window(&self) -> &IdWindow {
        &self.window
    }

    /// For the simulation's coverage.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn state(&self) -> crate::sim::OutboundState {
        use crate::sim::OutboundState;
        let any = |wanted: fn(&State) -> bool| self.slots.iter().any(|slot| wanted(&slot.state));
        if any(|state| matches!(state, State::Waiting | State::Decided(_))) {
            OutboundState::Queued
        } else if any(|state| matches!(state, State::Committing { owed: true, .. })) {
            OutboundState::Owed
        } else if self.slots.is_empty() {
            OutboundState::Idle
        } else {
            OutboundState::Unowed
        }
    }

    fn duplicate(&mut self, id: MessageId, ts_ms: u64) -> SendDecision {
        let owed = |slot: &Slot| !matches!(slot.state, State::Committing { owed: false, .. });
        if !self.slots.iter().any(owed) {
            return SendDecision::Duplicate { ts_ms };
        }
        let outcome = Outcome::Accepted {
            ts_ms,
            duplicate: true,
        };
        if self.push_waiting(id, State::Decided(outcome)) {
            SendDecision::DuplicateLater
        } else {
            SendDecision::TooMany
        }
    }

    fn resent_in_flight(&mut self, at: usize) -> SendDecision {
        let slot = &mut self.slots[at];
        if let State::Committing { owed: false, .. } = slot.state {
            // First resend on a new connection. Its place in the queue is that of the
            // original, which is the order in which a device has to resend.
            slot.state = State::Committing {
                owed: true,
                resent: true,
            };
            return SendDecision::InFlight;
        }
        let id = slot.id;
        if self.push_waiting(id, State::Waiting) {
            SendDecision::InFlight
        } else {
            SendDecision::TooMany
        }
    }

    fn push_waiting(&mut self, id: MessageId, state: State) -> bool {
        let room = self.slots.len() < UNACCEPTED_MAX;
        if room {
            self.slots.push_back(Slot { id, state });
        }
        room
    }

    fn position_committing(&self, id: MessageId) -> Option<usize> {
        self.slots
            .iter()
            .position(|slot| slot.id == id && matches!(slot.state, State::Committing { .. }))
    }

    fn newest_committing(&self) -> Option<MessageId> {
        self.slots
            .iter()
            .rev()
            .find(|slot| matches!(slot.state, State::Committing { .. }))
            .map(|slot| slot.id)
    }

    fn decide(&mut self, id: MessageId, outcome: impl Fn(bool) -> Outcome) -> Answers {
        if let Some(at) = self.position_committing(id) {
            match self.slots[at].state {
                State::Committing { owed: true, resent } => {
                    self.slots[at].state = State::Decided(outcome(resent));
                }
                _ => {
                    self.slots.remove(at);
                }
            }
            for slot in &mut self.slots {
                if slot.id == id && slot.state == State::Waiting {
                    slot.state = State::Decided(outcome(true));
                }
            }
        }
        self.answers()
    }

    /// Takes what is decided from the front. Commits nobody waits for do not hold
    /// answers up: they owe none.
    fn answers(&mut self) -> Answers {
        let mut answers = Answers::new();
        let mut at = 0;
        while at < self.slots.len() {
            match self.slots[at].state {
                State::Decided(outcome) => {
                    let id = self.slots[at].id;
                    answers.push(Answer { id, outcome });
                    self.slots.remove(at);
                }
                State::Committing { owed: false, .. } => at += 1,
                State::Committing { .. } | State::Waiting => break,
            }
        }
        self.release_memory();
        answers
    }

    fn release_memory(&mut self) {
        // A ping-pong conversation should not allocate for each message, an idle device
        // should not hold a burst's buffer.
        if self.slots.is_empty() && self.slots.capacity() > 4 {
            self.slots = VecDeque::new();
        }
    }
}

#[cfg(test)]
#[path = "outbound_tests.rs"]
mod tests;
