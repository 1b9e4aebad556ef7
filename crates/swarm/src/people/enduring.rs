//! What people do when the server does not do its part for a while: they come back after a time that
//! grows, and send again what was refused for the moment.

use rand::Rng as _;

use super::draw::chance;
use super::{NEVER, People};
use crate::behaviour::{Refused, Sent};
use crate::chaos::{Disturbance, Order};
use crate::user::{Leave, User};

/// As docs/protocol.md has it, section 11.
pub(super) const BACKOFF_US_MAX: u64 = 60_000_000;
const BACKOFF_US: u64 = 500_000;
/// A connection that lasted so long sets the back-off back.
const LASTED_US: u64 = 60_000_000;
/// When the server does not say how long to wait after a refusal.
const RETRY_AFTER_MS: u64 = 1_000;

impl super::Device {
    /// Whether something has to go out before anything new.
    pub(super) fn holds_back(&self) -> bool {
        !self.refused.is_empty() || !self.anew.is_empty()
    }
}

impl People {
    /// A send was refused: is it for good, or to be repeated? See docs/protocol.md, section 10.
    pub(super) fn put_off(&mut self, user: &User<'_>, refused: &Refused<'_>) {
        let index = user.index();
        let device = &mut self.devices[index as usize];
        let Some(sent) = refused.sent else {
            // What it was about, a `read` maybe, is not told.
            device.disturbed = true;
            return;
        };
        let wait_ms = refused.retry_after_ms.unwrap_or(RETRY_AFTER_MS);
        match refused.code {
            "rate_limited" | "storage_unavailable" | "internal" => device.refused.push(sent),
            // Nothing was ever accepted under this id, so the message may go under another.
            "id_too_old" | "too_many_unanswered" => {
                device.anew.push(sent);
                self.checker.refused(index, sent.to, sent.number);
            }
            _ => self.checker.refused(index, sent.to, sent.number),
        }
        let device = &mut self.devices[index as usize];
        if refused.code != "id_too_old" {
            device.held_us = user.now_us() + wait_ms * 1000;
        }
    }

    /// Sends again what was refused. False while something has to be waited for before anything new:
    /// the time the server asked for, or the answers to what is under way. Under the same id first:
    /// should a later one have been accepted, `id_too_old` says that this one never was.
    pub(super) fn retry(&mut self, user: &mut User<'_>) -> Result<bool, String> {
        let device = &mut self.devices[user.index() as usize];
        if !device.holds_back() {
            return Ok(true);
        }
        if device.held_us > user.now_us() || !user.is_open() || user.unanswered() > 0 {
            return Ok(false);
        }
        if !device.refused.is_empty() {
            device.refused.sort_unstable_by_key(|sent| sent.id);
            for sent in device.refused.drain(..) {
                user.repeat(sent);
            }
            return Ok(false);
        }
        let mut anew = std::mem::take(&mut device.anew);
        anew.sort_unstable_by_key(|sent| sent.id);
        for Sent {
            to,
            at_us,
            body_bytes,
            ..
        } in anew
        {
            let number = self.checker.sending(user.index(), to);
            user.send(to, number, at_us, body_bytes)?;
        }
        Ok(true)
    }

    /// The connection is gone, and nobody here wanted that: when to dial again.
    pub(super) fn stay_away(&mut self, user: &mut User<'_>) {
        let now_us = user.now_us();
        let asked_us = user.take_retry_after_ms() * 1000;
        let device = &mut self.devices[user.index() as usize];
        let since_us = std::mem::replace(&mut device.online_since_us, NEVER);
        if now_us.saturating_sub(since_us) >= LASTED_US {
            device.failures = 0;
        }
        let most_us = (BACKOFF_US << device.failures.min(7)).min(self.backoff_us_max);
        device.failures += 1;
        let wait_us = device.random.random_range(0..=most_us).max(asked_us);
        device.dial_us = now_us + wait_us;
    }

    /// Chaos befalls a share of those who are here. Tells whether this one is hit.
    pub(crate) fn disturb(&mut self, user: &mut User<'_>, order: &Order) -> bool {
        let hit = chance(order.seed, user.index()).random_bool(order.share);
        if !hit || !user.is_open() {
            return false;
        }
        let leave = match order.disturbance {
            Disturbance::Reset => Leave::Reset,
            Disturbance::HalfOpen => Leave::Vanish,
            Disturbance::StopReading => {
                user.pause_until(user.now_us() + order.for_ms * 1000);
                return true;
            }
        };
        user.leave(leave);
        self.gone(user);
        self.devices[user.index() as usize].disturbed = true;
        self.stay_away(user);
        self.arm(user);
        true
    }
}
