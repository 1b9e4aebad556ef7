//! Group 6: text is UTF-8, and what is not is noticed early.

use crate::case::{Case, Group, Start, Step, and_alive};
use crate::wire::{asks_with, begin, end, middle, ping, text};

/// Every length of sequence at both ends of its range, and what is easily taken for wrong.
const GOOD: &[&str] = &[
    "κόσμε",
    "Hello-µ@ßöäüàá-UTF-8!!",
    "\u{7f}",
    "\u{80}",
    "\u{7ff}",
    "\u{800}",
    "\u{fff}",
    "\u{1000}",
    "\u{d7ff}",
    "\u{e000}",
    "\u{feff}",
    "\u{fffd}",
    "\u{fffe}",
    "\u{ffff}",
    "\u{10000}",
    "\u{1fffe}",
    "\u{1ffff}",
    "\u{fffff}",
    "\u{100000}",
    "\u{10ffff}",
    "\u{fdd0}\u{fdef}",
    "a\u{303}\u{200d}👩‍👩‍👧‍👦",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 – 日本語 – العربية",
];

/// What no UTF-8 text contains.
const BAD: &[(&str, &[u8])] = &[
    ("a lone continuation byte", b"\x80"),
    ("the last continuation byte", b"\xbf"),
    ("two continuation bytes", b"\x80\xbf"),
    ("six continuation bytes", b"\x80\xbf\x80\xbf\x80\xbf"),
    ("a two byte start and a blank", b"\xc2 "),
    ("a three byte start and a blank", b"\xe1 "),
    ("a four byte start and a blank", b"\xf1 "),
    ("a three byte sequence, one short", b"\xe1\x80 "),
    ("a four byte sequence, one short", b"\xf1\x80\x80 "),
    ("a four byte sequence, two short", b"\xf1\x80 "),
    ("byte fe", b"\xfe"),
    ("byte ff", b"\xff"),
    ("bytes fe fe ff ff", b"\xfe\xfe\xff\xff"),
    ("a five byte sequence", b"\xf8\x88\x80\x80\x80"),
    ("a six byte sequence", b"\xfc\x84\x80\x80\x80\x80"),
    ("slash in two bytes", b"\xc0\xaf"),
    ("slash in three bytes", b"\xe0\x80\xaf"),
    ("slash in four bytes", b"\xf0\x80\x80\xaf"),
    ("slash in five bytes", b"\xf8\x80\x80\x80\xaf"),
    ("slash in six bytes", b"\xfc\x80\x80\x80\x80\xaf"),
    ("U+007F in two bytes", b"\xc1\xbf"),
    ("U+07FF in three bytes", b"\xe0\x9f\xbf"),
    ("U+FFFF in four bytes", b"\xf0\x8f\xbf\xbf"),
    ("NUL in two bytes", b"\xc0\x80"),
    ("NUL in three bytes", b"\xe0\x80\x80"),
    ("the first surrogate", b"\xed\xa0\x80"),
    ("the last high surrogate", b"\xed\xaf\xbf"),
    ("the first low surrogate", b"\xed\xb0\x80"),
    ("the last surrogate", b"\xed\xbf\xbf"),
    ("a pair of surrogates", b"\xed\xa0\x81\xed\xb0\x80"),
    ("U+110000", b"\xf4\x90\x80\x80"),
    ("far above U+10FFFF", b"\xf7\xbf\xbf\xbf"),
    ("a start that no code point has", b"\xf5\x80\x80\x80"),
    ("good text, then a surrogate", "κόσμε\u{d7ff}".as_bytes()),
];

/// The last entry of [`BAD`] gets this behind it: a constant cannot say it as text.
const SURROGATE: &[u8] = b"\xed\xa0\x80edited";

fn bad() -> Vec<(&'static str, Vec<u8>)> {
    let last = BAD.len() - 1;
    let with_tail = |(n, (what, bytes)): (usize, &(&'static str, &[u8]))| {
        let tail = if n == last { SURROGATE } else { b"" };
        (*what, [bytes, tail].concat())
    };
    BAD.iter().enumerate().map(with_tail).collect()
}

/// The cases.
pub(crate) fn cases(into: &mut Vec<Case>) {
    good(into);
    wrong(into);
    early(into);
}

fn good(into: &mut Vec<Case>) {
    let mut group = Group::new("6.1", into);
    for sample in GOOD {
        let answer = || Step::Answer((*sample).into());
        let message = asks_with(sample.as_bytes());
        let name: String = sample
            .chars()
            .map(|c| c.escape_unicode().to_string())
            .collect();
        group.case(
            format!("{name} whole"),
            and_alive(vec![Step::Write(text(&message)), answer()]),
        );
        group.case(
            format!("{name} byte by byte"),
            and_alive(vec![Step::Dribble(text(&message)), answer()]),
        );
        let mut all = begin("");
        for byte in &message {
            all.extend(middle([*byte]));
        }
        all.extend(end(""));
        group.case(
            format!("{name}, a fragment for each byte"),
            and_alive(vec![Step::Write(all), answer()]),
        );
    }
    let sample = "ü日𝔘";
    let message = asks_with(sample.as_bytes());
    let from = message.len() - 2 - sample.len();
    for cut in from..=from + sample.len() {
        let (head, rest) = message.split_at(cut);
        let steps = vec![
            Step::Write([begin(head), ping("between")].concat()),
            Step::Pong(b"between".into()),
            Step::Write(end(rest)),
            Step::Answer(sample.into()),
        ];
        group.case(
            format!("{sample} cut at {cut}, a ping between"),
            and_alive(steps),
        );
    }
}

fn wrong(into: &mut Vec<Case>) {
    let mut group = Group::new("6.2", into);
    for (what, bytes) in bad() {
        let message = asks_with(&bytes);
        group.breach(what, text(&message), "invalid_utf8", 1007);
        let steps = vec![
            Step::Dribble(text(&message)),
            Step::Bye("invalid_utf8", 1007),
        ];
        group.case(format!("{what}, byte by byte"), steps);
        let mut all = begin("");
        for byte in &message {
            all.extend(middle([*byte]));
        }
        all.extend(end(""));
        group.breach(
            format!("{what}, a fragment for each byte"),
            all,
            "invalid_utf8",
            1007,
        );
    }
    for tail in [&b"\xc2"[..], b"\xe1\x80", b"\xf1\x80\x80"] {
        let message = [br#"{"type":"ping"}"#, tail].concat();
        let what = format!("the message ends within {tail:02x?}");
        group.breach(what.clone(), text(&message), "invalid_utf8", 1007);
        let parts = [begin(&message), end("")].concat();
        group.breach(format!("{what}, in fragments"), parts, "invalid_utf8", 1007);
    }
    let steps = vec![Step::Write(text(b"\xff")), Step::Bye("invalid_utf8", 1007)];
    group.case_from(Start::Upgraded, "before hello", steps);
}

/// A breach is noticed with the fragment that commits it; the rest need not come.
fn early(into: &mut Vec<Case>) {
    let mut group = Group::new("6.3", into);
    for (what, bytes) in bad() {
        let message = asks_with(&bytes);
        let first = begin(&message);
        group.breach(
            format!("{what}, in a first fragment"),
            first,
            "invalid_utf8",
            1007,
        );
        let parts = [begin("{"), middle(&message[1..])].concat();
        group.breach(
            format!("{what}, in a second fragment"),
            parts,
            "invalid_utf8",
            1007,
        );
    }
    // Half a character is no breach until the other half turns out to be wrong.
    for (head, rest) in [
        (&b"\xc2"[..], &b" "[..]),
        (b"\xe1\x80", b"\""),
        (b"\xf1\x80\x80", b"\xc2"),
    ] {
        let steps = vec![
            Step::Write([begin(head), ping("fine so far")].concat()),
            Step::Pong(b"fine so far".into()),
            Step::Write(middle(rest)),
            Step::Bye("invalid_utf8", 1007),
        ];
        group.case(format!("{head:02x?} and then {rest:02x?}"), steps);
    }
}
