//! Groups 1, 3 and 4: lengths, masks, segments, reserved bits, opcodes.

use crate::case::{Case, Group, Start, Step, alive, and_alive, answer};
use crate::wire::{
    BINARY, CLOSE, CONTINUATION, Frame, Length, PING, PONG, TEXT, asks, asks_padded, ping, text,
};

/// The cases.
pub(crate) fn cases(into: &mut Vec<Case>) {
    lengths(into);
    forms(into);
    masks(into);
    segments(into);
    reserved_bits(into);
    opcodes(into);
}

fn lengths(into: &mut Vec<Case>) {
    let mut group = Group::new("1.1", into);
    for bytes in [0, 1, 2] {
        let payload = &"{}"[..bytes];
        let steps = vec![Step::Write(text(payload)), Step::Error("bad_frame")];
        group.case(format!("text of {bytes} bytes"), and_alive(steps));
    }
    for bytes in [
        24, 60, 124, 125, 126, 127, 128, 129, 255, 256, 1_000, 4_095, 4_096, 16_384, 65_534,
        65_535, 65_536, 65_537, 73_727, 73_728,
    ] {
        let whole = text(asks_padded(7, bytes));
        group.case(
            format!("text of {bytes} bytes"),
            and_alive(vec![Step::Write(whole.clone()), answer(7)]),
        );
        group.case(
            format!("text of {bytes} bytes in pieces of 997"),
            and_alive(vec![Step::Pieces(997, whole), answer(7)]),
        );
    }
}

/// Lengths in other than their shortest form, and lengths that are too long to be true.
fn forms(into: &mut Vec<Case>) {
    let mut group = Group::new("1.2", into);
    for (form, sizes) in [
        (Length::Bits16, &[0, 1, 5, 124, 125][..]),
        (Length::Bits64, &[0, 1, 5, 125, 126, 127, 65_535]),
    ] {
        for &size in sizes {
            let long = Frame::new(TEXT, vec![b' '; size]).length(form).bytes();
            let what = format!("{size} bytes of text announced in {form:?}");
            group.breach(what, long, "protocol_error", 1002);
        }
        for opcode in [CLOSE, PING, PONG] {
            let long = Frame::new(opcode, "").length(form).bytes();
            let what = format!("control frame {opcode:#x} announced in {form:?}");
            group.breach(what, long, "protocol_error", 1002);
        }
    }
    for size in [1 << 63, (1 << 63) | 5, u64::MAX] {
        let frame = Frame::new(TEXT, "").length(Length::Announced(size));
        let what = format!("a length of {size:#x}");
        group.breach(what, frame.bytes(), "protocol_error", 1002);
        // Nine bytes of the ten are not enough to tell a small length from a large one; the
        // first of them tells that the top bit is set, but only the whole length is judged.
        let first = Frame::new(TEXT, asks(1)).bytes();
        let steps = vec![
            Step::Write(first),
            answer(1),
            Step::Dribble(frame.bytes()),
            Step::Bye("protocol_error", 1002),
        ];
        group.case(format!("a length of {size:#x}, byte by byte"), steps);
    }
}

fn masks(into: &mut Vec<Case>) {
    let mut group = Group::new("1.3", into);
    for opcode in [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG] {
        for payload in ["", "{}"] {
            let bare = Frame::new(opcode, payload).masked(None);
            let what = format!("opcode {opcode:#x}, {} bytes, not masked", payload.len());
            group.breach(what, bare.bytes(), "protocol_error", 1002);
        }
    }
    let bare = Frame::new(TEXT, asks(1)).masked(None).bytes();
    group.breach(
        "two bytes of a header without a mask are enough",
        bare[..2].to_vec(),
        "protocol_error",
        1002,
    );
    let first = text(asks(1));
    let steps = vec![
        Step::Write([first, bare].concat()),
        answer(1),
        Step::Bye("protocol_error", 1002),
    ];
    group.case("the second frame is not masked", steps);
    for key in [[0; 4], [0xff; 4], [1, 0, 0, 0], *b"{\"ty"] {
        let frame = Frame::new(TEXT, asks_padded(3, 200)).masked(Some(key));
        let steps = vec![Step::Write(frame.bytes()), answer(3)];
        group.case(format!("mask {key:02x?}"), and_alive(steps));
    }
    // A payload that is no multiple of the key's length, in every remainder.
    for bytes in 24..40 {
        let frame = Frame::new(TEXT, asks_padded(3, bytes)).masked(Some([1, 2, 3, 4]));
        let steps = vec![Step::Write(frame.bytes()), answer(3)];
        group.case(format!("{bytes} bytes, masked"), steps);
    }
}

fn segments(into: &mut Vec<Case>) {
    let mut group = Group::new("1.4", into);
    let many: Vec<u8> = (0..200).flat_map(|n| text(asks(n))).collect();
    let answers: Vec<Step> = (0..200).map(answer).collect();
    for size in [1, 2, 3, 7, 64, 1_000, 100_000] {
        let mut steps = vec![Step::Pieces(size, many.clone())];
        steps.extend(answers.clone());
        group.case(format!("200 frames in pieces of {size}"), steps);
    }
    for bytes in [125, 126, 65_536] {
        let whole = text(asks_padded(5, bytes));
        for cut in [1, 2, 3, 4, 6, 8, 10, 13, 14, 15] {
            let (head, rest) = whole.split_at(cut);
            let steps = vec![
                Step::Write(head.to_vec()),
                Step::Write(rest.to_vec()),
                answer(5),
            ];
            let what = format!("a frame of {bytes} bytes cut after {cut}");
            group.case(what, steps);
        }
    }
    let mut before = vec![
        Step::Dribble(ping("before hello")),
        Step::Pong(b"before hello".into()),
    ];
    before.push(Step::SignIn);
    before.extend(alive());
    group.case_from(Start::Upgraded, "a ping before hello, byte by byte", before);
}

fn reserved_bits(into: &mut Vec<Case>) {
    let mut group = Group::new("3.1", into);
    for bits in 1..=7 {
        for opcode in [TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG] {
            let frame = Frame::new(opcode, "").reserved(bits).bytes();
            let what = format!("bits {bits:03b} on opcode {opcode:#x}");
            group.breach(what, frame, "protocol_error", 1002);
        }
        let good = text(asks(1));
        let bad = Frame::new(TEXT, asks(2)).reserved(bits).bytes();
        let steps = vec![
            Step::Write([good, bad, ping("never answered")].concat()),
            answer(1),
            Step::Bye("protocol_error", 1002),
        ];
        group.case(format!("bits {bits:03b} after a good frame"), steps);
        group.breach(
            format!("bits {bits:03b}, the first byte alone"),
            vec![0x81 | bits << 4],
            "protocol_error",
            1002,
        );
    }
}

fn opcodes(into: &mut Vec<Case>) {
    let mut group = Group::new("4.1", into);
    for opcode in (3..8).chain(11..16) {
        for payload in ["", "{}"] {
            let frame = Frame::new(opcode, payload).bytes();
            let what = format!("opcode {opcode:#x} with {} bytes", payload.len());
            group.breach(what, frame, "protocol_error", 1002);
        }
        group.breach(
            format!("opcode {opcode:#x}, the first byte alone"),
            vec![0x80 | opcode],
            "protocol_error",
            1002,
        );
        let steps = vec![
            Step::Write(
                [
                    text(asks(1)),
                    Frame::new(opcode, "x").bytes(),
                    text(asks(2)),
                ]
                .concat(),
            ),
            answer(1),
            Step::Bye("protocol_error", 1002),
        ];
        group.case(format!("opcode {opcode:#x} between good frames"), steps);
    }
    for payload in [&b""[..], b"{}", &[0xff; 300]] {
        let frame = Frame::new(BINARY, payload).bytes();
        let what = format!("binary of {} bytes", payload.len());
        group.breach(what, frame, "unsupported_data", 1003);
    }
    let part = Frame::new(BINARY, "x").more().bytes();
    group.breach("binary in fragments", part, "unsupported_data", 1003);
    group.case_from(
        Start::Upgraded,
        "binary before hello",
        vec![
            Step::Write(Frame::new(BINARY, "x").bytes()),
            Step::Bye("unsupported_data", 1003),
        ],
    );
}
