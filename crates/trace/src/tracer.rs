//! Which messages are followed, and the queue their spans end in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use metrics::{Counter, counter, describe_counter};
use stonechat_protocol::{SpanId, TraceId, TraceParent};

use crate::budget::Budget;
use crate::message::Trace;
use crate::span::{Finished, Span, Stage};

/// Messages that `sampled_per_million` is of.
const MILLION: u32 = 1_000_000;

/// Whether anything is followed in this process.
static ON: AtomicBool = AtomicBool::new(false);

/// Whether anything is followed in this process: for what would have to be measured for each
/// batch, whether or not it holds a message that is.
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Which messages are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracerConfig {
    /// Of a million messages, so many.
    pub sampled_per_million: u32,
    /// So many of these a second at most.
    pub sampled_per_s_max: u32,
    /// So many a second at most that clients say belong to a trace of theirs.
    pub followed_per_s_max: u32,
    /// Finished spans that wait; beyond it they are dropped, and counted.
    pub queue_spans_max: usize,
}

/// Begins traces, and takes what is finished.
pub struct Tracer {
    sampled_per_million: u32,
    sampled: Origin,
    followed: Origin,
    finished: Sender<Finished>,
    dropped: Counter,
}

/// Why a message is followed: the node chose it, or a client's trace did.
struct Origin {
    budget: Budget,
    started: Counter,
    limited: Counter,
}

impl Origin {
    fn new(name: &'static str, per_s_max: u32) -> Self {
        Self {
            budget: Budget::new(per_s_max, Instant::now()),
            started: counter!("stonechat_traces_started_total", "origin" => name),
            limited: counter!("stonechat_traces_limited_total", "origin" => name),
        }
    }

    fn take(&self, now: Instant) -> bool {
        let taken = self.budget.take(now);
        let count = if taken { &self.started } else { &self.limited };
        count.increment(1);
        taken
    }
}

/// Where finished spans are taken from.
#[derive(Debug)]
pub struct FinishedSpans(Receiver<Finished>);

/// What became of waiting for a finished span.
#[derive(Debug)]
pub enum Next {
    /// One.
    Span(Box<Finished>),
    /// None in this time.
    Nothing,
    /// None will come.
    Ended,
}

impl FinishedSpans {
    /// Waits for the next one.
    pub fn next(&self, timeout: Duration) -> Next {
        match self.0.recv_timeout(timeout) {
            Ok(finished) => Next::Span(Box::new(finished)),
            Err(RecvTimeoutError::Timeout) => Next::Nothing,
            Err(RecvTimeoutError::Disconnected) => Next::Ended,
        }
    }
}

impl Tracer {
    /// A tracer, and where its spans come out.
    pub fn new(config: &TracerConfig) -> (Arc<Self>, FinishedSpans) {
        describe_counter!(
            "stonechat_traces_started_total",
            "Messages followed by a trace, by who chose them"
        );
        describe_counter!(
            "stonechat_traces_limited_total",
            "Messages not followed because as many were as may be in a second"
        );
        let (finished, taken) = bounded(config.queue_spans_max.max(1));
        let tracer = Self {
            sampled_per_million: config.sampled_per_million,
            sampled: Origin::new("sampled", config.sampled_per_s_max),
            followed: Origin::new("client", config.followed_per_s_max),
            finished,
            dropped: counter!("stonechat_trace_spans_total", "outcome" => "dropped"),
        };
        ON.store(true, Ordering::Relaxed);
        (Arc::new(tracer), FinishedSpans(taken))
    }

    /// Begins the trace of a message whose frame has just been read, if it is to be followed:
    /// the root span. A client's decision is heeded, as far as there is room for it.
    pub fn begin(self: &Arc<Self>, client: Option<TraceParent>) -> Option<Span> {
        let origin = match client {
            Some(parent) => parent.sampled.then_some(&self.followed)?,
            None if self.chooses() => &self.sampled,
            None => return None,
        };
        let now = Instant::now();
        if !origin.take(now) {
            return None;
        }
        let id = client.map_or_else(new_trace_id, |parent| parent.trace);
        let root = new_span_id();
        let trace = Trace::new(Arc::clone(self), id, root, now, unix_ns());
        let parent = (client.map(|parent| parent.span), client.is_some());
        Some(Span::new(Arc::new(trace), Stage::Send, root, parent, now))
    }

    fn chooses(&self) -> bool {
        self.sampled_per_million > 0 && rand::random_range(0..MILLION) < self.sampled_per_million
    }

    /// Never waits.
    pub(crate) fn push(&self, span: Finished) {
        match self.finished.try_send(span) {
            Ok(()) => {}
            // Disconnected: the node is ending.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.dropped.increment(1),
        }
    }
}

fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

/// Random, as the W3C asks for: other systems sample by it.
fn new_trace_id() -> TraceId {
    loop {
        if let Some(id) = TraceId::new(rand::random()) {
            return id;
        }
    }
}

pub(crate) fn new_span_id() -> SpanId {
    loop {
        if let Some(id) = SpanId::new(rand::random()) {
            return id;
        }
    }
}
