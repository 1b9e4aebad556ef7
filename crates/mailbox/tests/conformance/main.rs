//! What every store must do, promise by promise. A later store runs the same
//! suite by adding itself to `stores!`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../common/mod.rs"]
mod common;
mod records;

use common::{Node, body, device, id, user, wait};
use records::{
    a_message_is_found_from_the_newest, accounts_are_listed_changed_and_removed,
    closing_refuses_and_can_be_repeated, dead_letters_are_kept_apart,
    expired_messages_are_neither_read_nor_kept, large_bodies_fit_and_the_queue_pushes_back,
    receipts_move_and_are_listed_by_revision, statistics_follow, values_come_back_by_prefix,
};
use stonechat_mailbox::{Store, StoreError};

/// The cases, each against a fresh store in a fresh directory.
macro_rules! conformance {
    ($($name:ident),* $(,)?) => {
        mod journal_store {
            $(#[test]
            fn $name() {
                let dir = tempfile::tempdir().unwrap();
                super::$name(&super::Node::open(dir.path()));
            })*
        }
        /// The same with everything moved to the database before every read.
        mod journal_store_migrated {
            $(#[test]
            fn $name() {
                let dir = tempfile::tempdir().unwrap();
                let mut node = super::Node::open(dir.path());
                node.migrates = true;
                super::$name(&node);
            })*
        }
    };
}

conformance!(
    only_accounts_have_mailboxes,
    commits_in_order_with_places,
    reads_in_order_within_limits,
    a_new_device_gets_what_is_held,
    messages_leave_when_every_device_has_them,
    acknowledgements_are_cumulative_and_clamped,
    first_acknowledgement_reports_each_sender_once,
    windows_remember_what_a_device_sent,
    devices_come_and_go,
    receipts_move_and_are_listed_by_revision,
    a_message_is_found_from_the_newest,
    large_bodies_fit_and_the_queue_pushes_back,
    expired_messages_are_neither_read_nor_kept,
    dead_letters_are_kept_apart,
    accounts_are_listed_changed_and_removed,
    values_come_back_by_prefix,
    statistics_follow,
    closing_refuses_and_can_be_repeated,
);

fn only_accounts_have_mailboxes(node: &Node) {
    assert!(wait(node.store.open(&user("alice"))).unwrap().is_none());
    assert!(node.store.resident(&user("alice")).is_none());
    let alice = node.create("alice");
    assert_eq!(alice.user(), &user("alice"));
    let resident = node.store.resident(&user("alice")).unwrap();
    assert!(std::sync::Arc::ptr_eq(&resident, &alice));
    assert_eq!(alice.last_seq(), 0);
    assert_eq!(alice.devices(), 0);
}

fn commits_in_order_with_places(node: &Node) {
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    node.attach(&alice, "phone");
    for n in 1..=50 {
        let envelope = node.envelope(&alice, bob.user(), n, &body(n, 30));
        node.send_envelope(envelope, &alice, &[&bob, &alice])
            .unwrap();
    }
    node.barrier();
    let heard = node.log.heard();
    assert_eq!(heard.len(), 50, "the barrier comes after the sink");
    for (n, heard) in (1..).zip(heard) {
        assert_eq!(heard.id, id(n));
        let places = heard.result.unwrap();
        assert_eq!(
            places,
            vec![(user("bob"), n - 1, n), (user("alice"), n - 1, n)]
        );
    }
    assert_eq!(bob.last_seq(), 50);
}

fn reads_in_order_within_limits(node: &Node) {
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    for n in 1..=20 {
        let envelope = node.envelope(&alice, bob.user(), n, &body(n, 100));
        node.send_envelope(envelope, &alice, &[&bob]).unwrap();
    }
    node.barrier();
    let batch = wait(node.store.read(&bob, 0, 5, 1 << 20)).unwrap();
    assert_eq!(
        batch.messages.iter().map(|m| m.seq).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    assert_eq!((batch.upto, batch.end), (5, false));
    assert_eq!(batch.messages[2].envelope.body, body(3, 100));
    assert_eq!(batch.messages[2].envelope.from.user, user("alice"));

    let batch = wait(node.store.read(&bob, 5, 100, 250)).unwrap();
    assert_eq!(batch.messages.len(), 2, "two bodies of 100 bytes fit 250");
    let batch = wait(node.store.read(&bob, 5, 100, 1)).unwrap();
    assert_eq!(batch.messages.len(), 1, "one message always fits");

    let batch = wait(node.store.read(&bob, 17, 100, 1 << 20)).unwrap();
    assert_eq!((batch.messages.len(), batch.upto, batch.end), (3, 20, true));
    let batch = wait(node.store.read(&bob, 20, 100, 1 << 20)).unwrap();
    assert_eq!((batch.messages.len(), batch.upto, batch.end), (0, 20, true));
    assert_eq!(node.held(&bob, 0).len(), 20);
    assert_eq!(bob.oldest_ms(), Some(node.time.now()));
}

fn a_new_device_gets_what_is_held(node: &Node) {
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    for n in 1..=3 {
        node.send(&alice, &bob, n).unwrap();
    }
    node.barrier();
    let state = node.attach(&bob, "tablet");
    assert_eq!((state.cursor, state.sent), (0, 0));
    assert_eq!(bob.pending(&device("tablet")), 3);
    assert_eq!(node.held(&bob, state.cursor).len(), 3);
}

fn messages_leave_when_every_device_has_them(node: &Node) {
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    node.attach(&bob, "phone");
    node.attach(&bob, "tablet");
    for n in 1..=10 {
        node.send(&alice, &bob, n).unwrap();
    }
    node.barrier();
    node.ack(&bob, "phone", 8);
    assert_eq!(bob.stats().messages, 10);
    assert_eq!(bob.pending(&device("phone")), 2);
    assert_eq!(bob.pending(&device("tablet")), 10);
    node.ack(&bob, "tablet", 5);
    assert_eq!(bob.stats().messages, 5);
    assert_eq!(node.held(&bob, 0).first(), Some(&(6, id(6))));
    let late = node.attach(&bob, "late");
    assert_eq!(late.cursor, 0);
    assert_eq!(
        bob.pending(&device("late")),
        5,
        "what has left does not come back"
    );
    node.ack(&bob, "tablet", 10);
    node.ack(&bob, "phone", 10);
    node.ack(&bob, "late", 10);
    assert_eq!((bob.stats().messages, bob.stats().bytes), (0, 0));
    assert_eq!(node.held(&bob, 0), []);
    assert_eq!(bob.stats().last_seq, 10);
}

fn acknowledgements_are_cumulative_and_clamped(node: &Node) {
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    node.attach(&bob, "phone");
    for n in 1..=4 {
        node.send(&alice, &bob, n).unwrap();
    }
    node.barrier();
    assert_eq!(node.ack(&bob, "phone", 3).cursor, 3);
    assert_eq!(node.ack(&bob, "phone", 2).cursor, 3, "never back");
    assert_eq!(
        node.ack(&bob, "phone", 900).cursor,
        4,
        "never beyond what is committed"
    );
    let unknown = wait(node.store.ack(&bob, &device("none"), 1));
    assert!(
        matches!(unknown, Err(StoreError::NotFound(_))),
        "{unknown:?}"
    );
    let state = bob.device(&device("phone")).unwrap();
    assert_eq!(
        (state.cursor, state.sent),
        (4, 4),
        "acknowledged implies sent"
    );
}

fn first_acknowledgement_reports_each_sender_once(node: &Node) {
    let (alice, bob, carol) = (
        node.create("alice"),
        node.create("bob"),
        node.create("carol"),
    );
    node.attach(&bob, "phone");
    node.attach(&bob, "tablet");
    node.send(&alice, &bob, 1).unwrap();
    node.send(&carol, &bob, 2).unwrap();
    node.send(&alice, &bob, 3).unwrap();
    // A copy of what bob sent himself is nobody's delivery.
    let own = node.envelope(&bob, alice.user(), 4, &body(4, 10));
    node.send_envelope(own, &bob, &[&alice, &bob]).unwrap();
    node.send(&carol, &bob, 5).unwrap();
    node.barrier();
    let outcome = node.ack(&bob, "phone", 4);
    assert_eq!(
        outcome.delivered,
        [(user("carol"), id(2)), (user("alice"), id(3))]
    );
    assert_eq!(
        node.ack(&bob, "tablet", 4).delivered,
        [],
        "not the first device"
    );
    assert_eq!(
        node.ack(&bob, "tablet", 5).delivered,
        [(user("carol"), id(5))]
    );
    assert_eq!(node.ack(&bob, "phone", 5).delivered, []);
}

fn windows_remember_what_a_device_sent(node: &Node) {
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    assert!(node.attach(&alice, "phone").window.is_empty());
    for n in 1..=70 {
        node.send(&alice, &bob, n).unwrap();
    }
    node.barrier();
    let window = node.attach(&alice, "phone").window;
    let ids: Vec<_> = window.entries().iter().map(|entry| entry.id).collect();
    assert_eq!(ids, (7..=70).map(id).collect::<Vec<_>>());
    assert_eq!(window.entries()[0].ts_ms, node.time.now());
    assert!(node.attach(&alice, "other").window.is_empty());
}

fn devices_come_and_go(node: &Node) {
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    node.attach(&bob, "phone");
    assert!(!bob.has_other_device(&device("phone")));
    assert!(bob.has_other_device(&device("tablet")));
    node.attach(&bob, "tablet");
    assert!(bob.has_other_device(&device("phone")));
    for n in 1..=6 {
        node.send(&alice, &bob, n).unwrap();
    }
    node.barrier();
    node.ack(&bob, "phone", 6);
    node.time.pass(1000);
    node.store
        .detach(&bob, &device("tablet"), 4, node.time.now());
    let state = node.attach(&bob, "tablet");
    assert_eq!(
        (state.cursor, state.sent, state.last_seen_ms),
        (0, 4, node.time.now())
    );
    node.store.receipts_seen(&bob, &device("tablet"), 77);
    node.store.receipts_seen(&bob, &device("tablet"), 5);
    assert_eq!(bob.device(&device("tablet")).unwrap().receipts_seen, 77);

    assert_eq!(bob.stats().messages, 6, "the tablet holds them back");
    wait(node.store.remove_device(&bob, &device("tablet"))).unwrap();
    assert_eq!(bob.stats().messages, 0);
    assert_eq!(bob.devices(), 1);
    let again = wait(node.store.remove_device(&bob, &device("tablet")));
    assert!(matches!(again, Err(StoreError::NotFound(_))), "{again:?}");

    for n in 2..=16 {
        node.attach(&bob, &format!("d{n}"));
    }
    let many = wait(node.store.attach(&bob, &device("one-more"), 0));
    assert!(
        matches!(many, Err(StoreError::TooManyDevices { .. })),
        "{many:?}"
    );
    assert_eq!(bob.device_states().len(), 16);
}
