//! Framing, case by case; the groups follow the Autobahn test suite.

use std::ops::ControlFlow;

use proptest::prelude::*;

use super::super::frame::{FrameReader, Incoming, Violation};

const LIMIT: usize = 70_000;
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What came out, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Out {
    Text(String),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

/// A frame as a client sends it, the length in its shortest form.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | u8::try_from(short).unwrap()),
        medium @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&u16::try_from(medium).unwrap().to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&KEY);
    out.extend(payload.iter().zip(KEY.iter().cycle()).map(|(b, k)| b ^ k));
    out
}

fn read_in(bytes: &[u8], chunk_bytes: &mut dyn FnMut() -> usize) -> (Vec<Out>, Option<Violation>) {
    let mut reader = FrameReader::new(LIMIT);
    let mut out = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(chunk_bytes().clamp(1, rest.len()));
        rest = later;
        let fed = reader.feed(&mut now.to_vec(), &mut |incoming| {
            out.push(match incoming {
                Incoming::Text(text) => Out::Text(text.to_owned()),
                Incoming::Ping(payload) => Out::Ping(payload.to_vec()),
                Incoming::Pong => Out::Pong,
                Incoming::Close(code) => Out::Close(code),
            });
            ControlFlow::Continue(())
        });
        if let Err(violation) = fed {
            return (out, Some(violation));
        }
    }
    (out, None)
}

/// Reads a stream at once and byte by byte, which has to come to the same.
fn read(bytes: &[u8]) -> Result<Vec<Out>, Violation> {
    let whole = read_in(bytes, &mut || usize::MAX);
    let bytewise = read_in(bytes, &mut || 1);
    assert_eq!(whole, bytewise);
    match whole {
        (_, Some(violation)) => Err(violation),
        (out, None) => Ok(out),
    }
}

fn text(text: &str) -> Out {
    Out::Text(text.to_owned())
}

#[track_caller]
fn breaks(bytes: &[u8]) {
    let outcome = read(bytes);
    assert!(
        matches!(outcome, Err(Violation::Protocol(_))),
        "{outcome:?}"
    );
}

#[test]
fn case_1_text_of_every_length_form() {
    for length in [0, 1, 7, 8, 9, 125, 126, 127, 128, 65_535, 65_536, LIMIT] {
        let payload = "*".repeat(length);
        assert_eq!(
            read(&frame(0x81, payload.as_bytes())),
            Ok(vec![text(&payload)]),
            "{length}"
        );
    }
}

#[test]
fn case_1_2_binary_is_not_understood() {
    assert_eq!(read(&frame(0x82, b"x")), Err(Violation::Binary));
    assert_eq!(read(&frame(0x02, b"x")), Err(Violation::Binary));
}

#[test]
fn case_2_pings_and_pongs() {
    for payload in [&b""[..], b"hello", &[0, 0xff, 0xfe], &[b'*'; 125]] {
        assert_eq!(
            read(&frame(0x89, payload)),
            Ok(vec![Out::Ping(payload.to_vec())])
        );
    }
    assert_eq!(read(&frame(0x8a, b"unasked")), Ok(vec![Out::Pong]));
    breaks(&frame(0x89, &[b'*'; 126]));
    breaks(&frame(0x8a, &[b'*'; 126]));
}

#[test]
fn case_3_reserved_bits() {
    for bits in 1..8u8 {
        breaks(&frame(0x81 | bits << 4, b"x"));
        breaks(&frame(0x89 | bits << 4, b"x"));
        breaks(&frame(0x88 | bits << 4, b""));
    }
}

#[test]
fn case_4_reserved_opcodes() {
    for opcode in (3..8).chain(11..16u8) {
        breaks(&frame(0x80 | opcode, b""));
        breaks(&frame(opcode, b"x"));
    }
}

#[test]
fn case_5_fragments() {
    let joined = |frames: &[Vec<u8>]| frames.concat();
    let hello = [frame(0x01, b"Hel"), frame(0x00, b""), frame(0x80, b"lo")];
    assert_eq!(read(&joined(&hello)), Ok(vec![text("Hello")]));
    let between = [
        frame(0x01, b"Hel"),
        frame(0x89, b"!"),
        frame(0x80, b"lo"),
        frame(0x81, b"x"),
    ];
    let expected = vec![Out::Ping(b"!".to_vec()), text("Hello"), text("x")];
    assert_eq!(read(&joined(&between)), Ok(expected));
    let empty = [frame(0x01, b""), frame(0x00, b""), frame(0x80, b"")];
    assert_eq!(read(&joined(&empty)), Ok(vec![text("")]));
    // 5.1, 5.2: control frames come whole.
    breaks(&frame(0x09, b"x"));
    breaks(&frame(0x0a, b"x"));
    breaks(&frame(0x08, b""));
    // 5.9 to 5.14: nothing to continue.
    breaks(&frame(0x80, b"x"));
    breaks(&frame(0x00, b"x"));
    breaks(&joined(&[
        frame(0x01, b"a"),
        frame(0x80, b"b"),
        frame(0x80, b"c"),
    ]));
    // 5.15 to 5.18: a message inside a message.
    breaks(&joined(&[frame(0x01, b"a"), frame(0x81, b"b")]));
    breaks(&joined(&[frame(0x01, b"a"), frame(0x82, b"b")]));
}

#[test]
fn case_6_utf8() {
    for valid in ["κόσμε", "\u{10ffff}", "\u{fffe}", "\0"] {
        assert_eq!(read(&frame(0x81, valid.as_bytes())), Ok(vec![text(valid)]));
    }
    // A character may be cut in two by fragments, though not by messages.
    let bytes = "κόσμε".as_bytes();
    let cut = [
        frame(0x01, &bytes[..1]),
        frame(0x00, &bytes[1..4]),
        frame(0x80, &bytes[4..]),
    ];
    assert_eq!(read(&cut.concat()), Ok(vec![text("κόσμε")]));
    for invalid in [
        &[0xce][..],
        &[0x80],
        &[0xc0, 0xaf],
        &[0xed, 0xa0, 0x80],
        &[0xf4, 0x90, 0x80, 0x80],
        &[0xff],
    ] {
        assert_eq!(
            read(&frame(0x81, invalid)),
            Err(Violation::InvalidUtf8),
            "{invalid:x?}"
        );
        let cut = [frame(0x01, b"ok"), frame(0x80, invalid)].concat();
        assert_eq!(read(&cut), Err(Violation::InvalidUtf8), "{invalid:x?}");
    }
}

#[test]
fn case_7_closing() {
    let close = |code: u16, reason: &[u8]| frame(0x88, &[&code.to_be_bytes()[..], reason].concat());
    assert_eq!(read(&frame(0x88, b"")), Ok(vec![Out::Close(None)]));
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ] {
        assert_eq!(read(&close(code, b"bye")), Ok(vec![Out::Close(Some(code))]));
    }
    assert_eq!(
        read(&close(1000, &[b'*'; 123])),
        Ok(vec![Out::Close(Some(1000))])
    );
    breaks(&frame(0x88, b"\x03"));
    breaks(&close(1000, &[b'*'; 124]));
    for code in [
        0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        breaks(&close(code, b""));
    }
    assert_eq!(read(&close(1000, &[0xff])), Err(Violation::InvalidUtf8));
}

#[test]
fn case_9_limits_hold_before_anything_is_buffered() {
    assert_eq!(
        read(&frame(0x81, &vec![b'*'; LIMIT + 1])),
        Err(Violation::TooLarge)
    );
    let pieces = [frame(0x01, &vec![b'*'; LIMIT]), frame(0x80, b"*")];
    assert_eq!(read(&pieces.concat()), Err(Violation::TooLarge));
    // Only the header of an absurd frame.
    let mut header = vec![0x81, 0x80 | 127, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff];
    header.extend_from_slice(&KEY);
    assert_eq!(read(&header), Err(Violation::TooLarge));
    header[2] = 0x80;
    breaks(&header);
}

#[test]
fn lengths_have_to_be_in_their_shortest_form() {
    breaks(&[&[0x81, 0x80 | 126, 0, 125][..], &KEY, &[0; 125]].concat());
    breaks(&[&[0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff][..], &KEY].concat());
}

#[test]
fn frames_have_to_be_masked() {
    breaks(&[0x81, 1, b'x']);
    breaks(&[0x88, 0]);
}

#[test]
fn a_sink_that_breaks_gets_the_rest_later_and_nothing_twice() {
    let mut reader = FrameReader::new(LIMIT);
    let mut bytes = [frame(0x81, b"1"), frame(0x81, b"2"), frame(0x81, b"3")].concat();
    let mut seen = Vec::new();
    for round in 0..3 {
        let mut none = [];
        let chunk = if round == 0 {
            &mut bytes[..]
        } else {
            &mut none[..]
        };
        let flow = reader.feed(chunk, &mut |incoming| {
            seen.push(format!("{incoming:?}"));
            ControlFlow::Break(())
        });
        assert_eq!(flow, Ok(ControlFlow::Break(())));
    }
    assert_eq!(seen, ["Text(\"1\")", "Text(\"2\")", "Text(\"3\")"]);
    assert!(!reader.has_pending());
}

#[test]
fn memory_is_held_for_incomplete_frames_only() {
    let mut reader = FrameReader::new(LIMIT);
    let mut feed = |bytes: &[u8]| {
        let flow = reader.feed(&mut bytes.to_vec(), &mut |_| ControlFlow::Continue(()));
        assert_eq!(flow, Ok(ControlFlow::Continue(())));
        reader.heap_bytes()
    };
    let large = frame(0x81, &[b'*'; 10_000]);
    assert_eq!(feed(&large), 0);
    let held = feed(&large[..100]);
    // What the whole frame needs, at once: no growing and copying.
    assert_eq!(held, large.len());
    assert_eq!(feed(&large[100..]), 0);
    assert!(feed(&frame(0x01, b"part")) > 0);
    assert_eq!(feed(&frame(0x80, b"rest")), 0);
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..140),
        "[a-zäß€]{0,200}".prop_map(String::into_bytes),
    ];
    (any::<u8>(), payload, 0..4u8).prop_map(|(first, payload, kind)| {
        let first = match kind {
            0 => first,
            1 => 0x81,
            2 => 0x01,
            _ => 0x80,
        };
        frame(first, &payload)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn chunking_changes_nothing(
        frames in proptest::collection::vec(any_frame(), 1..8),
        cuts in proptest::collection::vec(1..300usize, 1..20),
    ) {
        let bytes = frames.concat();
        let mut cuts = cuts.into_iter().cycle();
        let whole = read_in(&bytes, &mut || usize::MAX);
        let cut = read_in(&bytes, &mut || cuts.next().unwrap());
        prop_assert_eq!(whole, cut);
    }

    #[test]
    fn random_bytes_never_panic_and_hold_bounded_memory(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..400), 1..20),
    ) {
        let mut reader = FrameReader::new(1000);
        for mut chunk in chunks {
            if reader.feed(&mut chunk, &mut |_| ControlFlow::Continue(())).is_err() {
                break;
            }
            prop_assert!(reader.heap_bytes() <= 4 * 1000 + 1024);
        }
    }
}
