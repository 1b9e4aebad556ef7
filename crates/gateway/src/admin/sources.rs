//! Where the admin API's events and crashes come from: the supervision tree
//! tells, the store is looked at once a second.
//!
//! One task, which keeps up as it can: when a crash storm is faster, it says how
//! many it missed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use stonechat_actors::{CrashRecord, Event, ExitReason, Tree};
use tokio::sync::broadcast::error::RecvError;

use super::Shared;
use super::ledger::{Bounds, Ledger, Numbered};
use super::rates::Bucket;
use crate::events::What;

/// Name of the file of crashes within the data directory.
pub(super) const FILE: &str = "crashes.ndjson";
/// Crashes in memory, which is what the API shows; the files hold more.
const BOUNDS: Bounds = Bounds {
    entries_max: 256,
    file_bytes_max: 4 * 1024 * 1024,
    // In a storm of crashes that would be what holds everything else up.
    synced: false,
};
/// Backtraces put into words at once. Looking names up takes milliseconds and holds up whoever
/// panics meanwhile.
const TRACES_BURST: f64 = 10.0;
/// The same a second, for long.
const TRACES_PER_S: f64 = 1.0;
/// Characters of a backtrace that are kept.
const TRACE_CHARS_MAX: usize = 16 * 1024;
/// How often the store is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Dead letters told one by one after one look.
const LETTERS_TOLD_MAX: usize = 32;

/// A panic, in full.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CrashEntry {
    pub(super) number: u64,
    pub(super) at_ms: u64,
    pub(super) actor: Option<u64>,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) generation: u32,
    pub(super) reason: String,
    pub(super) message_type: Option<String>,
    pub(super) location: Option<String>,
    /// `None` when there were too many at a time.
    pub(super) backtrace: Option<String>,
}

impl Numbered for CrashEntry {
    fn number(&self) -> u64 {
        self.number
    }
}

/// The crashes of a node.
pub(super) struct Crashes(Ledger<CrashEntry>);

impl Crashes {
    pub(super) fn open(data_dir: &Path) -> Self {
        Self(Ledger::open(data_dir, FILE, BOUNDS))
    }

    pub(super) fn newest(&self, before: Option<u64>, limit: usize) -> (Vec<Arc<CrashEntry>>, bool) {
        self.0.newest(before, limit)
    }

    pub(super) fn get(&self, number: u64) -> Option<Arc<CrashEntry>> {
        self.0.get(number)
    }

    /// The last crash of an actor.
    pub(super) fn last_of(&self, actor: u64) -> Option<Arc<CrashEntry>> {
        let (all, _) = self.0.newest(None, BOUNDS.entries_max);
        all.into_iter().find(|crash| crash.actor == Some(actor))
    }

    fn add(&self, crash: &CrashRecord, with_trace: bool) -> Arc<CrashEntry> {
        let (message_type, location, backtrace) = match &*crash.reason {
            ExitReason::Panicked {
                message_type,
                location,
                backtrace,
                ..
            } => (
                Some((*message_type).to_owned()),
                Some(location.clone()),
                (with_trace && backtrace.is_captured()).then(|| {
                    backtrace
                        .to_string()
                        .chars()
                        .take(TRACE_CHARS_MAX)
                        .collect()
                }),
            ),
            _ => (None, None, None),
        };
        let (entry, _) = self.0.append(|number| CrashEntry {
            number,
            at_ms: crash.at_ms,
            actor: crash.id.map(|id| id.0),
            name: crash.name.to_string(),
            kind: crash.kind.to_owned(),
            generation: crash.generation,
            reason: crash.reason.to_string(),
            message_type,
            location,
            backtrace,
        });
        entry
    }
}

/// Listens until the tree is gone.
pub(super) fn start(state: &Shared, tree: &Tree) {
    let state = state.clone();
    let mut events = tree.events();
    tree.spawn_task("admin-events", async move {
        let mut traces = Bucket::full(TRACES_BURST, Instant::now());
        let mut store = Look::new(&state);
        let mut clock = tokio::time::interval(LOOK);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Ok(event) => tell(&state, event, &mut traces),
                    Err(RecvError::Lagged(missed)) => state.parts.events.tell(What::Node {
                        state: "events_missed",
                        detail: format!("{missed} events of actors came too fast to be told"),
                    }),
                    Err(RecvError::Closed) => return,
                },
                _ = clock.tick() => store.look(&state).await,
            }
        }
    });
}

/// Turns an event of the tree into one of the node. Actors that start, or end as they should, are
/// not told: with every connection one does.
fn tell(state: &Shared, event: Event, traces: &mut Bucket) {
    let what = match event {
        Event::Crashed(crash) => {
            let with_trace = traces
                .take(TRACES_PER_S, TRACES_BURST, Instant::now())
                .is_ok();
            let entry = state.crashes.add(&crash, with_trace);
            What::Crash {
                number: entry.number,
                actor: entry.actor,
                name: crash.name.to_string(),
                actor_kind: crash.kind,
                reason: crash.reason.to_string(),
            }
        }
        Event::Restarted {
            id,
            name,
            generation,
            reason,
        } => What::Restart {
            actor: id.0,
            name: name.to_string(),
            generation,
            reason: reason.map(|reason| reason.to_string()),
        },
        Event::Exited {
            id,
            name,
            reason,
            discarded,
        } if reason.is_abnormal() => What::ActorEnded {
            actor: id.0,
            name: name.to_string(),
            reason: reason.to_string(),
            discarded_count: discarded,
        },
        Event::Abandoned {
            id,
            name,
            discarded,
        } => What::ActorEnded {
            actor: id.0,
            name: name.to_string(),
            reason: "abandoned: it did not stop by its deadline".to_owned(),
            discarded_count: discarded,
        },
        Event::Stalled { id, name, held_ms } => What::Node {
            state: "stalled",
            detail: format!("{name} ({id}) has held its thread for {held_ms} ms"),
        },
        Event::Escalated { id, name, reason } => What::Node {
            state: "escalated",
            detail: format!("the supervisor {name} ({id}) failed: {reason}"),
        },
        Event::RootFailed { reason } => What::Node {
            state: "failed",
            detail: reason.to_string(),
        },
        Event::Alarm(alarm) => What::Node {
            state: "crash_rate",
            detail: format!("{} panics within {:?}", alarm.panics, alarm.within),
        },
        _ => return,
    };
    state.parts.events.tell(what);
}

/// What the store looked like the last time.
struct Look {
    letters: u64,
    /// Number of the newest dead letter told.
    newest: u64,
    unavailable: Option<String>,
}

impl Look {
    fn new(state: &Shared) -> Self {
        Self {
            letters: state.parts.broker.store().stats().dead_letters,
            newest: 0,
            unavailable: None,
        }
    }

    async fn look(&mut self, state: &Shared) {
        let (store, events) = (state.parts.broker.store(), &state.parts.events);
        let unavailable = store.unavailable().map(|why| why.to_string());
        if unavailable != self.unavailable {
            let (what, detail) = match &unavailable {
                Some(why) => ("store_unavailable", why.clone()),
                None => ("store_available", "the store accepts again".to_owned()),
            };
            events.tell(What::Node {
                state: what,
                detail,
            });
            self.unavailable = unavailable;
        }
        let letters = store.stats().dead_letters;
        if letters > self.letters {
            // There may be many older ones that were there before: only the last can be new.
            let new = usize::try_from(letters - self.letters).unwrap_or(usize::MAX);
            if let Ok(all) = store.dead_letters(self.newest, 1_000).await {
                let skip = all.len().saturating_sub(new.min(LETTERS_TOLD_MAX));
                for letter in all.iter().skip(skip) {
                    events.tell(What::DeadLetter {
                        number: letter.number,
                        user: letter.user.clone(),
                        reason: letter.reason.clone(),
                    });
                }
                self.newest = all.last().map_or(self.newest, |letter| letter.number);
            }
        }
        self.letters = letters;
    }
}
