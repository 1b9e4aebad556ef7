//! Data written by earlier builds opens: the committed fixture of format 1.
//!
//! The database is kept as text, one entry a line, because sled's own files are
//! large and mostly empty; the journal is kept byte for byte. When the format
//! changes, the fixture stays and a new one is added beside it, written by
//! `cargo test -p stonechat-mailbox --test format -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Node, START_MS, Time, body, config, device, id, user, wait};
use stonechat_mailbox::{Store, check};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/format-1")
}

fn database(dir: &Path) -> sled::Db {
    sled::Config::new()
        .path(dir.join("sled-000001"))
        .segment_size(2 << 20)
        .open()
        .unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .map(|digit| char::from(digit).to_digit(16).unwrap() as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

#[test]
#[ignore = "writes a fixture of the current format into the source tree"]
fn write_the_fixture() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    {
        let node = Node::open(&dir.path().join("running"));
        let (alice, bob) = (node.create("alice"), node.create("bob"));
        node.attach(&alice, "phone");
        node.attach(&bob, "phone");
        node.attach(&bob, "tablet");
        for n in 1..=4 {
            node.send(&alice, &bob, n).unwrap();
        }
        let large = node.envelope(&alice, bob.user(), 5, &body(5, 20_000));
        node.send_envelope(large, &alice, &[&bob]).unwrap();
        node.barrier();
        node.store.migrate_now().unwrap();
        node.ack(&bob, "phone", 3);
        wait(
            node.store
                .put_receipt(&alice, &user("bob"), Some(id(3)), None, 7),
        )
        .unwrap();
        wait(node.store.dead_letter(&bob, 4, "kept failing".into(), 8)).unwrap();
        wait(node.store.put_value("key", Some("value".into()))).unwrap();
        node.store.checkpoint_now().unwrap();
        let own = node.envelope(&alice, bob.user(), 6, &body(6, 30));
        node.send_envelope(own, &alice, &[&bob, &alice]).unwrap();
        node.barrier();
        node.ack(&bob, "tablet", 2);
        node.store.detach(&bob, &device("phone"), 5, 9);
        wait(
            node.store
                .put_receipt(&alice, &user("bob"), None, Some(id(2)), 10),
        )
        .unwrap();
        let mut account = wait(node.store.account(&user("bob"))).unwrap().unwrap();
        account.tokens_valid_from_ms = 11;
        wait(node.store.put_account(account)).unwrap();
        wait(node.store.put_value("key2", Some("value2".into()))).unwrap();
        node.create("carol");
        wait(node.store.remove_account(&user("carol"))).unwrap();
        node.attach(&alice, "old");
        wait(node.store.remove_device(&alice, &device("old"))).unwrap();
        node.barrier();
        node.store.crash_into(&image).unwrap();
    }
    let target = fixture();
    fs::create_dir_all(target.join("journal")).unwrap();
    for entry in fs::read_dir(image.join("journal")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(
            &path,
            target.join("journal").join(path.file_name().unwrap()),
        )
        .unwrap();
    }
    fs::copy(image.join("MANIFEST"), target.join("MANIFEST")).unwrap();
    let db = database(&image);
    let mut text = String::new();
    for name in db.tree_names() {
        let tree = db.open_tree(&name).unwrap();
        for entry in &tree {
            let (key, value) = entry.unwrap();
            writeln!(
                text,
                "{} {} {}",
                String::from_utf8_lossy(&name),
                hex(&key),
                hex(&value)
            )
            .unwrap();
        }
    }
    fs::write(target.join("database.txt"), text).unwrap();
}

#[test]
fn format_1_opens() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("journal")).unwrap();
    for entry in fs::read_dir(fixture().join("journal")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(
            &path,
            dir.path().join("journal").join(path.file_name().unwrap()),
        )
        .unwrap();
    }
    fs::copy(fixture().join("MANIFEST"), dir.path().join("MANIFEST")).unwrap();
    {
        let db = database(dir.path());
        for line in fs::read_to_string(fixture().join("database.txt"))
            .unwrap()
            .lines()
        {
            let mut fields = line.split(' ');
            let tree = db.open_tree(fields.next().unwrap()).unwrap();
            let (key, value) = (unhex(fields.next().unwrap()), unhex(fields.next().unwrap()));
            tree.insert(key, value).unwrap();
        }
        db.flush().unwrap();
    }
    let report = check(dir.path()).unwrap();
    assert!(report.is_sound(), "{report}");

    let time = Time::default();
    let node = Node::with(config(dir.path(), &time), time);
    let (alice, bob) = (node.mailbox("alice"), node.mailbox("bob"));
    assert!(wait(node.store.open(&user("carol"))).unwrap().is_none());
    assert_eq!(node.held(&bob, 0), [(3, id(3)), (5, id(5)), (6, id(6))]);
    assert_eq!(node.held(&alice, 0), [(1, id(6))]);
    let batch = wait(node.store.read(&bob, 3, 1, 1)).unwrap();
    let envelope = &batch.messages[0].envelope;
    assert_eq!(
        (&envelope.from.user, &envelope.from.device),
        (&user("alice"), &device("phone"))
    );
    assert_eq!((&envelope.to, envelope.ts_ms), (&user("bob"), START_MS));
    assert_eq!(envelope.body, body(5, 20_000));
    let phone = bob.device(&device("phone")).unwrap();
    assert_eq!((phone.cursor, phone.sent, phone.last_seen_ms), (3, 5, 9));
    let tablet = bob.device(&device("tablet")).unwrap();
    assert_eq!((tablet.cursor, tablet.sent), (2, 6));
    assert_eq!(alice.devices(), 1);
    let window = alice.device(&device("phone")).unwrap().window;
    assert_eq!(
        window
            .entries()
            .iter()
            .map(|entry| entry.id)
            .collect::<Vec<_>>(),
        (1..=6).map(id).collect::<Vec<_>>()
    );
    let receipt = wait(node.store.receipt(&alice, &user("bob")))
        .unwrap()
        .unwrap();
    assert_eq!(
        (receipt.delivered, receipt.read),
        (Some(id(3)), Some(id(2)))
    );
    let letter = wait(node.store.take_dead_letter(1)).unwrap();
    assert_eq!(
        (letter.stored.seq, letter.reason.as_str(), letter.ts_ms),
        (4, "kept failing", 8)
    );
    let account = wait(node.store.account(&user("bob"))).unwrap().unwrap();
    assert_eq!(account.tokens_valid_from_ms, 11);
    let values = wait(node.store.values("key")).unwrap();
    assert_eq!(
        values,
        [
            ("key".to_owned(), "value".into()),
            ("key2".to_owned(), "value2".into())
        ]
    );
}
