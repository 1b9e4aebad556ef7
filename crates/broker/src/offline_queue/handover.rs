//! What an offline queue that panicked leaves to its next generation.
//!
//! Acknowledgements that are lost come again, and receipts that moved are read
//! again from the store. Marks are nowhere else: the store has counted the
//! acknowledgement they follow from and does not say a second time that it was
//! the first. So what waits in a queue goes to the next generation, with the
//! calls of the store that are under way (which go on whoever waits for them)
//! and messages that nobody had begun to handle. What was being worked on at that
//! very moment does not: it may be what the panic came from.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use ahash::HashMap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use stonechat_mailbox::{AckOutcome, StoreError};
use stonechat_protocol::{Seq, UserId};

use super::Watermark;
use super::steps::{Ack, ReadUpTo, Step};
use crate::marks::Marks;
use crate::receipts::{Mark, Moved};

/// Outlives the generations of one offline queue.
#[derive(Default)]
pub(crate) struct HandOver {
    left: Mutex<Left>,
    matters: Mutex<VecDeque<Matter>>,
}

/// What a generation left.
#[derive(Default)]
pub(super) struct Left {
    pub(super) calls: Vec<(Turn, Call)>,
    /// One of each generation that got as far as having something.
    pub(super) waiting: Vec<Waiting>,
}

/// What waited, in the order in which it is to be taken up.
pub(super) struct Waiting {
    pub(super) steps: HashMap<UserId, VecDeque<Step>>,
    pub(super) marks: Marks,
    pub(super) outgoing: Marks,
    pub(super) delivering: VecDeque<Watermark>,
}

impl HandOver {
    pub(super) fn leave(&self, waiting: Waiting) {
        self.left.lock().waiting.push(waiting);
    }

    pub(super) fn take(&self) -> Left {
        std::mem::take(&mut *self.left.lock())
    }

    /// A message that nobody had begun to handle. One at a time, so that one that panics does
    /// not take the others with it.
    pub(super) fn next_matter(&self) -> Option<Matter> {
        self.matters.lock().pop_front()
    }
}

/// A call of the store and what it is for.
pub(super) type Call = BoxFuture<'static, Done>;

/// What came of a call.
pub(super) enum Done {
    Acked(Ack, Result<AckOutcome, StoreError>),
    Found(ReadUpTo, Result<Option<Seq>, StoreError>),
    Marked(UserId, Result<Moved, (StoreError, Mark)>),
}

/// Whose turn a call is: until it is done the others of the same one wait.
pub(super) enum Turn {
    Steps(UserId),
    /// With the time since when the mark waits.
    Marks(UserId, Instant),
}

/// A call that the next generation goes on waiting for when this one ends before it is done.
pub(super) struct Carried {
    call: Option<(Turn, Call)>,
    home: Arc<HandOver>,
}

impl Carried {
    pub(super) fn new(turn: Turn, call: Call, home: &Arc<HandOver>) -> Self {
        Self {
            call: Some((turn, call)),
            home: Arc::clone(home),
        }
    }
}

impl Future for Carried {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Done> {
        // Taken while it is polled, so that one that panics is not handed on for ever.
        let Some((turn, mut call)) = self.call.take() else {
            return Poll::Pending;
        };
        let polled = call.poll_unpin(cx);
        if polled.is_pending() {
            self.call = Some((turn, call));
        }
        polled
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            self.home.left.lock().calls.push(call);
        }
    }
}

/// What an offline queue is asked that nobody would ask again.
pub(crate) enum Matter {
    Mark(Watermark),
    Read(ReadUpTo),
}

/// Such a message: one that is dropped before it was taken waits for the next generation.
pub(crate) struct Entrusted {
    matter: Option<Matter>,
    home: Arc<HandOver>,
}

impl Entrusted {
    pub(crate) fn new(matter: Matter, home: &Arc<HandOver>) -> Self {
        Self {
            matter: Some(matter),
            home: Arc::clone(home),
        }
    }

    /// The message, to whoever takes it on from here.
    pub(crate) fn take(mut self) -> Option<Matter> {
        self.matter.take()
    }
}

impl Drop for Entrusted {
    fn drop(&mut self) {
        if let Some(matter) = self.matter.take() {
            self.home.matters.lock().push_back(matter);
        }
    }
}
