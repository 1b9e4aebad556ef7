//! What the suites share: waiting for conditions, a log of events in order, and an actor that does as told.
#![allow(dead_code, unreachable_pub, reason = "each suite uses a part of it")]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use actix_rt::{Arbiter, ArbiterHandle};
use stonechat_actors::{
    Ask, Backoff, ChildSpec, Ctx, ExitReason, Handle, Supervised, Tree, TreeConfig,
};

/// Long enough for the slowest machine; a test that gets here has failed.
pub const SOON: Duration = Duration::from_secs(30);

/// Waits until `done` holds, and fails naming `what` when it does not.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let give_up = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < give_up, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits for something that must come, and fails when it does not.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what)
        .await
        .expect("waited in vain")
}

pub fn tree() -> Tree {
    Tree::new(TreeConfig {
        alarm_panics_max: 1_000_000,
        ..TreeConfig::default()
    })
}

pub fn here() -> ArbiterHandle {
    Arbiter::current()
}

/// No delays, and enough restarts for a test.
pub fn spec(name: &str) -> ChildSpec {
    ChildSpec::new(name)
        .intensity(1000, Duration::from_secs(3600))
        .backoff(NO_BACKOFF)
}

pub const NO_BACKOFF: Backoff = Backoff {
    initial: Duration::ZERO,
    max: Duration::ZERO,
    reset_after: Duration::from_secs(3600),
};

/// Lines in the order in which they were written, from any thread.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// Writes what happens to it into a log.
pub struct Probe {
    pub name: String,
    pub log: Log,
    pub seen: u64,
}

impl Probe {
    pub fn new(name: &str, log: &Log) -> Self {
        Self {
            name: name.to_owned(),
            log: log.clone(),
            seen: 0,
        }
    }
}

impl Supervised for Probe {
    const KIND: &'static str = "probe";

    fn started(&mut self, _ctx: &mut Ctx<Self>) {
        self.log.add(format!("start {}", self.name));
    }

    fn stopping(&mut self, _ctx: &mut Ctx<Self>, _why: &ExitReason) {
        self.log.add(format!("stop {}", self.name));
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({ "seen": self.seen })
    }
}

/// Panics in the handler.
#[derive(Debug)]
pub struct Crash;
/// Answered with how many this generation has seen.
#[derive(Debug)]
pub struct Count;
/// Written into the log.
pub struct Note(pub String);
/// Ends the generation.
pub struct Quit(pub ExitReason);
/// Runs any code inside the actor.
pub struct Do(pub Act);

type Act = Box<dyn FnOnce(&mut Probe, &mut Ctx<Probe>) + Send>;

pub fn act(f: impl FnOnce(&mut Probe, &mut Ctx<Probe>) + Send + 'static) -> Do {
    Do(Box::new(f))
}

impl Handle<Crash> for Probe {
    fn handle(&mut self, _: Crash, _ctx: &mut Ctx<Self>) {
        panic!("crash on purpose");
    }
}

impl Ask<Crash> for Probe {
    type Reply = ();
    fn ask(&mut self, _: Crash, _ctx: &mut Ctx<Self>) {
        panic!("crash on {}", "purpose");
    }
}

impl Ask<Count> for Probe {
    type Reply = u64;
    fn ask(&mut self, _: Count, _ctx: &mut Ctx<Self>) -> u64 {
        self.seen += 1;
        self.seen
    }
}

impl Handle<Note> for Probe {
    fn handle(&mut self, Note(text): Note, _ctx: &mut Ctx<Self>) {
        self.seen += 1;
        self.log.add(text);
    }
}

impl Handle<Quit> for Probe {
    fn handle(&mut self, Quit(why): Quit, ctx: &mut Ctx<Self>) {
        ctx.stop(why);
    }
}

impl Handle<Do> for Probe {
    fn handle(&mut self, Do(f): Do, ctx: &mut Ctx<Self>) {
        f(self, ctx);
    }
}
