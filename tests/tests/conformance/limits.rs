//! Group 9: limits of frames and messages (docs/protocol.md, section 13).

use crate::case::{Case, Group, Start, Step, and_alive, answer};
use crate::wire::{Frame, Length, TEXT, asks_padded, begin, end, middle, ping, text};

/// `limits.frame_bytes_max` of a node that is not configured otherwise.
const FRAME_BYTES_MAX: usize = 73_728;
/// `limits.body_bytes_max` of such a node.
const BODY_BYTES_MAX: usize = 65_536;

/// The cases.
pub(crate) fn cases(into: &mut Vec<Case>) {
    messages(into);
    bodies(into);
}

fn messages(into: &mut Vec<Case>) {
    let mut group = Group::new("9.1", into);
    for bytes in [
        FRAME_BYTES_MAX as u64 + 1,
        100_000,
        1 << 32,
        1 << 40,
        (1 << 63) - 1,
    ] {
        let head = Frame::new(TEXT, "")
            .length(Length::Announced(bytes))
            .bytes();
        let what = format!("{bytes} bytes announced");
        group.breach(what.clone(), head.clone(), "too_large", 1009);
        let steps = vec![Step::Write(head), Step::Bye("too_large", 1009)];
        group.case_from(Start::Upgraded, format!("{what} before hello"), steps);
    }
    let over = text(vec![b' '; FRAME_BYTES_MAX + 1]);
    group.breach("one byte too many, sent whole", over, "too_large", 1009);
    let megabytes = text(vec![b' '; 4 << 20]);
    group.breach("four megabytes, sent whole", megabytes, "too_large", 1009);
    for parts in [2, 3, 9] {
        let message = asks_padded(4, FRAME_BYTES_MAX);
        let chunks: Vec<&[u8]> = message.as_bytes().chunks(FRAME_BYTES_MAX / parts).collect();
        let mut all = begin(chunks[0]);
        for chunk in &chunks[1..] {
            all.extend(middle(chunk));
        }
        let exact = [all.clone(), end("")].concat();
        let steps = vec![Step::Write(exact), answer(4)];
        group.case(
            format!("exactly the limit in {parts} fragments"),
            and_alive(steps),
        );
        let steps = vec![
            Step::Write([all.clone(), ping("still fine")].concat()),
            Step::Pong(b"still fine".into()),
            Step::Write(end(" ")),
            Step::Bye("too_large", 1009),
        ];
        group.case(format!("one byte more in {parts} fragments"), steps);
        all.extend(&middle([b' '; 100])[..6]);
        let what = format!("the head of a fragment too many, after {parts}");
        group.breach(what, all, "too_large", 1009);
    }
    let mut all = begin("");
    for _ in 0..=FRAME_BYTES_MAX {
        all.extend(middle(" "));
    }
    group.breach(
        "a fragment for each byte, one too many",
        all,
        "too_large",
        1009,
    );
}

fn bodies(into: &mut Vec<Case>) {
    let mut group = Group::new("9.2", into);
    let send = |body_bytes: usize| {
        let body = "b".repeat(body_bytes - 2);
        let id = "0190163d-8694-739b-aea5-966c26f8ad91";
        text(format!(
            r#"{{"type":"send","id":"{id}","to":{{"user":"nobody"}},"body":"{body}"}}"#
        ))
    };
    let steps = vec![
        Step::Write(send(BODY_BYTES_MAX)),
        Step::Error("unknown_user"),
    ];
    group.case("a body of the limit", and_alive(steps));
    let steps = vec![
        Step::Write(send(BODY_BYTES_MAX + 1)),
        Step::Error("too_large"),
    ];
    group.case("a body of one byte more", and_alive(steps));
    let nonce = |bytes: usize| {
        text(format!(
            r#"{{"type":"ping","nonce":"{}"}}"#,
            "n".repeat(bytes - 2)
        ))
    };
    let steps = vec![
        Step::Write(nonce(256)),
        Step::Answer("n".repeat(254).into()),
        Step::Write(nonce(257)),
        Step::Error("too_large"),
    ];
    group.case("a nonce of the limit, and one above", and_alive(steps));
    let nested = format!(r#"{{"type":"ping","nonce":{}}}"#, "[".repeat(60_000));
    let steps = vec![Step::Write(text(nested)), Step::Error("bad_frame")];
    group.case("60,000 brackets", and_alive(steps));
    let mut steps = vec![Step::Write(text("{}").repeat(31))];
    steps.extend(vec![Step::Error("bad_frame"); 31]);
    group.case("31 refused frames in a row", and_alive(steps));
    let mut steps = vec![Step::Write(text("{}").repeat(40))];
    steps.extend(vec![Step::Error("bad_frame"); 32]);
    steps.push(Step::Bye("too_many_errors", 1008));
    group.case("32 refused frames in a row", steps);
}
