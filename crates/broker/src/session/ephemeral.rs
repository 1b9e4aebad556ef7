//! Ephemeral sends: passed to whoever is connected, promised to nobody.
//!
//! They take no place in a mailbox or a window, and wait in no line.

use std::sync::Arc;

use stonechat_actors::Ctx;
use stonechat_mailbox::Envelope;
use stonechat_protocol::{Accepted, Address, ErrorCode};
use stonechat_trace::TraceRef;

use super::outgoing::PassOn;
use super::sending::{Send, not_opened, take_tokens};
use super::{Session, decrement};
use crate::Event;
use crate::figures::FIGURES;
use crate::router::RETRY_AFTER_MS;
use crate::settle::settle;
use crate::shared::now_ms;
use crate::traced;

/// Look-ups that one session may wait for, other futures included; the runtime allows twice
/// as many.
const LOOK_UPS_MAX: usize = 512;

impl Session {
    pub(super) fn send_ephemeral(&mut self, connection: u64, send: Send, ctx: &mut Ctx<Self>) {
        if send.to == self.anchor.user || self.shared.store.resident(&send.to).is_some() {
            self.pass_ephemeral(connection, send);
            return;
        }
        if ctx.futures_len() >= LOOK_UPS_MAX {
            let retry = Some(RETRY_AFTER_MS);
            self.refuse_send(connection, send.id, ErrorCode::RateLimited, retry);
            traced::refused(send.span, ErrorCode::RateLimited);
            return;
        }
        let work = self.shared.store.open(&send.to);
        settle(self, ctx, work, move |me, opened, _| match opened {
            Ok(Some(_)) => me.pass_ephemeral(connection, send),
            Ok(None) => {
                me.refuse_send(connection, send.id, ErrorCode::UnknownUser, None);
                traced::refused(send.span, ErrorCode::UnknownUser);
            }
            Err(error) => {
                not_opened(&error);
                traced::refused(send.span, ErrorCode::StorageUnavailable);
                me.refuse_send(
                    connection,
                    send.id,
                    ErrorCode::StorageUnavailable,
                    Some(RETRY_AFTER_MS),
                );
            }
        });
    }

    fn pass_ephemeral(&mut self, connection: u64, send: Send) {
        let Some(at) = self.device_at(connection) else {
            return;
        };
        let own = self.anchor.mailbox.messages_per_s();
        if let Err(limited) = take_tokens(&mut self.rate, &self.shared.config.rate, own, &send) {
            let retry = Some(limited.retry_after_ms);
            self.refuse_send(connection, send.id, ErrorCode::RateLimited, retry);
            traced::refused(send.span, ErrorCode::RateLimited);
            return;
        }
        FIGURES.ephemeral.increment(1);
        let slot = Arc::clone(&self.devices[at].slot);
        let ts_ms = now_ms();
        let envelope = Arc::new(Envelope {
            from: Address {
                user: self.anchor.user.clone(),
                device: slot.device.clone(),
            },
            to: send.to,
            id: send.id,
            ts_ms,
            expires_ms: ts_ms,
            body: send.body,
            trace: TraceRef::of(send.span.as_deref()),
        });
        if let Some(span) = send.span {
            span.end();
        }
        if envelope.to != self.anchor.user {
            self.shared.registry.with(&envelope.to, |entry| {
                // Not promised: a session that is behind does without.
                let _ = entry.session.try_tell(PassOn(Arc::clone(&envelope)));
            });
        }
        self.pass_on(&envelope, Some(connection));
        decrement(&slot.unanswered);
        let _ = slot.outlet.push(Event::Accepted(Accepted {
            id: send.id,
            ts_ms,
            duplicate: false,
            ephemeral: true,
        }));
    }
}
