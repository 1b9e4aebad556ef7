//! Group 5: messages in fragments.

use crate::case::{Case, Group, Start, Step, and_alive, answer};
use crate::wire::{
    BINARY, CLOSE, Frame, PING, PONG, asks, asks_padded, begin, close, end, middle, text,
};

/// The cases.
pub(crate) fn cases(into: &mut Vec<Case>) {
    whole(into);
    out_of_place(into);
}

fn whole(into: &mut Vec<Case>) {
    let mut group = Group::new("5.1", into);
    let asked = asks(5);
    for cut in 0..=asked.len() {
        let (head, rest) = asked.split_at(cut);
        let steps = vec![Step::Write([begin(head), end(rest)].concat()), answer(5)];
        group.case(format!("two fragments, cut at {cut}"), and_alive(steps));
    }
    for parts in [3, 10, 100, 1_000] {
        let message = asks_padded(6, 2_000);
        let mut all = begin("");
        for part in message.as_bytes().chunks(message.len().div_ceil(parts)) {
            all.extend(middle(part));
        }
        all.extend(end(""));
        for size in [1, 50, usize::MAX] {
            let what = format!("{parts} fragments in pieces of {size}");
            let size = size.min(all.len());
            group.case(
                what,
                and_alive(vec![Step::Pieces(size, all.clone()), answer(6)]),
            );
        }
    }
    let steps = vec![
        Step::Write([begin(""), middle(""), end("")].concat()),
        Step::Error("bad_frame"),
    ];
    group.case(
        "three empty fragments are an empty message",
        and_alive(steps),
    );
    let mut all = begin("");
    for _ in 0..10_000 {
        all.extend(middle(""));
    }
    all.extend(end(asks(8)));
    group.case(
        "10,000 empty fragments",
        and_alive(vec![Step::Write(all), answer(8)]),
    );
    let (head, rest) = asked.split_at(7);
    let twice = [
        begin(head),
        end(rest),
        begin(head),
        end(rest),
        text(asks(6)),
    ];
    let steps = vec![Step::Write(twice.concat()), answer(5), answer(5), answer(6)];
    group.case("two fragmented messages and a whole one", steps);
    let steps = vec![
        Step::Write([begin(r#"{"type":"hello","#), end("}")].concat()),
        Step::Error("bad_frame"),
        Step::SignIn,
    ];
    group.case_from(Start::Upgraded, "a fragmented first frame", steps);
}

fn out_of_place(into: &mut Vec<Case>) {
    let mut group = Group::new("5.2", into);
    let asked = asks(5);
    let (head, rest) = asked.split_at(7);
    for payload in ["", "{}"] {
        for (what, frame) in [
            ("the last", end(payload)),
            ("one of several", middle(payload)),
        ] {
            let what = format!("a continuation of nothing, {what}, {} bytes", payload.len());
            group.breach(what, frame.clone(), "protocol_error", 1002);
            let steps = vec![
                Step::Write([text(asks(1)), frame].concat()),
                answer(1),
                Step::Bye("protocol_error", 1002),
            ];
            group.case("the same after a whole message", steps);
        }
    }
    let steps = vec![
        Step::Write([begin(head), end(rest), end(rest)].concat()),
        answer(5),
        Step::Bye("protocol_error", 1002),
    ];
    group.case("a continuation too many", steps);
    for (what, intruder) in [
        ("text", text(asks(1))),
        ("empty text", text("")),
        ("another fragmented text", begin("{")),
        ("binary", Frame::new(BINARY, "x").bytes()),
    ] {
        let bytes = [begin(head), intruder.clone()].concat();
        let what = format!("{what} within a fragmented message");
        group.breach(what.clone(), bytes.clone(), "protocol_error", 1002);
        let steps = vec![Step::Dribble(bytes), Step::Bye("protocol_error", 1002)];
        group.case(format!("{what}, byte by byte"), steps);
        let bytes = [begin(head), middle(rest), intruder].concat();
        group.breach(format!("{what}, later"), bytes, "protocol_error", 1002);
    }
    for opcode in [CLOSE, PING, PONG] {
        for payload in ["", "\u{3}\u{e8}"] {
            let part = Frame::new(opcode, payload).more().bytes();
            let what = format!(
                "control frame {opcode:#x} as a fragment, {} bytes",
                payload.len()
            );
            group.breach(what, part.clone(), "protocol_error", 1002);
            let bytes = [begin(head), part].concat();
            let what = format!("control frame {opcode:#x} as a fragment within a message");
            group.breach(what, bytes, "protocol_error", 1002);
        }
    }
    let steps = vec![
        Step::Write([begin(head), close(1000, "")].concat()),
        Step::Closed(Some(1000)),
    ];
    group.case("a close within a fragmented message", steps);
}
