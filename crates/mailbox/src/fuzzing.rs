//! What a fuzzer does with the journal. The tests of this module replay the
//! committed corpus; `cargo xtask fuzz` looks for more. Not part of the server.

use std::ops::Range;

use bytes::Bytes;
use stonechat_protocol::{DeviceId, UserId};

use crate::codec::Reader;
use crate::error::StoreError;
use crate::journal::frame;
use crate::journal::record::Record;
use crate::journal::replay::read_one;
use crate::journal::segment::{HEADER_BYTES, Header};

/// Frames of one segment.
const FRAMES_MAX: usize = 8;
/// The rest of the header is blank, and nothing is lost when it changes.
const HEADER_CHECKED_BYTES: usize = HEADER_BYTES - 4;
/// Number and position of the segment.
const HEADER: Header = Header {
    number: 3,
    base: 7_000,
};

/// Bytes as journal records: whatever is read is written and read again.
///
/// # Panics
/// When a property does not hold.
pub fn records(data: &[u8]) {
    let mut reader = Reader::new(data);
    while !reader.is_empty() {
        let before = reader.left();
        let Ok(record) = Record::take(&mut reader) else {
            return;
        };
        assert!(reader.left() < before, "a record takes some bytes");
        let mut written = Vec::new();
        record.put(&mut written);
        let mut again = Reader::new(&written);
        assert_eq!(Record::take(&mut again).ok(), Some(record));
        assert!(again.is_empty(), "a record is all that was written");
    }
}

/// Bytes as a segment file, just as they are.
///
/// # Panics
/// When a property does not hold.
pub fn segment(data: &[u8]) {
    for last in [false, true] {
        let mut count = 0;
        let read = read_one(data, HEADER.number, last, |_, _, _| {
            count += 1;
            Ok(())
        });
        if let Ok(end) = read {
            let found: u64 = end.segments.iter().map(|found| found.records).sum();
            assert_eq!(found, count);
            let kept = end.segments.iter().map(|found| found.bytes).sum::<u64>();
            let torn = end.torn.map_or(0, |torn| torn.bytes);
            assert_eq!(
                kept + torn,
                data.len() as u64,
                "every byte is accounted for"
            );
            assert!(last || torn == 0, "only the last segment may be torn");
        }
    }
}

/// A script: a sound segment is written, then damaged as the script says, then read. Whatever
/// the damage: what is read is a beginning of what was written, and when an intact batch stands
/// behind the first one that is not, the reader refuses. So nothing is lost in silence.
///
/// # Panics
/// When a property does not hold.
pub fn damage(data: &[u8]) {
    let mut script = Script(data);
    let (mut bytes, frames) = write(&mut script);
    let sound = bytes.clone();
    while !script.0.is_empty() {
        hurt(&mut bytes, &mut script);
    }
    let last = script.number() % 4 != 1;
    let mut seen = Vec::new();
    let read = read_one(&bytes, HEADER.number, last, |_, _, record| {
        seen.push(record);
        Ok(())
    });
    let written: Vec<&Record> = frames.iter().flat_map(|frame| &frame.records).collect();
    assert!(seen.len() <= written.len(), "records nobody wrote");
    assert!(
        seen.iter().zip(&written).all(|(a, b)| a == *b),
        "other records"
    );
    let intact = |place: &Range<usize>| bytes.get(place.clone()) == sound.get(place.clone());
    let header_intact = intact(&(0..HEADER_CHECKED_BYTES));
    match read {
        Ok(_) if bytes == sound => assert_eq!(seen.len(), written.len()),
        Ok(end) => {
            let first_bad = frames.iter().position(|frame| !intact(&frame.place));
            let behind = first_bad.map_or(&[][..], |at| &frames[at + 1..]);
            let proof = behind.iter().any(|frame| intact(&frame.place));
            assert!(
                !(header_intact && proof),
                "a batch that was synced before another one is missing"
            );
            assert!(last || end.torn.is_none());
            assert!(header_intact || seen.is_empty());
        }
        Err(StoreError::Damaged { what, .. }) => {
            assert!(!what.is_empty());
            assert_ne!(bytes, sound, "a sound segment is refused: {what}");
        }
        Err(other) => panic!("neither read nor damaged: {other}"),
    }
}

/// A batch as it was written.
struct Written {
    place: Range<usize>,
    records: Vec<Record>,
}

fn write(script: &mut Script<'_>) -> (Vec<u8>, Vec<Written>) {
    let mut bytes = HEADER.encode().to_vec();
    let mut frames = Vec::new();
    let mut buffer = Vec::new();
    for _ in 0..usize::from(script.byte()) % (FRAMES_MAX + 1) {
        let lsn = HEADER.base + bytes.len() as u64;
        let records: Vec<Record> = (0..1 + script.byte() % 3)
            .map(|_| script.record())
            .collect();
        frame::begin(&mut buffer);
        for record in &records {
            record.put(&mut buffer);
        }
        frame::finish(&mut buffer, lsn, lsn, records.len() as u32);
        let from = bytes.len();
        bytes.extend_from_slice(&buffer);
        let place = from..bytes.len();
        frames.push(Written { place, records });
    }
    (bytes, frames)
}

fn hurt(bytes: &mut Vec<u8>, script: &mut Script<'_>) {
    let kind = script.byte();
    let at = script.number() % (bytes.len() + 1);
    match kind % 5 {
        0 => bytes.truncate(at),
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (kind / 5 % 8);
            }
        }
        2 => bytes.extend_from_slice(script.take(kind.into())),
        3 => {
            // A sector that was never written.
            let end = (at + 512).min(bytes.len());
            bytes[at..end].fill(0);
        }
        _ => {
            // An old sector in the place of a new one.
            let from = script.number() % (bytes.len() + 1);
            let len = 64.min(bytes.len() - at).min(bytes.len() - from);
            bytes.copy_within(from..from + len, at);
        }
    }
}

/// Reads decisions from a fuzzer's bytes; what is missing is zero.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        head
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn number(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    fn record(&mut self) -> Record {
        let user = UserId::new("alice").expect("a valid name");
        let kind = self.byte();
        match kind % 4 {
            0 => Record::RemoveMessage {
                user,
                seq: self.number() as u64,
                expired: kind > 127,
            },
            1 => Record::RemoveDevice {
                user,
                device: DeviceId::new("phone").expect("a valid name"),
            },
            2 => Record::RemoveUser {
                user,
                upto: self.number() as u64,
            },
            _ => Record::Value {
                key: "key".to_owned(),
                value: Some(Bytes::copy_from_slice(self.take(kind.into()))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(target: &str, run: fn(&[u8])) {
        let dir = format!("{}/../../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
        let mut count = 0;
        for entry in std::fs::read_dir(dir).expect("the corpus is committed") {
            run(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 3, "{count} inputs only");
    }

    #[test]
    fn the_corpus_of_records_holds() {
        replay("journal_records", records);
    }

    #[test]
    fn the_corpus_of_segments_holds() {
        replay("journal_segment", segment);
    }

    #[test]
    fn the_corpus_of_damage_holds() {
        replay("journal_damage", damage);
    }

    #[test]
    fn every_cut_and_every_bit_of_some_scripts() {
        for script in [
            &b"\x03\x02\x00\x01\x02\x03abc\x01\x00\x00\x07"[..],
            b"\x08",
            b"\x01\x03zzz",
        ] {
            let size = write(&mut Script(script)).0.len();
            for at in 0..=size.min(400) as u16 {
                for kind in [0, 1, 6, 36, 3, 4] {
                    let blow = [&[kind][..], &at.to_be_bytes()].concat();
                    damage(&[script, &blow].concat());
                }
            }
        }
    }
}
