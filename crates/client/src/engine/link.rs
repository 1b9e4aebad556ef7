//! The life of connections: attempts, sign-in, heartbeat, loss, back-off, end.

use rand::Rng;
use stonechat_protocol::{Bye, CloseReason, ErrorCode, ErrorFrame, Limits, ServerFrame, Welcome};

use super::frames::Outgoing;
use super::{Engine, Step, Transmit, UNACKED_MAX};
use crate::error::{DisconnectCause, Refused, Terminal};
use crate::event::Event;

/// Longest pause taken after `rate_limited` or `storage_unavailable`.
const HOLD_MS_MAX: u64 = 60_000;

/// The server's heartbeat is taken only within these bounds.
const HEARTBEAT_MS: std::ops::RangeInclusive<u64> = 20..=600_000;

/// Where the connection stands.
pub(super) enum Phase {
    /// The next attempt is made then.
    Waiting { until_ms: u64 },
    /// An attempt is being made.
    Connecting,
    /// Connected; `hello` goes out, `welcome` is due.
    Greeting {
        hello: Option<String>,
        until_ms: u64,
    },
    /// Signed in.
    Online(Online),
    /// Over.
    Ended(Terminal),
}

/// A connection that is signed in.
#[derive(Debug)]
pub(super) struct Online {
    since_ms: u64,
    heard_ms: u64,
    heartbeat_ms: u64,
    ping_queued: bool,
    /// Asked for a sign of life; without one the connection is dead then.
    dead_at_ms: Option<u64>,
}

impl Engine {
    /// What is to be done about the connection while there is none.
    pub(crate) fn step(&mut self, now_ms: u64) -> Step {
        match self.phase {
            Phase::Waiting { until_ms } if now_ms < until_ms => Step::Wait { until_ms },
            Phase::Waiting { .. } | Phase::Connecting => {
                self.phase = Phase::Connecting;
                Step::Connect
            }
            // The driver is done with a connection before it asks again.
            Phase::Greeting { .. } | Phase::Online(_) => Step::Connect,
            Phase::Ended(_) => Step::Ended,
        }
    }

    /// A connection stands: sign in.
    pub(crate) fn connected(&mut self, token: &str, now_ms: u64) {
        if self.ended().is_some() {
            return;
        }
        let hello = Outgoing::Hello {
            token,
            device: &self.setup.device,
            client: &self.setup.client_name,
            riding: self.intake.standing(),
        };
        self.phase = Phase::Greeting {
            hello: Some(hello.text()),
            until_ms: now_ms.saturating_add(self.setup.tuning.sign_in_ms_max),
        };
    }

    /// Whether the present connection is still wanted.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Greeting { .. } | Phase::Online(_))
    }

    /// The connection ended, or an attempt failed.
    pub(crate) fn lost(
        &mut self,
        cause: DisconnectCause,
        retry_after_ms: Option<u64>,
        now_ms: u64,
    ) {
        if matches!(self.phase, Phase::Ended(_) | Phase::Waiting { .. }) {
            return;
        }
        if let Phase::Online(online) = &self.phase
            && now_ms.saturating_sub(online.since_ms) >= self.setup.tuning.stable_ms
        {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        for send in self.outbox.connection_lost() {
            self.settle(&send, Err(Refused::ConnectionLost));
        }
        if let Some(terminal) = self.verdict(&cause) {
            self.end(terminal);
            return;
        }
        let delay_ms = self.delay_ms(retry_after_ms);
        tracing::debug!(%cause, delay_ms, failures = self.failures, "connection lost");
        self.intake.notice(
            Event::Disconnected {
                cause,
                retry_in: std::time::Duration::from_millis(delay_ms),
            },
            &self.setup.tuning,
        );
        self.phase = Phase::Waiting {
            until_ms: now_ms.saturating_add(delay_ms),
        };
    }

    /// Whether this is the end.
    fn verdict(&mut self, cause: &DisconnectCause) -> Option<Terminal> {
        if self.closing_until_ms.is_some() {
            return Some(Terminal::Closed);
        }
        match *cause {
            DisconnectCause::Bye(CloseReason::Unauthorized)
                if self.setup.fresh_tokens && !self.token_refused =>
            {
                // The token may just have expired: one more attempt with a new one.
                self.token_refused = true;
            }
            DisconnectCause::Bye(reason) if !reason.may_retry() => {
                return Some(Terminal::Refused(reason));
            }
            // 408 and 429 pass; the rest of 4xx says that this address is not for us.
            DisconnectCause::Http { status }
                if (400..500).contains(&status) && status != 408 && status != 429 =>
            {
                return Some(Terminal::Http { status });
            }
            _ => {}
        }
        let attempts = self.failures;
        let give_up = self
            .setup
            .tuning
            .attempts_max
            .is_some_and(|max| attempts >= max);
        give_up.then(|| Terminal::GaveUp {
            attempts,
            last: cause.clone(),
        })
    }

    /// A random part of the back-off, on top of what the server asked for.
    fn delay_ms(&mut self, retry_after_ms: Option<u64>) -> u64 {
        let tuning = &self.setup.tuning;
        let asked = retry_after_ms.unwrap_or(0).min(tuning.retry_after_ms_max);
        let jitter = self.rng.random_range(0..=tuning.backoff_ms(self.failures));
        asked.saturating_add(jitter)
    }

    /// Something came from the server; any sign of life counts.
    pub(crate) fn heard(&mut self, now_ms: u64) {
        if let Phase::Online(online) = &mut self.phase {
            online.heard_ms = now_ms;
            online.dead_at_ms = None;
            online.ping_queued = false;
        }
    }

    /// A text frame came.
    pub(crate) fn received(&mut self, text: &str, now_ms: u64) {
        self.heard(now_ms);
        if !self.is_connected() {
            return;
        }
        let frame = match ServerFrame::decode(text) {
            Ok(Some(frame)) => frame,
            // A type of a later version: nothing to us.
            Ok(None) => return,
            Err(e) => {
                self.lost(DisconnectCause::Protocol(e.to_string()), None, now_ms);
                return;
            }
        };
        let tuning = &self.setup.tuning;
        let taken = match frame {
            ServerFrame::Bye(bye) => return self.bye(&bye, now_ms),
            ServerFrame::Welcome(welcome) => return self.welcomed(welcome, now_ms),
            ServerFrame::Error(error) => return self.refused(error, now_ms),
            // Nothing else is expected before `welcome`, and nothing else is believed.
            _ if !self.is_online() => Ok(()),
            ServerFrame::Message(message) => self.intake.message(message, now_ms, tuning),
            ServerFrame::Receipt(receipt) => self.intake.receipt(receipt, tuning),
            ServerFrame::Accepted(accepted) => {
                if let Some(send) = self.outbox.answered(accepted.id) {
                    self.settle(&send, Ok(accepted));
                }
                Ok(())
            }
            ServerFrame::Pong(pong) => {
                if let Ok(mark) = pong.nonce.get().parse() {
                    self.outbox.arrived(mark);
                }
                Ok(())
            }
        };
        if taken.is_err() {
            self.lost(DisconnectCause::Overrun, None, now_ms);
        }
    }

    fn welcomed(&mut self, welcome: Welcome, now_ms: u64) {
        if !matches!(self.phase, Phase::Greeting { .. }) {
            return;
        }
        self.limits = Limits {
            unacked_max: welcome.limits.unacked_max.clamp(1, UNACKED_MAX),
            ..welcome.limits.clone()
        };
        for (send, bytes) in self.outbox.take_oversized(&self.limits) {
            let bytes_max = super::body_bytes_max(&self.limits);
            self.settle(&send, Err(Refused::TooLarge { bytes, bytes_max }));
        }
        self.token_refused = false;
        self.phase = Phase::Online(Online {
            since_ms: now_ms,
            heard_ms: now_ms,
            heartbeat_ms: welcome
                .heartbeat_ms
                .clamp(*HEARTBEAT_MS.start(), *HEARTBEAT_MS.end()),
            ping_queued: false,
            dead_at_ms: None,
        });
        self.intake
            .notice(Event::Connected(welcome.clone()), &self.setup.tuning);
        self.welcome = Some(welcome);
    }

    fn refused(&mut self, error: ErrorFrame, now_ms: u64) {
        if let Some(send) = error.reference.and_then(|id| self.outbox.answered(id)) {
            if let (ErrorCode::RateLimited | ErrorCode::StorageUnavailable, Some(ms)) =
                (error.code, error.retry_after_ms)
            {
                self.outbox.hold(now_ms.saturating_add(ms.min(HOLD_MS_MAX)));
            }
            self.settle(
                &send,
                Err(Refused::Server {
                    code: error.code,
                    message: error.message,
                    retry_after_ms: error.retry_after_ms,
                }),
            );
        } else if self.is_online() {
            self.intake
                .notice(Event::ServerError(error), &self.setup.tuning);
        }
        // Before sign-in a `bye` with the reason follows.
    }

    fn bye(&mut self, bye: &Bye, now_ms: u64) {
        self.lost(DisconnectCause::Bye(bye.reason), bye.retry_after_ms, now_ms);
    }

    /// The server closed the WebSocket, with this code if it gave one; a `bye` came before, or not.
    pub(crate) fn closed(&mut self, code: Option<u16>, now_ms: u64) {
        let reason = CloseReason::ALL
            .iter()
            .copied()
            .find(|reason| Some(reason.websocket_code()) == code);
        let cause = match (reason, code) {
            (Some(reason), _) => DisconnectCause::Bye(reason),
            (None, Some(code)) => DisconnectCause::Network(format!("closed with code {code}")),
            (None, None) => DisconnectCause::Network("closed without a reason".to_owned()),
        };
        self.lost(cause, None, now_ms);
    }

    /// The next frame to write, if there is one.
    pub(crate) fn transmit(&mut self, now_ms: u64) -> Option<Transmit> {
        let closing = self.closing_until_ms;
        let online = match &mut self.phase {
            Phase::Greeting { hello, .. } => return hello.take().map(Transmit::Text),
            Phase::Online(online) => online,
            _ => return None,
        };
        if online.ping_queued {
            online.ping_queued = false;
            return Some(Transmit::Text(self.outbox.ping(self.intake.riding())));
        }
        let intake = &mut self.intake;
        if let Some(text) = self
            .outbox
            .transmit(now_ms, &self.limits, || intake.riding())
        {
            return Some(Transmit::Text(text));
        }
        let due = self.intake.due_ms().is_some_and(|due| now_ms >= due);
        if due || closing.is_some() && self.intake.is_dirty() {
            let riding = self.intake.riding();
            return Some(Transmit::Text(
                Outgoing::Ack {
                    seq: self.intake.tellable_seq(),
                    rev: riding.rev,
                }
                .text(),
            ));
        }
        let until_ms = closing?;
        if self.outbox.is_settled() || now_ms >= until_ms {
            self.end(Terminal::Closed);
            return Some(Transmit::Close);
        }
        None
    }

    /// When [`Engine::timeout`] wants to be called on a connection.
    pub(crate) fn timeout_ms(&self) -> Option<u64> {
        match &self.phase {
            Phase::Greeting { until_ms, .. } => Some(*until_ms),
            Phase::Online(online) => [
                Some(
                    online
                        .dead_at_ms
                        .unwrap_or(online.heard_ms.saturating_add(online.heartbeat_ms)),
                ),
                self.intake.due_ms(),
                self.outbox.held_until_ms(),
                self.closing_until_ms,
            ]
            .into_iter()
            .flatten()
            .min(),
            _ => None,
        }
    }

    /// Time has passed.
    pub(crate) fn timeout(&mut self, now_ms: u64) {
        let pong_ms_max = self.setup.tuning.pong_ms_max;
        self.outbox.timeout(now_ms);
        match &mut self.phase {
            Phase::Greeting { until_ms, .. } if now_ms >= *until_ms => {
                self.lost(DisconnectCause::SignInTimeout, None, now_ms);
            }
            Phase::Online(online) => match online.dead_at_ms {
                Some(dead_at_ms) if now_ms >= dead_at_ms => {
                    self.lost(DisconnectCause::HeartbeatLost, None, now_ms);
                }
                None if now_ms >= online.heard_ms.saturating_add(online.heartbeat_ms) => {
                    online.ping_queued = true;
                    online.dead_at_ms =
                        Some(now_ms.saturating_add(online.heartbeat_ms.min(pong_ms_max)));
                }
                _ => {}
            },
            _ => {}
        }
    }
}
