//! A disk that can be held up, for what happens while a commit is under way.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};

use stonechat_mailbox::{Faults, WriteFault};

/// A disk whose syncs take as long as the test wants.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<GateState>,
    moved: Condvar,
}

#[derive(Default)]
struct GateState {
    shut: bool,
    waiting: bool,
    /// The sync that waits may pass although it is shut.
    passes: bool,
}

impl Gate {
    pub(crate) fn shut(&self, shut: bool) {
        self.state.lock().expect("never poisoned").shut = shut;
        self.moved.notify_all();
    }

    /// Lets the sync that waits pass, and none after it.
    pub(crate) fn pass_one(&self) {
        let mut state = self.state.lock().expect("never poisoned");
        assert!(state.waiting, "nobody waits");
        state.passes = true;
        drop(state);
        self.moved.notify_all();
    }

    pub(crate) fn is_waited_at(&self) -> bool {
        self.state.lock().expect("never poisoned").waiting
    }
}

impl Faults for Gate {
    fn write(&self, _bytes: usize) -> WriteFault {
        WriteFault::None
    }

    fn sync(&self) -> Option<io::Error> {
        let mut state = self.state.lock().expect("never poisoned");
        while state.shut && !state.passes {
            state.waiting = true;
            state = self.moved.wait(state).expect("never poisoned");
        }
        state.passes = false;
        state.waiting = false;
        None
    }
}

/// A disk that is full when the test says so.
#[derive(Default)]
pub(crate) struct Brim {
    full: AtomicBool,
}

impl Brim {
    pub(crate) fn fill(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }
}

impl Faults for Brim {
    fn write(&self, _bytes: usize) -> WriteFault {
        match self.full.load(Ordering::SeqCst) {
            true => WriteFault::Fail(io::ErrorKind::StorageFull.into()),
            false => WriteFault::None,
        }
    }

    fn sync(&self) -> Option<io::Error> {
        None
    }
}

/// A database that answers nothing while the test says so.
#[derive(Default)]
pub(crate) struct Held {
    state: Mutex<HeldState>,
    moved: Condvar,
}

#[derive(Default)]
struct HeldState {
    held: bool,
    waiting: u32,
}

impl Held {
    pub(crate) fn hold(&self, held: bool) {
        self.state.lock().expect("never poisoned").held = held;
        self.moved.notify_all();
    }

    pub(crate) fn is_waited_for(&self) -> bool {
        self.state.lock().expect("never poisoned").waiting > 0
    }
}

impl Faults for Held {
    fn write(&self, _bytes: usize) -> WriteFault {
        WriteFault::None
    }

    fn sync(&self) -> Option<io::Error> {
        None
    }

    fn lookup(&self) {
        let mut state = self.state.lock().expect("never poisoned");
        state.waiting += 1;
        while state.held {
            state = self.moved.wait(state).expect("never poisoned");
        }
        state.waiting -= 1;
    }
}
