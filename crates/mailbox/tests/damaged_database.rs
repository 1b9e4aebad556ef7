//! A database whose file is damaged ends a start, a check and a compaction with an error that names the
//! way out, also where sled panics over it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{Node, Time, config, until};
use stonechat_mailbox::{StoreError, check, compact};

const SEGMENT_BYTES: u64 = 2 << 20;
const SEGMENTS: u64 = 6;

/// A data directory with a database of several segments.
fn data(dir: &Path) {
    let node = Node::open(dir);
    node.create("alice");
    node.close();
    let settings = sled::Config::new()
        .path(dir.join("sled-000001"))
        .segment_size(SEGMENT_BYTES as usize);
    let mut opened = None;
    until("the database is free", || {
        opened = settings.open().ok();
        opened.is_some()
    });
    let tree = opened.expect("it was").open_tree("values").expect("opens");
    for n in 0..SEGMENTS * 1000 {
        let value = vec![n as u8; 3000];
        tree.insert(n.to_be_bytes(), value).expect("there is room");
    }
    tree.flush().expect("flushes");
}

/// Lays one segment over another: each is whole, and in the wrong place.
fn misplace(dir: &Path, from: u64, to: u64) {
    let path = dir.join("sled-000001/db");
    let file = File::options().read(true).write(true).open(path);
    let file = file.expect("it is there");
    let mut segment = vec![0; SEGMENT_BYTES as usize];
    file.read_exact_at(&mut segment, from * SEGMENT_BYTES)
        .expect("reads");
    file.write_all_at(&segment, to * SEGMENT_BYTES)
        .expect("writes");
}

/// As soon as whoever had it open before has let go.
fn free<T>(mut work: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let mut result = None;
    until("nobody has the directory open", || {
        result = Some(work());
        !matches!(result, Some(Err(StoreError::InUse(_))))
    });
    result.expect("it was tried")
}

#[test]
fn panics_of_the_database_are_told_as_damage() {
    let mut told = 0;
    for to in 1..SEGMENTS {
        let dir = tempfile::tempdir().expect("a directory");
        data(dir.path());
        misplace(dir.path(), to - 1, to);
        let results = [
            free(|| {
                let time = Time::default();
                Node::try_with(config(dir.path(), &time), time).map(drop)
            }),
            free(|| check(dir.path()).map(drop)),
            free(|| compact(dir.path()).map(drop)),
        ];
        for error in results.into_iter().filter_map(Result::err) {
            let text = error.to_string();
            assert!(text.contains("docs/operations.md#damaged-data"), "{text}");
            told += usize::from(text.contains("panicked"));
        }
    }
    assert!(
        told > 0,
        "sled has become more careful: make a worse damage"
    );
}
