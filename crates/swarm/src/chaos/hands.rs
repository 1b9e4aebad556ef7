//! The operator's hands: each fault, from its beginning to its end. Whatever is done is undone, also when
//! it fails half-way.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::plan::Planned;
use super::{ChaosKind, Disturbance, Need, Order, Pulse, intruder};
use crate::roster::Names;
use crate::spawn::Spawned;
use crate::{Admin, Roster, SwarmError};

/// Users that are tried until one is found that is connected.
const TRIES_MAX: usize = 16;
const GARBAGE_EACH: usize = 12;
const OVERSIZED_EACH: usize = 4;
const PANICS_EACH: usize = 3;
/// One in so many messages to sessions panics.
const PANIC_EVERY: u32 = 50;
/// More connections than that prove nothing more.
const CROWD_MAX: usize = 4_000;
/// First only so much is left, which the server's headroom must stop at; later nothing.
const DISK_LEFT_BYTES: u64 = 24 << 20;
const EXIT_STORE_FAILED: i32 = 74;
const CLOCK_STEPS_S: [i64; 6] = [-86_400, -3_600, -70, 70, 3_600, 86_400];
const LOOK_EVERY: Duration = Duration::from_millis(20);
const NOTICED_WITHIN: Duration = Duration::from_secs(10);

/// What the operator can lay hands on.
#[derive(Debug)]
pub(crate) struct Hands {
    pub(crate) server: SocketAddr,
    pub(crate) admin: Admin,
    pub(crate) spawned: Option<Spawned>,
    /// Of users that take no part.
    pub(crate) strangers: Option<Roster>,
    pub(crate) names: Names,
    pub(crate) users: u32,
    pub(crate) orders: Sender<Order>,
    pub(crate) pulse: Arc<Pulse>,
    /// When the fault was over, where that is before what had to be done about it was done.
    pub(crate) over_at: Option<Instant>,
}

/// The server did not do what its operations page says.
#[derive(Debug)]
pub(super) struct Misconduct(pub(super) String);

impl From<SwarmError> for Misconduct {
    fn from(error: SwarmError) -> Self {
        Self(error.to_string())
    }
}

/// What was done; or, as misconduct, what the server did.
type Done = Result<String, Misconduct>;

impl Hands {
    /// Why a need is not met; `None` when it is.
    pub(crate) fn missing(&self, need: Need) -> Option<String> {
        let spawned = self.spawned.as_ref();
        let no_process = || "it takes a server that the swarm has started: --spawn".to_owned();
        match need {
            Need::Connections => None,
            Need::Faults => self.panic(&json!({"target": "messages", "every": 0})).err(),
            Need::Process => spawned.is_none().then(no_process),
            Need::Disk => {
                spawned.map_or_else(|| Some(no_process()), |s| s.disk.as_ref().err().cloned())
            }
            Need::Switches => spawned.map_or_else(
                || Some(no_process()),
                |s| s.switches.as_ref().err().cloned(),
            ),
            Need::Limit => match spawned.map(Spawned::descriptors) {
                None => Some(no_process()),
                Some(None) => Some("its limit of descriptors is not known".to_owned()),
                Some(Some(_)) => None,
            },
        }
    }

    /// Makes a fault, waits until it is over, and says what was done.
    pub(super) fn make(&mut self, planned: &Planned) -> Done {
        let mut random = SmallRng::seed_from_u64(planned.seed);
        match planned.kind {
            ChaosKind::Kill => self.kill(),
            ChaosKind::Pause => self.pause(planned.lasts),
            ChaosKind::Terminate => self.terminate(),
            ChaosKind::Cut => Ok(self.disturb(planned, Disturbance::Reset, "connections reset")),
            ChaosKind::HalfOpen => {
                let what = "users came back beside a connection with nobody behind it";
                Ok(self.disturb(planned, Disturbance::HalfOpen, what))
            }
            ChaosKind::StuckReader => {
                let what = self.disturb(planned, Disturbance::StopReading, "users stopped reading");
                sleep(planned.lasts);
                Ok(what)
            }
            ChaosKind::Dribble => Ok(self.dribble(planned.lasts)),
            ChaosKind::Garbage => Ok(self.garbage(&mut random)),
            ChaosKind::Oversized => self.oversized(),
            ChaosKind::PanicSession => Ok(self.panic_users("session", &mut random)),
            ChaosKind::PanicConnection => Ok(self.panic_users("connection", &mut random)),
            ChaosKind::PanicRouter => Ok(self.panic_one(&json!({"target": "router"}))),
            ChaosKind::PanicOfflineQueue => Ok(self.panic_shard("offline_queue", &mut random)),
            ChaosKind::PanicDispatcher => Ok(self.panic_shard("dispatcher", &mut random)),
            ChaosKind::PanicMessages => Ok(self.panic_messages(planned.lasts)),
            ChaosKind::DiskFull => self.fill_disk(planned.lasts),
            ChaosKind::SyncFailure => self.fail_syncs(),
            ChaosKind::ClockStep => self.step_clock(planned.lasts, &mut random),
            ChaosKind::Descriptors => Ok(self.crowd(planned.lasts)),
        }
    }

    /// The server should run. If it does not, it is started again, and that is said.
    pub(super) fn see_that_it_runs(&mut self) -> Result<(), Misconduct> {
        let Some(spawned) = &mut self.spawned else {
            return Ok(());
        };
        if spawned.pid().is_none() {
            return Ok(spawned.launch()?);
        }
        let Some(status) = spawned.exited() else {
            return Ok(());
        };
        spawned.kill();
        spawned.launch()?;
        Err(Misconduct(format!("the server ended by itself: {status}")))
    }

    fn spawned(&mut self) -> &mut Spawned {
        let why = "faults of the process are planned only with a process";
        self.spawned.as_mut().expect(why)
    }

    fn kill(&mut self) -> Done {
        self.spawned().kill();
        self.start("killed, and started again")
    }

    /// The fault is over when the process is started; how long it takes to be ready is its recovery.
    fn start(&mut self, what: &str) -> Done {
        // What the old process had said is read by now, and is no sign of life of the new one.
        sleep(LOOK_EVERY);
        self.over();
        let began = Instant::now();
        self.spawned().launch()?;
        Ok(format!(
            "{what}: ready after {} ms",
            began.elapsed().as_millis()
        ))
    }

    /// From now on there may be signs of life.
    pub(super) fn over(&mut self) -> Instant {
        if let Some(over_at) = self.over_at {
            return over_at;
        }
        self.pulse.reset();
        let now = Instant::now();
        self.over_at = Some(now);
        now
    }

    fn pause(&mut self, lasts: Duration) -> Done {
        let spawned = self.spawned();
        spawned.signal(Signal::STOP);
        sleep(lasts);
        spawned.signal(Signal::CONT);
        Ok("the process stood still".to_owned())
    }

    fn terminate(&mut self) -> Done {
        let began = Instant::now();
        let status = self.spawned().terminate()?;
        let took_ms = began.elapsed().as_millis();
        let done = self.start(&format!("drained in {took_ms} ms, and started again"))?;
        expect_code(status, 0, "SIGTERM")?;
        Ok(done)
    }

    fn fail_syncs(&mut self) -> Done {
        let spawned = self.spawned();
        let set = |spawned: &Spawned, fail| match &spawned.switches {
            Ok(switches) => switches
                .set_syncs_fail(fail)
                .map_err(SwarmError::io("switching syncs")),
            Err(why) => Err(SwarmError::Chaos(why.clone())),
        };
        set(spawned, true)?;
        let ended = spawned.wait_exit();
        set(spawned, false)?;
        let status = match ended {
            Ok(status) => status,
            Err(error) => {
                spawned.kill();
                spawned.launch()?;
                return Err(Misconduct(format!("after failed syncs: {error}")));
            }
        };
        let done = self.start("a sync failed, the server ended and was started again")?;
        expect_code(status, EXIT_STORE_FAILED, "a failed sync")?;
        Ok(done)
    }

    fn step_clock(&mut self, lasts: Duration, random: &mut SmallRng) -> Done {
        let by_s = CLOCK_STEPS_S[random.random_range(0..CLOCK_STEPS_S.len())];
        if let Ok(switches) = &self.spawned().switches {
            let set = |by_s| {
                let done = switches.set_clock_offset_s(by_s);
                done.map_err(SwarmError::io("switching the clock"))
            };
            set(by_s)?;
            sleep(lasts);
            set(0)?;
        }
        Ok(format!("the clock was wrong by {by_s} s"))
    }

    fn fill_disk(&mut self, lasts: Duration) -> Done {
        let done = self.fill_disk_for(lasts);
        if let Ok(disk) = &self.spawned().disk {
            disk.relieve()
                .map_err(SwarmError::io("emptying the disk"))?;
        }
        done
    }

    fn fill_disk_for(&mut self, lasts: Duration) -> Done {
        let full = SwarmError::io("filling the disk");
        let began = Instant::now();
        if let Ok(disk) = &self.spawned().disk {
            disk.fill(DISK_LEFT_BYTES).map_err(full)?;
        }
        // Once it has noticed, the rest may go too. An idle server need not notice.
        while began.elapsed() < NOTICED_WITHIN && self.accepts() {
            sleep(LOOK_EVERY);
        }
        let noticed_ms = began.elapsed().as_millis();
        if let Ok(disk) = &self.spawned().disk {
            disk.fill(0).map_err(SwarmError::io("filling the disk"))?;
        }
        sleep(lasts);
        Ok(format!("the disk was full; noticed after {noticed_ms} ms"))
    }

    /// Whether the server says that it is ready.
    fn accepts(&self) -> bool {
        self.admin.is_ready()
    }

    fn disturb(&self, planned: &Planned, disturbance: Disturbance, what: &str) -> String {
        let (answer, answered) = channel();
        let order = Order {
            disturbance,
            share: planned.share,
            for_ms: u64::try_from(planned.lasts.as_millis()).unwrap_or(0),
            seed: planned.seed,
            answer,
        };
        // A run that has failed answers no more.
        let sent = self.orders.send(order).is_ok();
        let hit = if sent {
            answered.recv().unwrap_or(0)
        } else {
            0
        };
        format!("{hit} {what}")
    }

    fn dribble(&self, lasts: Duration) -> String {
        match intruder::dribble(self.server, self.strangers.as_ref(), lasts) {
            Ok(true) => "a ping came a byte at a time, and was answered".to_owned(),
            Ok(false) => "a ping came a byte at a time, and was not answered".to_owned(),
            Err(e) => format!("a ping came a byte at a time: {e}"),
        }
    }

    fn garbage(&self, random: &mut SmallRng) -> String {
        let mut sent = BTreeMap::<String, usize>::new();
        for _ in 0..GARBAGE_EACH {
            let what = intruder::garbage(self.server, self.strangers.as_ref(), random);
            let what = what.map_or_else(|e| format!("not sent ({e})"), str::to_owned);
            *sent.entry(what).or_default() += 1;
        }
        let sent: Vec<_> = sent.iter().map(|(what, n)| format!("{n} {what}")).collect();
        sent.join(", ")
    }

    fn oversized(&self) -> Done {
        let mut ended = 0;
        for number in 0..OVERSIZED_EACH {
            match intruder::oversized(self.server, number % 2 == 1) {
                Ok(true) => ended += 1,
                Ok(false) => {
                    let what = "a message above every limit did not end its connection";
                    return Err(Misconduct(what.to_owned()));
                }
                // It had no room for it.
                Err(_) => {}
            }
        }
        Ok(format!(
            "{ended} connections with endless messages were ended"
        ))
    }

    fn crowd(&self, lasts: Duration) -> String {
        let limit = self.spawned.as_ref().and_then(Spawned::descriptors);
        let most = limit.map_or(CROWD_MAX, |limit| {
            usize::try_from(limit).unwrap_or(CROWD_MAX)
        });
        let held = intruder::crowd(self.server, most.min(CROWD_MAX));
        sleep(lasts);
        format!(
            "{} connections were held until no more were taken",
            held.len()
        )
    }

    /// Asks for a panic. The error says why there was none.
    fn panic(&self, fault: &Value) -> Result<u64, String> {
        match self.admin.inject_panic(fault) {
            Ok((200, answer)) => Ok(answer["injected"].as_u64().unwrap_or(0)),
            Ok((404, answer)) if answer["code"] == "no_target" => Ok(0),
            Ok((404, _)) => Err("the server was not started with --enable-fault-injection".into()),
            Ok((status, answer)) => Err(format!("the server answered {status}: {answer}")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn panic_one(&self, fault: &Value) -> String {
        match self.panic(fault) {
            Ok(panics) => format!("{panics} panics"),
            Err(why) => format!("no panic: {why}"),
        }
    }

    fn panic_users(&self, target: &str, random: &mut SmallRng) -> String {
        let mut panics = 0;
        for _ in 0..TRIES_MAX {
            let user = self.names.user(random.random_range(0..self.users.max(1)));
            let injected = self.panic(&json!({"target": target, "user": user}));
            panics += usize::from(injected.is_ok_and(|injected| injected > 0));
            if panics == PANICS_EACH {
                break;
            }
        }
        format!("{panics} panics")
    }

    /// Shards beyond the number there is are said to be not there; 0 always is.
    fn panic_shard(&self, target: &str, random: &mut SmallRng) -> String {
        let shard = random.random_range(0..2);
        match self.panic(&json!({"target": target, "shard": shard})) {
            Ok(0) => self.panic_one(&json!({"target": target, "shard": 0})),
            Ok(panics) => format!("{panics} panics, shard {shard}"),
            Err(why) => format!("no panic: {why}"),
        }
    }

    fn panic_messages(&self, lasts: Duration) -> String {
        let every = |every: u32| self.panic(&json!({"target": "messages", "every": every}));
        if let Err(why) = every(PANIC_EVERY) {
            return format!("no panics: {why}");
        }
        sleep(lasts);
        match every(0) {
            Ok(panics) => format!("one in {PANIC_EVERY} messages to sessions: {panics} so far"),
            Err(why) => format!("one in {PANIC_EVERY} messages to sessions, and then: {why}"),
        }
    }
}

fn expect_code(status: ExitStatus, code: i32, after: &str) -> Result<(), Misconduct> {
    if status.code() == Some(code) {
        return Ok(());
    }
    Err(Misconduct(format!(
        "after {after} the server ended with {status}, and not with exit code {code}"
    )))
}
