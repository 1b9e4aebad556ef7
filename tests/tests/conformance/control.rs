//! Group 2: pings and pongs.

use crate::case::{Case, Group, Start, Step, and_alive, answer};
use crate::wire::{Frame, PING, PONG, asks, begin, end, middle, ping, pong, text};

/// Pings and pongs sent at once.
const MANY: u32 = 1_000;

/// The cases.
pub(crate) fn cases(into: &mut Vec<Case>) {
    pings(into);
    pongs(into);
    between_fragments(into);
}

fn pings(into: &mut Vec<Case>) {
    let mut group = Group::new("2.1", into);
    let payloads = [
        Vec::new(),
        b"x".to_vec(),
        b"Hello, world!".to_vec(),
        vec![0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff],
        vec![0x00; 124],
        vec![0xfe; 125],
    ];
    for payload in payloads {
        let bytes = payload.len();
        group.case(
            format!("a ping of {bytes} bytes"),
            and_alive(vec![
                Step::Write(ping(&payload)),
                Step::Pong(payload.clone()),
            ]),
        );
        group.case(
            format!("a ping of {bytes} bytes, byte by byte"),
            and_alive(vec![Step::Dribble(ping(&payload)), Step::Pong(payload)]),
        );
    }
    for bytes in [126, 127, 200, 65_536] {
        group.breach(
            format!("a ping of {bytes} bytes"),
            ping(vec![1; bytes]),
            "protocol_error",
            1002,
        );
        // The second byte says it already.
        let head = ping(vec![1; bytes])[..2].to_vec();
        let what = format!("the head of a ping of {bytes} bytes");
        group.breach(what, head, "protocol_error", 1002);
    }
    group.breach(
        "a ping that is a fragment",
        Frame::new(PING, "x").more().bytes(),
        "protocol_error",
        1002,
    );
    for chunk in [usize::MAX, 61] {
        let all: Vec<u8> = (0..MANY).flat_map(|n| ping(n.to_be_bytes())).collect();
        let mut steps = vec![Step::Pieces(chunk.min(all.len()), all)];
        steps.extend((0..MANY).map(|n| Step::Pong(n.to_be_bytes().to_vec())));
        group.case(
            format!("{MANY} pings in pieces of {chunk}"),
            and_alive(steps),
        );
    }
    group.case_from(
        Start::Upgraded,
        "pings before hello",
        vec![
            Step::Write([ping("1"), ping("2")].concat()),
            Step::Pong(b"1".into()),
            Step::Pong(b"2".into()),
            Step::SignIn,
        ],
    );
}

fn pongs(into: &mut Vec<Case>) {
    let mut group = Group::new("2.2", into);
    for payload in [&b""[..], b"unasked", &[0xff; 125]] {
        let what = format!("an unasked pong of {} bytes", payload.len());
        group.case(what, and_alive(vec![Step::Write(pong(payload))]));
    }
    let all: Vec<u8> = (0..MANY).flat_map(|_| pong("unasked")).collect();
    group.case(
        format!("{MANY} unasked pongs"),
        and_alive(vec![Step::Write(all)]),
    );
    let steps = vec![
        Step::Write([pong("unasked"), ping("asked")].concat()),
        Step::Pong(b"asked".into()),
    ];
    group.case("an unasked pong, then a ping", and_alive(steps));
    group.breach(
        "a pong of 126 bytes",
        pong([1; 126]),
        "protocol_error",
        1002,
    );
    group.breach(
        "a pong that is a fragment",
        Frame::new(PONG, "x").more().bytes(),
        "protocol_error",
        1002,
    );
}

fn between_fragments(into: &mut Vec<Case>) {
    let mut group = Group::new("2.3", into);
    let asked = asks(9);
    let (head, rest) = asked.split_at(10);
    let steps = vec![
        Step::Write(begin(head)),
        Step::Write(ping("between")),
        Step::Pong(b"between".into()),
        Step::Write(end(rest)),
        answer(9),
    ];
    group.case("a ping between fragments", and_alive(steps));
    let together = [
        begin(head),
        ping("between"),
        pong("unasked"),
        end(rest),
        ping("after"),
    ];
    let pongs = |first: Step| {
        vec![
            first,
            Step::Pong(b"between".into()),
            answer(9),
            Step::Pong(b"after".into()),
        ]
    };
    group.case(
        "the same in one segment",
        pongs(Step::Write(together.concat())),
    );
    group.case(
        "the same byte by byte",
        pongs(Step::Dribble(together.concat())),
    );
    let mut all = begin("");
    let mut steps = Vec::new();
    for (n, byte) in asked.bytes().enumerate() {
        all.extend(middle([byte]));
        all.extend(ping([n as u8]));
        steps.push(Step::Pong(vec![n as u8]));
    }
    all.extend(end(""));
    steps.insert(0, Step::Write(all));
    steps.push(answer(9));
    group.case("a ping after each byte of a message", and_alive(steps));
    let steps = vec![
        Step::Write([begin(head), ping([0; 126])].concat()),
        Step::Bye("protocol_error", 1002),
    ];
    group.case("a long ping between fragments", steps);
    let whole = text(asks(10));
    let steps = vec![
        Step::Write([ping("a"), whole, ping("b")].concat()),
        Step::Pong(b"a".into()),
        answer(10),
        Step::Pong(b"b".into()),
    ];
    group.case("pings around a message come back in order", steps);
}
