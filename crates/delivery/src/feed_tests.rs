use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const LIMITS: FeedLimits = FeedLimits {
    window_messages_max: 4,
    window_bytes_max: 100,
};

fn feed(cursor: Seq, sent: Seq, last_seq: Seq) -> Feed {
    let start = FeedStart {
        cursor,
        sent,
        last_seq,
    };
    Feed::new(start, LIMITS)
}

fn deliver(seq: Seq, redelivered: bool) -> Effect {
    Effect::Deliver { seq, redelivered }
}

fn item(seq: Seq, size: u32) -> ReadItem {
    ReadItem {
        seq,
        size,
        own: false,
    }
}

#[test]
fn an_idle_device_is_small() {
    assert!(size_of::<Feed>() <= 96);
}

#[test]
fn a_device_that_keeps_up_is_never_read_for() {
    let mut feed = feed(5, 5, 5);
    assert!(feed.start().is_empty());
    assert_eq!(feed.committed(5, 6, 1, false)[..], [deliver(6, false)]);
    assert_eq!(feed.ack(6).unwrap().cursor, Some(6));
    assert_eq!(feed.committed(6, 9, 1, false)[..], [deliver(9, false)]);
    assert_eq!(feed.ack(10), Err(AckError::NotSent { sent: 9 }));
    assert_eq!(feed.ack(6), Ok(AckStep::default()));
    assert_eq!(feed.cursor(), 6);
}

#[test]
fn an_unknown_end_is_read_for_once() {
    let mut feed = feed(3, 3, Seq::MAX);
    let read = Effect::Read {
        after: 3,
        messages_max: 4,
        bytes_max: 100,
    };
    assert_eq!(feed.start()[..], [read]);
    assert!(!feed.is_caught_up());
    assert!(feed.committed(3, 4, 1, false).is_empty());
    // The read was before the commit: read again.
    assert_eq!(feed.read_done([], 3, true)[..], [read]);
    // A bounded read that did not reach the end is gone on with.
    let effects = feed.read_done([item(4, 1), item(5, 1)], 5, false);
    assert_eq!(effects[..2], [deliver(4, false), deliver(5, false)]);
    assert!(matches!(effects[2], Effect::Read { after: 5, .. }));
    assert!(feed.read_done([], 5, true).is_empty());
    assert!(feed.is_caught_up());
}

#[test]
fn a_late_notification_does_not_bring_back_what_is_gone() {
    let mut feed = feed(2, 7, 7);
    assert_eq!(feed.start().len(), 1);
    assert!(feed.committed(2, 3, 1, false).is_empty());
    assert_eq!(
        feed.read_done([item(7, 1)], 7, true)[..],
        [deliver(7, true)]
    );
}

#[test]
fn a_gap_is_read_and_what_was_sent_before_is_marked() {
    let mut feed = feed(2, 4, 2);
    let effects = feed.committed(5, 6, 1, false);
    assert!(matches!(effects[..], [Effect::Read { after: 2, .. }]));
    let batch = [item(3, 1), item(4, 1), item(5, 1), item(6, 1)];
    assert_eq!(
        feed.read_done(batch, 6, true)[..],
        [
            deliver(3, true),
            deliver(4, true),
            deliver(5, false),
            deliver(6, false)
        ]
    );
    assert_eq!(feed.sent(), 6);
}

#[test]
fn a_full_window_waits_until_half_is_free() {
    let mut feed = feed(0, 0, 0);
    for seq in 1..=4 {
        assert_eq!(feed.committed(seq - 1, seq, 1, false).len(), 1);
    }
    assert!(feed.committed(4, 5, 1, false).is_empty());
    assert!(feed.ack(1).unwrap().effects.is_empty());
    let read = Effect::Read {
        after: 4,
        messages_max: 2,
        bytes_max: 98,
    };
    assert_eq!(feed.ack(2).unwrap().effects[..], [read]);
}

#[test]
fn a_message_above_the_byte_limit_goes_alone() {
    let mut feed = feed(0, 0, 0);
    assert_eq!(feed.committed(0, 1, 1, false).len(), 1);
    // It does not fit beside the first, and reading it again and again would not help.
    assert!(feed.committed(1, 2, 500, false).is_empty());
    assert!(feed.nudge(2).is_empty());
    let step = feed.ack(1).unwrap();
    assert!(matches!(step.effects[..], [Effect::Read { after: 1, .. }]));
    assert_eq!(
        feed.read_done([item(2, 500)], 2, true)[..],
        [deliver(2, false)]
    );
    assert_eq!(feed.unacked_bytes(), 500);
}

#[test]
fn own_messages_are_acknowledged_with_what_is_before_them() {
    let mut feed = feed(0, 0, 0);
    assert_eq!(
        feed.committed(0, 1, 1, true)[..],
        [Effect::AutoAck { upto: 1 }]
    );
    feed.committed(1, 2, 1, false);
    assert!(feed.committed(2, 3, 1, true).is_empty());
    assert_eq!(feed.ack(2).unwrap().cursor, Some(3));
}

#[test]
fn an_acknowledgement_during_a_read_is_not_undone_by_it() {
    let mut feed = feed(0, 5, 5);
    assert_eq!(feed.start().len(), 1);
    assert_eq!(feed.ack(2).unwrap().cursor, Some(2));
    let batch = (1..=4).map(|seq| item(seq, 1));
    assert_eq!(
        feed.read_done(batch, 4, false)[..2],
        [deliver(3, true), deliver(4, true)]
    );
}

#[test]
fn a_failed_read_is_tried_again_when_asked() {
    let mut feed = feed(0, 0, 2);
    assert_eq!(feed.start().len(), 1);
    assert!(feed.nudge(2).is_empty());
    feed.read_failed();
    assert_eq!(feed.nudge(2).len(), 1);
}

#[derive(Debug, Clone)]
enum Step {
    /// A commit leaving so many places unused, of this size, own or not, heard of or not.
    Commit(u64, u32, bool, bool),
    /// The store carries a read out, bounded; then its result arrives.
    Execute(usize),
    Complete(bool),
    /// The device acknowledges so many of what it has.
    Ack(usize),
    Nudge,
    /// The oldest message held expires.
    Expire,
    /// Knowing the end of the mailbox, or not.
    Reconnect(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u64..3, 1u32..60, prop::bool::weighted(0.2), prop::bool::weighted(0.9))
            .prop_map(|(gap, size, own, heard)| Step::Commit(gap, size, own, heard)),
        3 => (1usize..6).prop_map(Step::Execute),
        3 => prop::bool::weighted(0.9).prop_map(Step::Complete),
        4 => (1usize..5).prop_map(Step::Ack),
        1 => Just(Step::Nudge),
        1 => Just(Step::Expire),
        1 => any::<bool>().prop_map(Step::Reconnect),
    ]
}

/// A mailbox, a device, and what is under way between them.
struct Model {
    feed: Feed,
    held: Vec<ReadItem>,
    last_seq: Seq,
    /// What was sent on this connection and is not acknowledged.
    window: VecDeque<ReadItem>,
    ever_sent: Seq,
    /// What the device has handed to its user.
    got: Vec<Seq>,
    gone: Vec<Seq>,
    read: Option<(Seq, u32, u32)>,
    result: Option<(Vec<ReadItem>, Seq, bool)>,
}

impl Model {
    fn carry_out(&mut self, effects: &[Effect]) -> Result<(), TestCaseError> {
        for effect in effects {
            match *effect {
                Effect::Deliver { seq, redelivered } => {
                    prop_assert_eq!(redelivered, seq <= self.ever_sent);
                    self.ever_sent = self.ever_sent.max(seq);
                    prop_assert!(self.window.back().is_none_or(|last| last.seq < seq));
                    let known = self.held.iter().find(|held| held.seq == seq);
                    let size = known.map_or(1, |held| held.size);
                    prop_assert!(known.is_none_or(|held| !held.own));
                    self.window.push_back(item(seq, size));
                    let bytes: u32 = self.window.iter().map(|sent| sent.size).sum();
                    prop_assert!(self.window.len() <= LIMITS.window_messages_max as usize);
                    prop_assert!(bytes <= LIMITS.window_bytes_max || self.window.len() == 1);
                    let last = self.got.last().copied().unwrap_or(0);
                    if seq > last {
                        let skipped = self
                            .held
                            .iter()
                            .find(|held| held.seq > last && held.seq < seq && !held.own);
                        prop_assert!(skipped.is_none(), "{seq} comes before {skipped:?}");
                        self.got.push(seq);
                    }
                }
                Effect::Read {
                    after,
                    messages_max,
                    bytes_max,
                } => {
                    prop_assert!(self.read.is_none() && self.result.is_none());
                    prop_assert!(messages_max >= 1);
                    self.read = Some((after, messages_max, bytes_max));
                }
                Effect::AutoAck { upto } => {
                    prop_assert!(self.window.is_empty());
                    prop_assert!(upto <= self.last_seq);
                    self.acknowledged(upto)?;
                }
            }
        }
        Ok(())
    }

    /// The store's view: nothing the device has not got, and is not its own, may be passed.
    fn acknowledged(&mut self, upto: Seq) -> Result<(), TestCaseError> {
        for held in self
            .held
            .iter()
            .filter(|held| held.seq <= upto && !held.own)
        {
            prop_assert!(self.got.contains(&held.seq), "{} was never sent", held.seq);
        }
        self.held.retain(|held| held.seq > upto);
        Ok(())
    }

    fn execute(&mut self, max: usize) {
        let Some((after, messages_max, bytes_max)) = self.read.take() else {
            return;
        };
        let mut batch: Vec<ReadItem> = Vec::new();
        let (mut end, mut bytes) = (true, 0);
        for held in self.held.iter().filter(|held| held.seq > after) {
            let full = batch.len() >= max.min(messages_max as usize);
            if !batch.is_empty() && (full || bytes + held.size > bytes_max) {
                end = false;
                break;
            }
            bytes += held.size;
            batch.push(*held);
        }
        let last = batch.last().map_or(after, |last| last.seq);
        let upto = if end { self.last_seq.max(after) } else { last };
        self.result = Some((batch, upto, end));
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Commit(gap, size, own, heard) => {
                let prev = self.last_seq;
                self.last_seq += 1 + gap;
                let seq = self.last_seq;
                self.held.push(ReadItem { seq, size, own });
                if heard {
                    let effects = self.feed.committed(prev, seq, size, own);
                    self.carry_out(&effects)?;
                }
            }
            Step::Execute(max) => self.execute(max),
            Step::Complete(well) => {
                if let Some((batch, upto, end)) = self.result.take() {
                    if well {
                        let effects = self.feed.read_done(batch, upto, end);
                        self.carry_out(&effects)?;
                    } else {
                        self.feed.read_failed();
                    }
                }
            }
            Step::Ack(count) => {
                let count = count.min(self.window.len());
                let Some(upto) = count.checked_sub(1).map(|at| self.window[at].seq) else {
                    return Ok(());
                };
                self.window.retain(|sent| sent.seq > upto);
                let acked = self.feed.ack(upto).expect("it was sent");
                self.acknowledged(acked.cursor.expect("it moves"))?;
                self.carry_out(&acked.effects)?;
            }
            Step::Nudge => {
                let effects = self.feed.nudge(self.last_seq);
                self.carry_out(&effects)?;
            }
            Step::Expire => {
                if !self.held.is_empty() {
                    self.gone.push(self.held.remove(0).seq);
                }
            }
            Step::Reconnect(knows) => {
                (self.read, self.result) = (None, None);
                self.window.clear();
                self.ever_sent = self.feed.sent();
                let last_seq = if knows { self.last_seq } else { Seq::MAX };
                self.feed = feed(self.feed.cursor(), self.feed.sent(), last_seq);
                let effects = self.feed.start();
                self.carry_out(&effects)?;
            }
        }
        prop_assert_eq!(self.feed.unacked(), self.window.len());
        Ok(())
    }
}

proptest! {
    /// Whatever is lost, late or failing: no gap, nothing beyond the window, nothing
    /// acknowledged that was not sent, and in the end everything arrives.
    #[test]
    fn everything_arrives_in_order(steps in prop::collection::vec(step(), 0..200)) {
        let mut model = Model {
            feed: feed(0, 0, 0),
            held: Vec::new(),
            last_seq: 0,
            window: VecDeque::new(),
            ever_sent: 0,
            got: Vec::new(),
            gone: Vec::new(),
            read: None,
            result: None,
        };
        for step in &steps {
            model.step(step)?;
        }
        for _ in 0..2000 {
            for step in [Step::Nudge, Step::Execute(3), Step::Complete(true), Step::Ack(9)] {
                model.step(&step)?;
            }
        }
        prop_assert!(model.held.is_empty(), "left: {:?}", model.held);
        prop_assert!(model.feed.is_caught_up());
        prop_assert_eq!(model.feed.cursor(), model.last_seq);
        prop_assert!(model.got.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
