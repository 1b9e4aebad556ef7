//! Spans: the steps of a message's way, open and finished.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stonechat_protocol::{SpanId, TraceId, TraceParent};

use crate::Trace;

/// The step that a span is of. They are described in `docs/traces.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// From the sender's frame until its answer is written: all of the sender's side.
    Send,
    /// In the sender's session, its inbox included, until it is in line for the journal.
    Session,
    /// In line for the journal until it is durable.
    Commit,
    /// The journal's write and sync of the batch it is in.
    Journal,
    /// From durable to the recipient's session, its inbox included.
    Route,
    /// To one device: from the session until it is written to the socket.
    Deliver,
    /// From that device's acknowledgement until it is durable.
    Ack,
}

impl Stage {
    /// The span's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Session => "session",
            Self::Commit => "commit",
            Self::Journal => "journal",
            Self::Route => "route",
            Self::Deliver => "deliver",
            Self::Ack => "ack",
        }
    }
}

/// What an attribute says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A name or an id. Never a body, never a token.
    Text(Cow<'static, str>),
    /// A number.
    Number(u64),
    /// A yes or no.
    Flag(bool),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

/// A name and what it says.
pub type Attribute = (&'static str, Value);

/// A span that has ended, ready to be exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its trace.
    pub trace: TraceId,
    /// Its own id.
    pub id: SpanId,
    /// The span it belongs under; none for the root of a trace that began here.
    pub parent: Option<SpanId>,
    /// The parent is a client's.
    pub parent_is_remote: bool,
    /// The step.
    pub stage: Stage,
    /// When it began, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// When it ended, nanoseconds since the Unix epoch; at least its beginning.
    pub end_unix_ns: u64,
    /// What else is known.
    pub attributes: Vec<Attribute>,
    /// Why it failed.
    pub failure: Option<&'static str>,
}

/// Why a span failed that was dropped by a panic.
pub const PANICKED: &str = "panicked";
/// Why a span failed that was dropped in another way: with its connection, or a full queue.
pub const ABANDONED: &str = "abandoned";

/// A span that has begun. Dropping it ends it as failed.
pub struct Span {
    trace: Arc<Trace>,
    id: SpanId,
    parent: Option<SpanId>,
    parent_is_remote: bool,
    stage: Stage,
    start: Instant,
    attributes: Vec<Attribute>,
    ended: bool,
}

impl Span {
    pub(crate) fn new(
        trace: Arc<Trace>,
        stage: Stage,
        id: SpanId,
        (parent, parent_is_remote): (Option<SpanId>, bool),
        start: Instant,
    ) -> Self {
        Self {
            trace,
            id,
            parent,
            parent_is_remote,
            stage,
            start,
            attributes: Vec::new(),
            ended: false,
        }
    }

    /// The trace it is of.
    pub fn trace(&self) -> &Arc<Trace> {
        &self.trace
    }

    /// Its id.
    pub fn id(&self) -> SpanId {
        self.id
    }

    /// What to hand on, so that others continue under this span.
    pub fn traceparent(&self) -> TraceParent {
        TraceParent {
            trace: self.trace.id(),
            span: self.id,
            sampled: true,
        }
    }

    /// How long it has been open.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Adds an attribute.
    pub fn note(&mut self, name: &'static str, value: impl Into<Value>) {
        self.attributes.push((name, value.into()));
    }

    /// [`Span::note`], for building one up.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.note(name, value);
        self
    }

    /// It ends now, well.
    pub fn end(self) {
        self.end_at(Instant::now());
    }

    /// It ended then, well.
    pub fn end_at(mut self, end: Instant) {
        self.finish(end, None);
    }

    /// It ends now, badly.
    pub fn fail(mut self, why: &'static str) {
        self.finish(Instant::now(), Some(why));
    }

    fn finish(&mut self, end: Instant, failure: Option<&'static str>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let start_unix_ns = self.trace.unix_ns(self.start);
        self.trace.tracer().push(Finished {
            trace: self.trace.id(),
            id: self.id,
            parent: self.parent,
            parent_is_remote: self.parent_is_remote,
            stage: self.stage,
            start_unix_ns,
            end_unix_ns: self.trace.unix_ns(end).max(start_unix_ns),
            attributes: std::mem::take(&mut self.attributes),
            failure,
        });
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Nothing is logged here: a second panic while one unwinds would end the process.
        let why = match std::thread::panicking() {
            true => PANICKED,
            false => ABANDONED,
        };
        self.finish(Instant::now(), Some(why));
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.trace.id(), self.id, self.stage.name())
    }
}
