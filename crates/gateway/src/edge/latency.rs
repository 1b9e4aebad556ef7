//! How long a send waits for its `accepted`: from the read that brought its
//! frame to the write that takes the answer.
//!
//! This is on the way of every message, so it costs next to nothing: the read
//! looked at the clock anyway, a batch of answers looks once, and the totals are
//! touched once a batch. A connection notes its sends in a few bytes each for as
//! long as they wait. Not counted are ephemeral sends, which no disk holds up,
//! resends of what was accepted before, and refusals. What waits in a socket
//! that is not being read is not seen here.

use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;
use stonechat_broker::Event;
use stonechat_protocol::{MessageId, UNACCEPTED_MAX};
use tokio::time::Instant;

/// Upper bounds of the buckets but the last, which has none, in microseconds.
const BOUNDS_US: [u32; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000,
];
const BUCKETS: usize = BOUNDS_US.len() + 1;

/// What all connections counted.
pub(crate) struct Latencies {
    /// What moments are told from.
    epoch: Instant,
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

/// A moment, in microseconds since the edge was started. Wraps after 71 minutes, which is longer
/// than any send waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(u32);

impl Latencies {
    pub(crate) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            counts: Default::default(),
            sum_us: AtomicU64::new(0),
        }
    }

    /// The moment now.
    pub(crate) fn now(&self) -> Moment {
        self.moment(Instant::now())
    }

    pub(crate) fn moment(&self, at: Instant) -> Moment {
        // Wraps on purpose.
        Moment(at.saturating_duration_since(self.epoch).as_micros() as u32)
    }

    /// Adds what a batch of answers counted.
    pub(crate) fn add(&self, batch: &Batch) {
        if batch.answered_at.is_none() {
            return;
        }
        for (total, count) in self.counts.iter().zip(batch.counts) {
            if count > 0 {
                total.fetch_add(count.into(), Ordering::Relaxed);
            }
        }
        self.sum_us.fetch_add(batch.sum_us, Ordering::Relaxed);
    }

    /// How it stands now.
    pub(crate) fn read(&self) -> SendLatencies {
        let bounds = BOUNDS_US.iter().map(|us| f64::from(*us) / 1e6);
        let counts = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        SendLatencies {
            buckets: bounds.chain([f64::INFINITY]).zip(counts).collect(),
            sum_s: self.sum_us.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }
}

/// How many sends were accepted, by how long that took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SendLatencies {
    /// Upper bound in seconds and how many took at most that, but longer than the bound before.
    pub buckets: Vec<(f64, u64)>,
    /// How long all of them took together, seconds.
    pub sum_s: f64,
}

struct Sent {
    /// The lower half of the id, which is where ids differ. Two that are alike there cost a figure.
    id: u64,
    at: Moment,
}

/// The sends of one connection that wait for their answer, in their order. One needs no memory of
/// its own, and none is held while nothing waits.
#[derive(Default)]
pub(crate) struct Waiting(SmallVec<[Sent; 1]>);

impl Waiting {
    /// A send was read.
    pub(crate) fn sent(&mut self, id: MessageId, at: Moment) {
        if self.0.len() >= UNACCEPTED_MAX {
            // No more than these are answered, so one of them never will be.
            self.0.remove(0);
        }
        self.0.push(Sent { id: half(id), at });
    }

    /// When the send was read that this answers; it no longer waits.
    fn take(&mut self, id: MessageId) -> Option<Moment> {
        let id = half(id);
        let place = self.0.iter().position(|sent| sent.id == id)?;
        let sent = self.0.remove(place);
        if self.0.is_empty() && self.0.spilled() {
            self.0 = SmallVec::new();
        }
        Some(sent.at)
    }
}

fn half(id: MessageId) -> u64 {
    id.to_u128() as u64
}

/// What one batch of events, on its way to one socket, answers.
#[derive(Default)]
pub(crate) struct Batch {
    answered_at: Option<Moment>,
    counts: [u32; BUCKETS],
    sum_us: u64,
}

impl Batch {
    /// An event is being written. The clock is looked at for the first answer only.
    pub(crate) fn note(
        &mut self,
        event: &Event,
        waiting: &mut Waiting,
        clock: impl FnOnce() -> Moment,
    ) {
        match event {
            Event::Accepted(accepted) => {
                let Some(sent) = waiting.take(accepted.id) else {
                    return;
                };
                if accepted.duplicate {
                    return;
                }
                let now = *self.answered_at.get_or_insert_with(clock);
                let took_us = now.0.wrapping_sub(sent.0);
                let bucket = BOUNDS_US.partition_point(|bound| *bound < took_us);
                self.counts[bucket] += 1;
                self.sum_us += u64::from(took_us);
            }
            Event::Error(error) => {
                if let Some(id) = error.reference {
                    waiting.take(id);
                }
            }
            Event::Message { .. } | Event::Receipt(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use stonechat_protocol::{Accepted, ErrorCode, ErrorFrame};

    use super::*;

    fn id(number: u64) -> MessageId {
        MessageId::parse(&format!("0190163d-8694-739b-8000-{number:012x}")).unwrap()
    }

    fn accepted(number: u64, duplicate: bool) -> Event {
        Event::Accepted(Accepted {
            id: id(number),
            ts_ms: 1,
            duplicate,
            ephemeral: false,
        })
    }

    fn refused(number: u64) -> Event {
        Event::Error(Box::new(ErrorFrame {
            code: ErrorCode::MailboxFull,
            message: String::new(),
            reference: Some(id(number)),
            retry_after_ms: None,
        }))
    }

    /// How many took at most so many seconds, but longer than the bound before.
    fn count(all: &Latencies, bound: f64) -> u64 {
        let read = all.read();
        let found = read.buckets.iter().find(|(other, _)| *other == bound);
        found.unwrap().1
    }

    #[test]
    fn each_answer_counts_from_its_own_send() {
        let all = Latencies::new();
        let mut waiting = Waiting::default();
        waiting.sent(id(1), Moment(10_000));
        for number in [2, 3, 4] {
            waiting.sent(id(number), Moment(14_000));
        }
        let mut batch = Batch::default();
        // In another order than they were sent; a refusal and a resend are no latencies.
        for event in [
            accepted(2, false),
            accepted(1, false),
            refused(3),
            accepted(4, true),
            accepted(9, false),
        ] {
            batch.note(&event, &mut waiting, || Moment(16_000));
        }
        all.add(&batch);
        assert_eq!(count(&all, 0.002_5), 1, "{:?}", all.read());
        assert_eq!(count(&all, 0.01), 1, "{:?}", all.read());
        assert_eq!(all.read().buckets.iter().map(|(_, n)| n).sum::<u64>(), 2);
        assert!((all.read().sum_s - 0.008).abs() < 1e-9);
        assert!(waiting.0.is_empty() && !waiting.0.spilled());
    }

    #[test]
    fn the_clock_may_wrap_and_long_waits_count_as_well() {
        let all = Latencies::new();
        let mut waiting = Waiting::default();
        waiting.sent(id(1), Moment(u32::MAX - 999_999));
        let mut batch = Batch::default();
        batch.note(&accepted(1, false), &mut waiting, || Moment(9_000_000));
        all.add(&batch);
        assert_eq!(count(&all, f64::INFINITY), 1);
        assert!((all.read().sum_s - 10.0).abs() < 1e-9);
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let all = Latencies::new();
        let mut waiting = Waiting::default();
        let mut batch = Batch::default();
        for (number, took_us) in [(1, 0), (2, 1_000), (3, 1_001)] {
            waiting.sent(id(number), Moment(5));
            let mut one = Batch::default();
            one.note(&accepted(number, false), &mut waiting, || {
                Moment(5 + took_us)
            });
            all.add(&one);
        }
        batch.note(&refused(7), &mut waiting, || panic!("nothing was answered"));
        all.add(&batch);
        assert_eq!(count(&all, 0.000_1), 1);
        assert_eq!(count(&all, 0.001), 1);
        assert_eq!(count(&all, 0.002_5), 1);
    }

    #[test]
    fn what_waits_is_bounded_and_small() {
        let mut waiting = Waiting::default();
        for number in 0..1_000 {
            waiting.sent(id(number), Moment(0));
        }
        assert_eq!(waiting.0.len(), UNACCEPTED_MAX);
        assert!(size_of::<Waiting>() <= 32, "{}", size_of::<Waiting>());
    }
}
