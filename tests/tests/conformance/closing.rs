//! Group 7: closing.

use crate::case::{Case, Group, Start, Step};
use crate::wire::{CLOSE, Frame, asks, begin, close, ping, text};

/// The cases.
pub(crate) fn cases(into: &mut Vec<Case>) {
    echoes(into);
    wrong(into);
    order(into);
}

fn echoes(into: &mut Vec<Case>) {
    let mut group = Group::new("7.1", into);
    let empty = Frame::new(CLOSE, "").bytes();
    group.case(
        "without a code",
        vec![Step::Write(empty.clone()), Step::Closed(None)],
    );
    group.case(
        "without a code, byte by byte",
        vec![Step::Dribble(empty), Step::Closed(None)],
    );
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000,
        4001, 4999,
    ] {
        for reason in ["", "going away", "ü日𝔘"] {
            let steps = vec![Step::Write(close(code, reason)), Step::Closed(Some(code))];
            group.case(format!("code {code} {reason:?}"), steps);
        }
        let steps = vec![Step::Write(close(code, "early")), Step::Closed(Some(code))];
        group.case_from(Start::Upgraded, format!("code {code} before hello"), steps);
    }
    for reason in ["x".repeat(123), "ü".repeat(61)] {
        let what = format!("a reason of {} bytes", reason.len());
        let steps = vec![Step::Write(close(1000, &reason)), Step::Closed(Some(1000))];
        group.case(what, steps);
    }
}

fn wrong(into: &mut Vec<Case>) {
    let mut group = Group::new("7.2", into);
    for code in [
        0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 9999, 65_535,
    ] {
        for reason in ["", "x"] {
            let what = format!("code {code} {reason:?}");
            group.breach(what, close(code, reason), "protocol_error", 1002);
        }
    }
    group.breach(
        "half a code",
        Frame::new(CLOSE, [3]).bytes(),
        "protocol_error",
        1002,
    );
    for bytes in [124, 200, 65_600] {
        let what = format!("a reason of {bytes} bytes");
        let long = close(1000, vec![b'x'; bytes]);
        group.breach(what, long, "protocol_error", 1002);
    }
    for (what, reason) in [
        ("a lone continuation byte", &b"\x80"[..]),
        ("a surrogate", b"\xed\xa0\x80"),
        ("overlong", b"\xc0\xaf"),
        ("above U+10FFFF", b"\xf4\x90\x80\x80"),
        ("cut", b"ab\xe1\x80"),
    ] {
        let what = format!("a reason that is not UTF-8: {what}");
        group.breach(what, close(1000, reason), "invalid_utf8", 1007);
    }
}

fn order(into: &mut Vec<Case>) {
    let mut group = Group::new("7.3", into);
    for (what, after) in [
        ("text", text(asks(1))),
        ("a ping", ping("x")),
        ("another close", close(1001, "")),
        ("a breach", vec![0xff; 20]),
        ("a fragment", begin("x")),
        ("a megabyte", vec![0x81; 1_000_000]),
    ] {
        let steps = vec![
            Step::Write([close(1000, "bye"), after.clone()].concat()),
            Step::Closed(Some(1000)),
        ];
        group.case(format!("{what} after the close is not looked at"), steps);
        let steps = vec![
            Step::Write(vec![0x83]),
            Step::Write(after),
            Step::Bye("protocol_error", 1002),
        ];
        group.case(format!("{what} after a breach is not looked at"), steps);
    }
    let steps = vec![
        Step::Write([text(asks(1)), close(1000, "")].concat()),
        Step::Answer(1.into()),
        Step::Closed(Some(1000)),
    ];
    group.case("what was asked before the close is answered before", steps);
    group.case(
        "the client hangs up without a close",
        vec![Step::HalfClose, Step::End],
    );
    group.case(
        "the client hangs up within a frame",
        vec![
            Step::Write(text(asks(1))[..9].to_vec()),
            Step::HalfClose,
            Step::End,
        ],
    );
    group.case(
        "the client hangs up behind its close",
        vec![
            Step::Write(close(1000, "")),
            Step::HalfClose,
            Step::Closed(Some(1000)),
        ],
    );
    group.case_from(
        Start::Upgraded,
        "the client hangs up before hello",
        vec![Step::HalfClose, Step::End],
    );
    // The client answers the server's close, as it should, and perhaps keeps talking.
    let steps = vec![
        Step::Write(vec![0x83]),
        Step::Write(close(1002, "")),
        Step::Write(ping("too late")),
        Step::Bye("protocol_error", 1002),
    ];
    group.case("a close that crosses the server's", steps);
    let steps = vec![
        Step::Write(text("{}")),
        Step::Error("bad_frame"),
        Step::Write(close(1000, "")),
    ];
    let steps = [steps, vec![Step::Closed(Some(1000))]].concat();
    group.case_from(
        Start::Upgraded,
        "an error, then a close, before hello",
        steps,
    );
}
