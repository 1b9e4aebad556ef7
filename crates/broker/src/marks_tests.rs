//! What waits and is put together moves the watermarks as far as what does not wait.

use proptest::prelude::*;
use stonechat_delivery::{Receipts, SenderDevices, Watermarks};
use stonechat_protocol::{MessageId, Seq};

use super::*;

fn user(name: &str) -> UserId {
    UserId::new(name).expect("a user name")
}

/// The message at this place.
fn id(at: Seq) -> MessageId {
    MessageId::from_u128((u128::from(at) << 80) | (0x7 << 76) | (0x2 << 62))
}

fn delivered(with: &str, upto: Seq) -> Mark<Seq> {
    Mark::Delivered {
        with: user(with),
        id: id(upto),
        upto,
    }
}

fn read(with: &str, at: Seq, found: bool) -> Mark<Seq> {
    Mark::Read {
        with: user(with),
        id: id(at),
        found: found.then_some(at),
        refuse: at,
    }
}

/// Moves the watermarks as the offline queue does, or says which read is not believed.
fn carry_out(marks: &mut Watermarks, mark: &Mark<Seq>) -> Option<Seq> {
    let mut receipts = Receipts::new(*marks);
    let refused = match mark {
        Mark::Delivered { id, .. } if marks.delivered.is_some_and(|at| *id <= at) => None,
        Mark::Delivered { id, upto, .. } => {
            receipts.delivered(*id, *upto);
            None
        }
        Mark::Read {
            id, found, refuse, ..
        } => {
            let outcome = receipts.read(*id, *found, SenderDevices::One);
            outcome.is_err().then_some(*refuse)
        }
    };
    *marks = receipts.watermarks();
    refused
}

/// What happens on the reader's side, and when the store gets to it.
#[derive(Debug, Clone)]
enum Step {
    Ack(u64),
    Read(u64),
    /// One the reader was never sent.
    Invent,
    StoreTakes,
    StoreIsBusy,
    /// Everything waits in the next generation.
    Panic,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4_u64).prop_map(Step::Ack),
        6 => (0..12_u64).prop_map(Step::Read),
        1 => Just(Step::Invent),
        3 => Just(Step::StoreTakes),
        1 => Just(Step::StoreIsBusy),
        1 => Just(Step::Panic),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #[test]
    fn what_is_put_together_says_the_same(steps in steps()) {
        let (sender, mut marks) = (user("alice"), Marks::new());
        let (mut direct, mut waited) = (Watermarks::default(), Watermarks::default());
        let (mut refused_direct, mut refused_waited) = (Vec::new(), Vec::new());
        let mut acked = 0;
        let mut invented = 1_000_000;
        for step in steps {
            let mark = match step {
                Step::Ack(more) => {
                    acked += more;
                    (more > 0).then(|| delivered("bob", acked))
                }
                // Some behind what was acknowledged, some still in the mailbox.
                Step::Read(at) => {
                    let at = (acked + at).saturating_sub(6).max(1);
                    Some(read("bob", at, at > acked))
                }
                Step::Invent => {
                    invented += 1;
                    Some(read("bob", invented, false))
                }
                Step::StoreTakes => {
                    if let Some((whose, mark)) = marks.next() {
                        refused_waited.extend(carry_out(&mut waited, &mark));
                        marks.done(&whose);
                    }
                    None
                }
                Step::StoreIsBusy => {
                    if let Some((whose, mark)) = marks.next() {
                        marks.put_back(&whose, mark);
                        marks.done(&whose);
                    }
                    None
                }
                Step::Panic => {
                    let left = std::mem::replace(&mut marks, Marks::new());
                    marks.take_over(left);
                    None
                }
            };
            if let Some(mark) = mark {
                refused_direct.extend(carry_out(&mut direct, &mark));
                prop_assert_eq!(marks.add(&sender, mark), Ok(()));
            }
        }
        while let Some((whose, mark)) = marks.next() {
            refused_waited.extend(carry_out(&mut waited, &mark));
            marks.done(&whose);
        }
        prop_assert_eq!(waited, direct);
        prop_assert_eq!(refused_waited, refused_direct);
        prop_assert!(marks.is_empty() && marks.reads == 0);
    }
}

#[test]
fn a_conversation_waits_in_a_bounded_room_however_long_it_goes_on() {
    let (sender, mut marks) = (user("alice"), Marks::new());
    for at in 1..=10_000 {
        assert_eq!(marks.add(&sender, delivered("bob", at)), Ok(()));
        assert_eq!(marks.add(&sender, read("bob", at, false)), Ok(()));
    }
    assert_eq!(marks.reads, 1);
    let mut left = 0;
    while let Some((whose, _)) = marks.next() {
        left += 1;
        marks.done(&whose);
    }
    assert_eq!(left, 2, "the last of each");
}

#[test]
fn too_many_reads_are_refused_and_nothing_else() {
    let (sender, mut marks) = (user("alice"), Marks::new());
    for at in 1..=300 {
        let full = at > READS_OF_CONVERSATION_MAX as u64;
        let added = marks.add(&sender, read("bob", 1_000_000 - at, false));
        assert_eq!(added, if full { Err(1_000_000 - at) } else { Ok(()) });
    }
    for n in 1..=READS_MAX as u64 {
        // The room is full when those of bob are counted in.
        let added = marks.add(&user(&format!("user-{n}")), read("carol", n, false));
        let full = n + READS_OF_CONVERSATION_MAX as u64 > READS_MAX as u64;
        assert_eq!(added, if full { Err(n) } else { Ok(()) });
    }
    assert_eq!(marks.add(&sender, delivered("bob", 7)), Ok(()));
    assert_eq!(marks.add(&user("new"), delivered("bob", 7)), Ok(()));
    let mut count = 0;
    while let Some((whose, _)) = marks.next() {
        count += 1;
        marks.done(&whose);
    }
    assert_eq!((count, marks.reads, marks.len()), (READS_MAX + 2, 0, 0));
}

#[test]
fn conversations_take_turns() {
    let (sender, mut marks) = (user("alice"), Marks::new());
    for at in 1..=3 {
        assert_eq!(marks.add(&sender, read("bob", 10 - at, false)), Ok(()));
    }
    assert_eq!(marks.add(&sender, delivered("carol", 1)), Ok(()));
    let mut order = Vec::new();
    while let Some((whose, mark)) = marks.next() {
        order.push(mark.with().as_str().to_owned());
        marks.done(&whose);
    }
    assert_eq!(order, ["bob", "carol", "bob", "bob"]);
}

#[test]
fn the_oldest_is_the_one_that_waits_longest_whether_it_has_its_turn_or_not() {
    let (sender, mut marks) = (user("alice"), Marks::new());
    assert_eq!(marks.oldest(), None);
    let first = marks.begin(&sender, Instant::now());
    assert_eq!(marks.add(&sender, delivered("bob", 2)), Ok(()));
    assert_eq!(marks.oldest(), Some(first));
    marks.done(&sender);
    let second = marks.oldest().expect("one waits");
    assert!(second >= first);
    let (whose, mark) = marks.next().expect("one waits");
    assert_eq!(
        marks.begin(&whose, Instant::now()),
        second,
        "it waited before"
    );
    marks.put_back(&whose, mark);
    assert_eq!(marks.oldest(), Some(second), "and still does");
    marks.done(&whose);
    let mut next = Marks::new();
    next.take_over(marks);
    assert_eq!(next.oldest(), Some(second), "also in the next generation");
    let (whose, _) = next.next().expect("one waits");
    next.done(&whose);
    assert_eq!(next.oldest(), None);
}
