//! A database in which packs of messages of one mailbox overlap: one was joined
//! with others and forgot how far it reaches, so that its end was moved twice.
//! This version makes none, but takes what an earlier one left.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::ops::RangeInclusive;
use std::path::Path;

use common::{Node, Time, config, device, id, until, user, wait};
use stonechat_mailbox::{Store, StoreError, check};
use stonechat_protocol::Seq;

/// As the store opens it: sled refuses another size.
const SLED_SEGMENT_BYTES: usize = 2 << 20;

/// A stopped store in which the messages `ids` of each group are one pack of bob's.
fn packed(dir: &Path, groups: &[RangeInclusive<u64>]) {
    let node = Node::open(dir);
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    node.attach(&bob, "phone");
    for group in groups {
        for n in group.clone() {
            node.send(&alice, &bob, n).unwrap();
        }
        node.barrier();
        node.store.migrate_now().unwrap();
    }
    node.store.checkpoint_now().unwrap();
    node.close();
}

/// Puts the packs of bob's that begin at these places in `from` beside those in `to`.
fn transplant(from: &Path, to: &Path, firsts: &[Seq]) {
    let open = |dir: &Path| {
        let config = sled::Config::new().path(dir.join("sled-000001"));
        let config = config.segment_size(SLED_SEGMENT_BYTES);
        // Threads of the one that was closed may still hold its lock.
        let mut database = None;
        until("the database is free", || {
            database = config.open().ok();
            database.is_some()
        });
        database.unwrap().open_tree("messages").unwrap()
    };
    let (from, to) = (open(from), open(to));
    for first in firsts {
        let mut key = b"bob\0".to_vec();
        key.extend(first.to_be_bytes());
        key.push(0);
        to.insert(&key, from.get(&key).unwrap().unwrap()).unwrap();
    }
    to.flush().unwrap();
}

fn holds_all(dir: &Path, upto: Seq) {
    let node = Node::open(dir);
    let bob = node.mailbox("bob");
    let all: Vec<_> = (1..=upto).map(|n| (n, id(n))).collect();
    assert_eq!(node.held(&bob, 0), all);
    assert_eq!(bob.stats().messages, upto);
    assert_eq!(node.store.stats().messages, upto);
    node.close();
}

#[test]
fn packs_that_overlap_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (joined, split) = (dir.path().join("joined"), dir.path().join("split"));
    packed(&joined, &[1..=10]);
    packed(&split, &[1..=5, 6..=12]);
    transplant(&joined, &split, &[1]);
    let report = check(&split).unwrap();
    assert!(report.is_sound(), "the next start mends it: {report}");
    assert_eq!(report.messages, 12);
    for _ in 0..3 {
        holds_all(&split, 12);
        let report = check(&split).unwrap();
        assert!(report.is_sound(), "{report}");
    }
    // They are messages like any other.
    let node = Node::open(&split);
    let bob = node.mailbox("bob");
    let outcome = node.ack(&bob, "phone", 11);
    assert_eq!(outcome.delivered, [(user("alice"), id(11))]);
    assert_eq!(node.held(&bob, 0), [(12, id(12))]);
    assert_eq!(bob.pending(&device("phone")), 1);
    node.ack(&bob, "phone", 12);
    node.store.checkpoint_now().unwrap();
    node.close();
    holds_nothing(&split);
}

fn holds_nothing(dir: &Path) {
    let report = check(dir).unwrap();
    assert!(report.is_sound(), "{report}");
    assert_eq!((report.messages, report.chunks), (0, 0), "{report}");
}

/// What is left of one pack takes the key of the next, which overlaps it in turn.
#[test]
fn a_row_of_packs_that_overlap_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (joined, split) = (dir.path().join("joined"), dir.path().join("split"));
    packed(&joined, &[1..=10, 11..=15]);
    packed(&split, &[1..=5, 6..=12, 13..=15, 16..=20]);
    transplant(&joined, &split, &[1, 11]);
    assert_eq!(check(&split).unwrap().messages, 20);
    holds_all(&split, 20);
    holds_all(&split, 20);
    let report = check(&split).unwrap();
    assert!(report.is_sound(), "{report}");
}

/// Which of two messages was at a place cannot be known: that is for a person to look at.
#[test]
fn packs_with_different_messages_at_one_place_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (other, split) = (dir.path().join("other"), dir.path().join("split"));
    packed(&other, &[101..=110]);
    packed(&split, &[1..=5, 6..=12]);
    transplant(&other, &split, &[1]);
    let report = check(&split).unwrap();
    assert!(!report.is_sound(), "{report}");
    let time = Time::default();
    let opened = Node::try_with(config(&split, &time), time);
    let error = opened
        .and_then(|node| wait(node.store.open(&user("bob"))).map(|_| ()))
        .unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("6 to 12 of bob"), "{error}");
    assert!(error.to_string().contains("operations.md"), "{error}");
}
