//! Receipts on their way to the devices, in increasing order of `rev`.
//!
//! A client that says it has seen a `rev` is not told anything up to it again.
//! So nothing may be told before what precedes it: while a device catches up
//! from the store, what moves meanwhile is left to the catching up.

use std::sync::atomic::Ordering;
use std::time::Duration;

use stonechat_actors::{Ctx, Handle};
use stonechat_mailbox::{Receipt, StoreError};
use stonechat_protocol::{Receipt as Frame, UserId};

use super::Session;
use super::outgoing::READ_AGAIN;
use crate::Event;
use crate::figures::FIGURES;
use crate::settle::settle;
use crate::shared::now_ms;

/// Receipts read at a time.
const PAGE: usize = 256;
/// Pause between two full pages: an outlet is bounded and the client has to keep up.
const PAUSE: Duration = Duration::from_millis(50);

/// A watermark of this user moved.
pub(crate) struct ReceiptMoved(pub(crate) Receipt);

fn to_frame(receipt: Receipt) -> Frame {
    Frame {
        rev: receipt.rev,
        with: receipt.with,
        delivered: receipt.delivered,
        read: receipt.read,
        ts_ms: receipt.ts_ms,
    }
}

impl Session {
    /// Tells a device what moved since what it was told last, page by page.
    pub(super) fn catch_up_receipts(&mut self, connection: u64, ctx: &mut Ctx<Self>) {
        let Some(at) = self.device_at(connection) else {
            return;
        };
        let device = &mut self.devices[at];
        if device.receipts_catch_up {
            return;
        }
        device.receipts_catch_up = true;
        // What waits for company is in the store as well.
        device.receipts.take();
        self.receipts_page(connection, ctx);
    }

    fn receipts_page(&mut self, connection: u64, ctx: &mut Ctx<Self>) {
        let Some(at) = self.device_at(connection) else {
            return;
        };
        self.devices[at].receipts_missed = false;
        let told = self.devices[at].slot.receipts_told.load(Ordering::Acquire);
        let work = self
            .shared
            .store
            .receipts_after(&self.anchor.mailbox, told, PAGE);
        settle(self, ctx, work, move |me, page, ctx| {
            me.receipts_read(connection, page, ctx);
        });
    }

    fn receipts_read(
        &mut self,
        connection: u64,
        page: Result<Vec<Receipt>, StoreError>,
        ctx: &mut Ctx<Self>,
    ) {
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                if !matches!(error, StoreError::Overloaded) {
                    tracing::error!(user = %self.user(), %error, "receipts could not be read");
                }
                ctx.run_later(READ_AGAIN, move |me, ctx| me.receipts_page(connection, ctx));
                return;
            }
        };
        if page.is_empty() {
            self.receipts_durable(connection, page, ctx);
            return;
        }
        // What a page says must not be taken back by a crash.
        let flushed = self.shared.store.flushed();
        ctx.spawn_then(flushed, move |me, flushed, ctx| {
            if flushed.is_ok() {
                me.receipts_durable(connection, page, ctx);
            } else {
                // A full disk gets room again; until then the device waits for what it missed.
                ctx.run_later(READ_AGAIN, move |me, ctx| me.receipts_page(connection, ctx));
            }
        });
    }

    fn receipts_durable(&mut self, connection: u64, page: Vec<Receipt>, ctx: &mut Ctx<Self>) {
        let full = page.len() >= PAGE;
        if !self.push_receipts(connection, page.into_iter().map(to_frame), ctx) {
            return;
        }
        let Some(at) = self.device_at(connection) else {
            return;
        };
        if full {
            ctx.run_later(PAUSE, move |me, ctx| me.receipts_page(connection, ctx));
        } else if self.devices[at].receipts_missed {
            self.receipts_page(connection, ctx);
        } else {
            self.devices[at].receipts_catch_up = false;
        }
    }

    /// `false` when the connection is closed.
    fn push_receipts(
        &mut self,
        connection: u64,
        receipts: impl Iterator<Item = Frame>,
        ctx: &mut Ctx<Self>,
    ) -> bool {
        let Some(at) = self.device_at(connection) else {
            return false;
        };
        let slot = &self.devices[at].slot;
        for receipt in receipts {
            let rev = receipt.rev;
            if slot.outlet.push(Event::Receipt(Box::new(receipt))).is_err() {
                self.drop_connection(connection, ctx);
                return false;
            }
            slot.receipts_told.fetch_max(rev, Ordering::AcqRel);
            FIGURES.receipts.increment(1);
        }
        true
    }

    /// Tells what is held back.
    pub(super) fn flush_receipts(&mut self, connection: u64, ctx: &mut Ctx<Self>) {
        if let Some(at) = self.device_at(connection)
            && !self.devices[at].receipts.is_empty()
        {
            let receipts = self.devices[at].receipts.take();
            self.push_held(connection, receipts, ctx);
        }
    }

    /// Lets what is held back ride on the frame that is pushed next.
    pub(super) fn ride(&mut self, at: usize) {
        let device = &mut self.devices[at];
        if device.receipts.is_empty() {
            return;
        }
        for (_, receipt) in device.receipts.take() {
            let rev = receipt.rev;
            // Should the connection be closed, whoever pushes the frame finds out.
            if device
                .slot
                .outlet
                .push_unhurried(Event::Receipt(Box::new(receipt)))
                .is_err()
            {
                return;
            }
            device.slot.receipts_told.fetch_max(rev, Ordering::AcqRel);
            FIGURES.receipts.increment(1);
        }
    }

    fn push_held(&mut self, connection: u64, receipts: Vec<(UserId, Frame)>, ctx: &mut Ctx<Self>) {
        let receipts = receipts.into_iter().map(|(_, receipt)| receipt);
        self.push_receipts(connection, receipts, ctx);
    }
}

impl Handle<ReceiptMoved> for Session {
    fn handle(&mut self, moved: ReceiptMoved, ctx: &mut Ctx<Self>) {
        let frame = to_frame(moved.0);
        let now = now_ms();
        let connections: Vec<u64> = self.devices.iter().map(|d| d.slot.connection).collect();
        for connection in connections {
            let Some(at) = self.device_at(connection) else {
                continue;
            };
            let device = &mut self.devices[at];
            let told = device.slot.receipts_told.load(Ordering::Acquire);
            if frame.rev <= told {
                continue;
            }
            if device.receipts_catch_up {
                // The page under way may have been read before it moved.
                device.receipts_missed = true;
                continue;
            }
            let due = device.receipts.push(frame.with.clone(), frame.clone(), now);
            if !device.receipts.is_empty() {
                self.tick_later(ctx);
            }
            self.push_held(connection, due, ctx);
        }
    }
}
