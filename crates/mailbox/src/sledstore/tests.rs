//! What the database promises of its own file. What it holds is tested through the store.

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use super::*;

#[test]
fn damage_is_told_with_the_way_out() {
    let error = sled::Error::Corruption { at: None, bt: () };
    let text = StoreError::from(error).to_string();
    assert!(text.contains("docs/operations.md#damaged-data"), "{text}");
}

#[test]
fn a_file_that_grows_is_made_durable_as_it_grows() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = Database::open(&dir.path().join("sled"), 1 << 20).unwrap();
    // As where the file system cannot do it.
    database.written_through = false;
    let user = UserId::new("bob").unwrap();
    for n in 0..200_u64 {
        let key = values::chunk_key(&user, n + 1, 0);
        database
            .messages
            .insert(key, vec![n as u8; 60_000])
            .unwrap();
        // Removes nothing: any write through here looks.
        database.remove_chunk(&user, n + 1, 0).unwrap();
    }
    // Sled's threads may be behind, and with them the file.
    database.db.flush().unwrap();
    database.remove_chunk(&user, 1, 0).unwrap();
    let length = database.length().unwrap();
    assert!(length > 8 << 20, "{length} bytes show nothing");
    let durable = database.durable_bytes.load(Ordering::Relaxed);
    // What sled's own threads are writing this moment is not awaited.
    let most_behind = 3 * SLED_SEGMENT_BYTES as u64;
    assert!(
        length.abs_diff(durable) < most_behind,
        "{durable} of {length}"
    );
}

#[test]
fn every_write_to_the_file_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let sled = dir.path().join("sled");
    let flags = || ioctl_getflags(File::open(sled.join("db")).unwrap()).unwrap();
    // Not every file system can.
    let can = through::write_through(&dir.path().join("probe")).unwrap();
    let database = Database::open(&sled, 1 << 20).unwrap();
    assert_eq!(database.written_through, can);
    if !can {
        return;
    }
    assert!(flags().contains(IFlags::SYNC));
    drop(database);
    // A copy of the directory, or a backup of it, has lost the attribute.
    ioctl_setflags(
        File::open(sled.join("db")).unwrap(),
        flags() & !IFlags::SYNC,
    )
    .unwrap();
    let database = Database::open(&sled, 1 << 20).unwrap();
    assert!(database.written_through && flags().contains(IFlags::SYNC));
}
