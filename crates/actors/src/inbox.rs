//! An actor's inbox: one bounded queue, whichever handle a message comes through.
//!
//! Senders push under a short lock; the actor takes everything that waits in one go and works through it
//! without the lock. A slot is free again when its message is taken up for handling, so at most `capacity`
//! messages wait and one is being handled. Senders that wait for room are served first come, first served:
//! a freed slot is handed to the longest waiting one, and `try_tell` cannot overtake them.
//!
//! Two counts make the depth, and each has one writer at a time: slots taken are counted under the lock,
//! messages taken up by the actor. To change one count from two threads costs a processor as much as a lock.
//!
//! Not here: what a message does (see [`Run`]), who the actor is, restarts. Control signals are not
//! messages: they have their own slot, take no capacity and overtake what waits.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    task::Waker,
};

use tokio::sync::oneshot;

use crate::{
    cell::Cell,
    ctx::Ctx,
    reason::ExitReason,
    signal::Signals,
    supervised::Supervised,
    sync::{AtomicBool, AtomicU32, AtomicU64, Mutex},
};

/// Fewest senders that may wait for room at a time; an inbox with a larger capacity lets that many wait.
const WAITERS_MAX: usize = 4096;

/// A message on its way, with how to handle it.
pub(crate) trait Run<A: Supervised>: Send {
    /// Handles the message. Takes `&mut self` so that the reply channel survives a panic: see `fail`.
    fn run(&mut self, actor: &mut A, ctx: &mut Ctx<A>);
    /// The message's type name.
    fn label(&self) -> &'static str;
    /// The handling panicked: tell whoever waits for an answer.
    fn fail(&mut self, reason: &Arc<ExitReason>);
}

/// One queued message: the link and the message share an allocation.
pub(crate) struct Envelope<A: Supervised, R: ?Sized = dyn Run<A>> {
    next: Option<Box<Envelope<A>>>,
    pub(crate) run: R,
}

impl<A: Supervised, R> Envelope<A, R> {
    pub(crate) fn new(run: R) -> Box<Self> {
        Box::new(Self { next: None, run })
    }
}

/// A singly linked stack of envelopes; the reader turns it round.
pub(crate) struct Stack<A: Supervised>(Option<Box<Envelope<A>>>);

impl<A: Supervised> Stack<A> {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    fn push(&mut self, mut envelope: Box<Envelope<A>>) {
        envelope.next = self.0.take();
        self.0 = Some(envelope);
    }

    pub(crate) fn pop(&mut self) -> Option<Box<Envelope<A>>> {
        let mut top = self.0.take()?;
        self.0 = top.next.take();
        Some(top)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn reversed(mut self) -> Self {
        let mut turned = Self::new();
        while let Some(envelope) = self.pop() {
            turned.push(envelope);
        }
        turned
    }
}

impl<A: Supervised> Drop for Stack<A> {
    // Without this, dropping a long chain would recurse once for each message.
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full,
    Closed,
}

type Waiters<A> = VecDeque<oneshot::Sender<Slot<A>>>;

struct State<A: Supervised> {
    waiting: Stack<A>,
    waker: Option<Waker>,
    closed: bool,
    /// Senders in line for room. Boxed: most inboxes never fill.
    line: Option<Box<Waiters<A>>>,
    signals: Option<Box<Signals>>,
}

/// The queue and its figures. All figures are readable from any thread without asking the actor.
pub(crate) struct Inbox<A: Supervised> {
    state: Mutex<State<A>>,
    capacity: u32,
    /// Slots ever taken, by messages and by senders that were handed one; those handed back are taken off.
    /// Wraps. Written under the lock.
    slots: AtomicU32,
    high_water: AtomicU32,
    /// Whether somebody may be in line. Only a hint where the lock is not held.
    line_formed: AtomicBool,
    /// Whether signals may be waiting.
    signalled: AtomicBool,
    /// Messages ever taken up for handling. Written by the actor's task.
    handled: AtomicU64,
    pub(crate) blocked_ns_total: AtomicU64,
}

/// A slot handed to a sender that waited; gives the slot back if it is not used.
pub(crate) struct Slot<A: Supervised>(Option<Arc<Cell<A>>>);

impl<A: Supervised> Slot<A> {
    /// Takes the duty to release the slot away from this guard.
    fn defuse(mut self) {
        self.0 = None;
    }
}

impl<A: Supervised> Drop for Slot<A> {
    fn drop(&mut self) {
        if let Some(cell) = self.0.take() {
            Inbox::serve_line(&cell, true);
        }
    }
}

impl<A: Supervised> Inbox<A> {
    pub(crate) fn new(capacity: u32) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: Stack::new(),
                waker: None,
                closed: false,
                line: None,
                signals: None,
            }),
            capacity,
            slots: AtomicU32::new(0),
            high_water: AtomicU32::new(0),
            line_formed: AtomicBool::new(false),
            signalled: AtomicBool::new(false),
            handled: AtomicU64::new(0),
            blocked_ns_total: AtomicU64::new(0),
        }
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Messages that wait, plus slots handed to waiting senders. Exact under the lock; elsewhere what is taken
    /// up between the two looks is missing, and never is there too much.
    pub(crate) fn depth(&self) -> u32 {
        let slots = self.slots.load(Ordering::Acquire);
        #[allow(clippy::cast_possible_truncation, reason = "both counts wrap alike")]
        let handled = self.handled_total() as u32;
        let depth = slots.wrapping_sub(handled).cast_signed();
        depth.max(0).cast_unsigned()
    }

    pub(crate) fn handled_total(&self) -> u64 {
        self.handled.load(Ordering::Acquire)
    }

    pub(crate) fn high_water(&self) -> u32 {
        self.high_water.load(Ordering::Relaxed)
    }

    pub(crate) fn looks_full(&self) -> bool {
        self.depth() >= self.capacity
    }

    /// Takes one slot more than `depth`.
    fn take_slot(&self, _locked: &mut State<A>, depth: u32) {
        let slots = self.slots.load(Ordering::Relaxed);
        self.slots.store(slots.wrapping_add(1), Ordering::Release);
        if depth + 1 > self.high_water.load(Ordering::Relaxed) {
            self.high_water.store(depth + 1, Ordering::Relaxed);
        }
    }

    /// Takes it back, for a sender that did not use it.
    fn untake_slot(&self, _locked: &mut State<A>) {
        let slots = self.slots.load(Ordering::Relaxed);
        self.slots.store(slots.wrapping_sub(1), Ordering::Release);
    }

    /// Puts a message in if there is room and nobody is in line before it.
    pub(crate) fn offer<R: Run<A> + 'static>(
        &self,
        envelope: Box<Envelope<A, R>>,
    ) -> Result<(), (Refusal, Box<Envelope<A, R>>)> {
        self.offer_lazily(envelope, || false)
    }

    /// As [`Inbox::offer`], but does not wake the actor if `may_wait`.
    ///
    /// That is asked under the lock. An actor that has taken its consent back before it looks in here once
    /// more, and then sleeps, either finds the message or is woken for it: whichever comes second to the
    /// lock knows of the other.
    pub(crate) fn offer_lazily<R: Run<A> + 'static>(
        &self,
        envelope: Box<Envelope<A, R>>,
        may_wait: impl FnOnce() -> bool,
    ) -> Result<(), (Refusal, Box<Envelope<A, R>>)> {
        let waker = {
            let mut state = self.state.lock();
            if state.closed {
                return Err((Refusal::Closed, envelope));
            }
            let depth = self.depth();
            if depth >= self.capacity || state.line.is_some() {
                return Err((Refusal::Full, envelope));
            }
            self.take_slot(&mut state, depth);
            state.waiting.push(envelope);
            if may_wait() { None } else { state.waker.take() }
        };
        wake(waker);
        Ok(())
    }

    /// Puts a message in whose slot was handed over by [`Inbox::wait_for_slot`].
    pub(crate) fn offer_in_slot<R: Run<A> + 'static>(
        &self,
        slot: Slot<A>,
        envelope: Box<Envelope<A, R>>,
    ) -> Result<(), Box<Envelope<A, R>>> {
        let waker = {
            let mut state = self.state.lock();
            if state.closed {
                drop(state);
                slot.defuse();
                return Err(envelope);
            }
            state.waiting.push(envelope);
            state.waker.take()
        };
        slot.defuse();
        wake(waker);
        Ok(())
    }

    /// Puts a notice of the supervision itself in, beyond the capacity if need be. The caller bounds these:
    /// there is one for each monitor that was set.
    pub(crate) fn offer_notice<R: Run<A> + 'static>(&self, envelope: Box<Envelope<A, R>>) -> bool {
        let waker = {
            let mut state = self.state.lock();
            if state.closed {
                return false;
            }
            self.take_slot(&mut state, self.depth());
            state.waiting.push(envelope);
            state.waker.take()
        };
        wake(waker);
        true
    }

    /// Gets in line for a slot.
    pub(crate) fn wait_for_slot(
        cell: &Arc<Cell<A>>,
    ) -> Result<oneshot::Receiver<Slot<A>>, Refusal> {
        let inbox = &cell.inbox;
        let (tx, rx) = oneshot::channel();
        {
            let mut state = inbox.state.lock();
            if state.closed {
                return Err(Refusal::Closed);
            }
            let line = state.line.get_or_insert_default();
            let limit = WAITERS_MAX.max(inbox.capacity as usize);
            if line.len() >= limit {
                line.retain(|waiter| !waiter.is_closed());
                if line.len() >= limit {
                    return Err(Refusal::Full);
                }
            }
            line.push_back(tx);
            inbox.line_formed.store(true, Ordering::Relaxed);
        }
        // A slot may have been freed between the caller's look and the flag: serve the line once more.
        Self::serve_line(cell, false);
        Ok(rx)
    }

    /// Counts a message as taken up, which frees its slot, and hands that on if somebody is seen in line.
    ///
    /// Takes no lock and is no fence, so it may miss a sender who gets in line in this moment and sees the
    /// slot still taken. The line is looked at under the lock whenever the actor comes back to
    /// [`Inbox::take`], which it does before it sleeps over an empty inbox.
    pub(crate) fn take_up(cell: &Arc<Cell<A>>) {
        cell.inbox.count_handled();
        if cell.inbox.line_formed.load(Ordering::Relaxed) {
            Self::serve_line(cell, false);
        }
    }

    fn count_handled(&self) {
        let handled = self.handled.load(Ordering::Relaxed);
        self.handled.store(handled + 1, Ordering::Release);
    }

    /// Hands free slots to those in line; first of all frees one that was handed out and comes back unused.
    fn serve_line(cell: &Arc<Cell<A>>, mut comes_back: bool) {
        let inbox = &cell.inbox;
        loop {
            let waiter = {
                let mut state = inbox.state.lock();
                if comes_back {
                    inbox.untake_slot(&mut state);
                }
                let depth = inbox.depth();
                if state.line.as_ref().is_none_or(|line| line.is_empty()) {
                    state.line = None;
                    inbox.line_formed.store(false, Ordering::Relaxed);
                    return;
                }
                if depth >= inbox.capacity {
                    return;
                }
                let Some(waiter) = state.line.as_mut().and_then(|line| line.pop_front()) else {
                    return;
                };
                inbox.take_slot(&mut state, depth);
                waiter
            };
            // Outside the lock: a slot that comes back locks it again.
            let handed = waiter.send(Slot(Some(Arc::clone(cell))));
            comes_back = handed.map_err(Slot::defuse).is_err();
        }
    }

    /// Everything that waits, oldest first, and the first of it counted as taken up; or registers `waker` and
    /// returns `None`.
    pub(crate) fn take(cell: &Arc<Cell<A>>, waker: &Waker) -> Option<Stack<A>> {
        let inbox = &cell.inbox;
        let mut state = inbox.state.lock();
        let waiting = std::mem::replace(&mut state.waiting, Stack::new());
        let taken = if !waiting.is_empty() {
            inbox.count_handled();
            Some(waiting)
        } else if inbox.signalled.load(Ordering::Relaxed) {
            // Raised under this lock: come back for it instead of sleeping over it.
            Some(waiting)
        } else {
            Self::park(&mut state, waker);
            None
        };
        let line_formed = state.line.is_some();
        drop(state);
        if line_formed {
            Self::serve_line(cell, false);
        }
        taken.map(Stack::reversed)
    }

    /// Registers `waker` for messages and signals; `false` when a signal waits already.
    pub(crate) fn park_for_signals(&self, waker: &Waker) -> bool {
        let mut state = self.state.lock();
        if self.signalled.load(Ordering::Relaxed) {
            return false;
        }
        Self::park(&mut state, waker);
        true
    }

    fn park(state: &mut State<A>, waker: &Waker) {
        if state
            .waker
            .as_ref()
            .is_none_or(|known| !known.will_wake(waker))
        {
            state.waker = Some(waker.clone());
        }
    }

    pub(crate) fn has_signals(&self) -> bool {
        self.signalled.load(Ordering::Acquire)
    }

    /// Changes the waiting signals; `None` when the actor has ended.
    pub(crate) fn signal<T>(&self, change: impl FnOnce(&mut Signals) -> T) -> Option<T> {
        let (out, waker) = {
            let mut state = self.state.lock();
            if state.closed {
                return None;
            }
            let out = change(state.signals.get_or_insert_default());
            self.signalled.store(true, Ordering::Release);
            (out, state.waker.take())
        };
        wake(waker);
        Some(out)
    }

    pub(crate) fn take_signals(&self) -> Option<Box<Signals>> {
        let mut state = self.state.lock();
        self.signalled.store(false, Ordering::Release);
        state.signals.take()
    }

    /// Refuses everything from now on and hands out what waited. Senders in line learn of it.
    pub(crate) fn close(&self) -> Stack<A> {
        let (waiting, line, signals, waker) = {
            let mut state = self.state.lock();
            state.closed = true;
            self.signalled.store(true, Ordering::Release);
            let waiting = std::mem::replace(&mut state.waiting, Stack::new());
            (
                waiting,
                state.line.take(),
                state.signals.take(),
                state.waker.take(),
            )
        };
        drop(line);
        drop(signals);
        wake(waker);
        waiting.reversed()
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
