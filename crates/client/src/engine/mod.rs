//! The client as a state machine: frames and time in, frames and events out.
//!
//! It decides everything (when to connect, what to send again, what to drop,
//! what to acknowledge, when a connection is dead) and does nothing: no socket,
//! no clock, no task. Milliseconds come in as arguments, randomness as a seed,
//! so that a test can run thousands of schedules in a second and replay one.

mod frames;
mod intake;
mod link;
mod outbox;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::value::RawValue;
use stonechat_protocol::{
    Accepted, DeviceId, Limits, MessageId, Seq, UNACCEPTED_MAX, UserId, Welcome,
};

pub(crate) use outbox::OutgoingSend;

use crate::error::{AckError, ReadError, Refused, SendError, Terminal};
use crate::event::Event;
use crate::ids::IdSource;
use crate::resume::ResumeState;
use crate::tuning::Tuning;
use intake::Intake;
use link::Phase;
use outbox::{Outbox, Waiting, body_bytes_max};

/// Bodies taken before the server has told its limits.
const BODY_BYTES_BEFORE_WELCOME: usize = 1024 * 1024;

/// A server may tell a greater window; this client does not rely on it.
const UNACKED_MAX: usize = 4_096;

/// The answer to a send.
pub(crate) type Outcome = Result<Accepted, Refused>;

/// What stays the same for the life of a client.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) device: DeviceId,
    pub(crate) client_name: String,
    pub(crate) tuning: Tuning,
    /// Tokens come from a source, so another one may help when one was refused.
    pub(crate) fresh_tokens: bool,
}

/// What is to be done about the connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Wait until then.
    Wait { until_ms: u64 },
    /// Connect now.
    Connect,
    /// Nothing more, ever.
    Ended,
}

/// What is to be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Transmit {
    /// A text frame.
    Text(String),
    /// A close frame, after which the engine has ended.
    Close,
}

/// See the module. Not `Debug`: it holds a token for a moment.
pub(crate) struct Engine {
    setup: Setup,
    phase: Phase,
    welcome: Option<Welcome>,
    limits: Limits,
    outbox: Outbox,
    intake: Intake,
    ids: IdSource,
    rng: SmallRng,
    /// Attempts that failed in a row.
    failures: u32,
    /// The last attempt failed for its token.
    token_refused: bool,
    /// The application wants to close; until then there is time to finish.
    closing_until_ms: Option<u64>,
    /// At most one for each send, so at most 64 wait.
    outcomes: VecDeque<(MessageId, Outcome)>,
}

impl Engine {
    /// A client that has not connected yet. `resume` was checked.
    pub(crate) fn new(setup: Setup, resume: ResumeState, seed: u64) -> Self {
        let ids = IdSource::new(resume.greatest_id());
        Self {
            setup,
            phase: Phase::Waiting { until_ms: 0 },
            welcome: None,
            limits: Limits::default(),
            outbox: Outbox::restored(resume.unanswered),
            intake: Intake::new(resume.last_seq, resume.last_rev),
            ids,
            rng: SmallRng::seed_from_u64(seed),
            failures: 0,
            token_refused: false,
            closing_until_ms: None,
            outcomes: VecDeque::new(),
        }
    }

    /// Queues a send and gives its id.
    pub(crate) fn submit(
        &mut self,
        send: OutgoingSend,
        id: Option<MessageId>,
        unix_ms: u64,
    ) -> Result<MessageId, SendError> {
        self.check_open().map_err(SendError::Ended)?;
        let bytes = send.body.get().len();
        let bytes_max = match self.welcome {
            Some(_) => body_bytes_max(&self.limits),
            None => BODY_BYTES_BEFORE_WELCOME,
        };
        if bytes > bytes_max {
            return Err(SendError::TooLarge { bytes, bytes_max });
        }
        if send.ephemeral && !self.is_online() {
            return Err(SendError::NotConnected);
        }
        if self.outbox.is_full() {
            return Err(SendError::Full);
        }
        let id = match (id, self.ids.last()) {
            (None, _) => self.ids.next(unix_ms, &mut self.rng),
            (Some(id), last) => {
                if !self.ids.take(id) {
                    return Err(SendError::IdNotIncreasing {
                        last: last.unwrap_or(id),
                    });
                }
                id
            }
        };
        self.outbox.push(Waiting::new(id, send));
        Ok(id)
    }

    /// Queues a read mark.
    pub(crate) fn read(&mut self, from: UserId, id: MessageId) -> Result<(), ReadError> {
        self.check_open().map_err(ReadError::Ended)?;
        if self.outbox.read(from, id) {
            Ok(())
        } else {
            Err(ReadError::Full)
        }
    }

    /// The application has handled everything up to `seq`.
    pub(crate) fn ack(&mut self, seq: Seq, now_ms: u64) -> Result<(), AckError> {
        self.intake
            .ack(seq, now_ms, &self.limits, &self.setup.tuning)
    }

    /// The application has handled the receipts it took. Whether that was news.
    pub(crate) fn confirm_receipts(&mut self, now_ms: u64) -> bool {
        self.intake.confirm_receipts(now_ms, &self.setup.tuning)
    }

    /// The next event for the application.
    pub(crate) fn take_event(&mut self) -> Option<Event> {
        self.intake.take()
    }

    /// Whether [`Engine::take_event`] would give one.
    pub(crate) fn has_event(&self) -> bool {
        self.intake.has_event()
    }

    /// The application wants no more events; messages stay unacknowledged.
    pub(crate) fn mute(&mut self) {
        self.intake.mute();
    }

    /// The next answer to a send.
    pub(crate) fn take_outcome(&mut self) -> Option<(MessageId, Outcome)> {
        self.outcomes.pop_front()
    }

    /// What to keep for a restart.
    pub(crate) fn resume_state(&self) -> ResumeState {
        ResumeState {
            last_seq: self.intake.acked_seq(),
            last_rev: self.intake.confirmed_rev(),
            last_id: self.ids.last(),
            unanswered: self.outbox.pending(),
        }
    }

    /// Signed in and not ended.
    pub(crate) fn is_online(&self) -> bool {
        matches!(self.phase, Phase::Online(_))
    }

    /// The last `welcome`, for as long as the connection lasts.
    pub(crate) fn online_welcome(&self) -> Option<&Welcome> {
        self.welcome.as_ref().filter(|_| self.is_online())
    }

    /// The end, if it has come.
    pub(crate) fn ended(&self) -> Option<&Terminal> {
        match &self.phase {
            Phase::Ended(terminal) => Some(terminal),
            _ => None,
        }
    }

    fn check_open(&self) -> Result<(), Terminal> {
        match self.ended() {
            Some(terminal) => Err(terminal.clone()),
            None if self.closing_until_ms.is_some() => Err(Terminal::Closed),
            None => Ok(()),
        }
    }

    /// Closes when everything is answered, at the latest after the time allowed; at once
    /// when not connected.
    pub(crate) fn close(&mut self, now_ms: u64) {
        if self.ended().is_some() {
            return;
        }
        if self.is_online() {
            let until_ms = now_ms.saturating_add(self.setup.tuning.close_ms_max);
            self.closing_until_ms.get_or_insert(until_ms);
        } else {
            self.end(Terminal::Closed);
        }
    }

    /// Ends for good: nobody waits for an answer in vain.
    fn end(&mut self, terminal: Terminal) {
        let ids: Vec<MessageId> = self.outbox.ids().collect();
        for id in ids {
            self.outcome(id, Err(Refused::Ended(terminal.clone())));
        }
        self.intake.end(terminal.clone());
        self.phase = Phase::Ended(terminal);
    }

    fn outcome(&mut self, id: MessageId, outcome: Outcome) {
        assert!(self.outcomes.len() < 2 * UNACCEPTED_MAX);
        self.outcomes.push_back((id, outcome));
    }

    /// The answer to a send that is no longer in the outbox.
    fn settle(&mut self, send: &Waiting, outcome: Outcome) {
        if send.restored {
            self.intake.settled(Event::Settled {
                id: send.id,
                result: outcome.clone(),
            });
        }
        self.outcome(send.id, outcome);
    }
}

/// Encodes a body once, at the door.
pub(crate) fn encode_body(
    body: &impl serde::Serialize,
) -> Result<Box<RawValue>, serde_json::Error> {
    serde_json::value::to_raw_value(body)
}
