//! What a message that is followed carries with it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stonechat_protocol::{SpanId, TraceId};

use crate::span::{Span, Stage};
use crate::tracer::{Tracer, new_span_id};

/// The trace of one message.
pub struct Trace {
    tracer: Arc<Tracer>,
    id: TraceId,
    root: SpanId,
    /// Times of all its spans are told from here, so that they fit together even when the
    /// system's clock is set meanwhile.
    started: Instant,
    started_unix_ns: u64,
    /// Nanoseconds after `started`; 0: not yet.
    queued_ns: AtomicU64,
    durable_ns: AtomicU64,
}

impl Trace {
    pub(crate) fn new(
        tracer: Arc<Tracer>,
        id: TraceId,
        root: SpanId,
        started: Instant,
        started_unix_ns: u64,
    ) -> Self {
        Self {
            tracer,
            id,
            root,
            started,
            started_unix_ns,
            queued_ns: AtomicU64::new(0),
            durable_ns: AtomicU64::new(0),
        }
    }

    /// Its id.
    pub fn id(&self) -> TraceId {
        self.id
    }

    /// The span everything belongs under.
    pub fn root(&self) -> SpanId {
        self.root
    }

    pub(crate) fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// A span that begins now.
    pub fn open(self: &Arc<Self>, stage: Stage, parent: SpanId) -> Span {
        self.open_at(stage, parent, Instant::now())
    }

    /// A span that began then.
    pub fn open_at(self: &Arc<Self>, stage: Stage, parent: SpanId, start: Instant) -> Span {
        let parent = (Some(parent), false);
        Span::new(Arc::clone(self), stage, new_span_id(), parent, start)
    }

    /// It gets in line for the journal now. The last time counts, should it have to try again.
    pub fn queue(&self) {
        self.queued_ns.store(self.now_ns(), Ordering::Release);
    }

    /// When it got in line for the journal.
    pub fn queued(&self) -> Instant {
        self.at(&self.queued_ns)
    }

    /// It is durable now.
    pub fn commit(&self) {
        self.durable_ns.store(self.now_ns(), Ordering::Release);
    }

    /// When it became durable.
    pub fn committed(&self) -> Instant {
        self.at(&self.durable_ns)
    }

    fn now_ns(&self) -> u64 {
        as_ns(self.started.elapsed())
    }

    fn at(&self, after_ns: &AtomicU64) -> Instant {
        self.started + Duration::from_nanos(after_ns.load(Ordering::Acquire))
    }

    /// A time as nanoseconds since the Unix epoch.
    pub(crate) fn unix_ns(&self, at: Instant) -> u64 {
        let after = as_ns(at.saturating_duration_since(self.started));
        self.started_unix_ns.saturating_add(after)
    }
}

fn as_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.id, f)
    }
}

/// The trace of a message, if it is followed. Says nothing about what the message is: two that
/// differ in it are equal.
#[derive(Debug, Clone, Default)]
pub struct TraceRef(Option<Arc<Trace>>);

impl TraceRef {
    /// That of a span, if there is one.
    pub fn of(span: Option<&Span>) -> Self {
        Self(span.map(|span| Arc::clone(span.trace())))
    }

    /// The trace.
    pub fn get(&self) -> Option<&Arc<Trace>> {
        self.0.as_ref()
    }
}

impl PartialEq for TraceRef {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for TraceRef {}
