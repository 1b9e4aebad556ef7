//! What the broker tells of messages that are followed by a trace.
//!
//! All of it is behind one look at a pointer, which is empty for all others.

use std::sync::Arc;
use std::time::Instant;

use stonechat_mailbox::{Committed, Envelope, Unavailable};
use stonechat_protocol::{DeviceId, ErrorCode, Seq, SpanId, UserId};
use stonechat_trace::{Span, Stage, Trace};

/// A send is refused.
pub(crate) fn refused(span: Option<Box<Span>>, code: ErrorCode) {
    if let Some(span) = span {
        span.fail(code.as_str());
    }
}

/// A send is a resend of what was accepted, or is on its way.
pub(crate) fn duplicate(span: Option<Box<Span>>) {
    if let Some(span) = span {
        span.with("stonechat.duplicate", true).end();
    }
}

/// A batch with this message in it is durable, or was given up.
#[cold]
pub(crate) fn committed(trace: &Arc<Trace>, what: &Committed, messages: usize, begun: Instant) {
    trace.commit();
    let (now, queued) = (trace.committed(), trace.queued());
    let commit = trace
        .open_at(Stage::Commit, trace.root(), queued)
        .with("messaging.batch.message_count", messages);
    // A batch given up unwritten was not begun either: the last one may be long past.
    let begun = begun.max(queued).min(now);
    let journal = trace.open_at(Stage::Journal, commit.id(), begun);
    match &what.result {
        Ok(places) => {
            journal.end_at(now);
            let seq = places.first().map_or(0, |placed| placed.seq);
            commit.with("stonechat.seq", seq).end_at(now);
            for away in places.iter().filter(|placed| placed.mailbox.home() == 0) {
                let user = away.mailbox.user();
                routed(trace, user, away.seq, 0);
            }
        }
        Err(why) => {
            journal.fail(reason(*why));
            commit.fail(reason(*why));
        }
    }
}

fn reason(why: Unavailable) -> &'static str {
    match why {
        Unavailable::DiskFull => "disk_full",
        Unavailable::Failed => "journal_failed",
        Unavailable::Closing => "closing",
    }
}

/// It came to the recipient's session, or to nobody: the user is away.
#[cold]
pub(crate) fn routed(trace: &Arc<Trace>, user: &UserId, seq: Seq, devices: usize) {
    trace
        .open_at(Stage::Route, trace.root(), trace.committed())
        .with("stonechat.recipient", user.as_str().to_owned())
        .with("stonechat.seq", seq)
        .with("stonechat.devices", devices)
        .end();
}

/// It is handed to a connection, which ends the span when it is written.
pub(crate) fn delivery(
    envelope: &Envelope,
    (user, device): (&UserId, &DeviceId),
    (seq, redelivered): (Seq, bool),
) -> Option<Box<Span>> {
    let trace = envelope.trace.get()?;
    let span = trace
        .open(Stage::Deliver, trace.root())
        .with("stonechat.recipient", user.as_str().to_owned())
        .with("stonechat.recipient.device", device.as_str().to_owned())
        .with("stonechat.seq", seq)
        .with("stonechat.redelivered", redelivered);
    Some(Box::new(span))
}

/// Messages sent to a device, followed, and not yet acknowledged. Few: bounded by the traces
/// there may be, and by the window of the device.
#[derive(Default)]
pub(crate) struct Unacked(Vec<Delivered>);

struct Delivered {
    seq: Seq,
    trace: Arc<Trace>,
    delivery: SpanId,
    acked: Option<Instant>,
}

impl Unacked {
    /// It was handed to the connection.
    pub(crate) fn delivered(&mut self, seq: Seq, delivery: (Arc<Trace>, SpanId)) {
        self.0.push(Delivered {
            seq,
            trace: delivery.0,
            delivery: delivery.1,
            acked: None,
        });
    }

    /// The device acknowledges all up to `upto`.
    pub(crate) fn acked(&mut self, upto: Seq) {
        if self.0.is_empty() {
            return;
        }
        let now = Instant::now();
        for delivered in self.0.iter_mut().filter(|one| one.seq <= upto) {
            delivered.acked.get_or_insert(now);
        }
    }

    /// Spans of what was acknowledged, to be ended when that is durable.
    pub(crate) fn take_acked(&mut self) -> Vec<Span> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let acked = self.0.extract_if(.., |one| one.acked.is_some());
        let spans = acked.map(|one| {
            let acked = one.acked.unwrap_or_else(Instant::now);
            one.trace
                .open_at(Stage::Ack, one.delivery, acked)
                .with("stonechat.seq", one.seq)
        });
        let spans = spans.collect();
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
        spans
    }
}

/// What was acknowledged is durable, or will not be soon.
pub(crate) fn ack_durable(spans: Vec<Span>, durable: bool) {
    for span in spans {
        if durable {
            span.end();
        } else {
            span.fail("not_durable");
        }
    }
}
