//! What every store must do, promise by promise. A later store runs the same
//! suite by adding itself to `stores!`.

mod common;

use common::{Node, TTL_MS, body, device, id, user, wait};
use stonechat_mailbox::{AppendError, Store, StoreError};

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

fn receipts_move_and_are_listed_by_revision(node: &Node) {
    let alice = node.create("alice");
    let put = |with: &str, delivered: Option<u64>, read: Option<u64>| {
        let (with, now_ms) = (user(with), node.time.now());
        wait(
            node.store
                .put_receipt(&alice, &with, delivered.map(id), read.map(id), now_ms),
        )
        .unwrap()
    };
    assert!(
        wait(node.store.receipt(&alice, &user("bob")))
            .unwrap()
            .is_none()
    );
    assert!(put("bob", None, None).is_none());
    let first = put("bob", Some(1), None).unwrap();
    assert_eq!((first.delivered, first.read), (Some(id(1)), None));
    assert!(put("bob", Some(1), None).is_none(), "nothing changed");
    let other = put("carol", Some(2), None).unwrap();
    assert!(other.rev > first.rev);
    let second = put("bob", None, Some(1)).unwrap();
    assert_eq!((second.delivered, second.read), (Some(id(1)), Some(id(1))));
    assert!(second.rev > other.rev);
    assert!(second.rev < 1 << 53, "exact in JSON");

    let all = wait(node.store.receipts_after(&alice, 0, 10)).unwrap();
    assert_eq!(all, [other.clone(), second.clone()]);
    assert_eq!(
        wait(node.store.receipts_after(&alice, 0, 1)).unwrap(),
        [other.clone()]
    );
    assert_eq!(
        wait(node.store.receipts_after(&alice, other.rev, 10)).unwrap(),
        [second.clone()]
    );
    assert_eq!(
        wait(node.store.receipts_after(&alice, second.rev, 10)).unwrap(),
        []
    );
    assert_eq!(
        wait(node.store.receipt(&alice, &user("bob"))).unwrap(),
        Some(second)
    );
}

fn a_message_is_found_from_the_newest(node: &Node) {
    let (alice, bob, carol) = (
        node.create("alice"),
        node.create("bob"),
        node.create("carol"),
    );
    for n in 1..=30 {
        node.send(if n % 2 == 0 { &alice } else { &carol }, &bob, n)
            .unwrap();
    }
    node.barrier();
    let find = |from: &str, n: u64, max: usize| {
        wait(node.store.find(&bob, &user(from), id(n), max)).unwrap()
    };
    assert_eq!(find("alice", 30, 1), Some(30));
    assert_eq!(find("alice", 10, 100), Some(10));
    assert_eq!(find("carol", 10, 100), None, "another's id");
    assert_eq!(find("alice", 20, 11), Some(20));
    assert_eq!(find("alice", 20, 10), None, "not looked at");
    assert_eq!(find("alice", 99, 100), None);
}

fn large_bodies_fit_and_the_queue_pushes_back(node: &Node) {
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    node.attach(&bob, "phone");
    for n in 1..=40 {
        let envelope = node.envelope(&alice, bob.user(), n, &body(n, 64 << 10));
        loop {
            match node.send_envelope(std::sync::Arc::clone(&envelope), &alice, &[&bob]) {
                Ok(()) => break,
                Err(AppendError::Busy) => wait(node.store.ready()),
                Err(other) => panic!("{other}"),
            }
        }
    }
    node.barrier();
    assert_eq!(bob.stats().messages, 40);
    let batch = wait(node.store.read(&bob, 30, 1, 1 << 20)).unwrap();
    assert_eq!(batch.messages[0].envelope.body, body(31, 64 << 10));
    assert_eq!(node.held(&bob, 0).len(), 40);
    node.ack(&bob, "phone", 40);
    assert_eq!(bob.stats().messages, 0);
}

fn expired_messages_are_neither_read_nor_kept(node: &Node) {
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    node.attach(&bob, "phone");
    for n in 1..=10 {
        let mut envelope =
            std::sync::Arc::unwrap_or_clone(node.envelope(&alice, bob.user(), n, &body(n, 20)));
        if n % 3 == 0 {
            envelope.expires_ms = node.time.now() + 1000;
        }
        node.send_envelope(envelope.into(), &alice, &[&bob])
            .unwrap();
    }
    node.barrier();
    assert_eq!(wait(node.store.expire(node.time.now(), 100)).unwrap(), 0);
    assert_eq!(node.held(&bob, 0).len(), 10);
    node.time.pass(1000);
    let left = [1, 2, 4, 5, 7, 8, 10];
    assert_eq!(
        node.held(&bob, 0),
        left.map(|n| (n, id(n))),
        "not read, though still there"
    );
    assert_eq!(
        wait(node.store.expire(node.time.now(), 2)).unwrap(),
        2,
        "in slices"
    );
    assert_eq!(wait(node.store.expire(node.time.now(), 100)).unwrap(), 1);
    assert_eq!(wait(node.store.expire(node.time.now(), 100)).unwrap(), 0);
    let stats = bob.stats();
    assert_eq!(
        (stats.messages, stats.expired_total, stats.bytes),
        (7, 3, 140)
    );
    assert_eq!(node.store.stats().expired_total, 3);
    assert_eq!(bob.pending(&device("phone")), 7);
    assert_eq!(node.held(&bob, 0), left.map(|n| (n, id(n))));
    node.time.pass(TTL_MS);
    assert_eq!(wait(node.store.expire(node.time.now(), 100)).unwrap(), 7);
    assert_eq!(bob.stats().messages, 0);
    let batch = wait(node.store.read(&bob, 0, 10, 1000)).unwrap();
    assert_eq!((batch.upto, batch.end), (10, true));
}

fn dead_letters_are_kept_apart(node: &Node) {
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    for n in 1..=5 {
        node.send(&alice, &bob, n).unwrap();
    }
    node.barrier();
    let put = |seq| {
        wait(
            node.store
                .dead_letter(&bob, seq, format!("reason {seq}"), 5),
        )
    };
    let first = put(2).unwrap();
    let second = put(4).unwrap();
    assert!(second > first);
    assert!(
        matches!(put(4), Err(StoreError::NotFound(_))),
        "it is gone from the mailbox"
    );
    assert!(matches!(put(0), Err(StoreError::NotFound(_))));
    assert_eq!(node.held(&bob, 0), [1, 3, 5].map(|n| (n, id(n))));
    assert_eq!(bob.stats().messages, 3);
    assert_eq!(node.store.stats().dead_letters, 2);
    let letters = wait(node.store.dead_letters(0, 10)).unwrap();
    assert_eq!(letters.len(), 2);
    assert_eq!(
        (letters[0].number, letters[0].stored.seq, letters[0].ts_ms),
        (first, 2, 5)
    );
    assert_eq!(
        (&letters[1].user, letters[1].reason.as_str()),
        (&user("bob"), "reason 4")
    );
    assert_eq!(letters[1].stored.envelope.body, body(4, 40));
    assert_eq!(
        wait(node.store.dead_letters(first, 1)).unwrap()[0].number,
        second
    );
    let taken = wait(node.store.take_dead_letter(first)).unwrap();
    assert_eq!(taken, letters[0]);
    let again = wait(node.store.take_dead_letter(first));
    assert!(matches!(again, Err(StoreError::NotFound(_))), "{again:?}");
    assert!(put(5).unwrap() > second, "numbers are not used again");
}

fn accounts_are_listed_changed_and_removed(node: &Node) {
    for name in ["carol", "alice", "bob", "bob.2"] {
        node.create(name);
    }
    let names = |after: Option<&str>, max| {
        let after = after.map(user);
        let accounts = wait(node.store.accounts(after.as_ref(), max)).unwrap();
        accounts
            .into_iter()
            .map(|account| account.user.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(None, 10), ["alice", "bob", "bob.2", "carol"]);
    assert_eq!(names(Some("alice"), 2), ["bob", "bob.2"]);
    let mut account = wait(node.store.account(&user("bob"))).unwrap().unwrap();
    account.disabled = true;
    wait(node.store.put_account(account.clone())).unwrap();
    assert_eq!(
        wait(node.store.account(&user("bob"))).unwrap(),
        Some(account)
    );
    assert_eq!(wait(node.store.account(&user("nobody"))).unwrap(), None);

    let (alice, bob) = (node.mailbox("alice"), node.mailbox("bob"));
    node.attach(&bob, "phone");
    for n in 1..=3 {
        node.send(&alice, &bob, n).unwrap();
    }
    node.barrier();
    wait(
        node.store
            .put_receipt(&bob, &user("alice"), Some(id(9)), None, 1),
    )
    .unwrap();
    wait(node.store.remove_account(&user("bob"))).unwrap();
    assert_eq!(wait(node.store.account(&user("bob"))).unwrap(), None);
    assert!(wait(node.store.open(&user("bob"))).unwrap().is_none());
    assert!(node.store.resident(&user("bob")).is_none());
    assert_eq!(node.store.stats().messages, 0);
    let again = wait(node.store.remove_account(&user("bob")));
    assert!(
        matches!(again, Err(StoreError::UnknownUser(_))),
        "{again:?}"
    );
    assert_eq!(names(None, 10), ["alice", "bob.2", "carol"]);
    // One who was still writing to it loses nothing that anyone could read.
    node.send(&alice, &bob, 4).unwrap();
    node.barrier();

    let bob = node.create("bob");
    assert_eq!((bob.devices(), bob.stats().messages), (0, 0));
    assert_eq!(
        wait(node.store.receipt(&bob, &user("alice"))).unwrap(),
        None
    );
    node.send(&alice, &bob, 5).unwrap();
    node.barrier();
    let held = node.held(&bob, 0);
    assert_eq!(held.len(), 1);
    assert!(
        held[0].0 > 4 && held[0].1 == id(5),
        "places go on: {held:?}"
    );
}

fn values_come_back_by_prefix(node: &Node) {
    let large = bytes::Bytes::from(vec![7u8; 64 << 10]);
    wait(node.store.put_value("key/1", Some("one".into()))).unwrap();
    wait(node.store.put_value("key/2", Some(large.clone()))).unwrap();
    wait(node.store.put_value("other", Some("".into()))).unwrap();
    let values = wait(node.store.values("key/")).unwrap();
    assert_eq!(
        values,
        [
            ("key/1".to_owned(), "one".into()),
            ("key/2".to_owned(), large)
        ]
    );
    wait(node.store.put_value("key/2", Some("short".into()))).unwrap();
    wait(node.store.put_value("key/1", None)).unwrap();
    let values = wait(node.store.values("")).unwrap();
    assert_eq!(
        values,
        [
            ("key/2".to_owned(), "short".into()),
            ("other".to_owned(), "".into())
        ]
    );
    let long = wait(
        node.store
            .put_value("x", Some(vec![0; (64 << 10) + 1].into())),
    );
    assert!(matches!(long, Err(StoreError::TooLarge(_))), "{long:?}");
    let bad = wait(node.store.put_value("", None));
    assert!(matches!(bad, Err(StoreError::TooLarge(_))), "{bad:?}");
}

fn statistics_follow(node: &Node) {
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    node.attach(&bob, "phone");
    let syncs = node.store.stats().syncs_total;
    for n in 1..=9 {
        node.send(&alice, &bob, n).unwrap();
    }
    node.barrier();
    let stats = node.store.stats();
    assert_eq!((stats.messages, stats.bytes, stats.queued), (9, 360, 0));
    assert!(stats.syncs_total > syncs);
    assert!(stats.segments >= 1 && stats.journal_bytes > 0);
    node.ack(&bob, "phone", 9);
    common::until("everything left", || {
        let stats = node.store.stats();
        (stats.messages, stats.bytes, stats.recent_bytes) == (0, 0, 0)
    });
}

fn closing_refuses_and_can_be_repeated(node: &Node) {
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    for n in 1..=5 {
        node.send(&alice, &bob, n).unwrap();
    }
    node.close();
    assert_eq!(
        node.log
            .heard()
            .iter()
            .filter(|heard| heard.result.is_ok())
            .count(),
        5,
        "what was queued is committed"
    );
    let refused = node.send(&alice, &bob, 6).unwrap_err();
    assert!(matches!(refused, AppendError::Unavailable(_)), "{refused}");
    assert!(node.store.unavailable().is_some());
    node.close();
    assert!(wait(node.store.accounts(None, 1)).is_err());
    assert!(wait(node.store.barrier()).is_err());
}
