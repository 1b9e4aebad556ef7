//! What happens to damaged and torn files: never a panic, never a silent loss
//! of what is proven to have been durable.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::fs;
use std::path::Path;

use common::{Node, Time, body, config, id, segments};
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use stonechat_mailbox::{StoreError, check};

/// A store that was killed after `batches` batches of one message each: where each batch
/// of the last segment ends.
fn killed(dir: &Path, batches: u64, segment_bytes_max: u64) -> Vec<u64> {
    let time = Time::default();
    let running = dir.join("running");
    let mut settings = config(&running, &time);
    settings.segment_bytes_max = segment_bytes_max;
    let node = Node::with(settings, time);
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    let mut ends = Vec::new();
    for n in 1..=batches {
        let envelope = node.envelope(&alice, bob.user(), n, &body(n, 300));
        node.send_envelope(envelope, &alice, &[&bob]).unwrap();
        node.barrier();
        let last = segments(&running).pop().unwrap();
        ends.push(fs::metadata(last).unwrap().len());
    }
    node.store.crash_into(&dir.join("image")).unwrap();
    ends
}

fn open(dir: &Path) -> Result<Node, StoreError> {
    let time = Time::default();
    Node::try_with(config(dir, &time), time)
}

/// How many of the messages are there; they must be the first ones.
fn survivors(node: &Node) -> u64 {
    let bob = node.mailbox("bob");
    let held = node.held(&bob, 0);
    let want: Vec<_> = (1..=held.len() as u64).map(|n| (n, id(n))).collect();
    assert_eq!(held, want);
    held.len() as u64
}

#[test]
fn a_tail_cut_anywhere_loses_only_what_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    let ends = killed(dir.path(), 12, 1 << 20);
    let image = dir.path().join("image");
    let last = segments(&image).pop().unwrap();
    let whole = fs::read(&last).unwrap();
    let mut random = SmallRng::seed_from_u64(7);
    let from = ends[5] as usize;
    for _ in 0..40 {
        let cut = random.random_range(from..=whole.len());
        fs::write(&last, &whole[..cut]).unwrap();
        let report = check(&image).unwrap();
        assert!(report.is_sound(), "{report}");
        let kept = ends.iter().filter(|end| **end <= cut as u64).count() as u64;
        let trial = dir.path().join("trial");
        copy(&image, &trial);
        let node = open(&trial).unwrap();
        assert_eq!(survivors(&node), kept, "cut at {cut}");
        // And it goes on from there.
        let (alice, bob) = (node.mailbox("alice"), node.mailbox("bob"));
        node.send(&alice, &bob, 99).unwrap();
        node.barrier();
        assert_eq!(bob.last_seq(), kept + 1);
        drop(node);
        assert_eq!(open(&trial).unwrap().mailbox("bob").last_seq(), kept + 1);
        fs::remove_dir_all(&trial).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn a_flipped_bit_is_damage_unless_nothing_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    let ends = killed(dir.path(), 8, 1 << 20);
    let image = dir.path().join("image");
    let last = segments(&image).pop().unwrap();
    let whole = fs::read(&last).unwrap();
    let mut random = SmallRng::seed_from_u64(11);
    let before_last = ends[ends.len() - 2] as usize;
    for round in 0..60 {
        let at = match round {
            0 => 0,
            _ => random.random_range(0..whole.len()),
        };
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << random.random_range(0..8);
        fs::write(&last, &bytes).unwrap();
        let trial = dir.path().join("trial");
        copy(&image, &trial);
        let opened = open(&trial);
        if at < before_last && !(36..40).contains(&at) && !(12..16).contains(&at) {
            let error = opened.map(|node| survivors(&node)).unwrap_err();
            assert!(
                matches!(
                    error,
                    StoreError::Damaged { .. } | StoreError::Version { .. }
                ),
                "bit at {at}: {error}"
            );
            assert!(!check(&trial).unwrap().is_sound());
        } else if let Ok(node) = opened {
            assert!(
                survivors(&node) >= 7,
                "only the last batch may be taken for torn"
            );
        }
        fs::remove_dir_all(&trial).unwrap();
    }
}

#[test]
fn damage_before_an_orderly_end_is_never_taken_for_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    {
        let node = open(dir.path()).unwrap();
        let (alice, bob) = (node.create("alice"), node.create("bob"));
        node.send(&alice, &bob, 1).unwrap();
        node.barrier();
        node.close();
    }
    let last = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    // In the last batch with a message: the closing record of its own batch follows.
    let at = bytes.len() - 60;
    bytes[at] ^= 1;
    fs::write(&last, bytes).unwrap();
    let error = open(dir.path()).map(|node| survivors(&node)).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("operations.md"), "{error}");
}

#[test]
fn a_missing_or_damaged_segment_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path(), 600, 64 << 10);
    let image = dir.path().join("image");
    let all = segments(&image);
    assert!(all.len() >= 3, "{} segments", all.len());
    for (index, victim) in all.iter().enumerate() {
        let trial = dir.path().join("trial");
        copy(&image, &trial);
        let victim = trial.join("journal").join(victim.file_name().unwrap());
        let last = index + 1 == all.len();
        let bytes = fs::read(&victim).unwrap();
        if !last {
            fs::remove_file(&victim).unwrap();
            let error = open(&trial).map(|_| ()).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("missing"), "{error}");
            fs::write(&victim, &bytes[..bytes.len() - 1]).unwrap();
            let error = open(&trial).map(|_| ()).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        }
        fs::write(&victim, &bytes).unwrap();
        assert_eq!(survivors(&open(&trial).unwrap()), 600);
        fs::remove_dir_all(&trial).unwrap();
    }
}

#[test]
fn a_journal_behind_the_database_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    {
        let node = open(dir.path()).unwrap();
        let (alice, bob) = (node.create("alice"), node.create("bob"));
        for n in 1..=20 {
            node.send(&alice, &bob, n).unwrap();
            node.barrier();
        }
        node.store.migrate_now().unwrap();
        node.store.checkpoint_now().unwrap();
        node.close();
    }
    for segment in segments(dir.path()) {
        fs::remove_file(segment).unwrap();
    }
    let error = open(dir.path()).map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[test]
fn a_half_created_segment_is_started_anew() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path(), 5, 1 << 20);
    let image = dir.path().join("image");
    let last = segments(&image).pop().unwrap();
    let stem = last.file_stem().unwrap().to_str().unwrap();
    let next = u64::from_str_radix(stem, 16).unwrap() + 1;
    let zeros = [0; 8192];
    let torn_header = [&b"STONEJRN"[..], &zeros[..]].concat();
    for content in [&b""[..], b"STONEJRN", &[0; 40], &zeros, &torn_header] {
        fs::write(image.join(format!("journal/{next:016x}.log")), content).unwrap();
        let trial = dir.path().join("trial");
        copy(&image, &trial);
        assert_eq!(survivors(&open(&trial).unwrap()), 5);
        fs::remove_dir_all(&trial).unwrap();
    }
}

/// A header that is gone is not taken for one that never was.
#[test]
fn a_begun_segment_that_lost_its_header_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path(), 5, 1 << 20);
    let image = dir.path().join("image");
    let last = segments(&image).pop().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    bytes[..40].fill(0);
    fs::write(&last, bytes).unwrap();
    let error = open(&image).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("lost its header"), "{error}");
}

#[test]
fn later_formats_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).unwrap().close();
    let manifest = dir.path().join("MANIFEST");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("format 1", "format 2")).unwrap();
    let error = open(dir.path()).map(|_| ()).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Version {
                found: 2,
                supported: 1
            }
        ),
        "{error}"
    );
    fs::write(&manifest, "something else").unwrap();
    let error = open(dir.path()).map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Any bytes in place of the last segment's end: opened or refused, never a panic, and
    /// what opens holds at least the batches before the change.
    #[test]
    fn arbitrary_tails_never_panic(from in 0usize..2000, garbage in prop::collection::vec(any::<u8>(), 0..300)) {
        let dir = tempfile::tempdir().unwrap();
        let ends = killed(dir.path(), 4, 1 << 20);
        let image = dir.path().join("image");
        let last = segments(&image).pop().unwrap();
        let mut bytes = fs::read(&last).unwrap();
        let from = from.min(bytes.len());
        let to = bytes.len().min(from + garbage.len());
        bytes[from..to].copy_from_slice(&garbage[..to - from]);
        fs::write(&last, &bytes).unwrap();
        if let Ok(node) = open(&image) {
            let before = ends.iter().filter(|end| **end <= from as u64).count() as u64;
            if before > 0 {
                prop_assert!(survivors(&node) >= before);
            }
        }
    }
}
