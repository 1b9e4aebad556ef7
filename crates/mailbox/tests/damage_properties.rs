//! Damage of every kind at random places, with and without the database: what opens holds
//! everything that was durable, and what does not says which file is damaged and where to read on.
//!
//! The one exception is inherent: what is missing from the end of the last segment, and what is
//! wrong in its last batch, looks like a write that a crash interrupted, which nobody was told of.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::{Node, Time, body, config, id, segments, used_bytes};
use proptest::prelude::*;
use stonechat_mailbox::StoreError;
use tempfile::TempDir;

/// Messages of 300 bytes that were durable when the store was killed, each a batch of its own.
const MESSAGES: u64 = 450;
/// Journal segments of the smallest size there is, so that there are several.
const SEGMENT_BYTES: u64 = 64 << 10;
/// What a disk writes in one piece.
const SECTOR_BYTES: usize = 512;

/// A store as a kill left it.
struct Image {
    dir: TempDir,
    /// For each message the number of bytes its segment had after its batch, and which segment.
    ends: Vec<(PathBuf, u64)>,
}

/// How a store came to look as it does.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// All is in the journal.
    Journal,
    /// The first third is in the database.
    Database,
    /// As `Journal`, in files that were prepared, as far as they were ready in time.
    Prepared,
}

fn make(kind: Kind) -> Image {
    let dir = tempfile::tempdir().unwrap();
    let running = dir.path().join("running");
    let time = Time::default();
    let mut settings = config(&running, &time);
    settings.segment_bytes_max = SEGMENT_BYTES;
    if matches!(kind, Kind::Prepared) {
        settings.prepare_from_bytes = 4096;
    }
    let node = Node::with(settings, time);
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    let mut ends = Vec::new();
    for n in 1..=MESSAGES {
        let envelope = node.envelope(&alice, bob.user(), n, &body(n, 300));
        node.send_envelope(envelope, &alice, &[&bob]).unwrap();
        node.barrier();
        let last = segments(&running).pop().unwrap();
        ends.push((last.file_name().unwrap().into(), used_bytes(&last)));
        if matches!(kind, Kind::Database) && n == MESSAGES / 3 {
            // A third is in the database, and its segments are gone.
            node.store.migrate_now().unwrap();
            node.store.checkpoint_now().unwrap();
        }
    }
    node.store.crash_into(&dir.path().join("image")).unwrap();
    drop(node);
    fs::remove_dir_all(&running).unwrap();
    Image { dir, ends }
}

fn image(kind: Kind) -> &'static Image {
    static IMAGES: [OnceLock<Image>; 3] = [const { OnceLock::new() }; 3];
    IMAGES[kind as usize].get_or_init(|| make(kind))
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

/// What happens to the journal. Places are drawn from the whole range and taken modulo what there
/// is.
#[derive(Debug, Clone)]
enum Damage {
    Flip {
        segment: usize,
        at: usize,
        bit: u8,
    },
    Overwrite {
        segment: usize,
        at: usize,
        with: Vec<u8>,
    },
    Cut {
        segment: usize,
        at: usize,
    },
    /// Sectors at the end of a segment that never were written, or hold what was there before.
    Torn {
        segment: usize,
        sectors: Vec<Option<u8>>,
    },
    Insert {
        segment: usize,
        at: usize,
        with: Vec<u8>,
    },
    Remove {
        segment: usize,
    },
    /// A segment again under the next number.
    Repeat {
        segment: usize,
    },
    Swap {
        one: usize,
        other: usize,
    },
    /// One segment with the content of another.
    Replace {
        segment: usize,
        by: usize,
    },
}

fn damage() -> impl Strategy<Value = Damage> {
    let any_at = || (any::<usize>(), any::<usize>());
    let some_bytes = || prop::collection::vec(any::<u8>(), 1..600);
    let sectors = prop::collection::vec(
        prop_oneof![Just(None), Just(Some(0)), any::<u8>().prop_map(Some)],
        1..12,
    );
    prop_oneof![
        4 => (any_at(), 0u8..8).prop_map(|((segment, at), bit)| Damage::Flip { segment, at, bit }),
        2 => (any_at(), some_bytes())
            .prop_map(|((segment, at), with)| Damage::Overwrite { segment, at, with }),
        2 => any_at().prop_map(|(segment, at)| Damage::Cut { segment, at }),
        3 => (any::<usize>(), sectors)
            .prop_map(|(segment, sectors)| Damage::Torn { segment, sectors }),
        1 => (any_at(), some_bytes())
            .prop_map(|((segment, at), with)| Damage::Insert { segment, at, with }),
        1 => any::<usize>().prop_map(|segment| Damage::Remove { segment }),
        1 => any::<usize>().prop_map(|segment| Damage::Repeat { segment }),
        1 => any_at().prop_map(|(one, other)| Damage::Swap { one, other }),
        1 => any_at().prop_map(|(segment, by)| Damage::Replace { segment, by }),
    ]
}

/// A change of one file: which, and from which byte on.
fn change(
    all: &[PathBuf],
    segment: usize,
    edit: impl FnOnce(&mut Vec<u8>) -> usize,
) -> Option<(PathBuf, u64)> {
    let path = all[segment % all.len()].clone();
    let mut bytes = fs::read(&path).unwrap();
    let from = edit(&mut bytes);
    fs::write(&path, bytes).unwrap();
    Some((path, from as u64))
}

/// Carries it out; the file and the first byte changed when it is within one file.
fn carry_out(dir: &Path, damage: &Damage) -> Option<(PathBuf, u64)> {
    let all = segments(dir);
    let count = all.len();
    match damage {
        Damage::Flip { segment, at, bit } => change(&all, *segment, |bytes| {
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            at
        }),
        Damage::Overwrite { segment, at, with } => change(&all, *segment, |bytes| {
            let at = at % bytes.len();
            for (byte, new) in bytes[at..].iter_mut().zip(with) {
                *byte = *new;
            }
            at
        }),
        Damage::Cut { segment, at } => change(&all, *segment, |bytes| {
            let at = at % bytes.len();
            bytes.truncate(at);
            at
        }),
        Damage::Torn { segment, sectors } => change(&all, *segment, |bytes| {
            let begin = (bytes.len() / SECTOR_BYTES + 1).saturating_sub(sectors.len());
            let mut first = bytes.len();
            for (index, sector) in sectors.iter().enumerate() {
                let at = (begin + index) * SECTOR_BYTES;
                if let (Some(fill), true) = (sector, at < bytes.len()) {
                    let end = bytes.len().min(at + SECTOR_BYTES);
                    bytes[at..end].fill(*fill);
                    first = first.min(at);
                }
            }
            first
        }),
        Damage::Insert { segment, at, with } => change(&all, *segment, |bytes| {
            let at = at % bytes.len();
            bytes.splice(at..at, with.iter().copied());
            at
        }),
        Damage::Remove { segment } => {
            fs::remove_file(&all[segment % count]).unwrap();
            None
        }
        Damage::Repeat { segment } => {
            let last = all[count - 1].file_stem().unwrap().to_str().unwrap();
            let next = u64::from_str_radix(last, 16).unwrap() + 1;
            let target = dir.join(format!("journal/{next:016x}.log"));
            fs::copy(&all[segment % count], target).unwrap();
            None
        }
        Damage::Swap { one, other } => {
            let (one, other) = (&all[one % count], &all[other % count]);
            let (first, second) = (fs::read(one).unwrap(), fs::read(other).unwrap());
            fs::write(one, second).unwrap();
            fs::write(other, first).unwrap();
            None
        }
        Damage::Replace { segment, by } => {
            fs::copy(&all[by % count], dir.join("other")).unwrap();
            fs::rename(dir.join("other"), &all[segment % count]).unwrap();
            None
        }
    }
}

/// How many messages the damage leaves no excuse to lose.
fn owed(image: &Image, last: &Path, changed: Option<&(PathBuf, u64)>) -> u64 {
    let Some((path, from)) = changed else {
        return MESSAGES;
    };
    if path.file_name() != last.file_name() {
        return MESSAGES;
    }
    let kept = |(segment, end): &&(PathBuf, u64)| {
        Some(segment.as_os_str()) != last.file_name() || end <= from
    };
    image.ends.iter().filter(kept).count() as u64
}

fn check(kind: Kind, damage: &Damage) -> Result<(), TestCaseError> {
    let image = image(kind);
    let trial = tempfile::tempdir().unwrap();
    copy(&image.dir.path().join("image"), trial.path());
    let last = segments(trial.path()).pop().unwrap();
    let changed = carry_out(trial.path(), damage);
    // A segment gone from the end is as a file that a crash kept from coming into being; only
    // what the database has seen can tell.
    let removed_last = !last.exists();
    let time = Time::default();
    match Node::try_with(config(trial.path(), &time), time) {
        Ok(node) => {
            let bob = node.mailbox("bob");
            let held = node.held(&bob, 0);
            let want: Vec<_> = (1..=held.len() as u64).map(|n| (n, id(n))).collect();
            prop_assert_eq!(&held, &want, "what is there is what was sent, in order");
            let owed = if removed_last {
                image
                    .ends
                    .iter()
                    .filter(|(segment, _)| Some(segment.as_os_str()) != last.file_name())
                    .count() as u64
            } else {
                owed(image, &last, changed.as_ref())
            };
            prop_assert!(
                held.len() as u64 >= owed,
                "{} of {owed} messages: a silent loss",
                held.len()
            );
        }
        Err(error @ StoreError::Damaged { .. }) => {
            let said = error.to_string();
            prop_assert!(
                said.contains("operations.md"),
                "says where to read on: {said}"
            );
            prop_assert!(said.contains("journal"), "names what is damaged: {said}");
        }
        // A flipped bit in a format number, with a checksum that fits, would be a miracle.
        Err(other) => return Err(TestCaseError::fail(format!("not a verdict: {other}"))),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn damage_to_a_journal_is_found_or_harmless(damage in damage()) {
        check(Kind::Journal, &damage)?;
    }

    #[test]
    fn damage_to_a_journal_beside_a_database_is_found_or_harmless(damage in damage()) {
        check(Kind::Database, &damage)?;
    }

    #[test]
    fn damage_to_prepared_files_is_found_or_harmless(damage in damage()) {
        check(Kind::Prepared, &damage)?;
    }
}

/// Without its database a store either has all it needs in the journal, or says what is missing.
#[test]
fn a_database_that_is_gone_is_no_silent_loss() {
    for kind in [Kind::Journal, Kind::Database] {
        let image = image(kind);
        let trial = tempfile::tempdir().unwrap();
        copy(&image.dir.path().join("image"), trial.path());
        for entry in fs::read_dir(trial.path()).unwrap() {
            let path = entry.unwrap().path();
            if path
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("sled-")
            {
                fs::remove_dir_all(path).unwrap();
            }
        }
        let time = Time::default();
        match Node::try_with(config(trial.path(), &time), time) {
            Ok(node) => {
                let held = node.held(&node.mailbox("bob"), 0);
                assert_eq!(held.len() as u64, MESSAGES, "everything was in the journal");
            }
            Err(error) => {
                assert!(
                    matches!(kind, Kind::Database),
                    "nothing was in the database only: {error}"
                );
                assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
                assert!(error.to_string().contains("operations.md"), "{error}");
            }
        }
    }
}

/// Files are prepared at all, or the properties above say nothing about them.
#[test]
fn prepared_files_are_used() {
    let dir = image(Kind::Prepared).dir.path().join("image");
    let padded = segments(&dir)
        .iter()
        .filter(|path| fs::metadata(path).unwrap().len() > used_bytes(path))
        .count();
    let unused = fs::read_dir(dir.join("journal")).unwrap().count() > segments(&dir).len();
    assert!(
        padded > 0 || unused,
        "no segment was begun in a prepared file"
    );
}
