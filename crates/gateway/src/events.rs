//! What happens on the node, for people who watch: connections, crashes, limits,
//! security, dead letters.
//!
//! A ring of the latest events, numbered. Whoever tells one never waits and holds
//! no reader up; whoever reads is behind only as far as the ring is long, and is
//! told what was missed. Nothing here is on a message's way, and a connection
//! keeps nothing for it: it tells when it opens and when it ends.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use serde::Serialize;
use stonechat_protocol::{DeviceId, UserId};
use tokio::sync::watch;

/// Events kept.
pub(crate) const EVENTS_KEPT: usize = 4_096;
/// Security and limit events at once; strangers cause them and must not push out all others.
const STRANGERS_BURST: f64 = 50.0;
/// The same a second, for long.
const STRANGERS_PER_S: f64 = 5.0;

/// What happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum What {
    /// A device signed in.
    Connected {
        user: UserId,
        device: DeviceId,
        peer: Option<SocketAddr>,
    },
    /// A device's connection ended.
    Disconnected {
        user: UserId,
        device: DeviceId,
        peer: Option<SocketAddr>,
        reason: &'static str,
        lasted_ms: u64,
    },
    /// A panic was caught.
    Crash {
        /// Names it among the crashes.
        number: u64,
        actor: Option<u64>,
        name: String,
        actor_kind: &'static str,
        reason: String,
    },
    /// An actor was started again.
    Restart {
        actor: u64,
        name: String,
        generation: u32,
        reason: Option<String>,
    },
    /// An actor ended in a way that is not the usual one.
    ActorEnded {
        actor: u64,
        name: String,
        reason: String,
        discarded_count: u32,
    },
    /// A limit was reached.
    Limit {
        limit: &'static str,
        detail: String,
        peer: Option<SocketAddr>,
    },
    /// A message was set aside.
    DeadLetter {
        number: u64,
        user: UserId,
        reason: String,
    },
    /// Somebody was refused who may have meant harm.
    Security {
        what: &'static str,
        detail: String,
        peer: Option<SocketAddr>,
        /// Of this kind and of limits, not told before this one because there were too many.
        suppressed_count: u64,
    },
    /// Something about the node as a whole.
    Node { state: &'static str, detail: String },
}

impl What {
    /// The kinds there are, as filters name them.
    pub(crate) const KINDS: [&'static str; 10] = [
        "connected",
        "disconnected",
        "crash",
        "restart",
        "actor_ended",
        "limit",
        "dead_letter",
        "security",
        "node",
        "dropped",
    ];

    /// Its place among [`What::KINDS`].
    pub(crate) fn kind(&self) -> usize {
        match self {
            Self::Connected { .. } => 0,
            Self::Disconnected { .. } => 1,
            Self::Crash { .. } => 2,
            Self::Restart { .. } => 3,
            Self::ActorEnded { .. } => 4,
            Self::Limit { .. } => 5,
            Self::DeadLetter { .. } => 6,
            Self::Security { .. } => 7,
            Self::Node { .. } => 8,
        }
    }
}

/// An event.
#[derive(Debug, Serialize)]
pub(crate) struct Event {
    /// Rises by one with each, also over restarts by a leap.
    pub(crate) id: u64,
    /// When, milliseconds since the Unix epoch.
    pub(crate) at_ms: u64,
    #[serde(flatten)]
    pub(crate) what: What,
}

struct Ring {
    kept: VecDeque<Arc<Event>>,
    id_next: u64,
    /// For what strangers cause: how many may be told, and since when that is so.
    allowance: (f64, Instant),
    suppressed: u64,
}

struct Inner {
    ring: Mutex<Ring>,
    latest: watch::Sender<u64>,
    id_first: u64,
}

/// The events of a node. Cheap to clone.
#[derive(Clone)]
pub struct Events(Arc<Inner>);

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Events")
            .field(&*self.0.latest.borrow())
            .finish()
    }
}

/// What a reader gets at a time.
pub(crate) struct Batch {
    pub(crate) events: Vec<Arc<Event>>,
    /// Events the reader was too slow for.
    pub(crate) missed: u64,
    /// Where to go on.
    pub(crate) next: u64,
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

impl Events {
    /// An empty ring. Its first number is beyond those of an earlier process, so that a reader
    /// who resumes after a restart of the node misses nothing of the new one.
    pub fn new() -> Self {
        // Stays exact in a script's numbers for some 280 years.
        let id_first = now_ms().saturating_mul(1_000);
        Self(Arc::new(Inner {
            ring: Mutex::new(Ring {
                kept: VecDeque::new(),
                id_next: id_first,
                allowance: (STRANGERS_BURST, Instant::now()),
                suppressed: 0,
            }),
            latest: watch::Sender::new(id_first),
            id_first,
        }))
    }

    /// Tells an event.
    pub(crate) fn tell(&self, mut what: What) {
        let id_next = {
            let mut ring = self.0.ring.lock();
            match &mut what {
                What::Security { .. } | What::Limit { .. } if !ring.allow(Instant::now()) => {
                    ring.suppressed += 1;
                    return;
                }
                What::Security {
                    suppressed_count, ..
                } => *suppressed_count = std::mem::take(&mut ring.suppressed),
                _ => {}
            }
            if ring.kept.len() >= EVENTS_KEPT {
                ring.kept.pop_front();
            }
            let id = ring.id_next;
            ring.id_next += 1;
            let at_ms = now_ms();
            ring.kept.push_back(Arc::new(Event { id, at_ms, what }));
            ring.id_next
        };
        // Two tellers may come here in either order: the later number stays.
        self.0.latest.send_if_modified(|latest| {
            let later = id_next > *latest;
            *latest = id_next.max(*latest);
            later
        });
    }

    /// The number the next event will have.
    pub(crate) fn next(&self) -> u64 {
        self.0.ring.lock().id_next
    }

    /// Fires when there is something new.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.latest.subscribe()
    }

    /// At most `max` events from `from` on whose kind `wanted` lets through.
    pub(crate) fn read(&self, from: u64, max: usize, wanted: impl Fn(&What) -> bool) -> Batch {
        let ring = self.0.ring.lock();
        let first = ring.kept.front().map_or(ring.id_next, |event| event.id);
        // A number of an earlier process: what this one has is all there is. One that is ahead (the
        // clock was set back in between): what happens from now on.
        let begin = from.clamp(self.0.id_first, ring.id_next);
        let missed = first.saturating_sub(begin);
        let start = begin.max(first);
        let skip = usize::try_from(start - first).unwrap_or(usize::MAX);
        let mut next = start;
        let mut events = Vec::new();
        for event in ring.kept.iter().skip(skip) {
            if events.len() >= max {
                break;
            }
            next = event.id + 1;
            if wanted(&event.what) {
                events.push(Arc::clone(event));
            }
        }
        Batch {
            events,
            missed,
            next,
        }
    }
}

impl Ring {
    fn allow(&mut self, now: Instant) -> bool {
        let (left, at) = self.allowance;
        let passed_s = now.saturating_duration_since(at).as_secs_f64();
        let left = (left + passed_s * STRANGERS_PER_S).min(STRANGERS_BURST);
        let allowed = left >= 1.0;
        self.allowance = (if allowed { left - 1.0 } else { left }, now);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u64) -> What {
        What::Node {
            state: "test",
            detail: n.to_string(),
        }
    }

    fn details(batch: &Batch) -> Vec<String> {
        let detail = |event: &Arc<Event>| match &event.what {
            What::Node { detail, .. } => detail.clone(),
            other => format!("{other:?}"),
        };
        batch.events.iter().map(detail).collect()
    }

    #[test]
    fn a_reader_goes_on_where_it_was_and_hears_what_it_missed() {
        let events = Events::new();
        let start = events.next();
        for n in 0..5 {
            events.tell(node(n));
        }
        let batch = events.read(start, 2, |_| true);
        assert_eq!(
            (details(&batch), batch.missed),
            (vec!["0".into(), "1".into()], 0)
        );
        let batch = events.read(batch.next, 100, |_| true);
        assert_eq!(details(&batch), ["2", "3", "4"]);
        assert_eq!(batch.next, events.next());
        let kept = EVENTS_KEPT as u64;
        for n in 5..5 + kept {
            events.tell(node(n));
        }
        let late = events.read(start + 2, 1, |_| true);
        assert_eq!((details(&late), late.missed), (vec!["5".to_owned()], 3));
        // From an earlier process, and from one that never was.
        assert_eq!(events.read(7, 1, |_| true).missed, 5);
        let ahead = events.read(u64::MAX, 1, |_| true);
        assert!(ahead.events.is_empty());
        assert_eq!(ahead.next, events.next());
    }

    #[test]
    fn what_is_not_wanted_is_passed_over_for_good() {
        let events = Events::new();
        let start = events.next();
        events.tell(node(1));
        let batch = events.read(start, 10, |_| false);
        assert!(batch.events.is_empty());
        assert_eq!(batch.next, start + 1);
    }

    #[test]
    fn strangers_cannot_push_everything_out() {
        let events = Events::new();
        let start = events.next();
        events.tell(node(1));
        for _ in 0..2 * EVENTS_KEPT {
            events.tell(What::Security {
                what: "test",
                detail: String::new(),
                peer: None,
                suppressed_count: 0,
            });
        }
        let batch = events.read(start, EVENTS_KEPT, |_| true);
        assert_eq!(batch.missed, 0);
        assert!(batch.events.len() < 100, "{}", batch.events.len());
        assert!(events.0.ring.lock().suppressed > 1_000);
    }

    #[test]
    fn kinds_are_named_as_they_are_written() {
        let what = node(1);
        let json = serde_json::to_value(&what).unwrap();
        assert_eq!(json["kind"], What::KINDS[what.kind()]);
    }
}
