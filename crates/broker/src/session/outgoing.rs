//! What goes to the devices: messages and refusals. Receipts have a file of their own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stonechat_actors::{Ctx, Handle};
use stonechat_delivery::{Effect, ReadItem};
use stonechat_mailbox::{Envelope, ReadBatch, StoreError, Stored};
use stonechat_protocol::{DeviceId, ErrorCode, ErrorFrame, MessageId, Seq, UserId};

use super::Session;
use crate::Event;
use crate::figures::FIGURES;
use crate::router::RETRY_AFTER_MS;
use crate::settle::settle;
use crate::traced;

/// When a failed read of the store is tried again.
pub(super) const READ_AGAIN: Duration = Duration::from_millis(500);

/// A message was committed for this user.
pub(crate) struct Deliver {
    pub(crate) prev: Seq,
    pub(crate) seq: Seq,
    pub(crate) envelope: Arc<Envelope>,
    /// One of a large commit.
    pub(crate) busy: bool,
}

/// An ephemeral message for this user.
pub(crate) struct PassOn(pub(crate) Arc<Envelope>);

/// Something a connection asked for was refused elsewhere.
pub(crate) struct Refuse {
    pub(crate) connection: u64,
    pub(crate) id: MessageId,
    pub(crate) code: ErrorCode,
}

/// A notification may have been lost: look into the store.
pub(crate) struct Resync;

fn size_of(envelope: &Envelope) -> u32 {
    u32::try_from(envelope.body.len()).unwrap_or(u32::MAX)
}

impl Handle<Deliver> for Session {
    fn handle(&mut self, message: Deliver, ctx: &mut Ctx<Self>) {
        let Deliver {
            prev,
            seq,
            envelope,
            busy,
        } = message;
        self.busy |= busy;
        if let Some(trace) = envelope.trace.get() {
            traced::routed(trace, &self.anchor.user, seq, self.devices.len());
        }
        let size = size_of(&envelope);
        let batch = [Stored { seq, envelope }];
        let mut at = 0;
        while let Some(device) = self.devices.get_mut(at) {
            let connection = device.slot.connection;
            let own = is_own(&batch[0].envelope, &self.anchor.user, &device.slot.device);
            let effects = device.feed.committed(prev, seq, size, own);
            self.carry_out(connection, &effects, &batch, ctx);
            // Carrying out may have dropped the device.
            if self.devices.get(at).map(|d| d.slot.connection) == Some(connection) {
                at += 1;
            }
        }
    }
}

/// A device is not sent what it sent itself.
fn is_own(envelope: &Envelope, user: &UserId, device: &DeviceId) -> bool {
    envelope.from.user == *user && envelope.from.device == *device
}

impl Session {
    /// Does what a feed decided. `batch` holds the messages it may mean.
    pub(super) fn carry_out(
        &mut self,
        connection: u64,
        effects: &[Effect],
        batch: &[Stored],
        ctx: &mut Ctx<Self>,
    ) {
        for effect in effects {
            match *effect {
                Effect::Deliver { seq, redelivered } => {
                    let found = batch.binary_search_by_key(&seq, |stored| stored.seq);
                    let Ok(found) = found else {
                        debug_assert!(false, "a feed delivers what it was given");
                        continue;
                    };
                    if !self.push_message(connection, &batch[found], redelivered) {
                        self.drop_connection(connection, ctx);
                        return;
                    }
                }
                Effect::Read {
                    after,
                    messages_max,
                    bytes_max,
                } => self.read(connection, after, messages_max, bytes_max, ctx),
                Effect::AutoAck { upto } => self.tell_ack(connection, upto, ctx),
            }
        }
    }

    /// `false` when the connection is closed.
    fn push_message(&mut self, connection: u64, stored: &Stored, redelivered: bool) -> bool {
        let Some(at) = self.device_at(connection) else {
            return false;
        };
        self.ride(at);
        if !std::mem::replace(&mut self.devices[at].in_talk[1], true) {
            self.note_patience();
        }
        let slot = &self.devices[at].slot;
        let to = (&self.anchor.user, &slot.device);
        let span = traced::delivery(&stored.envelope, to, (stored.seq, redelivered));
        let followed = span
            .as_ref()
            .map(|span| (Arc::clone(span.trace()), span.id()));
        self.anchor.handling.store(stored.seq, Ordering::Relaxed);
        if self.shared.config.fault_injection {
            self.anchor.panic_if_poisoned(stored.envelope.id);
        }
        let pushed = slot.outlet.push(Event::Message {
            seq: stored.seq,
            envelope: Arc::clone(&stored.envelope),
            copy: stored.envelope.from.user == self.anchor.user,
            redelivered,
            ephemeral: false,
            span,
        });
        if pushed.is_ok() {
            slot.sent.fetch_max(stored.seq, Ordering::AcqRel);
            FIGURES.delivered.increment(1);
            if redelivered {
                FIGURES.redelivered.increment(1);
            }
            if let Some(followed) = followed {
                self.devices[at].traced.delivered(stored.seq, followed);
            }
        }
        self.anchor.handling.store(0, Ordering::Relaxed);
        pushed.is_ok()
    }

    fn read(
        &mut self,
        connection: u64,
        after: Seq,
        messages_max: u32,
        bytes_max: u32,
        ctx: &mut Ctx<Self>,
    ) {
        let Some(at) = self.device_at(connection) else {
            return;
        };
        let work = self.shared.store.read(
            &self.anchor.mailbox,
            after,
            messages_max as usize,
            bytes_max as usize,
        );
        let done =
            move |me: &mut Self, read, ctx: &mut Ctx<Self>| me.read_done(connection, read, ctx);
        if self.devices[at].in_read {
            ctx.spawn_then(work, done);
        } else {
            settle(self, ctx, work, done);
        }
    }

    fn read_done(
        &mut self,
        connection: u64,
        read: Result<ReadBatch, StoreError>,
        ctx: &mut Ctx<Self>,
    ) {
        let Some(at) = self.device_at(connection) else {
            return;
        };
        let anchor = Arc::clone(&self.anchor);
        let device = &mut self.devices[at];
        match read {
            Ok(batch) => {
                let items: Vec<ReadItem> = batch
                    .messages
                    .iter()
                    .map(|stored| ReadItem {
                        seq: stored.seq,
                        size: size_of(&stored.envelope),
                        own: is_own(&stored.envelope, &anchor.user, &device.slot.device),
                    })
                    .collect();
                let effects = device.feed.read_done(items, batch.upto, batch.end);
                device.in_read = true;
                self.carry_out(connection, &effects, &batch.messages, ctx);
                if let Some(at) = self.device_at(connection) {
                    self.devices[at].in_read = false;
                }
            }
            Err(error) => {
                match error {
                    StoreError::Overloaded => {
                        tracing::debug!(user = %anchor.user, "the store is busy");
                    }
                    error => {
                        tracing::error!(user = %anchor.user, %error, "a mailbox could not be read");
                    }
                }
                device.feed.read_failed();
                if !std::mem::replace(&mut device.read_again, true) {
                    ctx.run_later(READ_AGAIN, move |me, ctx| me.try_read(connection, ctx));
                }
            }
        }
    }

    fn try_read(&mut self, connection: u64, ctx: &mut Ctx<Self>) {
        if let Some(at) = self.device_at(connection) {
            self.devices[at].read_again = false;
            self.nudge(connection, ctx);
        }
    }

    fn nudge(&mut self, connection: u64, ctx: &mut Ctx<Self>) {
        if let Some(at) = self.device_at(connection) {
            let last_seq = self.anchor.mailbox.last_seq();
            let effects = self.devices[at].feed.nudge(last_seq);
            self.carry_out(connection, &effects, &[], ctx);
        }
    }

    /// Tells a connection that something it asked for was refused.
    pub(super) fn refuse(
        &self,
        connection: u64,
        reference: Option<MessageId>,
        code: ErrorCode,
        retry_after_ms: Option<u64>,
    ) {
        if let Some(at) = self.device_at(connection) {
            // A closed connection need not be told.
            let _ = self.devices[at]
                .slot
                .outlet
                .push(Event::Error(Box::new(ErrorFrame {
                    code,
                    message: code.describe().to_owned(),
                    reference,
                    retry_after_ms,
                })));
        }
    }
}

impl Handle<PassOn> for Session {
    fn handle(&mut self, message: PassOn, _ctx: &mut Ctx<Self>) {
        self.pass_on(&message.0, None);
    }
}

impl Session {
    /// Hands an ephemeral message to the devices, except the one that sent it.
    pub(super) fn pass_on(&self, envelope: &Arc<Envelope>, except: Option<u64>) {
        for device in &self.devices {
            if Some(device.slot.connection) != except {
                let to = (&self.anchor.user, &device.slot.device);
                let span = traced::delivery(envelope, to, (0, false));
                let passed = device.slot.outlet.offer(Event::Message {
                    seq: 0,
                    envelope: Arc::clone(envelope),
                    copy: envelope.from.user == self.anchor.user,
                    redelivered: false,
                    ephemeral: true,
                    span,
                });
                FIGURES.ephemeral_dropped.increment((!passed).into());
            }
        }
    }
}

impl Handle<Refuse> for Session {
    fn handle(&mut self, refuse: Refuse, _ctx: &mut Ctx<Self>) {
        let retry = (refuse.code == ErrorCode::StorageUnavailable).then_some(RETRY_AFTER_MS);
        self.refuse(refuse.connection, Some(refuse.id), refuse.code, retry);
    }
}

impl Handle<Resync> for Session {
    fn handle(&mut self, _: Resync, ctx: &mut Ctx<Self>) {
        FIGURES.resyncs.increment(1);
        let connections: Vec<u64> = self.devices.iter().map(|d| d.slot.connection).collect();
        for connection in connections {
            if let Some(at) = self.device_at(connection) {
                let cursor = self.devices[at].feed.cursor();
                self.tell_ack(connection, cursor, ctx);
            }
            self.nudge(connection, ctx);
            self.catch_up_receipts(connection, ctx);
        }
        self.reconcile_senders(ctx);
    }
}
