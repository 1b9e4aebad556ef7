//! A session: the actor of one connected user, holding that user's devices.
//!
//! A thin shell. What to send, send again and refuse is decided by
//! `stonechat_delivery`'s machines (a `Feed` for each connected device, an
//! `Outbound` for each sending one); what is durable is the store's. So a
//! session has nothing to lose: after a panic it is built again from its
//! anchor (who is connected) and the mailbox (what they have not acknowledged).
//!
//! Split by direction: `devices` is who is connected, `inbound` what comes from
//! them, `sending` the way of their sends to the journal, `outgoing` what goes
//! to them, `receipting` the receipts among it, `tick` what may wait a little.

mod answers;
mod devices;
mod ephemeral;
mod inbound;
mod outgoing;
mod receipting;
mod sending;
mod tick;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use smallvec::SmallVec;
use stonechat_actors::{Ctx, Handle, Supervised, TimerHandle};
use stonechat_delivery::TokenBucket;
use stonechat_protocol::{DeviceId, UserId};

use crate::registry::Anchor;
use crate::shared::Shared;

pub(crate) use answers::Answer;
pub(crate) use devices::{Connect, Gone};
pub(crate) use inbound::FromClient;
pub(crate) use outgoing::{Deliver, Refuse, Resync};
pub(crate) use receipting::ReceiptMoved;

use devices::Device;
use sending::Sender;

/// The actor of one connected user.
pub(crate) struct Session {
    shared: Arc<Shared>,
    anchor: Arc<Anchor>,
    devices: SmallVec<[Device; 1]>,
    /// Devices that have sent since they connected, or whose sends are still on their way.
    senders: Vec<Sender>,
    rate: Option<Box<TokenBucket>>,
    linger: Option<TimerHandle>,
    /// The tick that is to come.
    tick: Option<TimerHandle>,
    /// The node is busy: a large commit concerned this session since the last tick.
    busy: bool,
    /// Ticks since acknowledgements and receipts were passed on.
    ticks_held: u8,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, anchor: Arc<Anchor>) -> Self {
        // A tick of the generation before will not come.
        anchor.patient.store(false, Ordering::Release);
        Self {
            shared,
            anchor,
            devices: SmallVec::new(),
            senders: Vec::new(),
            rate: None,
            linger: None,
            tick: None,
            busy: false,
            ticks_held: 0,
        }
    }

    fn user(&self) -> &UserId {
        &self.anchor.user
    }

    fn device_at(&self, connection: u64) -> Option<usize> {
        self.devices
            .iter()
            .position(|device| device.slot.connection == connection)
    }

    fn device_named(&self, name: &DeviceId) -> Option<usize> {
        self.devices
            .iter()
            .position(|device| device.slot.device == *name)
    }
}

impl Supervised for Session {
    const KIND: &'static str = "session";

    fn started(&mut self, ctx: &mut Ctx<Self>) {
        if ctx.generation() > 1 {
            self.recover(ctx);
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        let devices: Vec<_> = self.devices.iter().map(Device::snapshot).collect();
        serde_json::json!({
            "user": self.user(),
            "devices": devices,
            "sends_on_their_way": self.senders.iter().map(Sender::on_the_way).sum::<usize>(),
            "mailbox": self.anchor.mailbox.stats(),
        })
    }
}

// One for every connected user: a step further, and the task it is in takes 400 bytes more.
const _: () = assert!(size_of::<Session>() <= 248);

/// Takes one from a count that must not go below zero.
fn decrement(count: &AtomicU32) {
    // Refused only at zero, where there is nothing to take.
    let _ = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
}

/// Fault injection.
pub(crate) struct Panic;

impl Handle<Panic> for Session {
    fn handle(&mut self, _: Panic, _: &mut Ctx<Self>) {
        panic!("injected into a session");
    }
}
