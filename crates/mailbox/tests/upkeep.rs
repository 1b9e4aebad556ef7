//! What goes on in the background, over restarts and for a long time: space
//! comes back, quotas hold, idle mailboxes go, files stay in their bounds.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Node, TTL_MS, Time, body, config, device, id, until, wait};
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
fn a_segment_that_nothing_is_prepared_after_is_filled() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = Node::tuned(dir.path(), |config| config.prepare_from_bytes = 0);
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    let segments = common::segments(dir.path());
    for n in 1..=20 {
        node.send(&alice, &bob, n).unwrap();
        node.barrier();
    }
    assert_eq!(common::segments(dir.path()), segments);
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
fn what_has_expired_fills_no_mailbox() {
    let dir = tempfile::tempdir().unwrap();
    let (node, time) = Node::tuned(dir.path(), |config| {
        config.quota_messages = 10;
        config.migrate_after = Duration::from_millis(10);
    });
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    node.attach(&bob, "phone");
    for moved in [false, true] {
        let first = if moved { 20 } else { 1 };
        for n in first..first + 10 {
            node.send(&alice, &bob, n).unwrap();
        }
        node.barrier();
        if moved {
            until("they are in the database", || {
                node.store.stats().recent_bytes == 0
            });
        }
        assert_eq!(
            node.send(&alice, &bob, first + 10),
            Err(AppendError::MailboxFull)
        );
        time.pass(TTL_MS + 1);
        // Nobody sweeps but who is refused.
        until("there is room", || {
            node.send(&alice, &bob, first + 11).is_ok()
        });
        node.barrier();
        node.ack(&bob, "phone", 100);
    }
}

#[test]
fn a_full_mailbox_refuses_until_it_is_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = Node::tuned(dir.path(), |config| {
        config.quota_messages = 10;
        config.quota_bytes = 4000;
    });
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
fn idle_mailboxes_leave_memory_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = Node::tuned(dir.path(), |config| {
        config.resident_max = 5;
        config.segment_age_max = Duration::from_millis(1);
        config.migrate_after = Duration::from_millis(1);
        config.accounts_cached_max = 10;
    });
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
