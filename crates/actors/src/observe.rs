//! What can be seen of a tree: node figures, events, totals, recent crashes and the crash-rate alarm.
//!
//! Everything here is bounded and nothing here steers anything.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;

use crate::{ActorId, reason::ExitReason};

/// Crashes remembered in full.
pub const CRASHES_KEPT: usize = 256;
/// Events a slow subscriber may be behind before it misses some (and is told how many).
pub const EVENTS_BUFFERED: usize = 1024;
/// Most panics a crash-rate window may allow; their times are kept in memory.
pub const ALARM_PANICS_MAX: usize = 65_536;

/// One node of the tree at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct NodeInfo {
    /// Its id.
    pub id: ActorId,
    /// Its supervisor; `None` for the root.
    pub parent: Option<ActorId>,
    /// Its name.
    pub name: String,
    /// What sort of actor it is; `"supervisor"` for supervisors.
    pub kind: &'static str,
    /// `starting`, `running`, `backoff`, `halted` or `ended`.
    pub phase: &'static str,
    /// A supervisor's strategy.
    pub strategy: Option<&'static str>,
    /// A supervisor's children.
    pub children: usize,
    /// 1 for the first.
    pub generation: u32,
    /// Restarts so far.
    pub restarts: u32,
    /// Why the previous generation ended.
    pub last_exit: Option<String>,
    /// Messages that wait.
    pub depth: u32,
    /// The most that ever waited.
    pub high_water: u32,
    /// The most that may wait.
    pub capacity: u32,
    /// Time senders have spent waiting for room, summed over them.
    pub blocked_ms_total: u64,
    /// Messages taken up for handling.
    pub handled_total: u64,
    /// When the current generation started, milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// The thread it lives on; `None` for a supervisor, or before it has run.
    pub arbiter: Option<String>,
}

/// Something happened in the tree.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// An actor's first generation runs.
    Started {
        /// The actor.
        id: ActorId,
        /// Its name.
        name: Arc<str>,
        /// Its kind.
        kind: &'static str,
    },
    /// A panic was caught, of an actor or a task.
    Crashed(CrashRecord),
    /// A later generation runs.
    Restarted {
        /// The actor.
        id: ActorId,
        /// Its name.
        name: Arc<str>,
        /// The new generation.
        generation: u32,
        /// Why the one before ended.
        reason: Option<Arc<ExitReason>>,
    },
    /// An actor or supervisor has ended for good.
    Exited {
        /// The actor.
        id: ActorId,
        /// Its name.
        name: Arc<str>,
        /// Why.
        reason: Arc<ExitReason>,
        /// Messages that still waited and were dropped.
        discarded: u32,
    },
    /// An actor did not stop by its deadline and was given up.
    Abandoned {
        /// The actor.
        id: ActorId,
        /// Its name.
        name: Arc<str>,
        /// Messages that still waited and were dropped.
        discarded: u32,
    },
    /// One turn has held its arbiter for longer than allowed.
    Stalled {
        /// The actor whose turn it is.
        id: ActorId,
        /// Its name.
        name: Arc<str>,
        /// For how long so far.
        held_ms: u64,
    },
    /// A supervisor failed because of one of its children.
    Escalated {
        /// The supervisor.
        id: ActorId,
        /// Its name.
        name: Arc<str>,
        /// The failure behind it.
        reason: Arc<ExitReason>,
    },
    /// A failure reached the root: the program should end.
    RootFailed {
        /// The failure behind it.
        reason: Arc<ExitReason>,
    },
    /// A supervised task panicked.
    TaskPanicked {
        /// The task's name.
        name: Arc<str>,
        /// The panic.
        reason: Arc<ExitReason>,
    },
    /// Too many panics within the window.
    Alarm(CrashAlarm),
}

/// The crash-rate alarm went off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashAlarm {
    /// Panics seen within the window.
    pub panics: usize,
    /// The window.
    pub within: Duration,
}

/// A crash, remembered.
#[derive(Clone, Debug)]
pub struct CrashRecord {
    /// The actor; `None` for a task.
    pub id: Option<ActorId>,
    /// Its name.
    pub name: Arc<str>,
    /// Its kind; `"task"` for a task.
    pub kind: &'static str,
    /// The generation that crashed.
    pub generation: u32,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The panic with its message type, location and backtrace.
    pub reason: Arc<ExitReason>,
}

/// Running totals of a tree, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Actors that ran at least once.
    pub started: u64,
    /// Generations after the first.
    pub restarts: u64,
    /// Actors that have ended for good.
    pub exited: u64,
    /// Of those, the ones given up at a deadline.
    pub abandoned: u64,
    /// Of those, the ones that failed too often.
    pub intensity_exceeded: u64,
    /// Panics caught, in actors and tasks.
    pub panics: u64,
    /// Times the crash-rate alarm went off.
    pub alarms: u64,
    /// Turns that held their arbiter for too long.
    pub stalls: u64,
    /// Supervised tasks alive now.
    pub tasks_live: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) started: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) exited: AtomicU64,
    pub(crate) abandoned: AtomicU64,
    pub(crate) intensity_exceeded: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) alarms: AtomicU64,
    pub(crate) stalls: AtomicU64,
    pub(crate) tasks_live: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> Totals {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            started: get(&self.started),
            restarts: get(&self.restarts),
            exited: get(&self.exited),
            abandoned: get(&self.abandoned),
            intensity_exceeded: get(&self.intensity_exceeded),
            panics: get(&self.panics),
            alarms: get(&self.alarms),
            stalls: get(&self.stalls),
            tasks_live: get(&self.tasks_live),
        }
    }
}

/// The last crashes, and the window of the alarm.
pub(crate) struct CrashLog {
    kept: VecDeque<CrashRecord>,
    recent: VecDeque<Instant>,
    panics_max: usize,
    within: Duration,
}

impl CrashLog {
    pub(crate) fn new(panics_max: usize, within: Duration) -> Self {
        Self {
            kept: VecDeque::new(),
            recent: VecDeque::new(),
            panics_max: panics_max.min(ALARM_PANICS_MAX),
            within,
        }
    }

    /// Remembers a crash; the alarm if this was one too many. After an alarm the window starts anew, so a
    /// lasting crash storm alarms once for every `panics_max + 1` crashes and not for each.
    pub(crate) fn add(&mut self, crash: CrashRecord) -> Option<CrashAlarm> {
        if self.kept.len() >= CRASHES_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(crash);
        let now = Instant::now();
        while self
            .recent
            .front()
            .is_some_and(|at| now.duration_since(*at) > self.within)
        {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        if self.recent.len() <= self.panics_max {
            return None;
        }
        let panics = self.recent.len();
        self.recent.clear();
        Some(CrashAlarm {
            panics,
            within: self.within,
        })
    }

    pub(crate) fn kept(&self) -> Vec<CrashRecord> {
        self.kept.iter().cloned().collect()
    }
}
