//! The users of a scenario: they write, read, go and come back, and the checker watches.
//!
//! A message that is due while the connection is lost is sent when it is back, and its latency counts
//! from when it was due. Who is away on purpose writes nothing, and what others wrote to it meanwhile
//! does not count towards the time from send to delivery; nor does what slow readers get or send.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rand::Rng as _;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};
use stonechat_protocol::MessageId;

use crate::behaviour::Sent;
use crate::chaos::Pulse;
use crate::roster::Names;
use crate::scenario::{End, Scenario};
use crate::user::{Leave, User};
use crate::{Checker, Latency};

mod acting;
mod draw;
mod enduring;

use draw::{Dice, chance, exponential_us};

const NEVER: u64 = u64::MAX;
/// Latencies of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// From wanting to connect to `welcome`.
    pub welcome: Latency,
    /// From due to `accepted`.
    pub accepted: Latency,
    /// From due to arrival at a device that is not away.
    pub delivered: Latency,
    /// From wanting to connect again to having everything that had waited.
    pub caught_up: Latency,
}

impl Latencies {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.welcome.add(&other.welcome);
        self.accepted.add(&other.accepted);
        self.delivered.add(&other.delivered);
        self.caught_up.add(&other.caught_up);
    }
}

#[derive(Debug)]
struct Device {
    random: SmallRng,
    /// When the next message is due, when it goes or comes, when it dials again, when it sends after a
    /// refusal, and the earliest timer that is set.
    due_us: u64,
    move_us: u64,
    dial_us: u64,
    held_us: u64,
    armed_us: u64,
    /// Since when it has not been away on purpose.
    here_since_us: u64,
    /// Messages that had waited and have yet to come.
    waiting: u64,
    reads: VecDeque<(u64, u32, u64, MessageId)>,
    /// Sends that were refused for the moment, and those that must go out as new ones.
    refused: Vec<Sent>,
    anew: Vec<Sent>,
    failures: u32,
    online_since_us: u64,
    online: bool,
    welcomed: bool,
    away: bool,
    slow: bool,
    started: bool,
    /// A connection was lost, and with it maybe a `read`.
    disturbed: bool,
}

/// The users of a scenario.
#[derive(Debug)]
pub struct People {
    /// What they went through.
    pub latencies: Latencies,
    /// The same since [`People::take_interval`].
    pub interval: Latencies,
    /// Sign-ins of devices that had been signed in before.
    pub reconnects: u64,
    /// Codes of refusals, with counts.
    pub refusals: BTreeMap<String, u64>,
    /// Why connections ended that nobody here ended, with counts.
    pub ends: BTreeMap<String, u64>,
    pub(crate) checker: Checker,
    /// Notes the first signs of life after a fault.
    pub(crate) pulse: Option<Arc<Pulse>>,
    /// The longest a device waits before it dials again, unless the server says more.
    pub(crate) backoff_us_max: u64,
    scenario: Scenario,
    names: Names,
    dice: Dice,
    devices: Vec<Device>,
    rate_factor: f64,
    settling: bool,
    online: usize,
}

impl People {
    /// The users of `scenario`, called by `names`.
    pub fn new(scenario: &Scenario, names: &Names) -> Self {
        let devices = u32::try_from(scenario.devices_total()).unwrap_or(u32::MAX);
        let device = |index| {
            let mut random = chance(scenario.seed, index);
            let slow = random.random_bool(scenario.reading.slow_share);
            let share = scenario
                .presence
                .map_or(1.0, |presence| presence.online_share);
            Device {
                due_us: NEVER,
                move_us: NEVER,
                dial_us: NEVER,
                held_us: 0,
                armed_us: NEVER,
                here_since_us: 0,
                waiting: 0,
                reads: VecDeque::new(),
                refused: Vec::new(),
                anew: Vec::new(),
                failures: 0,
                online_since_us: NEVER,
                online: false,
                welcomed: false,
                away: !random.random_bool(share),
                slow,
                started: false,
                disturbed: false,
                random,
            }
        };
        Self {
            latencies: Latencies::default(),
            interval: Latencies::default(),
            reconnects: 0,
            refusals: BTreeMap::new(),
            ends: BTreeMap::new(),
            checker: Checker::new(names.clone(), devices as usize),
            pulse: None,
            backoff_us_max: enduring::BACKOFF_US_MAX,
            dice: Dice::new(scenario),
            devices: (0..devices).map(device).collect(),
            scenario: scenario.clone(),
            names: names.clone(),
            rate_factor: 1.0,
            settling: false,
            online: 0,
        }
    }

    /// Devices that are signed in.
    pub fn online(&self) -> usize {
        self.online
    }

    /// Whether a device is signed in.
    pub fn is_online(&self, device: u32) -> bool {
        self.devices[device as usize].online
    }

    /// Whether everyone who is to be here at the beginning is.
    pub fn assembled(&self) -> bool {
        self.devices
            .iter()
            .all(|device| device.away || device.online)
    }

    /// What [`People::interval`] holds, which starts anew.
    pub fn take_interval(&mut self) -> Latencies {
        std::mem::take(&mut self.interval)
    }

    pub(crate) fn set_rate_factor(&mut self, factor: f64) {
        self.rate_factor = factor;
    }

    /// The device comes, when it is one of those who are here at the beginning.
    pub(crate) fn assemble(&mut self, user: &mut User<'_>) {
        if !self.devices[user.index() as usize].away {
            user.connect();
        }
    }

    /// A phase begins: messages by its rate, some connections cut.
    ///
    /// # Errors
    /// When a message cannot be sent.
    pub(crate) fn begin(
        &mut self,
        user: &mut User<'_>,
        cut_share: f64,
        cut_s: f64,
    ) -> Result<(), String> {
        let now_us = user.now_us();
        let device = &mut self.devices[user.index() as usize];
        if !device.started {
            device.started = true;
            device.here_since_us = if device.away { NEVER } else { now_us };
            self.plan_move(user);
        }
        let device = &mut self.devices[user.index() as usize];
        if device.random.random_bool(cut_share) && user.is_open() {
            user.leave(Leave::Cut);
            self.gone(user);
            let device = &mut self.devices[user.index() as usize];
            device.disturbed = true;
            device.dial_us = now_us + (cut_s * 1e6) as u64;
        }
        self.plan_send(user);
        self.send_due(user)?;
        self.arm(user);
        Ok(())
    }

    /// The end begins: nobody writes, everyone comes and stays.
    pub(crate) fn settle(&mut self, user: &mut User<'_>) {
        self.settling = true;
        let device = &mut self.devices[user.index() as usize];
        (device.due_us, device.move_us, device.away) = (NEVER, NEVER, false);
        device.dial_us = NEVER;
        user.connect();
        self.say_reads(user, NEVER);
    }

    /// Says again what was read and may have been lost with a connection.
    pub(crate) fn repeat_reads(&mut self, user: &mut User<'_>, from: u32) {
        let own = self.names.user_of(user.index());
        if let Some(id) = self.checker.read_said(own, from) {
            user.read(from, id);
        }
    }

    /// Whether a connection of this device was lost.
    pub(crate) fn was_disturbed(&self, device: u32) -> bool {
        self.devices[device as usize].disturbed
    }

    fn gone(&mut self, user: &mut User<'_>) {
        let device = &mut self.devices[user.index() as usize];
        if std::mem::take(&mut device.online) {
            self.online -= 1;
        }
        device.waiting = 0;
    }

    fn plan_move(&mut self, user: &User<'_>) {
        let device = &mut self.devices[user.index() as usize];
        if let Some(presence) = self.scenario.presence.filter(|_| !self.settling) {
            let mean_s = if device.away {
                presence.offline_s
            } else {
                presence.online_s
            };
            device.move_us = user.now_us() + exponential_us(&mut device.random, mean_s);
        }
    }

    /// When the next message is due. Exponential gaps have no memory, so it may be planned anew.
    fn plan_send(&mut self, user: &mut User<'_>) {
        let index = user.index();
        let device = &mut self.devices[index as usize];
        device.due_us = NEVER;
        let writes = self.dice.writes(self.names.user_of(index));
        let Some(traffic) = self.scenario.traffic.as_ref().filter(|_| writes) else {
            return;
        };
        if device.away || self.settling {
            return;
        }
        let Some(rate) = traffic.rate_per_s else {
            device.due_us = user.now_us();
            return;
        };
        let rate = rate * self.rate_factor;
        if rate > 0.0 {
            device.due_us = user.now_us() + gap_us(&mut device.random, rate, traffic.burst);
        }
    }

    /// Sends what is due, as far as the protocol allows.
    fn send_due(&mut self, user: &mut User<'_>) -> Result<(), String> {
        if !self.retry(user)? {
            return Ok(());
        }
        let Some(traffic) = &self.scenario.traffic else {
            return Ok(());
        };
        let own = self.names.user_of(user.index());
        let now_us = user.now_us();
        let device = &mut self.devices[user.index() as usize];
        let window = traffic.window.unwrap_or(usize::MAX);
        while device.due_us <= now_us
            && device.held_us <= now_us
            && user.may_send()
            && user.unanswered() < window
        {
            let to = self.dice.contact(own, &mut device.random);
            let bytes = self.dice.body_bytes(&mut device.random);
            let at_us = match traffic.rate_per_s {
                Some(_) => device.due_us,
                None => now_us,
            };
            let number = self.checker.sending(user.index(), to);
            user.send(to, number, at_us, bytes)?;
            if let Some(rate) = traffic.rate_per_s {
                let rate = rate * self.rate_factor;
                device.due_us = match rate > 0.0 {
                    true => at_us + gap_us(&mut device.random, rate, traffic.burst),
                    false => NEVER,
                };
            }
        }
        Ok(())
    }

    fn say_reads(&mut self, user: &mut User<'_>, upto_us: u64) {
        let own = self.names.user_of(user.index());
        let device = &mut self.devices[user.index() as usize];
        while let Some(&(due_us, from, seq, id)) = device.reads.front() {
            if due_us > upto_us || !user.is_open() {
                break;
            }
            device.reads.pop_front();
            // A read is not ahead of what was acknowledged.
            user.ack_now();
            user.read(from, id);
            self.checker.reading(own, from, seq, id);
        }
    }

    fn come_or_go(&mut self, user: &mut User<'_>) {
        let device = &mut self.devices[user.index() as usize];
        if device.away {
            device.away = false;
            user.connect();
        } else if user.is_open() {
            device.away = true;
            device.here_since_us = NEVER;
            let vanish = self.scenario.presence.is_some_and(|p| p.end == End::Vanish);
            user.leave(if vanish { Leave::Vanish } else { Leave::Cut });
            // What it said last may not have arrived.
            device.disturbed = true;
            self.gone(user);
            self.plan_send(user);
        }
        self.plan_move(user);
    }

    fn arm(&mut self, user: &mut User<'_>) {
        let now_us = user.now_us();
        let device = &mut self.devices[user.index() as usize];
        // What is due and cannot be sent waits for an answer or a connection, not for the clock.
        let due_us = match device.holds_back() {
            true => device.held_us,
            false => device.due_us.max(device.held_us),
        };
        let due_us = if due_us > now_us { due_us } else { NEVER };
        let read_us = device.reads.front().map_or(NEVER, |read| read.0);
        let read_us = if user.is_open() { read_us } else { NEVER };
        let next_us = due_us.min(device.move_us).min(device.dial_us).min(read_us);
        if next_us < device.armed_us {
            device.armed_us = next_us;
            user.wake_at(next_us);
        }
    }
}

/// Time to the next message at `rate` a second on average, when on average `burst` come in a row.
fn gap_us(random: &mut SmallRng, rate: f64, burst: f64) -> u64 {
    let within_s = 0.2 / rate;
    if random.random_bool(1.0 - 1.0 / burst) {
        return exponential_us(random, within_s);
    }
    exponential_us(random, burst / rate - (burst - 1.0) * within_s)
}
