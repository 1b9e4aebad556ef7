//! Backups that must not be restored, restores that must not happen, and what
//! an operator sees and sets. That a backup holds what it must is the model's
//! business (`tests/model/restore.rs`).

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::{Node, Time, config, id, until, user, wait};
use stonechat_mailbox::{
    Account, AppendError, BackupError, BackupProgress, Fullest, Store, StoreAdmin, StoreError,
    UserLimits, restore, verify_backup,
};

/// A backup of two users, one with messages in the database and one with recent ones.
fn backup(base: &Path) -> PathBuf {
    let node = Node::open(&base.join("data"));
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    for n in 1..=20 {
        node.send(&alice, &bob, n).unwrap();
    }
    node.barrier();
    node.store.migrate_now().unwrap();
    node.send(&bob, &alice, 21).unwrap();
    node.barrier();
    let file = base.join("good.backup");
    let report = wait(
        node.store
            .backup(&file, Arc::new(BackupProgress::default())),
    )
    .unwrap();
    assert_eq!((report.mailboxes, report.messages), (2, 21));
    node.close();
    file
}

fn refused(file: &Path, dir: &Path) -> BackupError {
    match restore(file, dir) {
        Err(StoreError::Backup(error)) => error,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_damaged_or_cut_backup_is_refused_before_anything_is_written() {
    let base = tempfile::tempdir().unwrap();
    let good = fs::read(backup(base.path())).unwrap();
    let bad = base.path().join("bad.backup");
    let target = base.path().join("target");
    assert!(verify_backup(&base.path().join("good.backup")).is_ok());
    for at in (0..good.len()).step_by(7) {
        // The last word of the header means nothing yet.
        if (28..32).contains(&at) {
            continue;
        }
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        fs::write(&bad, &bytes).unwrap();
        refused(&bad, &target);
        assert!(!target.exists(), "written to, with byte {at} damaged");
    }
    for cut in (0..good.len()).step_by(11) {
        fs::write(&bad, &good[..cut]).unwrap();
        let error = refused(&bad, &target);
        let cut_short = matches!(
            error,
            BackupError::Incomplete(_) | BackupError::NotABackup(_)
        );
        assert!(cut_short, "cut at {cut}: {error}");
        assert!(!target.exists(), "written to, cut at {cut}");
    }
    let mut longer = good.clone();
    longer.push(0);
    fs::write(&bad, &longer).unwrap();
    assert!(matches!(
        refused(&bad, &target),
        BackupError::Damaged { .. }
    ));
}

#[test]
fn a_backup_of_a_later_version_is_refused_as_such() {
    let base = tempfile::tempdir().unwrap();
    let file = backup(base.path());
    let mut bytes = fs::read(&file).unwrap();
    bytes[8] = 9;
    let crc = crc32c(&bytes[..24]);
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    let error = refused(&file, &base.path().join("target"));
    assert!(
        matches!(error, BackupError::Newer { found: 9, .. }),
        "{error}"
    );
}

/// CRC-32C bit by bit: not the program's own code.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(crc & 1))
        })
    })
}

#[test]
fn only_an_empty_directory_is_restored_into_and_half_a_restore_is_not_served() {
    let base = tempfile::tempdir().unwrap();
    let file = backup(base.path());
    let target = base.path().join("target");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("something"), "else").unwrap();
    assert!(matches!(refused(&file, &target), BackupError::NotEmpty(_)));
    assert_eq!(fs::read_dir(&target).unwrap().count(), 1, "left alone");
    fs::remove_file(target.join("something")).unwrap();

    let restored = restore(&file, &target).unwrap();
    assert_eq!(restored.messages, 21);
    assert!(matches!(refused(&file, &target), BackupError::NotEmpty(_)));
    // As a restore that was killed would leave it.
    fs::write(target.join("RESTORING"), "").unwrap();
    let time = Time::default();
    let opened = Node::try_with(config(&target, &time), time);
    assert!(matches!(
        opened.err(),
        Some(StoreError::Backup(BackupError::Interrupted(_)))
    ));
    assert!(matches!(
        refused(&file, &target),
        BackupError::Interrupted(_)
    ));
    fs::remove_file(target.join("RESTORING")).unwrap();
    let node = Node::open(&target);
    assert_eq!(node.held(&node.mailbox("bob"), 0).len(), 20);
    node.close();
}

#[test]
fn a_backup_does_not_replace_a_file() {
    let base = tempfile::tempdir().unwrap();
    let node = Node::open(&base.path().join("data"));
    let file = base.path().join("backup");
    fs::write(&file, "precious").unwrap();
    let again = wait(node.store.backup(&file, Arc::default()));
    assert!(matches!(
        again,
        Err(StoreError::Backup(BackupError::Exists(_)))
    ));
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert_eq!(
        fs::read_dir(base.path()).unwrap().count(),
        2,
        "nothing half done is left"
    );
    node.close();
}

#[test]
fn a_users_own_mailbox_limit_holds_and_lasts() {
    let base = tempfile::tempdir().unwrap();
    let limits = UserLimits {
        messages_per_s: Some(7),
        mailbox_messages_max: Some(3),
        mailbox_bytes_max: None,
    };
    {
        let node = Node::open(base.path());
        let (alice, bob) = (node.create("alice"), node.create("bob"));
        let account = wait(node.store.account(&user("bob"))).unwrap().unwrap();
        wait(node.store.put_account(Account { limits, ..account })).unwrap();
        for n in 1..=3 {
            node.send(&alice, &bob, n).unwrap();
        }
        assert_eq!(node.send(&alice, &bob, 4), Err(AppendError::MailboxFull));
        for n in 4..=9 {
            node.send(&bob, &alice, n).unwrap();
        }
        node.barrier();
        node.close();
    }
    let node = Node::open(base.path());
    let (alice, bob) = (node.mailbox("alice"), node.mailbox("bob"));
    assert_eq!(bob.limits(), limits);
    assert_eq!(bob.messages_per_s(), limits.messages_per_s);
    assert_eq!(node.send(&alice, &bob, 10), Err(AppendError::MailboxFull));
    let account = wait(node.store.account(&user("bob"))).unwrap().unwrap();
    assert_eq!(account.limits, limits);
    let none = UserLimits::default();
    wait(node.store.put_account(Account {
        limits: none,
        ..account
    }))
    .unwrap();
    assert_eq!(bob.messages_per_s(), None);
    node.send(&alice, &bob, 11).unwrap();
    node.barrier();
    node.close();
}

#[test]
fn the_fullest_mailboxes_are_found_in_memory_and_in_the_database() {
    let base = tempfile::tempdir().unwrap();
    {
        let node = Node::open(base.path());
        let (alice, bob) = (node.create("alice"), node.create("bob"));
        for n in 1..=5 {
            node.send(&alice, &bob, n).unwrap();
        }
        node.barrier();
        node.store.migrate_now().unwrap();
        node.close();
    }
    // Bob's mailbox is in the database only now, carol's and alice's in memory as well.
    let node = Node::open(base.path());
    node.time.pass(1000);
    let (alice, carol) = (node.mailbox("alice"), node.create("carol"));
    node.create("dave");
    for n in 6..=12 {
        node.send(&alice, &carol, n).unwrap();
    }
    node.send(&carol, &alice, 13).unwrap();
    node.barrier();
    let names = |by| -> Vec<(String, u64)> {
        let found = wait(node.store.fullest(by, 10)).unwrap();
        found
            .into_iter()
            .map(|one| (one.user.to_string(), one.messages))
            .collect()
    };
    let by_messages = names(Fullest::Messages);
    let want = [("carol", 7), ("bob", 5), ("alice", 1)];
    let want: Vec<_> = want.iter().map(|(n, m)| ((*n).to_owned(), *m)).collect();
    assert_eq!(by_messages, want);
    assert_eq!(names(Fullest::Bytes), want);
    assert_eq!(names(Fullest::Oldest)[0].0, "bob");
    assert_eq!(
        wait(node.store.fullest(Fullest::Messages, 1))
            .unwrap()
            .len(),
        1
    );
    let storage = node.store.storage();
    assert!(storage.journal_bytes > 0 && storage.free_bytes.is_some_and(|bytes| bytes > 0));
    node.close();
}

/// What is sent while a backup runs is in it on both sides or on neither: a window that knows an id
/// whose message the recipient does not have would answer the sender's next try as a duplicate.
#[test]
fn what_is_sent_meanwhile_is_on_both_sides_or_on_neither() {
    const BETWEEN: u64 = 600;
    let base = tempfile::tempdir().unwrap();
    let node = Node::open(&base.path().join("data"));
    // In the order of names the recipient is read long before the sender.
    let (to, from) = (node.create("aa"), node.create("zz"));
    for n in 0..BETWEEN {
        let other = node.create(&format!("m{n}"));
        node.send(&other, &to, n + 1).unwrap();
    }
    let device = common::device("phone");
    node.attach(&from, "phone");
    node.barrier();
    let file = base.path().join("running.backup");
    let progress = Arc::new(BackupProgress::default());
    let done = std::sync::atomic::AtomicBool::new(false);
    let (begun, begins) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut sends = BETWEEN + 1..BETWEEN + 3_000;
            while !done.load(std::sync::atomic::Ordering::Relaxed)
                && let Some(n) = sends.next()
            {
                // One at a time: little enough for all of it to be in the last piece of the journal.
                node.send(&from, &to, n).unwrap();
                node.barrier();
                let _ = begun.send(());
            }
        });
        begins.recv().unwrap();
        let report = wait(node.store.backup(&file, progress));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        report.unwrap();
    });
    node.close();
    let target = base.path().join("restored");
    restore(&file, &target).unwrap();
    let node = Node::open(&target);
    let window = node.mailbox("zz").device(&device).unwrap().window;
    let held: Vec<_> = node.held(&node.mailbox("aa"), 0);
    let mut known = 0;
    for n in BETWEEN + 1..BETWEEN + 3_000 {
        let id = id(n);
        if matches!(
            window.classify(id),
            stonechat_protocol::Seen::Accepted { .. }
        ) {
            known += 1;
            assert!(
                held.iter().any(|(_, one)| *one == id),
                "{n} is known and not held"
            );
        }
    }
    assert!(known > 0, "nothing was sent while the backup ran");
}

/// What is accepted after the mailboxes were read is in the backup as the journal of that time, also
/// when the node has no more need of that journal.
#[test]
fn what_is_accepted_after_the_mailboxes_were_read_is_in_the_backup() {
    // A machine may be so busy that the backup is over before anything could be sent.
    let in_time = [100, 400, 500].into_iter().any(sent_during_a_backup);
    assert!(in_time, "three backups were over too soon");
}

/// `false`: the backup was over too soon. It reads receipts 20 times `lazy_flush_ms` after the mailboxes.
fn sent_during_a_backup(lazy_flush_ms: u64) -> bool {
    let base = tempfile::tempdir().unwrap();
    let (file, time) = (base.path().join("running.backup"), Time::default());
    let mut settings = config(&base.path().join("data"), &time);
    settings.receipt_grace = Duration::from_secs(3600);
    settings.lazy_flush = Duration::from_millis(lazy_flush_ms);
    let node = Node::with(settings, time);
    let (alice, bob) = (node.create("alice"), node.create("bob"));
    for n in 1..=5 {
        node.send(&alice, &bob, n).unwrap();
    }
    node.barrier();
    let progress = Arc::new(BackupProgress::default());
    let (store, watched, to) = (Arc::clone(&node.store), Arc::clone(&progress), file.clone());
    let running = std::thread::spawn(move || wait(store.backup(&to, watched)));
    until("the mailboxes are read", || progress.mailboxes() == 2);
    for n in 6..=10 {
        node.send(&alice, &bob, n).unwrap();
    }
    node.barrier();
    node.store.migrate_now().unwrap();
    node.store.checkpoint_now().unwrap();
    let in_time = !running.is_finished();
    running.join().unwrap().unwrap();
    node.close();
    let target = base.path().join("restored");
    restore(&file, &target).unwrap();
    let node = Node::open(&target);
    let held = node.held(&node.mailbox("bob"), 0);
    let all: Vec<_> = (1..=10).map(|n| (n, id(n))).collect();
    assert!(!in_time || held == all, "{held:?}");
    in_time
}
