//! The checker finds what it is there to find.

use super::*;

const ALICE: usize = 0;
const BOB: usize = 1;
/// Alice's phone, Bob's phone, Bob's tablet.
const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const EVERYBODY: Devices = 0b111;

fn truth() -> Truth {
    Truth::new(&[
        ("alice".to_owned(), vec!["phone"]),
        ("bob".to_owned(), vec!["phone", "tablet"]),
    ])
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn send(truth: &mut Truth, n: u128) {
    truth.sends(A, id(n), BOB, 7);
}

fn accept(truth: &mut Truth, n: u128) {
    truth.accepted(A, id(n), Some(id(n)), false, false);
}

fn deliver(truth: &mut Truth, device: usize, n: u128, seq: u64) {
    let got = Got {
        seq,
        id: id(n),
        from: ("alice", "phone"),
        to: None,
        body_hash: 7,
    };
    truth.delivered(device, &got);
}

/// One message there and back, nothing wrong.
fn one_round() -> Truth {
    let mut truth = truth();
    send(&mut truth, 1);
    accept(&mut truth, 1);
    deliver(&mut truth, B, 1, 5);
    deliver(&mut truth, C, 1, 5);
    truth.acknowledges(B, 5);
    truth.told(A, "bob", Some(id(1)), None);
    truth
}

/// The only kind of breach there is, if any.
fn only(truth: &Truth) -> Option<Breach> {
    let found: Vec<Breach> = Breach::ALL
        .into_iter()
        .filter(|breach| truth.breaches(*breach) > 0)
        .collect();
    assert!(found.len() <= 1, "{:?}", truth.notes());
    found.first().copied()
}

#[test]
fn what_is_right_is_not_blamed() {
    let mut truth = one_round();
    assert_eq!(truth.awaited(EVERYBODY), None);
    truth.settle(EVERYBODY);
    // Not answered, delivered all the same, then answered as a duplicate.
    send(&mut truth, 2);
    deliver(&mut truth, B, 2, 6);
    deliver(&mut truth, C, 2, 6);
    truth.accepted(A, id(2), Some(id(2)), true, true);
    truth.dropped(B, 6, id(2), true);
    truth.acknowledges(C, 6);
    truth.reads(B, ALICE, 6);
    truth.told(A, "bob", Some(id(2)), Some(id(2)));
    assert_eq!(truth.awaited(EVERYBODY), None);
    truth.settle(EVERYBODY);
    assert_eq!(only(&truth), None, "{:?}", truth.notes());
}

#[test]
fn what_is_missing_is_awaited_then_lost() {
    let mut truth = one_round();
    send(&mut truth, 2);
    assert!(truth.awaited(EVERYBODY).is_some());
    accept(&mut truth, 2);
    deliver(&mut truth, B, 2, 6);
    truth.acknowledges(B, 6);
    truth.told(A, "bob", Some(id(2)), None);
    assert_eq!(truth.awaited(1 << B), None);
    assert!(truth.awaited(1 << C).is_some());
    truth.settle(1 << B);
    assert_eq!(
        only(&truth),
        None,
        "the tablet was away: {:?}",
        truth.notes()
    );
    truth.settle(EVERYBODY);
    assert_eq!(only(&truth), Some(Breach::Lost));
    truth.settle(EVERYBODY);
    assert_eq!(truth.breaches(Breach::Lost), 1, "counted once");
}

#[test]
fn every_breach_is_told_from_the_others() {
    type Break = fn(&mut Truth);
    let cases: &[(&str, Breach, Break)] = &[
        ("twice", Breach::Doubled, |t| deliver(t, B, 1, 6)),
        ("under two places", Breach::Doubled, |t| {
            send(t, 2);
            deliver(t, B, 2, 6);
            deliver(t, C, 2, 7);
        }),
        ("a place used again", Breach::Disordered, |t| {
            send(t, 2);
            deliver(t, B, 2, 5);
        }),
        ("a place from before it was sent", Breach::Disordered, |t| {
            send(t, 2);
            deliver(t, B, 2, 4);
        }),
        (
            "another message at a place passed",
            Breach::Disordered,
            |t| {
                send(t, 2);
                t.dropped(B, 5, id(2), true);
            },
        ),
        ("against the order of sending", Breach::Disordered, |t| {
            send(t, 2);
            send(t, 3);
            deliver(t, B, 3, 6);
            deliver(t, B, 2, 7);
        }),
        ("never sent", Breach::Phantom, |t| deliver(t, B, 9, 6)),
        ("refused", Breach::Phantom, |t| {
            send(t, 2);
            t.refused(A, id(2));
            deliver(t, B, 2, 6);
        }),
        ("delivered, then refused", Breach::Phantom, |t| {
            send(t, 2);
            deliver(t, B, 2, 6);
            t.refused(A, id(2));
        }),
        ("another body", Breach::Phantom, |t| {
            t.sends(A, id(2), BOB, 8);
            deliver(t, B, 2, 6);
        }),
        ("to the wrong one", Breach::Phantom, |t| deliver(t, A, 1, 6)),
        ("a receipt ahead of the cursor", Breach::Receipt, |t| {
            send(t, 2);
            deliver(t, B, 2, 6);
            t.told(A, "bob", Some(id(2)), None);
        }),
        ("a receipt that steps back", Breach::Receipt, |t| {
            t.told(A, "bob", None, None);
        }),
        ("read that nobody read", Breach::Receipt, |t| {
            t.told(A, "bob", Some(id(1)), Some(id(1)));
        }),
        ("a receipt that never comes", Breach::Receipt, |t| {
            send(t, 2);
            accept(t, 2);
            deliver(t, B, 2, 6);
            deliver(t, C, 2, 6);
            t.acknowledges(B, 6);
            t.settle(EVERYBODY);
        }),
        ("an answer out of turn", Breach::Other, |t| {
            send(t, 2);
            send(t, 3);
            t.accepted(A, id(3), Some(id(2)), false, false);
        }),
        ("a duplicate of nothing", Breach::Other, |t| {
            send(t, 2);
            t.accepted(A, id(2), Some(id(2)), true, false);
        }),
        ("again but not marked", Breach::Other, |t| {
            t.dropped(B, 5, id(1), false);
        }),
        ("never answered", Breach::Other, |t| {
            send(t, 2);
            t.settle(EVERYBODY);
        }),
    ];
    for (what, breach, broken) in cases {
        let mut truth = one_round();
        broken(&mut truth);
        assert_eq!(only(&truth), Some(*breach), "{what}: {:?}", truth.notes());
    }
}
