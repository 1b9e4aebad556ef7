//! Receipts, searches, expiry, dead letters, accounts, values, figures, the end.

use stonechat_mailbox::{AppendError, Store, StoreError};

use crate::common::{Node, TTL_MS, body, device, id, until, user, wait};

pub(crate) fn receipts_move_and_are_listed_by_revision(node: &Node) {
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
        std::slice::from_ref(&other)
    );
    assert_eq!(
        wait(node.store.receipts_after(&alice, other.rev, 10)).unwrap(),
        std::slice::from_ref(&second)
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

pub(crate) fn a_message_is_found_from_the_newest(node: &Node) {
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

pub(crate) fn large_bodies_fit_and_the_queue_pushes_back(node: &Node) {
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

pub(crate) fn expired_messages_are_neither_read_nor_kept(node: &Node) {
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

pub(crate) fn dead_letters_are_kept_apart(node: &Node) {
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

pub(crate) fn accounts_are_listed_changed_and_removed(node: &Node) {
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

pub(crate) fn values_come_back_by_prefix(node: &Node) {
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

pub(crate) fn statistics_follow(node: &Node) {
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
    until("everything left", || {
        let stats = node.store.stats();
        (stats.messages, stats.bytes, stats.recent_bytes) == (0, 0, 0)
    });
}

pub(crate) fn closing_refuses_and_can_be_repeated(node: &Node) {
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
