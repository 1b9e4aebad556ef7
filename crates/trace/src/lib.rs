//! Following single messages through the server: which ones, and what is told of
//! each step.
//!
//! A message that is followed carries a [`Trace`], behind one pointer that is
//! empty for all others. Whoever has a part in it opens a [`Span`] and ends it; one
//! that is dropped without an end, by a panic or with a connection, says so. What
//! is finished goes into a bounded queue. Nothing here waits, and nothing here
//! knows OpenTelemetry or a network: who takes the spans off the queue does.
//!
//! **Architecture invariant:** a trace lives in memory only. The store writes none
//! of it, so what was on disk in between is no longer followed.

mod budget;
mod message;
mod span;
#[cfg(test)]
mod tests;
mod tracer;

pub use message::{Trace, TraceRef};
pub use span::{ABANDONED, Attribute, Finished, PANICKED, Span, Stage, Value};
pub use tracer::{FinishedSpans, Next, Tracer, TracerConfig, is_on};
