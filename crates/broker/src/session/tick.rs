//! What may wait a little, to be done for many messages at once.
//!
//! Acknowledgements on their way to the store are cumulative: one for every few
//! milliseconds says as much as one for each message. Receipts, and answers to
//! sends while the node is busy, share the write of a message that is likely to
//! come (contract D8). Nothing waits longer than `coalesce_ms`, while the node is busy
//! acknowledgements and receipts [`BUSY_TICKS`] of them; an idle session has no ticks.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use stonechat_actors::Ctx;

use super::Session;
use super::devices::Device;

/// Ticks that acknowledgements and receipts may wait while the node is busy: then there is
/// more to be done at once, and less hurry where everything takes its time.
const BUSY_TICKS: u8 = 4;

impl Session {
    /// Sees to it that a tick comes. One that is to come is never further away than this.
    pub(super) fn tick_later(&mut self, ctx: &mut Ctx<Self>) {
        if self.tick.is_none() {
            self.set_tick(self.tick_length(), ctx);
        }
    }

    /// Sees to it that a tick comes by then.
    pub(super) fn tick_by(&mut self, due: Instant, ctx: &mut Ctx<Self>) {
        match self.tick {
            Some(timer) => ctx.hasten_timer(timer, due),
            None => self.set_tick(due.saturating_duration_since(Instant::now()), ctx),
        }
    }

    fn set_tick(&mut self, after: Duration, ctx: &mut Ctx<Self>) {
        self.tick = Some(ctx.run_later(after, Self::tick));
        self.note_patience();
    }

    pub(super) fn tick_length(&self) -> Duration {
        Duration::from_millis(self.shared.config.coalesce_ms)
    }

    /// Tells the dispatcher whether an answer may wait in the inbox: a tick is to come, and a message
    /// is likely to come before it to each device. To be called when either changes.
    pub(super) fn note_patience(&self) {
        let in_talk = |device: &Device| device.in_talk != [false; 2];
        let patient = self.tick.is_some() && self.devices.iter().all(in_talk);
        let told = &self.anchor.patient;
        if told.load(Ordering::Relaxed) != patient {
            told.store(patient, Ordering::Release);
        }
    }

    fn tick(&mut self, ctx: &mut Ctx<Self>) {
        self.tick = None;
        // Until the next one is sure. What is in the inbox by now is handled right after this.
        self.note_patience();
        self.ticks_held += 1;
        let flush = !std::mem::take(&mut self.busy) || self.ticks_held >= BUSY_TICKS;
        if flush {
            self.ticks_held = 0;
        }
        // An answer that came a moment ago is not hurried with the rest: in a conversation a message
        // to share its write with is on its way, and a write costs more than all else about an answer.
        let mut next: Option<Duration> = None;
        let mut at = 0;
        while let Some(device) = self.devices.get_mut(at) {
            let connection = device.slot.connection;
            device.in_talk = [device.in_talk[1], false];
            if flush {
                self.tell_held_ack(connection, ctx);
                self.flush_receipts(connection, ctx);
            }
            // Flushing may have dropped the device.
            if let Some(device) = self.devices.get(at)
                && device.slot.connection == connection
            {
                let wait = device.slot.outlet.hurry_after(self.tick_length());
                next = [next, wait].into_iter().flatten().min();
                at += 1;
            }
        }
        let holds = |device: &Device| device.ack_held || !device.receipts.is_empty();
        if let Some(wait) = next {
            self.tick_by(Instant::now() + wait, ctx);
        } else if self.devices.iter().any(holds) {
            self.tick_later(ctx);
        }
    }

    /// Passes on what a device has acknowledged since the store was told last.
    pub(super) fn tell_held_ack(&mut self, connection: u64, ctx: &mut Ctx<Self>) {
        if let Some(at) = self.device_at(connection)
            && std::mem::take(&mut self.devices[at].ack_held)
        {
            let cursor = self.devices[at].feed.cursor();
            self.tell_ack(connection, cursor, ctx);
        }
    }
}
