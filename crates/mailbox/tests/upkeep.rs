//! What goes on in the background, over restarts and for a long time: space
//! comes back, quotas hold, idle mailboxes go, files stay in their bounds.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Node, TTL_MS, Time, body, config, device, id, until, user, wait};
use stonechat_mailbox::{AppendError, Store, StoreConfig, StoreError, check, compact};

fn bytes_under(dir: &Path) -> u64 {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                bytes_under(&path)
            } else {
                fs::metadata(&path).map_or(0, |m| m.len())
            }
        })
        .sum()
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path());
    let time = Time::default();
    let second = Node::try_with(config(dir.path(), &time), time)
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(second, StoreError::InUse(_)), "{second}");
    assert!(matches!(check(dir.path()), Err(StoreError::InUse(_))));
    assert!(matches!(compact(dir.path()), Err(StoreError::InUse(_))));
    node.close();
    Node::open(dir.path()).close();
    let nowhere = tempfile::tempdir().unwrap();
    assert!(matches!(
        check(nowhere.path()),
        Err(StoreError::NotFound(_))
    ));
}

#[test]
fn settings_out_of_bounds_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let time = Time::default();
    let settings = StoreConfig {
        segment_bytes_max: 1,
        ..config(dir.path(), &time)
    };
    let error = Node::try_with(settings, time).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("segment_bytes_max"), "{error}");
    let text = serde_json::to_string(&StoreConfig::default()).unwrap();
    let back: StoreConfig = serde_json::from_str(&text).unwrap();
    assert_eq!(back.migrate_after, StoreConfig::default().migrate_after);
    assert!(text.contains("\"migrate_after_ms\":5000"), "{text}");
}

#[test]
fn what_is_acknowledged_in_time_never_reaches_the_database_and_the_journal_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path());
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    node.attach(&bob, "phone");
    node.store.checkpoint_now().unwrap();
    let sled_before = node.store.stats().sled_bytes;
    let mut n = 0;
    for _ in 0..60 {
        for _ in 0..50 {
            n += 1;
            let envelope = node.envelope(&alice, bob.user(), n, &body(n, 500));
            node.send_envelope(envelope, &alice, &[&bob]).unwrap();
        }
        node.barrier();
        node.ack(&bob, "phone", n);
        until("the journal is released", || {
            node.store.stats().journal_bytes <= 256 << 10
        });
    }
    assert!(
        n * 500 > 1 << 20,
        "more than fits the journal's bound went through"
    );
    let stats = node.store.stats();
    assert_eq!((stats.messages, stats.recent_bytes), (0, 0));
    assert!(
        stats.sled_bytes <= sled_before + (4 << 20),
        "{} after {sled_before}",
        stats.sled_bytes
    );
}

#[test]
fn churn_through_the_database_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path());
    let alice = node.create("alice");
    let names: Vec<String> = (0..10).map(|index| format!("user{index}")).collect();
    let mailboxes: Vec<_> = names.iter().map(|name| node.create(name)).collect();
    for mailbox in &mailboxes {
        node.attach(mailbox, "phone");
    }
    let mut sizes = Vec::new();
    let mut n = 0;
    for _ in 0..12 {
        for _ in 0..60 {
            for mailbox in &mailboxes {
                n += 1;
                let envelope = node.envelope(&alice, mailbox.user(), n, &body(n, 700));
                node.send_envelope(envelope, &alice, &[mailbox]).unwrap();
            }
        }
        node.barrier();
        node.store.migrate_now().unwrap();
        node.store.checkpoint_now().unwrap();
        assert_eq!(node.store.stats().recent_bytes, 0);
        for mailbox in &mailboxes {
            assert_eq!(node.held(mailbox, 0).len(), 60);
            node.ack(mailbox, "phone", mailbox.last_seq());
        }
        node.barrier();
        node.store.checkpoint_now().unwrap();
        assert_eq!(node.store.stats().messages, 0);
        sizes.push(bytes_under(dir.path()));
    }
    let (early, late) = (sizes[4], sizes[11]);
    assert!(late <= early + (6 << 20), "sizes: {sizes:?}");
    // sled writes a value that is too large for its log to a file of its own, and never
    // syncs that file: ours must all be small enough.
    let blobs: Vec<_> = fs::read_dir(dir.path().join("sled-000001/blobs"))
        .unwrap()
        .collect();
    assert!(blobs.is_empty(), "{blobs:?}");
}

#[test]
fn large_messages_never_become_files_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path());
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    let mut n = 0;
    for _ in 0..6 {
        for _ in 0..10 {
            n += 1;
            let envelope = node.envelope(&alice, bob.user(), n, &body(n, 64 << 10));
            node.send_envelope(envelope, &alice, &[&bob]).unwrap();
        }
        node.barrier();
        node.store.migrate_now().unwrap();
        node.store.checkpoint_now().unwrap();
    }
    for value in 0..20 {
        let key = format!("value/{value}");
        wait(node.store.put_value(&key, Some(vec![1; 64 << 10].into()))).unwrap();
    }
    assert_eq!(node.held(&bob, 0).len(), 60);
    let blobs: Vec<_> = fs::read_dir(dir.path().join("sled-000001/blobs"))
        .unwrap()
        .collect();
    assert!(blobs.is_empty(), "{blobs:?}");
}

#[test]
fn trickling_messages_are_folded_into_few_values() {
    let dir = tempfile::tempdir().unwrap();
    {
        let node = Node::open(dir.path());
        let (alice, bob) = (node.create("alice"), node.create("bob"));
        for n in 1..=200 {
            node.send(&alice, &bob, n).unwrap();
            node.barrier();
            node.store.migrate_now().unwrap();
        }
        assert_eq!(node.held(&bob, 0).len(), 200);
        node.close();
    }
    let report = check(dir.path()).unwrap();
    assert!(report.is_sound(), "{report}");
    assert_eq!(report.messages, 200);
    assert!(report.chunks <= 12, "{report}");
    let node = Node::open(dir.path());
    assert_eq!(node.held(&node.mailbox("bob"), 0).len(), 200);
}

#[test]
fn a_full_mailbox_refuses_until_it_is_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let time = Time::default();
    let settings = StoreConfig {
        quota_messages: 10,
        quota_bytes: 4000,
        ..config(dir.path(), &time)
    };
    let node = Node::with(settings, time);
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    node.attach(&bob, "phone");
    // Queued messages count: nothing was committed yet for certain.
    for n in 1..=10 {
        node.send(&alice, &bob, n).unwrap();
    }
    assert_eq!(node.send(&alice, &bob, 11), Err(AppendError::MailboxFull));
    node.barrier();
    assert_eq!(node.send(&alice, &bob, 11), Err(AppendError::MailboxFull));
    node.ack(&bob, "phone", 4);
    for n in 12..=15 {
        node.send(&alice, &bob, n).unwrap();
    }
    node.barrier();
    assert_eq!(node.send(&alice, &bob, 16), Err(AppendError::MailboxFull));
    node.ack(&bob, "phone", 100);
    // By bytes.
    let large = |n| node.envelope(&alice, bob.user(), n, &body(n, 3000));
    node.send_envelope(large(17), &alice, &[&bob]).unwrap();
    assert_eq!(
        node.send_envelope(large(18), &alice, &[&bob]),
        Err(AppendError::MailboxFull)
    );
    node.barrier();
    node.ack(&bob, "phone", 100);
    // The sender's own copy may go to twice the limit, and a refusal reserves nothing.
    for n in 20..30 {
        node.send(&bob, &alice, n).unwrap();
    }
    for n in 30..40 {
        let own = node.envelope(&alice, bob.user(), n, b"x");
        node.send_envelope(own, &alice, &[&bob, &alice]).unwrap();
    }
    node.barrier();
    node.ack(&bob, "phone", 100);
    let own = node.envelope(&alice, bob.user(), 40, b"x");
    assert_eq!(
        node.send_envelope(own, &alice, &[&bob, &alice]),
        Err(AppendError::MailboxFull)
    );
    assert_eq!(node.send(&alice, &bob, 41), Ok(()));
    node.barrier();
    assert_eq!((bob.stats().messages, alice.stats().messages), (1, 20));
}

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

#[test]
fn idle_mailboxes_leave_memory_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let time = Time::default();
    let settings = StoreConfig {
        resident_max: 5,
        segment_age_max: Duration::from_millis(1),
        migrate_after: Duration::from_millis(1),
        accounts_cached_max: 10,
        ..config(dir.path(), &time)
    };
    let node = Node::with(settings, time);
    let alice = node.create("alice");
    for index in 0..30 {
        let mailbox = node.create(&format!("user{index}"));
        node.attach(&mailbox, "phone");
        node.send(&alice, &mailbox, index + 1).unwrap();
    }
    node.barrier();
    until("idle mailboxes leave", || node.store.stats().resident <= 5);
    for index in 0..30 {
        let mailbox = node.mailbox(&format!("user{index}"));
        assert_eq!(node.held(&mailbox, 0), [(1, id(index + 1))]);
        assert_eq!(mailbox.pending(&device("phone")), 1);
        let state = mailbox.device(&device("phone")).unwrap();
        assert_eq!(
            (state.cursor, state.sent),
            (0, 0),
            "it is still connected to this process"
        );
    }
    assert_eq!(node.store.stats().messages, 30);
}

#[test]
fn expiry_works_across_restarts_and_for_mailboxes_nobody_opened() {
    let dir = tempfile::tempdir().unwrap();
    let time = Time::default();
    {
        let node = Node::with(config(dir.path(), &time), time.clone());
        let (alice, bob) = (node.create("alice"), node.create("bob"));
        for n in 1..=30 {
            node.send(&alice, &bob, n).unwrap();
            if n == 15 {
                node.barrier();
                node.store.migrate_now().unwrap();
                time.pass(TTL_MS / 2);
            }
        }
        node.barrier();
        node.store.migrate_now().unwrap();
        node.close();
    }
    time.pass(TTL_MS / 2);
    let node = Node::with(config(dir.path(), &time), time.clone());
    assert_eq!(node.store.stats().messages, 30);
    assert_eq!(wait(node.store.expire(time.now(), 1000)).unwrap(), 15);
    assert_eq!(node.store.stats().messages, 15);
    let bob = node.mailbox("bob");
    assert_eq!(bob.stats().expired_total, 15);
    assert_eq!(node.held(&bob, 0).first(), Some(&(16, id(16))));
    time.pass(TTL_MS);
    assert_eq!(wait(node.store.expire(time.now(), 1000)).unwrap(), 15);
    assert_eq!(wait(node.store.expire(time.now(), 1000)).unwrap(), 0);
    node.close();
    let report = check(dir.path()).unwrap();
    assert!(report.is_sound(), "{report}");
    assert_eq!(report.messages, 0);
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
        let db = sled::Config::new()
            .path(dir.path().join("sled-000001"))
            .segment_size(2 << 20)
            .open()
            .unwrap();
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
fn many_senders_at_once_keep_order_and_count() {
    let dir = tempfile::tempdir().unwrap();
    let node = Arc::new(Node::open(dir.path()));
    let bob = node.create("bob");
    node.attach(&bob, "phone");
    let threads: Vec<_> = (0..4u64)
        .map(|thread| {
            let (node, bob) = (Arc::clone(&node), Arc::clone(&bob));
            let sender = node.create(&format!("sender{thread}"));
            std::thread::spawn(move || {
                for n in 0..500 {
                    while node.send(&sender, &bob, thread * 1000 + n).is_err() {
                        wait(node.store.ready());
                    }
                }
            })
        })
        .collect();
    // A reader that acknowledges while messages come and migrate.
    let mut got = Vec::new();
    while got.len() < 2000 {
        let batch = wait(
            node.store
                .read(&bob, got.last().map_or(0, |(seq, _)| *seq), 50, 1 << 20),
        )
        .unwrap();
        got.extend(
            batch
                .messages
                .iter()
                .map(|message| (message.seq, message.envelope.id)),
        );
        if got.len() % 3 == 0 {
            node.store.migrate_now().unwrap();
        }
        if let Some((seq, _)) = got.last() {
            node.ack(&bob, "phone", *seq);
        }
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(got.windows(2).all(|pair| pair[0].0 < pair[1].0));
    for thread in 0..4u64 {
        let own: Vec<_> = got
            .iter()
            .map(|(_, id)| *id)
            .filter(|message| (0..500).any(|n| *message == id(thread * 1000 + n)))
            .collect();
        assert_eq!(
            own,
            (0..500).map(|n| id(thread * 1000 + n)).collect::<Vec<_>>()
        );
    }
    assert_eq!(node.store.stats().messages, 0);
    assert_eq!(node.store.stats().recent_bytes, 0);
}
