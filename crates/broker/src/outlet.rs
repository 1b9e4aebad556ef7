//! The queue from a session to one connection: bounded in events and bytes.
//!
//! A session pushes and never waits; the connection takes whatever is there in
//! one go, so that many frames share one write. When the bound is reached the
//! connection is given up as a slow consumer, which costs nobody else anything
//! (contract D6). It does not encode: events are the broker's own words.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use stonechat_mailbox::Envelope;
use stonechat_protocol::{Accepted, CloseReason, ErrorFrame, Receipt, Seq};
use stonechat_trace::Span;

/// What a session tells a connection.
#[derive(Debug)]
pub enum Event {
    /// A message for the device.
    Message {
        /// Place in the mailbox; 0 for an ephemeral one.
        seq: Seq,
        /// The message.
        envelope: Arc<Envelope>,
        /// A copy of what another device of the same user sent (then the frame says to whom).
        copy: bool,
        /// Sent to this device before.
        redelivered: bool,
        /// Not stored.
        ephemeral: bool,
        /// Of its delivery, when it is followed; ends when it is written.
        span: Option<Box<Span>>,
    },
    /// One tick.
    Accepted(Accepted),
    /// A conversation's watermarks.
    Receipt(Box<Receipt>),
    /// A frame was refused.
    Error(Box<ErrorFrame>),
}

// There is one for each message and each answer, so what is larger and rarer is boxed.
const _: () = assert!(size_of::<Event>() <= 48);

/// Bytes an event is counted with beyond its body: about what its frame takes.
const EVENT_OVERHEAD_BYTES: usize = 256;

impl Event {
    fn weight(&self) -> usize {
        EVENT_OVERHEAD_BYTES
            + match self {
                Self::Message { envelope, .. } => envelope.body.len(),
                Self::Error(error) => error.message.len(),
                Self::Accepted(_) | Self::Receipt(_) => 0,
            }
    }
}

/// Bounds of one connection's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutletLimits {
    /// Events waiting at a time.
    pub events_max: usize,
    /// Bytes waiting at a time: bodies plus an allowance for each frame.
    pub bytes_max: usize,
}

impl Default for OutletLimits {
    fn default() -> Self {
        Self {
            events_max: 4096,
            bytes_max: 4 * 1024 * 1024,
        }
    }
}

/// The connection is closed or was just given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection is closed")]
pub struct Closed;

/// What a connection finds in its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Events were appended to the buffer.
    Events,
    /// Nothing more will come: say `bye` and close.
    Close {
        /// Why.
        reason: CloseReason,
        /// When to connect again.
        retry_after_ms: Option<u64>,
    },
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Event>,
    bytes: usize,
    closed: Option<(CloseReason, Option<u64>)>,
    drain_gone: bool,
    /// The connection was woken for what is queued. Until then it leaves it alone.
    woken: bool,
    /// Since when the oldest event waits that can wait for others.
    waits_since: Option<Instant>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    waker: AtomicWaker,
    limits: OutletLimits,
}

/// The session's end.
#[derive(Debug, Clone)]
pub struct Outlet(Arc<Shared>);

/// The connection's end.
#[derive(Debug)]
pub struct Drain(Arc<Shared>);

/// Makes a queue; an empty one holds no buffer.
pub fn outlet(limits: OutletLimits) -> (Outlet, Drain) {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        waker: AtomicWaker::new(),
        limits,
    });
    (Outlet(Arc::clone(&shared)), Drain(shared))
}

impl Outlet {
    /// Queues an event, to be written at once with everything queued before.
    ///
    /// # Errors
    /// [`Closed`] when the connection is gone, or is given up because its queue is full.
    pub fn push(&self, event: Event) -> Result<(), Closed> {
        self.queue(event, None::<fn() -> Instant>)
    }

    /// Queues an event that can wait for one that is pushed, to share its write, or for
    /// [`Outlet::hurry_after`], which the caller has to see to.
    ///
    /// # Errors
    /// As [`Outlet::push`].
    pub fn push_unhurried(&self, event: Event) -> Result<(), Closed> {
        self.queue(event, Some(Instant::now))
    }

    /// As [`Outlet::push_unhurried`], for an event that has been waiting already.
    ///
    /// # Errors
    /// As [`Outlet::push`].
    pub fn push_waiting(&self, event: Event, since: Instant) -> Result<(), Closed> {
        self.queue(event, Some(|| since))
    }

    /// Nothing may wait longer than this: has what is queued written if it has, and tells when to
    /// ask again if it has not. `None` while nothing waits.
    pub fn hurry_after(&self, wait_max: Duration) -> Option<Duration> {
        let mut state = self.0.state.lock();
        let waited = state.waits_since?.elapsed();
        if waited < wait_max {
            return Some(wait_max - waited);
        }
        state.waits_since = None;
        state.woken = true;
        drop(state);
        self.0.waker.wake();
        None
    }

    /// With `waits_since`, the event can wait for others.
    fn queue(
        &self,
        event: Event,
        waits_since: Option<impl FnOnce() -> Instant>,
    ) -> Result<(), Closed> {
        let mut state = self.0.state.lock();
        if state.closed.is_some() || state.drain_gone {
            return Err(Closed);
        }
        let weight = event.weight();
        let full = state.queue.len() >= self.0.limits.events_max
            || (state.bytes + weight > self.0.limits.bytes_max && !state.queue.is_empty());
        if full {
            // What was queued is not lost: messages are sent again, answers are asked for again.
            state.queue = VecDeque::new();
            state.bytes = 0;
            state.waits_since = None;
            state.closed = Some((CloseReason::SlowConsumer, None));
        } else {
            state.bytes += weight;
            state.queue.push_back(event);
        }
        let hurry = waits_since.is_none();
        let wake = full || (hurry && !std::mem::replace(&mut state.woken, true));
        if state.woken {
            state.waits_since = None;
        } else if !full && let Some(waits_since) = waits_since {
            state.waits_since.get_or_insert_with(waits_since);
        }
        drop(state);
        if wake {
            self.0.waker.wake();
        }
        if full { Err(Closed) } else { Ok(()) }
    }

    /// Queues an event that nobody is promised, while less than half of the bounds is used:
    /// such events must never be what a connection is given up for. `false`: it was dropped.
    pub fn offer(&self, event: Event) -> bool {
        let crowded = {
            let state = self.0.state.lock();
            state.queue.len() >= self.0.limits.events_max / 2
                || state.bytes + event.weight() > self.0.limits.bytes_max / 2
        };
        !crowded && self.push(event).is_ok()
    }

    /// Closes after what is queued. The first reason stays.
    pub fn close(&self, reason: CloseReason, retry_after_ms: Option<u64>) {
        self.0
            .state
            .lock()
            .closed
            .get_or_insert((reason, retry_after_ms));
        self.0.waker.wake();
    }

    /// Whether both lead to the same connection.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether pushing is of any use.
    pub fn is_open(&self) -> bool {
        let state = self.0.state.lock();
        state.closed.is_none() && !state.drain_gone
    }
}

impl Drain {
    /// Takes events up to about `bytes_max` bytes (at least one) into `into`, or learns
    /// that the session is done with this connection.
    pub fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<Event>,
        bytes_max: usize,
    ) -> Poll<Taken> {
        if let Some(taken) = self.take(into, bytes_max) {
            return Poll::Ready(taken);
        }
        self.0.waker.register(cx.waker());
        // A push may have come between the look and the registration.
        self.take(into, bytes_max)
            .map_or(Poll::Pending, Poll::Ready)
    }

    /// Learns that the session is done with this connection, whatever is queued before that:
    /// for a connection that cannot take anything now.
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Taken> {
        self.0.waker.register(cx.waker());
        match self.0.state.lock().closed {
            Some((reason, retry_after_ms)) => Poll::Ready(Taken::Close {
                reason,
                retry_after_ms,
            }),
            None => Poll::Pending,
        }
    }

    /// [`Drain::poll_take`] as a future.
    pub async fn take_some(&mut self, into: &mut Vec<Event>, bytes_max: usize) -> Taken {
        std::future::poll_fn(|cx| self.poll_take(cx, into, bytes_max)).await
    }

    fn take(&mut self, into: &mut Vec<Event>, bytes_max: usize) -> Option<Taken> {
        let mut state = self.0.state.lock();
        if state.queue.is_empty() {
            return state.closed.map(|(reason, retry_after_ms)| Taken::Close {
                reason,
                retry_after_ms,
            });
        }
        if !state.woken && state.closed.is_none() {
            return None;
        }
        let mut taken = 0;
        while let Some(event) = state.queue.front() {
            let weight = event.weight();
            if taken > 0 && taken + weight > bytes_max {
                break;
            }
            taken += weight;
            state.bytes -= weight;
            into.extend(state.queue.pop_front());
        }
        if state.queue.is_empty() {
            state.woken = false;
            state.waits_since = None;
            if state.queue.capacity() > 64 {
                state.queue = VecDeque::new();
            } else {
                // Begins again at its first place: a short queue keeps to the same cache lines.
                state.queue.clear();
            }
        }
        Some(Taken::Events)
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.drain_gone = true;
        state.queue = VecDeque::new();
        state.bytes = 0;
        state.waits_since = None;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn accepted() -> Event {
        Event::Error(Box::new(ErrorFrame {
            code: stonechat_protocol::ErrorCode::Internal,
            message: String::new(),
            reference: None,
            retry_after_ms: None,
        }))
    }

    #[test]
    fn a_full_queue_gives_the_connection_up_and_frees_it() {
        let (outlet, mut drain) = outlet(OutletLimits {
            events_max: 2,
            bytes_max: 1 << 20,
        });
        assert!(outlet.push(accepted()).is_ok());
        assert!(outlet.push(accepted()).is_ok());
        assert_eq!(outlet.push(accepted()), Err(Closed));
        let mut events = Vec::new();
        let taken = drain.take_some(&mut events, usize::MAX).now_or_never();
        assert_eq!(
            taken,
            Some(Taken::Close {
                reason: CloseReason::SlowConsumer,
                retry_after_ms: None
            })
        );
        assert!(events.is_empty());
    }

    #[test]
    fn what_is_only_offered_gives_no_connection_up() {
        let (outlet, drain) = outlet(OutletLimits {
            events_max: 4,
            bytes_max: 1 << 20,
        });
        let taken: Vec<bool> = (0..9).map(|_| outlet.offer(accepted())).collect();
        assert_eq!(taken.iter().filter(|taken| **taken).count(), 2);
        assert!(outlet.push(accepted()).is_ok());
        assert!(outlet.is_open());
        drop(drain);
    }

    #[test]
    fn a_close_can_be_seen_past_what_is_queued() {
        let (outlet, mut drain) = outlet(OutletLimits::default());
        outlet.push(accepted()).unwrap();
        let mut close = || std::future::poll_fn(|cx| drain.poll_close(cx)).now_or_never();
        assert_eq!(close(), None);
        outlet.close(CloseReason::Revoked, None);
        let seen = Taken::Close {
            reason: CloseReason::Revoked,
            retry_after_ms: None,
        };
        assert_eq!(close(), Some(seen));
    }

    #[test]
    fn what_can_wait_goes_with_what_cannot_or_when_it_is_time() {
        let (outlet, mut drain) = outlet(OutletLimits::default());
        let mut events = Vec::new();
        outlet.push_unhurried(accepted()).unwrap();
        assert_eq!(drain.take_some(&mut events, 4096).now_or_never(), None);
        outlet.push(accepted()).unwrap();
        let taken = drain.take_some(&mut events, 4096).now_or_never();
        assert_eq!((taken, events.len()), (Some(Taken::Events), 2));
        outlet.push_unhurried(accepted()).unwrap();
        assert_eq!(drain.take_some(&mut events, 4096).now_or_never(), None);
        // It has not waited for long, and what is told to ask again is no longer than that.
        let long = Duration::from_secs(3600);
        assert!(outlet.hurry_after(long).is_some_and(|wait| wait <= long));
        assert_eq!(drain.take_some(&mut events, 4096).now_or_never(), None);
        assert_eq!(outlet.hurry_after(Duration::ZERO), None);
        let taken = drain.take_some(&mut events, 4096).now_or_never();
        assert_eq!((taken, events.len()), (Some(Taken::Events), 3));
        assert_eq!(outlet.hurry_after(long), None, "nothing waits");
        outlet.push_unhurried(accepted()).unwrap();
        outlet.close(CloseReason::Shutdown, None);
        let taken = drain.take_some(&mut events, 4096).now_or_never();
        assert_eq!((taken, events.len()), (Some(Taken::Events), 4));
    }

    #[test]
    fn closing_lets_the_queue_out_first() {
        let (outlet, mut drain) = outlet(OutletLimits::default());
        outlet.push(accepted()).unwrap();
        outlet.close(CloseReason::Shutdown, Some(5));
        assert_eq!(outlet.push(accepted()), Err(Closed));
        let mut events = Vec::new();
        assert_eq!(
            drain.take_some(&mut events, 1).now_or_never(),
            Some(Taken::Events)
        );
        assert_eq!(events.len(), 1);
        assert!(matches!(
            drain.take_some(&mut events, 1).now_or_never(),
            Some(Taken::Close { .. })
        ));
        drop(drain);
        assert!(!outlet.is_open());
    }
}
