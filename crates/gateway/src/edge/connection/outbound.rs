//! From the session to the socket: as many frames in one write as are there.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use stonechat_broker::{Event, Taken};
use stonechat_protocol::{
    CloseReason, MessageParts, ServerFrame, write_accepted, write_frame, write_message,
    write_receipt,
};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::ending::Ended;
use super::{Core, Phase, scratch, traced};
use crate::edge::backend::Backend;
use crate::edge::frame_out::put_text;
use crate::edge::latency;

/// Bytes gathered for one write; a single larger frame goes out whole.
const BATCH_BYTES: usize = 64 * 1024;

/// Writes in a row before reading gets its turn.
const BATCHES_PER_ROUND_MAX: usize = 4;

/// Bytes on their way to the socket. Holds memory only while some could not be written.
pub(super) struct Writer {
    unsent: Vec<u8>,
    sent: usize,
    /// The socket takes nothing: the connection is given up then.
    blocked_until: Option<Instant>,
    /// Written, but perhaps not out yet (TLS).
    unflushed: bool,
    deadline: Duration,
}

impl Writer {
    pub(super) fn new(first: Vec<u8>, deadline: Duration) -> Self {
        Self {
            unsent: first,
            sent: 0,
            blocked_until: None,
            unflushed: false,
            deadline,
        }
    }

    /// Where the connection's own frames are appended.
    pub(super) fn own(&mut self) -> &mut Vec<u8> {
        &mut self.unsent
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.unsent.len() - self.sent
    }

    pub(super) fn blocked_until(&self) -> Option<Instant> {
        self.blocked_until
    }

    /// Heap held at the moment, in bytes.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.unsent.capacity()
    }

    /// Writes what is queued and flushes.
    pub(super) fn poll_empty(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.queued_bytes() > 0 {
            let attempt = Pin::new(&mut *io).poll_write(cx, &self.unsent[self.sent..]);
            self.sent += ready!(self.noted(attempt))?;
        }
        self.unsent = Vec::new();
        self.sent = 0;
        self.poll_flush(io, cx)
    }

    /// Writes a batch; what the socket does not take is queued. Nothing may be queued before.
    fn poll_batch(
        &mut self,
        batch: &[u8],
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut rest = batch;
        while !rest.is_empty() {
            let attempt = Pin::new(&mut *io).poll_write(cx, rest);
            match self.noted(attempt) {
                Poll::Ready(Ok(n)) => rest = &rest[n..],
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.unsent = rest.to_vec();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        let attempt = Pin::new(&mut *io).poll_flush(cx);
        ready!(self.timed(attempt))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn noted(&mut self, attempt: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match self.timed(attempt) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            other => {
                self.unflushed |= other.is_ready();
                other
            }
        }
    }

    /// Keeps the deadline: it runs from the first attempt that was not taken, until the next
    /// one that is.
    fn timed<T>(&mut self, attempt: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if attempt.is_ready() {
            self.blocked_until = None;
        } else if self.blocked_until.is_none() {
            self.blocked_until = Some(Instant::now() + self.deadline);
        }
        attempt
    }
}

enum Gathered {
    /// The session has nothing more for now.
    All,
    /// There may be more.
    Some,
    /// The session is done with this connection.
    Close(CloseReason, Option<u64>),
}

impl<B: Backend> Core<B> {
    pub(super) fn poll_write(&mut self, io: &mut (impl AsyncWrite + Unpin), cx: &mut Context<'_>) {
        if self.is_closing() {
            return;
        }
        match self.try_write(io, cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => self.lose(Ended::Failed(error.kind())),
            Poll::Pending => self.heed_close(cx),
        }
    }

    /// While the client takes nothing, the session may still be done with the connection: that
    /// must not have to wait for the client. What the session had queued is not lost by it:
    /// messages are sent again, answers are asked for again.
    fn heed_close(&mut self, cx: &mut Context<'_>) {
        if let Phase::Open { drain, .. } = &mut self.phase
            && let Poll::Ready(Taken::Close {
                reason,
                retry_after_ms,
            }) = drain.poll_close(cx)
        {
            self.close(reason, retry_after_ms);
        }
    }

    fn try_write(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.writer.blocked_until.is_some() {
            ready!(self.writer.poll_empty(io, cx))?;
            self.trace_written();
        }
        for _ in 0..BATCHES_PER_ROUND_MAX {
            let mut batch = scratch::take_write();
            if self.writer.queued_bytes() > 0 {
                batch.append(&mut std::mem::take(&mut self.writer.unsent));
            }
            let gathered = self.gather(&mut batch, cx);
            if !batch.is_empty() {
                self.shared.figures.bytes_out.increment(batch.len() as u64);
                self.traffic.sent(batch.len());
            }
            let written = self.writer.poll_batch(&batch, io, cx);
            scratch::give_back_write(batch);
            if let Gathered::Close(reason, retry_after_ms) = gathered {
                self.close(reason, retry_after_ms);
                return Poll::Ready(Ok(()));
            }
            ready!(written)?;
            self.trace_written();
            if matches!(gathered, Gathered::All) {
                return self.writer.poll_flush(io, cx);
            }
        }
        // More is there: come back after the others.
        cx.waker().wake_by_ref();
        self.writer.poll_flush(io, cx)
    }

    /// Encodes what the session has queued, until the batch is full.
    fn gather(&mut self, batch: &mut Vec<u8>, cx: &mut Context<'_>) -> Gathered {
        let Phase::Open { drain, .. } = &mut self.phase else {
            return Gathered::All;
        };
        let mut events = scratch::take_events();
        let mut answers = latency::Batch::default();
        let latencies = &self.shared.latencies;
        let gathered = loop {
            let Some(room) = BATCH_BYTES
                .checked_sub(batch.len())
                .filter(|room| *room > 0)
            else {
                break Gathered::Some;
            };
            match drain.poll_take(cx, &mut events, room) {
                Poll::Pending => break Gathered::All,
                Poll::Ready(Taken::Events) => {
                    self.shared
                        .figures
                        .frames_out
                        .increment(events.len() as u64);
                    self.traffic.frames_sent(events.len());
                    for event in events.drain(..) {
                        answers.note(&event, &mut self.waiting, || latencies.now());
                        put_text(batch, |out| write_event(out, &event));
                        traced::encoded(&mut self.traced, &self.about, event);
                    }
                }
                Poll::Ready(Taken::Close {
                    reason,
                    retry_after_ms,
                }) => break Gathered::Close(reason, retry_after_ms),
            }
        };
        latencies.add(&answers);
        scratch::give_back_events(events);
        gathered
    }
}

fn write_event(out: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Message {
            seq,
            envelope,
            copy,
            redelivered,
            ephemeral,
            span,
        } => write_message(
            out,
            &MessageParts {
                seq: *seq,
                id: envelope.id,
                from: &envelope.from,
                to: copy.then_some(&envelope.to),
                ts_ms: envelope.ts_ms,
                body: &envelope.body,
                redelivered: *redelivered,
                ephemeral: *ephemeral,
                traceparent: span.as_ref().map(|span| span.traceparent()),
            },
        ),
        Event::Accepted(frame) => write_accepted(out, frame),
        Event::Receipt(frame) => write_receipt(out, frame),
        Event::Error(frame) => write_frame(out, &ServerFrame::Error((**frame).clone())),
    }
}
