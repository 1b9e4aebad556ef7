//! What a restart finds: after an orderly end, after a crash, and what the
//! tools for a stopped node say and do.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::fs;
use std::time::Duration;

use common::{Node, TTL_MS, Time, body, config, device, id, until, user, wait};
use stonechat_mailbox::{Store, check, compact};

#[test]
fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let time = Time::default();
    for migrated in [false, true] {
        let dir = dir.path().join(migrated.to_string());
        let rev = {
            let node = Node::with(config(&dir, &time), time.clone());
            let (alice, bob) = (node.create("alice"), node.create("bob"));
            node.attach(&alice, "phone");
            node.attach(&bob, "phone");
            node.attach(&bob, "tablet");
            for n in 1..=9 {
                node.send(&alice, &bob, n).unwrap();
            }
            node.barrier();
            node.ack(&bob, "phone", 6);
            node.ack(&bob, "tablet", 3);
            node.store.detach(&bob, &device("phone"), 8, 77);
            node.store.receipts_seen(&bob, &device("phone"), 3);
            let receipt =
                wait(
                    node.store
                        .put_receipt(&alice, &user("bob"), Some(id(6)), Some(id(2)), 5),
                );
            wait(node.store.dead_letter(&bob, 8, "broken".into(), 9)).unwrap();
            wait(node.store.put_value("k", Some("v".into()))).unwrap();
            if migrated {
                node.store.migrate_now().unwrap();
                node.store.checkpoint_now().unwrap();
            }
            node.close();
            receipt.unwrap().unwrap().rev
        };
        let report = check(&dir).unwrap();
        assert!(report.is_sound(), "{report}");
        assert_eq!((report.accounts, report.dead_letters), (2, 1));

        let node = Node::with(config(&dir, &time), time.clone());
        let (alice, bob) = (node.mailbox("alice"), node.mailbox("bob"));
        assert_eq!(node.held(&bob, 0), [4, 5, 6, 7, 9].map(|n| (n, id(n))));
        assert_eq!(bob.stats().messages, 5);
        assert_eq!(node.store.stats().messages, 5);
        let phone = bob.device(&device("phone")).unwrap();
        assert_eq!(
            (
                phone.cursor,
                phone.sent,
                phone.receipts_seen,
                phone.last_seen_ms
            ),
            (6, 8, 3, 77)
        );
        let tablet = bob.device(&device("tablet")).unwrap();
        assert_eq!(
            (tablet.cursor, tablet.sent),
            (3, 9),
            "it never detached: all may have been sent"
        );
        assert_eq!(
            alice
                .device(&device("phone"))
                .unwrap()
                .window
                .entries()
                .len(),
            9
        );
        assert_eq!(bob.pending(&device("phone")), 2);
        let receipt = wait(node.store.receipt(&alice, &user("bob")))
            .unwrap()
            .unwrap();
        assert_eq!(
            (receipt.delivered, receipt.read),
            (Some(id(6)), Some(id(2)))
        );
        let later = wait(
            node.store
                .put_receipt(&alice, &user("bob"), Some(id(7)), None, 6),
        )
        .unwrap()
        .unwrap();
        assert!(later.rev > rev && receipt.rev >= rev);
        assert_eq!(
            wait(node.store.dead_letters(0, 9)).unwrap()[0].reason,
            "broken"
        );
        assert_eq!(
            wait(node.store.values("")).unwrap(),
            [("k".to_owned(), "v".into())]
        );
        node.send(&alice, &bob, 10).unwrap();
        node.barrier();
        assert_eq!(bob.last_seq(), 10);
        let outcome = node.ack(&bob, "phone", 10);
        assert_eq!(outcome.delivered, [(user("alice"), id(10))]);
    }
}

#[test]
fn a_removed_account_stays_removed_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    for (index, checkpoint) in [false, true].into_iter().enumerate() {
        let image = dir.path().join(format!("image{index}"));
        let last_seq = {
            let node = Node::open(&dir.path().join(format!("running{index}")));
            let (alice, bob) = (node.create("alice"), node.create("bob"));
            node.attach(&bob, "phone");
            for n in 1..=5 {
                node.send(&alice, &bob, n).unwrap();
            }
            node.barrier();
            node.store.migrate_now().unwrap();
            wait(node.store.remove_account(&user("bob"))).unwrap();
            if checkpoint {
                node.store.checkpoint_now().unwrap();
            }
            let again = node.create("bob");
            node.attach(&again, "new");
            node.send(&alice, &again, 6).unwrap();
            node.barrier();
            let last_seq = again.last_seq();
            wait(node.store.remove_account(&user("alice"))).unwrap();
            node.store.crash_into(&image).unwrap();
            last_seq
        };
        let node = Node::open(&image);
        assert!(wait(node.store.open(&user("alice"))).unwrap().is_none());
        let bob = node.mailbox("bob");
        assert_eq!(node.held(&bob, 0), [(last_seq, id(6))]);
        assert_eq!(bob.device_states().len(), 1);
        assert!(bob.device(&device("new")).is_some());
        assert_eq!(node.store.stats().messages, 1);
    }
}

#[test]
fn delivered_receipts_survive_a_crash_before_the_sender_heard() {
    for migrated in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        let time = Time::default();
        let mut settings = config(&dir.path().join("running"), &time);
        // The time the broker has to store a receipt: a checkpoint within it forgets nothing.
        settings.receipt_grace = Duration::from_secs(3600);
        {
            let node = Node::with(settings, time.clone());
            let (alice, bob) = (node.create("alice"), node.create("bob"));
            node.attach(&bob, "phone");
            for n in 1..=4 {
                node.send(&alice, &bob, n).unwrap();
            }
            node.barrier();
            if migrated {
                node.store.migrate_now().unwrap();
                node.store.checkpoint_now().unwrap();
            }
            assert_eq!(
                node.ack(&bob, "phone", 3).delivered,
                [(user("alice"), id(3))]
            );
            node.barrier();
            node.store.crash_into(&image).unwrap();
        }
        let node = Node::with(config(&image, &time), time);
        let alice = node.mailbox("alice");
        let receipt = wait(node.store.receipt(&alice, &user("bob")))
            .unwrap()
            .unwrap();
        assert_eq!(receipt.delivered, Some(id(3)));
    }
}

/// The tablet acknowledges alice's messages, then the phone moves on over bob's own copies,
/// both before anything of it is journaled: the order of the two records counts.
#[test]
fn delivered_receipts_do_not_step_back_over_own_copies() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let time = Time::default();
    {
        let node = Node::with(config(&dir.path().join("running"), &time), time.clone());
        let (alice, bob) = (node.create("alice"), node.create("bob"));
        node.attach(&bob, "phone");
        node.attach(&bob, "tablet");
        for n in 1..=3 {
            node.send(&alice, &bob, n).unwrap();
        }
        for n in 4..=5 {
            let envelope = node.envelope(&bob, alice.user(), n, b"1");
            node.send_envelope(envelope, &bob, &[&alice, &bob]).unwrap();
        }
        node.barrier();
        let delivered = node.ack(&bob, "tablet", 3).delivered;
        assert_eq!(delivered, [(user("alice"), id(3))]);
        assert_eq!(node.ack(&bob, "phone", 5).delivered, []);
        wait(node.store.flushed()).unwrap();
        node.store.crash_into(&image).unwrap();
    }
    let node = Node::with(config(&image, &time), time);
    let alice = node.mailbox("alice");
    let receipt = wait(node.store.receipt(&alice, &user("bob"))).unwrap();
    assert_eq!(receipt.unwrap().delivered, Some(id(3)));
}

#[test]
fn compaction_returns_space_and_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    {
        let node = Node::open(dir.path());
        let (alice, bob) = (node.create("alice"), node.create("bob"));
        node.attach(&bob, "phone");
        for round in 0..6u64 {
            for n in 1..=100 {
                let envelope =
                    node.envelope(&alice, bob.user(), round * 1000 + n, &body(n, 20_000));
                node.send_envelope(envelope, &alice, &[&bob]).unwrap();
            }
            node.barrier();
            node.store.migrate_now().unwrap();
            node.ack(&bob, "phone", bob.last_seq() - 1);
            node.store.checkpoint_now().unwrap();
        }
        wait(node.store.put_value("k", Some(vec![3; 40_000].into()))).unwrap();
        node.close();
    }
    // What an interrupted compaction leaves behind does not matter.
    fs::create_dir(dir.path().join("sled-000002")).unwrap();
    fs::write(dir.path().join("sled-000002/db"), b"half").unwrap();
    let report = compact(dir.path()).unwrap();
    assert!(
        report.entries > 0 && report.bytes_after < report.bytes_before,
        "{report}"
    );
    assert!(!dir.path().join("sled-000001").exists());
    let checked = check(dir.path()).unwrap();
    assert!(checked.is_sound(), "{checked}");
    assert_eq!(checked.messages, 1);
    let node = Node::open(dir.path());
    let bob = node.mailbox("bob");
    assert_eq!(node.held(&bob, 0), [(600, id(5100))]);
    assert_eq!(wait(node.store.values("k")).unwrap()[0].1.len(), 40_000);
    fs::create_dir(dir.path().join("sled-000009")).unwrap();
    node.close();
    Node::open(dir.path()).close();
    assert!(
        !dir.path().join("sled-000009").exists(),
        "the next start removes leftovers"
    );
}

#[test]
fn check_finds_what_does_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    {
        let node = Node::open(dir.path());
        let (alice, bob) = (node.create("alice"), node.create("bob"));
        for n in 1..=5 {
            node.send(&alice, &bob, n).unwrap();
        }
        node.barrier();
        node.store.migrate_now().unwrap();
        node.store.checkpoint_now().unwrap();
        node.close();
    }
    assert!(check(dir.path()).unwrap().is_sound());
    {
        let settings = sled::Config::new()
            .path(dir.path().join("sled-000001"))
            .segment_size(2 << 20);
        let mut opened = None;
        // The check before may not have let go of it yet.
        until("the database is free", || {
            opened = settings.open().ok();
            opened.is_some()
        });
        let db = opened.unwrap();
        let messages = db.open_tree("messages").unwrap();
        let (key, _) = messages.first().unwrap().unwrap();
        messages.remove(key).unwrap();
        db.open_tree("accounts")
            .unwrap()
            .insert("bob", b"\xff")
            .unwrap();
    }
    let report = check(dir.path()).unwrap();
    assert!(!report.is_sound());
    assert_eq!(report.problems_total, report.problems.len() as u64);
    let text = report.to_string();
    assert!(
        text.contains("bob counts 5 messages, but 0 are stored"),
        "{text}"
    );
    assert!(text.contains("tree accounts"), "{text}");
    assert!(
        serde_json::to_string(&report)
            .unwrap()
            .contains("\"problems\"")
    );
}

#[test]
fn a_dead_letter_after_its_acknowledgement_moves_no_receipt_back() {
    let dir = tempfile::tempdir().unwrap();
    {
        let node = Node::open(dir.path());
        let (alice, bob) = (node.create("alice"), node.create("bob"));
        node.send(&alice, &bob, 1).unwrap();
        node.send(&alice, &bob, 2).unwrap();
        node.barrier();
        node.store.migrate_now().unwrap();
        node.store.checkpoint_now().unwrap();
        node.attach(&bob, "phone");
        node.attach(&bob, "tablet");
        node.ack(&bob, "phone", 2);
        wait(
            node.store
                .put_receipt(&alice, &user("bob"), Some(id(2)), None, 1),
        )
        .unwrap();
        wait(node.store.dead_letter(&bob, 2, "test".into(), 1)).unwrap();
        node.close();
    }
    let node = Node::open(dir.path());
    let receipt = wait(node.store.receipt(&node.mailbox("alice"), &user("bob"))).unwrap();
    assert_eq!(receipt.unwrap().delivered, Some(id(2)));
}

#[test]
fn expiry_beside_an_acknowledged_message_forgets_no_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let time = Time::default();
    let mut settings = config(&dir.path().join("running"), &time);
    settings.receipt_grace = Duration::from_secs(3600);
    {
        let node = Node::with(settings, time.clone());
        let (alice, bob) = (node.create("alice"), node.create("bob"));
        node.send(&alice, &bob, 1).unwrap();
        let mut short = std::sync::Arc::unwrap_or_clone(node.envelope(&alice, bob.user(), 2, b"x"));
        short.expires_ms = time.now() + 1;
        node.send_envelope(short.into(), &alice, &[&bob]).unwrap();
        node.barrier();
        node.store.migrate_now().unwrap();
        node.attach(&bob, "phone");
        assert_eq!(node.ack(&bob, "phone", 1).delivered.len(), 1);
        time.pass(1);
        assert_eq!(wait(node.store.expire(time.now(), 10)).unwrap(), 1);
        node.barrier();
        node.store.crash_into(&image).unwrap();
    }
    let node = Node::with(config(&image, &time), time);
    let receipt = wait(node.store.receipt(&node.mailbox("alice"), &user("bob"))).unwrap();
    assert_eq!(receipt.unwrap().delivered, Some(id(1)));
    assert_eq!(node.mailbox("bob").stats().messages, 0);
}

#[test]
fn messages_expire_after_a_crash_between_two_expiries() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let time = Time::default();
    {
        let node = Node::with(config(&dir.path().join("running"), &time), time.clone());
        let (alice, bob) = (node.create("alice"), node.create("bob"));
        node.send(&alice, &bob, 1).unwrap();
        node.barrier();
        node.store.migrate_now().unwrap();
        node.store.checkpoint_now().unwrap();
        time.pass(TTL_MS);
        assert_eq!(wait(node.store.expire(time.now(), 10)).unwrap(), 1);
        node.send(&alice, &bob, 2).unwrap();
        node.barrier();
        // Has the database write what it holds, the mailbox's bookkeeping not included.
        wait(node.store.dead_letter(&bob, 2, "test".into(), 1)).unwrap();
        node.send(&alice, &bob, 3).unwrap();
        node.barrier();
        node.store.crash_into(&image).unwrap();
    }
    let node = Node::with(config(&image, &time), time.clone());
    node.store.migrate_now().unwrap();
    assert_eq!(node.store.stats().messages, 1);
    time.pass(TTL_MS);
    assert_eq!(wait(node.store.expire(time.now(), 10)).unwrap(), 1);
    assert_eq!(node.store.stats().messages, 0);
}

/// Chunks that were folded may reach beyond what the bookkeeping, written before, says was
/// moved. What lies beyond is in the journal as well, and must not be moved a second time: the
/// next start would find two chunks that overlap, and keep one.
#[test]
fn what_was_folded_in_a_crash_is_not_moved_again() {
    let dir = tempfile::tempdir().unwrap();
    let images = [1, 2].map(|n| dir.path().join(format!("image{n}")));
    {
        let node = Node::open(&dir.path().join("running"));
        let (alice, bob) = (node.create("alice"), node.create("bob"));
        node.attach(&bob, "phone");
        for n in 1..=8 {
            node.send(&alice, &bob, n).unwrap();
            node.barrier();
            node.store.migrate_now().unwrap();
            if n == 7 {
                node.store.checkpoint_now().unwrap();
            }
        }
        // With bob's bookkeeping as it was before the last message.
        node.store.sync_database_now().unwrap();
        node.store.crash_into(&images[0]).unwrap();
    }
    let counted = {
        let node = Node::open(&images[0]);
        let (alice, bob) = (node.mailbox("alice"), node.mailbox("bob"));
        let counted = (bob.stats().messages, bob.pending(&device("phone")));
        for n in 9..=10 {
            node.send(&alice, &bob, n).unwrap();
        }
        node.barrier();
        node.store.migrate_now().unwrap();
        assert_eq!(node.held(&bob, 0).len(), 10);
        node.store.checkpoint_now().unwrap();
        node.store.crash_into(&images[1]).unwrap();
        counted
    };
    let node = Node::open(&images[1]);
    let bob = node.mailbox("bob");
    let all: Vec<_> = (1..=10).map(|n| (n, id(n))).collect();
    assert_eq!(node.held(&bob, 0), all);
    assert_eq!(counted, (8, 8), "none was counted twice");
    node.close();
    drop(node);
    let report = check(&images[1]).unwrap();
    assert!(report.is_sound(), "{report}");
}

/// What a connected device had been sent nobody knows after a crash: everything may have been.
#[test]
fn a_device_connected_in_a_crash_may_have_been_sent_everything() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let time = Time::default();
    {
        let node = Node::with(config(&dir.path().join("running"), &time), time.clone());
        let (alice, bob) = (node.create("alice"), node.create("bob"));
        node.attach(&bob, "phone");
        node.attach(&bob, "tablet");
        wait(node.store.flushed()).unwrap();
        for n in 1..=3 {
            node.send(&alice, &bob, n).unwrap();
        }
        node.barrier();
        node.store.detach(&bob, &device("tablet"), 1, 1);
        wait(node.store.flushed()).unwrap();
        node.store.crash_into(&image).unwrap();
    }
    let node = Node::with(config(&image, &time), time);
    let bob = node.mailbox("bob");
    let sent = |name| bob.device(&device(name)).unwrap().sent;
    assert_eq!(sent("phone"), 3);
    assert_eq!(sent("tablet"), 1, "it had gone, and said how far it got");
}
