//! What comes from a device: acknowledgements, reads, sends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stonechat_actors::{Ctx, Handle};
use stonechat_protocol::{CloseReason, ErrorCode, Seq};

use super::Session;
use crate::figures::FIGURES;
use crate::offline_queue::{Ack, Matter, ReadUpTo};
use crate::receipts::RefuseTo;
use crate::router::RETRY_AFTER_MS;
use crate::shared::Told;
use crate::{Command, Input};

/// When an acknowledgement that found the offline queue full is passed on again.
const ACK_AGAIN: Duration = Duration::from_millis(200);

/// One frame of one connection.
pub(crate) struct FromClient {
    pub(crate) connection: u64,
    /// Sends of the connection that were unanswered when this came, this one included.
    pub(crate) unanswered: u32,
    pub(crate) input: Input,
}

impl Handle<FromClient> for Session {
    fn handle(&mut self, message: FromClient, ctx: &mut Ctx<Self>) {
        let FromClient {
            connection,
            unanswered,
            input,
        } = message;
        if self.device_at(connection).is_none() {
            self.strange_input(connection, &input);
            return;
        }
        if let Some(seq) = input.ack {
            self.acknowledge(connection, seq, ctx);
        }
        if let Some(rev) = input.rev
            && let Some(at) = self.device_at(connection)
        {
            let mailbox = &self.anchor.mailbox;
            let device = &self.devices[at].slot.device;
            // Nobody has seen what there is not: believing it would silence what comes.
            let rev = rev.min(mailbox.receipts_rev());
            self.shared.store.receipts_seen(mailbox, device, rev);
        }
        match input.command {
            None => {}
            Some(Command::Send {
                id,
                to,
                body,
                ttl_s,
                ephemeral,
                mut span,
            }) => {
                if let Some(span) = &mut span {
                    let waited_us = span.elapsed().as_micros() as u64;
                    span.note("stonechat.inbox_wait_us", waited_us);
                }
                let send = super::sending::Send {
                    id,
                    to,
                    body,
                    ttl_s,
                    span,
                };
                let origin = (connection, unanswered);
                self.take_send(origin, send, ephemeral, ctx);
            }
            // There are no receipts for what one sent oneself: nothing moves.
            Some(Command::Read { from, .. }) if from == *self.user() => {}
            Some(Command::Read { from, id }) => {
                // In the order in which they came.
                self.tell_held_ack(connection, ctx);
                let read = ReadUpTo {
                    reader: Arc::clone(&self.anchor.mailbox),
                    from,
                    id,
                    refuse: RefuseTo {
                        session: ctx.myself(),
                        connection,
                        id,
                    },
                };
                let told = self
                    .shared
                    .queue_for(self.user())
                    .map(|queue| queue.entrust(Matter::Read(read)));
                if !matches!(told, Some(Told::Yes)) {
                    self.refuse(
                        connection,
                        Some(id),
                        ErrorCode::StorageUnavailable,
                        Some(RETRY_AFTER_MS),
                    );
                }
            }
        }
    }
}

impl Session {
    /// A frame of a connection that was closed, or that is being taken over after a panic.
    /// A send among them would be lost unanswered: let the client resend it.
    fn strange_input(&self, connection: u64, input: &Input) {
        if matches!(input.command, Some(Command::Send { .. })) {
            let slots = self.anchor.slots.lock();
            if let Some(slot) = slots.iter().find(|slot| slot.connection == connection) {
                slot.outlet
                    .close(CloseReason::Internal, Some(RETRY_AFTER_MS));
            }
        }
    }

    pub(super) fn acknowledge(&mut self, connection: u64, seq: Seq, ctx: &mut Ctx<Self>) {
        let Some(at) = self.device_at(connection) else {
            return;
        };
        match self.devices[at].feed.ack(seq) {
            Ok(step) => {
                if let Some(cursor) = step.cursor {
                    FIGURES.acks.increment(1);
                    let device = &mut self.devices[at];
                    device.slot.acked.fetch_max(cursor, Ordering::AcqRel);
                    device.ack_held = true;
                    device.traced.acked(cursor);
                    self.tick_later(ctx);
                }
                self.carry_out(connection, &step.effects, &[], ctx);
            }
            Err(_) => self.refuse(connection, None, ErrorCode::BadAck, None),
        }
    }

    /// Passes an acknowledgement on to the owner of the mailbox.
    pub(super) fn tell_ack(&mut self, connection: u64, upto: Seq, ctx: &mut Ctx<Self>) {
        let Some(at) = self.device_at(connection) else {
            return;
        };
        let ack = Ack {
            mailbox: Arc::clone(&self.anchor.mailbox),
            device: self.devices[at].slot.device.clone(),
            upto,
            spans: self.devices[at].traced.take_acked(),
        };
        let Some(queue) = self.shared.queue_for(self.user()) else {
            return;
        };
        let passed_on = queue.actor.try_tell(ack).is_ok();
        if !passed_on && !self.devices[at].ack_again {
            self.devices[at].ack_again = true;
            // Cumulative, so a later one does as well; this is for when none comes.
            ctx.run_later(ACK_AGAIN, move |me, ctx| {
                if let Some(at) = me.device_at(connection) {
                    me.devices[at].ack_again = false;
                    let cursor = me.devices[at].feed.cursor();
                    me.tell_ack(connection, cursor, ctx);
                }
            });
        }
    }
}
