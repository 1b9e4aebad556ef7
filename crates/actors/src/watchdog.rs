//! Notices code that holds its arbiter: a handler that blocks stalls everyone on the same thread.
//!
//! Each thread with supervised code has a pulse: a turn counter and the id of whose turn it is, two relaxed
//! stores a turn and no clock. The keeper's thread samples the pulses; the same turn seen for longer than
//! allowed is reported once. It reports and does not interrupt: a thread cannot be stopped from outside.

use std::{
    cell::RefCell,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{ActorId, observe::Event, tree::TreeShared};

/// Shortest time between two samples.
const SAMPLE_MIN: Duration = Duration::from_millis(10);

struct Seen {
    turn: u64,
    since: Instant,
    reported: bool,
}

/// One thread's sign of life.
pub(crate) struct Pulse {
    /// Whose turn it is; 0 between turns.
    current: AtomicU64,
    /// Turns begun. Written by its own thread only.
    turns: AtomicU64,
    /// The thread's place among those the tree has seen, from 1; 0 until it is known.
    pub(crate) number: AtomicU32,
    pub(crate) thread: Arc<str>,
    seen: Mutex<Seen>,
}

impl Pulse {
    fn new() -> Self {
        Self {
            current: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            number: AtomicU32::new(0),
            thread: std::thread::current().name().unwrap_or("unnamed").into(),
            seen: Mutex::new(Seen {
                turn: 0,
                since: Instant::now(),
                reported: false,
            }),
        }
    }

    pub(crate) fn begin(&self, id: ActorId) {
        self.turns.store(
            self.turns.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
        self.current.store(id.0, Ordering::Release);
    }

    pub(crate) fn end(&self) {
        self.current.store(0, Ordering::Release);
    }

    /// Who has held the thread for longer than `stall_after`, and for how long; told once for each turn.
    fn sample(&self, now: Instant, stall_after: Duration) -> Option<(ActorId, Duration)> {
        let current = self.current.load(Ordering::Acquire);
        let turn = self.turns.load(Ordering::Relaxed);
        let mut seen = self.seen.lock();
        if current == 0 || seen.turn != turn {
            if seen.reported {
                let held_ms =
                    u64::try_from(now.duration_since(seen.since).as_millis()).unwrap_or(u64::MAX);
                info!(thread = %self.thread, held_ms, "arbiter moves again");
            }
            *seen = Seen {
                turn,
                since: now,
                reported: false,
            };
            return None;
        }
        let held = now.duration_since(seen.since);
        if held < stall_after || seen.reported {
            return None;
        }
        seen.reported = true;
        Some((ActorId(current), held))
    }
}

thread_local! {
    /// This thread's pulse in each live tree.
    static PULSES: RefCell<Vec<(u64, Arc<Pulse>)>> = const { RefCell::new(Vec::new()) };
}

/// This thread's pulse in the tree numbered `tree`, and whether it is new.
pub(crate) fn of_this_thread(tree: u64) -> (Arc<Pulse>, bool) {
    PULSES.with(|pulses| {
        let mut pulses = pulses.borrow_mut();
        if let Some((_, pulse)) = pulses.iter().find(|(id, _)| *id == tree) {
            return (Arc::clone(pulse), false);
        }
        // Those nobody else holds belong to trees that are gone.
        pulses.retain(|(_, pulse)| Arc::strong_count(pulse) > 1);
        let pulse = Arc::new(Pulse::new());
        pulses.push((tree, Arc::clone(&pulse)));
        (pulse, true)
    })
}

/// Samples until the tree is gone.
pub(crate) async fn watch(tree: Weak<TreeShared>, stall_after: Duration) {
    let mut clock = tokio::time::interval((stall_after / 4).max(SAMPLE_MIN));
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        clock.tick().await;
        let Some(tree) = tree.upgrade() else { return };
        let now = Instant::now();
        let mut pulses = tree.pulses.lock();
        // Those nobody else holds belong to threads that have ended.
        pulses.retain(|pulse| Arc::strong_count(pulse) > 1);
        let stalled: Vec<_> = pulses
            .iter()
            .filter_map(|pulse| {
                pulse
                    .sample(now, stall_after)
                    .map(|(id, held)| (Arc::clone(pulse), id, held))
            })
            .collect();
        drop(pulses);
        for (pulse, id, held) in stalled {
            let name = tree.name_of(id);
            let held_ms = u64::try_from(held.as_millis()).unwrap_or(u64::MAX);
            tree.totals.stalls.fetch_add(1, Ordering::Relaxed);
            warn!(actor = &*name, id = id.0, thread = %pulse.thread, held_ms, "a turn holds its arbiter");
            tree.emit(|| Event::Stalled { id, name, held_ms });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_told_of_once_and_the_next_one_anew() {
        let stall_after = Duration::from_millis(40);
        let began = Instant::now();
        let pulse = Pulse::new();
        let held = |ms| {
            let found = pulse.sample(began + Duration::from_millis(ms), stall_after);
            found.map(|(id, held)| (id.0, held.as_millis()))
        };
        assert_eq!(held(0), None);
        pulse.begin(ActorId(7));
        // Of a turn it is known how long it has been seen, not when it began.
        assert_eq!(held(10), None);
        assert_eq!(held(49), None);
        assert_eq!(held(50), Some((7, 40)));
        assert_eq!(held(90), None);
        assert_eq!(held(500), None);
        pulse.end();
        pulse.begin(ActorId(7));
        assert_eq!(held(510), None);
        assert_eq!(held(560), Some((7, 50)));
        pulse.end();
        assert_eq!(held(600), None);
        assert_eq!(held(700), None);
    }
}
