//! Fault injection: makes one in so many messages panic its handler, for soaks of the supervision.
//!
//! Off, it costs one relaxed load for each turn of an actor. What is injected goes the way of any panic and
//! is counted with the others; it only counts itself on top, so that a soak can tell whether they agree.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::tree::Tree;

/// Which messages panic.
#[derive(Default)]
pub(crate) struct Faults {
    /// One in so many; 0: none.
    every: AtomicU32,
    kind: Mutex<String>,
    seen: AtomicU64,
    injected: AtomicU64,
}

impl Faults {
    /// Whether any may be due.
    pub(crate) fn armed(&self) -> bool {
        self.every.load(Ordering::Relaxed) != 0
    }

    /// Panics when it is the turn of a message to an actor of this kind.
    pub(crate) fn strike(&self, kind: &'static str) {
        let every = u64::from(self.every.load(Ordering::Relaxed));
        if every == 0 || *self.kind.lock() != kind {
            return;
        }
        if self.seen.fetch_add(1, Ordering::Relaxed) % every == every - 1 {
            self.injected.fetch_add(1, Ordering::Relaxed);
            panic!("injected: one in {every} messages");
        }
    }
}

impl Tree {
    /// From now on one in `every` messages (0: none) to actors of this kind panics instead of being
    /// handled. Returns how many did so far. For tests of what runs in the tree.
    pub fn inject_panics(&self, kind: &str, every: u32) -> u64 {
        let faults = &self.shared.faults;
        kind.clone_into(&mut faults.kind.lock());
        faults.every.store(every, Ordering::Relaxed);
        faults.injected.load(Ordering::Relaxed)
    }
}
