//! Who is connected: connecting, going, and starting again after a panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use stonechat_actors::{Ctx, Handle};
use stonechat_delivery::{Attempts, Coalescer, Feed, FeedLimits, FeedStart, Verdict};
use stonechat_mailbox::{DeviceState, StoreError};
use stonechat_protocol::{CloseReason, DeviceId, Receipt, Seq};
use tokio::sync::oneshot;

use super::Session;
use crate::figures::FIGURES;
use crate::registry::Slot;
use crate::router::{Idle, RETRY_AFTER_MS};
use crate::settle::settle;
use crate::shared::now_ms;
use crate::traced::Unacked;
use crate::{AttachError, Attached, Outlet, SessionLink, Traffic};

/// Conversations whose receipts wait for company at a time.
const RECEIPTS_HELD_MAX: u32 = 256;

fn clamp<N>(n: N) -> u32
where
    u32: TryFrom<N>,
{
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// One connected device.
pub(crate) struct Device {
    pub(crate) slot: Arc<Slot>,
    pub(crate) feed: Feed,
    pub(crate) receipts: Coalescer<Receipt>,
    /// Receipts are being read from the store: live ones are among them.
    pub(crate) receipts_catch_up: bool,
    /// One moved while they were being read: it may not be among them.
    pub(crate) receipts_missed: bool,
    /// The store has not been told of the last acknowledgement.
    pub(crate) ack_held: bool,
    /// It was sent a message since the last tick, or between that and the one before: one
    /// more is likely to come soon.
    pub(crate) in_talk: [bool; 2],
    /// The result of a read is being worked through: a further read must not nest in it.
    pub(crate) in_read: bool,
    /// A failed read will be tried again.
    pub(crate) read_again: bool,
    /// An acknowledgement that could not be passed on will be tried again.
    pub(crate) ack_again: bool,
    /// Traces of what it was sent and has not acknowledged.
    pub(crate) traced: Unacked,
}

impl Device {
    pub(crate) fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({
            "device": self.slot.device,
            "connection": self.slot.connection,
            "cursor": self.feed.cursor(),
            "sent": self.feed.sent(),
            "unacked": self.feed.unacked(),
            "unanswered": self.slot.unanswered.load(Ordering::Relaxed),
        })
    }
}

/// A device connects.
pub(crate) struct Connect {
    pub(crate) device: DeviceId,
    pub(crate) outlet: Outlet,
    pub(crate) ack: Option<Seq>,
    pub(crate) rev: Option<u64>,
    pub(crate) traffic: Arc<Traffic>,
    /// Takes the link itself: an edge that gives up drops it, and so detaches.
    pub(crate) reply: oneshot::Sender<Result<Attached, AttachError>>,
}

/// A connection is gone.
pub(crate) struct Gone {
    pub(crate) connection: u64,
}

impl Handle<Connect> for Session {
    fn handle(&mut self, connect: Connect, ctx: &mut Ctx<Self>) {
        self.anchor.connects_seen.fetch_add(1, Ordering::AcqRel);
        self.stop_lingering(ctx);
        if connect.reply.is_closed() {
            // The edge gave up in the meantime: its device's other connection may stay.
            self.linger_if_empty(ctx);
            return;
        }
        let devices_max = self.shared.config.limits.devices_max;
        let mailbox = Arc::clone(&self.anchor.mailbox);
        if mailbox.device(&connect.device).is_none() && mailbox.devices() >= devices_max {
            let _ = connect
                .reply
                .send(Err(AttachError::TooManyDevices(devices_max)));
            self.linger_if_empty(ctx);
            return;
        }
        let connection = self.shared.next_connection();
        let slot = Arc::new(Slot {
            since_ms: now_ms(),
            device: connect.device.clone(),
            connection,
            outlet: connect.outlet,
            traffic: connect.traffic,
            sent: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            receipts_told: AtomicU64::new(0),
            unanswered: AtomicU32::new(0),
        });
        self.replace(&slot, ctx);
        self.anchor.slots.lock().push(Arc::clone(&slot));
        self.shared.devices.fetch_add(1, Ordering::SeqCst);
        // After it was counted: either a drain counts it, or it sees the drain.
        if self.shared.draining.load(Ordering::SeqCst) {
            self.drop_connection(connection, ctx);
            let _ = connect.reply.send(Err(AttachError::Overloaded {
                retry_after_ms: RETRY_AFTER_MS,
            }));
            return;
        }
        let store = Arc::clone(&self.shared.store);
        let attached = store.attach(&mailbox, &connect.device, now_ms());
        let work = async move {
            let state = attached.await?;
            // Nothing is sent to it before it is durable that it is connected: after a crash all
            // that was not acknowledged counts as sent before (contract D4). That holds for an
            // empty mailbox too, for a message may be on its way to the disk ahead of that note.
            // Should the store be unable to, the messages are worth more than the mark.
            let _ = store.flush().await;
            Ok(state)
        };
        let (ack, rev, reply) = (connect.ack, connect.rev, connect.reply);
        ctx.spawn_then(work, move |me, state, ctx| {
            me.connected(&slot, state, (ack, rev), reply, ctx);
        });
    }
}

impl Session {
    /// The same device is connected already: the newer connection stays.
    fn replace(&mut self, new: &Slot, ctx: &mut Ctx<Self>) {
        let old: Vec<u64> = self
            .anchor
            .slots
            .lock()
            .iter()
            .filter(|slot| slot.device == new.device)
            .map(|slot| {
                // The same one when connecting it was interrupted by a panic.
                if !slot.outlet.is_same(&new.outlet) {
                    slot.outlet.close(CloseReason::Replaced, None);
                }
                slot.connection
            })
            .collect();
        for connection in old {
            self.drop_connection(connection, ctx);
        }
    }

    fn connected(
        &mut self,
        slot: &Arc<Slot>,
        state: Result<DeviceState, StoreError>,
        (ack, rev): (Option<Seq>, Option<u64>),
        reply: oneshot::Sender<Result<Attached, AttachError>>,
        ctx: &mut Ctx<Self>,
    ) {
        let state = match state {
            Ok(state) => state,
            Err(error) => {
                self.drop_connection(slot.connection, ctx);
                let refused = match error {
                    StoreError::TooManyDevices { devices_max, .. } => {
                        AttachError::TooManyDevices(devices_max)
                    }
                    StoreError::Overloaded | StoreError::Unavailable(_) => {
                        AttachError::Overloaded {
                            retry_after_ms: RETRY_AFTER_MS,
                        }
                    }
                    StoreError::UnknownUser(_) => AttachError::UnknownUser,
                    error => {
                        tracing::error!(user = %self.user(), %error, "a device could not be attached");
                        AttachError::Internal
                    }
                };
                // The edge may have given up in the meantime.
                let _ = reply.send(Err(refused));
                return;
            }
        };
        if !self.has_slot(slot.connection) {
            // Replaced while the state was loaded.
            let _ = reply.send(Err(AttachError::Internal));
            return;
        }
        FIGURES.attaches.increment(1);
        let receipts_seen = state.receipts_seen;
        self.add_device(Arc::clone(slot), &state);
        // What cannot be acknowledged is refused below, and moves nothing.
        let from = ack.filter(|ack| *ack <= state.sent).unwrap_or(0);
        let answer = Attached {
            link: SessionLink::new(self.shared.tree.clone(), ctx.myself(), Arc::clone(slot)),
            session_id: format!("{}.{}", ctx.myself().id(), slot.connection),
            pending: self.anchor.mailbox.pending_after(from.max(state.cursor)),
        };
        // Before anything is sent: a message that cannot be handled must not keep the device
        // from being connected.
        if reply.send(Ok(answer)).is_err() {
            // The edge gave up in the meantime.
            self.drop_connection(slot.connection, ctx);
            return;
        }
        if let Some(ack) = ack {
            self.acknowledge(slot.connection, ack, ctx);
        }
        let rev = rev.map(|rev| rev.min(self.anchor.mailbox.receipts_rev()));
        if let Some(rev) = rev {
            self.shared
                .store
                .receipts_seen(&self.anchor.mailbox, &slot.device, rev);
        }
        slot.receipts_told
            .store(rev.unwrap_or(receipts_seen), Ordering::Release);
        self.catch_up_receipts(slot.connection, ctx);
        self.start_feed(slot.connection, ctx);
    }

    fn add_device(&mut self, slot: Arc<Slot>, state: &DeviceState) {
        let config = &self.shared.config;
        // After a panic the slot may know more than the store.
        let acked = slot.acked.load(Ordering::Acquire);
        let ack_held = acked > state.cursor;
        let feed = Feed::new(
            FeedStart {
                cursor: state.cursor.max(acked),
                sent: state.sent.max(slot.sent.load(Ordering::Acquire)),
                last_seq: self.anchor.mailbox.last_seq(),
            },
            FeedLimits {
                window_messages_max: clamp(config.limits.unacked_max),
                window_bytes_max: clamp(config.feed_window_bytes),
            },
        );
        slot.sent.fetch_max(feed.sent(), Ordering::AcqRel);
        self.devices.push(Device {
            slot,
            feed,
            receipts: Coalescer::new(clamp(config.coalesce_ms), RECEIPTS_HELD_MAX),
            receipts_catch_up: false,
            receipts_missed: false,
            ack_held,
            in_talk: [false; 2],
            in_read: false,
            read_again: false,
            ack_again: false,
            traced: Unacked::default(),
        });
        self.note_patience();
    }

    fn has_slot(&self, connection: u64) -> bool {
        let slots = self.anchor.slots.lock();
        slots.iter().any(|slot| slot.connection == connection)
    }

    fn start_feed(&mut self, connection: u64, ctx: &mut Ctx<Self>) {
        if let Some(at) = self.device_at(connection) {
            let effects = self.devices[at].feed.start();
            self.carry_out(connection, &effects, &[], ctx);
        }
    }

    /// Forgets a connection; what it was sent and did not acknowledge stays in the mailbox.
    pub(super) fn drop_connection(&mut self, connection: u64, ctx: &mut Ctx<Self>) {
        self.tell_held_ack(connection, ctx);
        let slot = {
            let mut slots = self.anchor.slots.lock();
            slots
                .iter()
                .position(|slot| slot.connection == connection)
                .map(|at| slots.swap_remove(at))
        };
        if let Some(slot) = slot {
            self.shared.devices.fetch_sub(1, Ordering::SeqCst);
            let mailbox = &self.anchor.mailbox;
            let sent = slot.sent.load(Ordering::Acquire);
            self.shared
                .store
                .detach(mailbox, &slot.device, sent, now_ms());
        }
        if let Some(at) = self.device_at(connection) {
            let device = self.devices.swap_remove(at);
            self.note_patience();
            self.sender_disconnected(&device.slot.device);
        }
        self.linger_if_empty(ctx);
    }

    fn stop_lingering(&mut self, ctx: &mut Ctx<Self>) {
        if let Some(linger) = self.linger.take() {
            linger.cancel(ctx);
        }
    }

    fn linger_if_empty(&mut self, ctx: &mut Ctx<Self>) {
        self.stop_lingering(ctx);
        if !self.anchor.slots.lock().is_empty() {
            return;
        }
        let linger = Duration::from_millis(self.shared.config.session_linger_ms);
        self.linger = Some(ctx.run_later(linger, Self::ask_to_end));
    }

    /// Asks the router to end this session; see `router` for why it is not ended here.
    fn ask_to_end(&mut self, ctx: &mut Ctx<Self>) {
        if !self.anchor.slots.lock().is_empty() {
            return;
        }
        let idle = Idle {
            user: self.user().clone(),
            session: ctx.myself(),
            connects: self.anchor.connects_seen.load(Ordering::Acquire),
        };
        if let Some(router) = self.shared.router.get() {
            // A full inbox, or a connect on its way that comes to nothing: asked again later.
            let _ = router.try_tell(idle);
        }
        self.linger_if_empty(ctx);
    }

    /// A new generation after a panic: who is connected stays connected and catches up.
    pub(super) fn recover(&mut self, ctx: &mut Ctx<Self>) {
        let culprit = self.anchor.handling.swap(0, Ordering::AcqRel);
        let verdict = (culprit != 0).then(|| {
            let mut attempts = self.anchor.attempts.lock();
            attempts
                .get_or_insert_with(|| Box::new(Attempts::default()))
                .failed(culprit)
        });
        if verdict == Some(Verdict::DeadLetter) {
            let reason = match ctx.last_exit() {
                Some(exit) => format!("its handling kept failing: {exit}"),
                None => "its handling kept failing".to_owned(),
            };
            tracing::error!(user = %self.user(), seq = culprit, reason, "a message was moved to the dead letters");
            FIGURES.dead_letters.increment(1);
            let mailbox = &self.anchor.mailbox;
            let work = self
                .shared
                .store
                .dead_letter(mailbox, culprit, reason, now_ms());
            settle(self, ctx, work, |me, moved, ctx| {
                if let Err(error) = moved {
                    tracing::error!(%error, "a dead letter could not be stored");
                }
                me.reattach(ctx);
            });
        } else {
            self.reattach(ctx);
        }
    }

    fn reattach(&mut self, ctx: &mut Ctx<Self>) {
        let slots: Vec<Arc<Slot>> = self.anchor.slots.lock().iter().cloned().collect();
        for slot in slots {
            if self.device_at(slot.connection).is_some() {
                // Connected while a dead letter was being stored.
                continue;
            }
            let lost_sends = slot.unanswered.load(Ordering::Acquire) > 0;
            if lost_sends || !slot.outlet.is_open() {
                // What became of them only a resend can tell, and those come with a new connection.
                slot.outlet
                    .close(CloseReason::Internal, Some(RETRY_AFTER_MS));
                self.drop_connection(slot.connection, ctx);
                continue;
            }
            let mailbox = &self.anchor.mailbox;
            let work = self.shared.store.attach(mailbox, &slot.device, now_ms());
            settle(self, ctx, work, move |me, state, ctx| match state {
                // Gone or replaced while its state was loaded.
                Ok(_) if !me.has_slot(slot.connection) => {}
                Ok(state) => {
                    me.add_device(Arc::clone(&slot), &state);
                    me.tick_later(ctx);
                    me.catch_up_receipts(slot.connection, ctx);
                    me.start_feed(slot.connection, ctx);
                }
                Err(error) => {
                    tracing::error!(%error, "a device could not be attached again");
                    slot.outlet
                        .close(CloseReason::Internal, Some(RETRY_AFTER_MS));
                    me.drop_connection(slot.connection, ctx);
                }
            });
        }
        self.linger_if_empty(ctx);
    }
}

impl Handle<Gone> for Session {
    fn handle(&mut self, gone: Gone, ctx: &mut Ctx<Self>) {
        self.drop_connection(gone.connection, ctx);
    }
}
