//! What is on its way to the disk while an account or a device is removed, and ids of senders that are gone.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::io;
use std::sync::Arc;

use common::{Node, Time, body, config, device, id, until, wait};
use parking_lot::{Condvar, Mutex};
use stonechat_mailbox::{Faults, Store, WriteFault};

/// A disk whose syncs take as long as the test wants.
#[derive(Default)]
struct Gate {
    /// Shut, and waited at.
    state: Mutex<(bool, bool)>,
    moved: Condvar,
}

impl Gate {
    fn shut(&self, shut: bool) {
        self.state.lock().0 = shut;
        self.moved.notify_all();
    }

    fn is_waited_at(&self) -> bool {
        self.state.lock().1
    }
}

impl Faults for Gate {
    fn write(&self, _bytes: usize) -> WriteFault {
        WriteFault::None
    }

    fn sync(&self) -> Option<io::Error> {
        let mut state = self.state.lock();
        while state.0 {
            state.1 = true;
            self.moved.wait(&mut state);
        }
        state.1 = false;
        None
    }
}

/// A session may hold the mailbox of an account that was removed a moment ago.
#[test]
fn what_is_sent_to_a_removed_account_stays_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path());
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    wait(node.store.remove_account(bob.user())).unwrap();
    node.send(&alice, &bob, 1).unwrap();
    node.barrier();
    assert_eq!(bob.stats().messages, 0);
    assert_eq!(node.store.stats().messages, 0);
    assert_eq!(node.store.stats().recent_bytes, 0);
    let bob = node.create("bob");
    assert_eq!(node.held(&bob, 0), []);
    node.send(&alice, &bob, 2).unwrap();
    node.barrier();
    let held = node.held(&bob, 0);
    assert_eq!(held.iter().map(|(_, id)| *id).collect::<Vec<_>>(), [id(2)]);
}

/// A dead letter that is put back has no sender's mailbox when its sender's account is gone.
#[test]
fn an_id_is_remembered_for_its_sender_only() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path());
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    node.attach(&bob, "phone");
    let envelope = node.envelope(&alice, bob.user(), 1, &body(1, 40));
    node.send_envelope(envelope, &bob, &[&bob]).unwrap();
    node.barrier();
    let phone = bob.device(&device("phone")).unwrap();
    assert!(phone.window.is_empty(), "bob sent nothing");
    assert_eq!(node.held(&bob, 0), [(1, id(1))]);
}

/// The note that it is connected may be written before the one that it was removed, which was first.
#[test]
fn a_device_that_attaches_while_it_is_removed_is_there_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let time = Time::default();
    let gate = Arc::new(Gate::default());
    let mut settings = config(&dir.path().join("running"), &time);
    settings.faults = Some(Arc::clone(&gate) as Arc<dyn Faults>);
    let node = Node::with(settings, time);
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    node.attach(&bob, "phone");
    wait(node.store.flush()).unwrap();
    gate.shut(true);
    node.send(&alice, &bob, 1).unwrap();
    until("it is being synced", || gate.is_waited_at());
    let removed = node.store.remove_device(&bob, &device("phone"));
    node.attach(&bob, "phone");
    let written = node.store.flush();
    gate.shut(false);
    wait(removed).unwrap();
    wait(written).unwrap();
    wait(node.store.flush()).unwrap();
    node.store.crash_into(&image).unwrap();
    let node = Node::open(&image);
    let bob = node.mailbox("bob");
    assert!(bob.device(&device("phone")).is_some(), "it is connected");
}
