use super::*;
use crate::Roster;

const A: u32 = 0;
const B: u32 = 1;

fn checker(users: usize, devices_each: u32) -> Checker {
    let tokens = (0..users).map(|_| String::new());
    let roster = Roster::new("u", "d", tokens).devices(devices_each);
    let mut checker = Checker::new(roster.names().clone(), roster.len());
    checker.tick(5_000);
    checker
}

fn id(n: u64) -> MessageId {
    let base = MessageId::parse("0190163d-8694-739b-aea5-966c26f8ad91").unwrap();
    MessageId::from_u128(base.to_u128() + u128::from(n))
}

/// A message as it would come from a server that changes nothing.
struct Wire {
    seq: u64,
    id: MessageId,
    body: Vec<u8>,
    from: String,
    to: String,
}

impl Wire {
    fn new(by: (u32, &str), sender: u32, to: u32, number: u64, seq: u64) -> Self {
        let mark = Mark {
            sender,
            number,
            at_us: 9,
        };
        let mut body = Vec::new();
        mark.write(&mut body, 60, to, id(number));
        Self {
            seq,
            id: id(number),
            body,
            from: format!(r#"{{"user":"u{}","device":"{}"}}"#, by.0, by.1),
            to: String::new(),
        }
    }

    fn from_a(number: u64, seq: u64) -> Self {
        Self::new((0, "d"), A, B, number, seq)
    }

    fn copy_to(mut self, user: u32) -> Self {
        self.to = format!(r#"{{"user":"u{user}"}}"#);
        self
    }

    fn show(&self, checker: &mut Checker, device: u32) -> bool {
        let incoming = Incoming {
            seq: self.seq,
            id: self.id,
            body: &self.body,
            from: self.from.as_bytes(),
            to: self.to.as_bytes(),
        };
        checker.delivered(device, &incoming).is_some()
    }
}

/// `count` messages from A to B, all accepted.
fn sent(checker: &mut Checker, count: u64) {
    for number in 0..count {
        assert_eq!(checker.sending(A, B), number);
        checker.accepted(A, B, number);
    }
}

fn told(checker: &mut Checker, delivered: Option<u64>, read: Option<u64>) {
    let receipt = Receipt {
        with: Some(B),
        delivered: delivered.map(id),
        read: read.map(id),
    };
    checker.receipt(A, &receipt);
}

fn only(verdict: &Verdict, kind: Kind) -> &Violation {
    assert_eq!(verdict.outcome, Outcome::Broken, "{verdict:?}");
    assert_eq!(verdict.violations.total(), 1, "{verdict:?}");
    assert_eq!(verdict.violations.count(kind), 1, "{verdict:?}");
    &verdict.violations.first[0]
}

#[test]
fn a_server_that_keeps_its_word_is_found_clean() {
    let mut checker = checker(2, 1);
    sent(&mut checker, 3);
    assert_eq!(checker.sending(A, B), 3);
    checker.refused(A, B, 3);
    assert_eq!(checker.sending(A, B), 4);
    checker.accepted(A, B, 4);
    assert_eq!(checker.outstanding(), 4);
    for (number, seq) in [(0, 1), (1, 2), (2, 9), (4, 10)] {
        assert!(Wire::from_a(number, seq).show(&mut checker, B));
    }
    assert_eq!(checker.outstanding(), 1, "the receipt is missing");
    checker.reading(B, A, 9, id(2));
    told(&mut checker, Some(2), None);
    told(&mut checker, Some(4), Some(2));
    assert_eq!(checker.outstanding(), 0);
    let verdict = checker.verdict(|_| true);
    assert_eq!(verdict.outcome, Outcome::Clean, "{verdict:?}");
    let totals = verdict.totals;
    assert_eq!((totals.sent, totals.accepted, totals.refused), (5, 4, 1));
    assert_eq!((totals.delivered, totals.receipts), (4, 2));
}

#[test]
fn what_is_lost_is_named_by_its_numbers() {
    let mut checker = checker(2, 1);
    sent(&mut checker, 6);
    for (number, seq) in [(0, 1), (3, 2), (4, 3)] {
        Wire::from_a(number, seq).show(&mut checker, B);
    }
    told(&mut checker, Some(4), None);
    assert_eq!(checker.outstanding(), 3);
    let verdict = checker.verdict(|_| true);
    let lost = only(&verdict, Kind::Lost);
    assert_eq!(
        (lost.user.as_str(), lost.from.as_deref()),
        ("u1", Some("u0"))
    );
    assert!(lost.what.contains("3 of 6"), "{lost}");
    assert!(lost.what.ends_with("numbers 1, 2, 5"), "{lost}");
}

#[test]
fn what_was_never_answered_may_have_come_or_not() {
    for came in [false, true] {
        let mut checker = checker(2, 1);
        checker.sending(A, B);
        if came {
            Wire::from_a(0, 1).show(&mut checker, B);
            told(&mut checker, Some(0), None);
        }
        let verdict = checker.verdict(|_| true);
        only(&verdict, Kind::Unanswered);
    }
}

#[test]
fn what_comes_twice_or_late_or_damaged_or_from_nobody_is_named_at_once() {
    type Break = fn(&mut Checker);
    let cases: [(Break, Kind, &str); 9] = [
        // Under another seq, so that a client cannot know it.
        (
            |c| {
                let _ = Wire::from_a(1, 3).show(c, B);
            },
            Kind::Doubled,
            "already",
        ),
        (
            |c| {
                Wire::from_a(3, 3).show(c, B);
                Wire::from_a(2, 4).show(c, B);
            },
            Kind::OutOfOrder,
            "after number 3",
        ),
        (
            |c| {
                let _ = Wire::from_a(4, 3).show(c, B);
            },
            Kind::Phantom,
            "not sent",
        ),
        (
            |c| {
                let _ = Wire::from_a(2, 3).show(c, 2);
            },
            Kind::Damaged,
            "not what was sent",
        ),
        (
            |c| {
                let mut wire = Wire::from_a(2, 3);
                wire.body[50] ^= 1;
                wire.show(c, B);
            },
            Kind::Damaged,
            "not what was sent",
        ),
        (
            |c| {
                let mut wire = Wire::from_a(2, 3);
                wire.id = id(77);
                wire.show(c, B);
            },
            Kind::Damaged,
            "not what was sent",
        ),
        (
            |c| {
                let _ = Wire::new((2, "d"), A, B, 2, 3).show(c, B);
            },
            Kind::Damaged,
            "from",
        ),
        (
            |c| {
                let mut wire = Wire::from_a(2, 3);
                wire.body = br#"{"text":"who are you?"}"#.to_vec();
                wire.show(c, B);
            },
            Kind::Phantom,
            "nobody",
        ),
        (
            |c| {
                let number = c.sending(A, B);
                c.refused(A, B, number);
                Wire::from_a(number, 9).show(c, B);
            },
            Kind::Phantom,
            "refused",
        ),
    ];
    for (break_it, kind, what) in cases {
        let mut checker = checker(3, 1);
        sent(&mut checker, 4);
        Wire::from_a(0, 1).show(&mut checker, B);
        Wire::from_a(1, 2).show(&mut checker, B);
        assert_eq!(checker.violations().total(), 0);
        break_it(&mut checker);
        assert_eq!(checker.violations().total(), 1, "{kind}");
        let first = &checker.violations().first[0];
        assert_eq!(first.kind, kind, "{first}");
        assert!(first.what.contains(what), "{first}");
        assert!(first.to_string().contains("at_ms 5:"), "{first}");
        assert!(first.id.is_some() && first.seq.is_some(), "{first}");
    }
}

#[test]
fn receipts_go_forward_not_ahead_and_come() {
    type Told = (Option<u64>, Option<u64>);
    let cases: [(&[Told], Kind, &str); 5] = [
        (
            &[(Some(2), None), (Some(2), Some(1))],
            Kind::Receipt,
            "ahead of what was delivered",
        ),
        (
            &[(Some(1), None), (Some(0), None), (Some(1), Some(0))],
            Kind::Receipt,
            "went back",
        ),
        (
            &[(Some(1), Some(1)), (Some(1), Some(0))],
            Kind::Receipt,
            "ahead of what was read",
        ),
        (&[(Some(1), None)], Kind::ReceiptMissing, "read up to"),
        (
            &[(Some(0), Some(0))],
            Kind::ReceiptMissing,
            "delivered up to",
        ),
    ];
    for (receipts, kind, what) in cases {
        let mut checker = checker(2, 1);
        sent(&mut checker, 2);
        Wire::from_a(0, 1).show(&mut checker, B);
        Wire::from_a(1, 2).show(&mut checker, B);
        checker.reading(B, A, 1, id(0));
        for &(delivered, read) in receipts {
            told(&mut checker, delivered, read);
        }
        let verdict = checker.verdict(|_| true);
        let found = verdict.violations.first.iter().find(|v| v.kind == kind);
        let found = found.unwrap_or_else(|| panic!("{what}: {verdict:?}"));
        assert!(found.what.contains(what), "{found}");
    }
}

#[test]
fn every_device_counts_and_the_senders_other_devices_get_copies() {
    let all = |skip: Option<(u32, u64)>| {
        let mut checker = checker(2, 2);
        // User 0 has devices 0 and 1, user 1 has 2 and 3.
        for number in 0..2 {
            checker.sending(0, 1);
            checker.accepted(0, 1, number);
        }
        for number in 0..2 {
            for device in [1, 2, 3] {
                if skip == Some((device, number)) {
                    continue;
                }
                let wire = Wire::new((0, "d"), 0, 1, number, number + 1);
                let wire = if device == 1 { wire.copy_to(1) } else { wire };
                assert!(
                    wire.show(&mut checker, device),
                    "{:?}",
                    checker.violations()
                );
            }
        }
        for device in [0, 1] {
            let receipt = Receipt {
                with: Some(1),
                delivered: Some(id(1)),
                read: None,
            };
            checker.receipt(device, &receipt);
        }
        checker.verdict(|_| true)
    };
    assert_eq!(all(None).outcome, Outcome::Clean);
    let verdict = all(Some((1, 1)));
    assert_eq!(only(&verdict, Kind::Lost).device, "d1");
    let verdict = all(Some((3, 0)));
    assert_eq!(verdict.violations.count(Kind::Lost), 1);
    assert_eq!(verdict.violations.count(Kind::Mailbox), 1);
}

#[test]
fn what_could_not_be_reached_is_not_held_against_the_server() {
    let mut checker = checker(2, 1);
    sent(&mut checker, 2);
    let verdict = checker.verdict(|device| device != B);
    assert_eq!(verdict.outcome, Outcome::Incomplete, "{verdict:?}");
    assert_eq!(verdict.devices_unreached, 1);
}

#[test]
fn memory_does_not_grow_with_messages_nor_with_violations() {
    let mut checker = checker(2, 1);
    for number in 0..100_000 {
        checker.sending(A, B);
        checker.accepted(A, B, number);
        // Every other one is lost.
        if number % 2 == 0 {
            Wire::from_a(number, number + 1).show(&mut checker, B);
            Wire::from_a(number, number + 1).show(&mut checker, B);
        }
    }
    assert_eq!(checker.violations.count(Kind::Doubled), 50_000);
    assert_eq!(checker.violations.first.len(), VIOLATIONS_MAX_EACH);
    assert!(checker.gaps_kept <= GAPS_MAX);
    assert_eq!((checker.pairs.len(), checker.arrived.len()), (1, 1));
    // A table is at least 7/16 full while it grows, and has a byte a place for itself.
    let place = |bytes: usize| (bytes + 1) * 16 / 7;
    let entries = [
        size_of::<((u32, u32), Outgoing)>(),
        size_of::<(Way, Arrived)>(),
        size_of::<((u32, u32), Conversation)>(),
    ];
    let most: usize = entries.into_iter().map(place).sum();
    assert!(
        most <= 450,
        "the documentation says 450, it may be {most}: {entries:?}"
    );
    let verdict = checker.verdict(|_| true);
    assert_eq!(verdict.violations.count(Kind::Lost), 1);
    assert!(
        verdict
            .violations
            .first
            .iter()
            .any(|v| v.what.contains("50000 of 100000"))
    );
}
