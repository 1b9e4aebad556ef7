//! What people do when something happens to them: the callbacks of the engine.

use std::collections::BTreeMap;

use super::{NEVER, People};
use crate::behaviour::{Behaviour, Breach, Incoming, Receipt, Refused, Sent};
use crate::frames::user_and_device;
use crate::user::User;

/// Reads that wait for their time on one device; the oldest are said by a later one.
const READS_MAX: usize = 64;
/// Different reasons that are counted apart.
const REASONS_MAX: usize = 32;
/// Reasons after which a client must not come back by itself.
const FINAL_REASONS: [&str; 4] = ["replaced", "unauthorized", "revoked", "too_many_devices"];

fn count(reasons: &mut BTreeMap<String, u64>, reason: &str) {
    let known = reasons.contains_key(reason) || reasons.len() < REASONS_MAX;
    let reason = if known { reason } else { "other" };
    *reasons.entry(reason.to_owned()).or_default() += 1;
}

impl Behaviour for People {
    fn on_welcome(&mut self, user: &mut User<'_>, pending: u64) -> Result<(), String> {
        let took_us = user.now_us().saturating_sub(user.connect_from_us());
        self.latencies.welcome.record_us(took_us);
        self.interval.welcome.record_us(took_us);
        self.online += 1;
        let device = &mut self.devices[user.index() as usize];
        device.online = true;
        device.online_since_us = user.now_us();
        device.waiting = pending;
        if std::mem::replace(&mut device.welcomed, true) {
            self.reconnects += 1;
            if pending == 0 {
                self.latencies.caught_up.record_us(took_us);
                self.interval.caught_up.record_us(took_us);
            }
        }
        if device.started && device.here_since_us == NEVER {
            device.here_since_us = user.now_us();
            self.plan_send(user);
        }
        if self.settling {
            self.say_reads(user, NEVER);
        }
        self.on_timer(user)
    }

    fn on_message(&mut self, user: &mut User<'_>, message: &Incoming<'_>) -> Result<(), String> {
        let now_us = user.now_us();
        self.checker.tick(now_us);
        let mark = self.checker.delivered(user.index(), message);
        let device = &mut self.devices[user.index() as usize];
        if device.waiting > 0 {
            device.waiting -= 1;
            if device.waiting == 0 {
                let took_us = now_us.saturating_sub(user.connect_from_us());
                self.latencies.caught_up.record_us(took_us);
                self.interval.caught_up.record_us(took_us);
            }
        }
        let Some(mark) = mark else {
            return Ok(());
        };
        if let Some(pulse) = &self.pulse {
            pulse.delivered();
        }
        if !device.slow && mark.at_us >= device.here_since_us {
            let took_us = now_us.saturating_sub(mark.at_us);
            self.latencies.delivered.record_us(took_us);
            self.interval.delivered.record_us(took_us);
        }
        if device.slow && self.scenario.reading.pause_ms > 0 && !self.settling {
            user.pause_until(now_us + self.scenario.reading.pause_ms * 1000);
        }
        if let Some(after_ms) = self.scenario.reading.after_ms
            && message.to.is_empty()
            && let Some(from) = self.names.index(user_and_device(message.from).0)
        {
            let due_us = if self.settling {
                now_us
            } else {
                now_us + after_ms * 1000
            };
            if device.reads.len() == READS_MAX {
                device.reads.pop_front();
            }
            device
                .reads
                .push_back((due_us, from, message.seq, message.id));
            self.arm(user);
        }
        Ok(())
    }

    fn on_accepted(&mut self, user: &mut User<'_>, sent: &Sent) -> Result<(), String> {
        self.checker.accepted(user.index(), sent.to, sent.number);
        if let Some(pulse) = &self.pulse {
            pulse.accepted();
        }
        let device = &self.devices[user.index() as usize];
        // Whoever left before the answer came has kept itself waiting.
        if !device.slow && sent.at_us >= device.here_since_us {
            let took_us = user.now_us().saturating_sub(sent.at_us);
            self.latencies.accepted.record_us(took_us);
            self.interval.accepted.record_us(took_us);
        }
        if device.due_us <= user.now_us() || device.holds_back() {
            self.send_due(user)?;
            self.arm(user);
        }
        Ok(())
    }

    fn on_receipt(&mut self, user: &mut User<'_>, receipt: &Receipt) -> Result<(), String> {
        self.checker.tick(user.now_us());
        self.checker.receipt(user.index(), receipt);
        Ok(())
    }

    fn on_timer(&mut self, user: &mut User<'_>) -> Result<(), String> {
        let now_us = user.now_us();
        let device = &mut self.devices[user.index() as usize];
        if device.armed_us <= now_us {
            device.armed_us = NEVER;
        }
        if device.dial_us <= now_us {
            device.dial_us = NEVER;
            user.connect();
        }
        if device.move_us <= now_us {
            self.come_or_go(user);
        }
        self.say_reads(user, now_us);
        self.send_due(user)?;
        self.arm(user);
        Ok(())
    }

    fn on_refused(&mut self, user: &mut User<'_>, refused: &Refused<'_>) -> Result<(), String> {
        count(&mut self.refusals, refused.code);
        self.put_off(user, refused);
        // What was under way may have been all that a retry waited for.
        self.send_due(user)?;
        self.arm(user);
        Ok(())
    }

    fn on_end(&mut self, user: &mut User<'_>, why: &str) -> Result<(), String> {
        count(&mut self.ends, why);
        self.gone(user);
        let device = &mut self.devices[user.index() as usize];
        device.disturbed = true;
        if FINAL_REASONS.iter().any(|reason| why.contains(reason)) {
            return Ok(());
        }
        self.stay_away(user);
        self.arm(user);
        Ok(())
    }

    fn on_redelivered(&mut self, user: &mut User<'_>, message: &Incoming<'_>) {
        self.checker.tick(user.now_us());
        self.checker.redelivered(user.index(), message);
    }

    fn on_breach(&mut self, user: &mut User<'_>, breach: &Breach<'_>) -> Result<(), String> {
        self.checker.tick(user.now_us());
        self.checker.breach(user.index(), breach);
        Ok(())
    }
}
