//! One actor's timers: any number of them behind a single runtime timer.
//!
//! Allocated with the first timer and gone with the last, so an actor at rest pays a pointer. Timers belong
//! to a generation: a restart drops them, and a handle from before it cancels nothing.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    ctx::{Ctx, Then},
    supervised::Supervised,
};

/// Timers one generation may have; asking for more fails the actor.
pub const TIMERS_MAX: usize = 1024;
/// Shortest interval: a shorter one would starve the inbox.
pub(crate) const INTERVAL_MIN: Duration = Duration::from_millis(1);

type Again<A> = Box<dyn FnMut(&mut A, &mut Ctx<A>)>;

/// What a timer does when it fires.
pub(crate) enum Fire<A: Supervised> {
    Once(Then<A>),
    Every(Duration, Again<A>),
}

pub(crate) struct Timer<A: Supervised> {
    pub(crate) id: u64,
    pub(crate) at: Instant,
    pub(crate) fire: Fire<A>,
}

pub(crate) struct Timers<A: Supervised> {
    // Unordered: a handful of entries, scanned when one fires or is added.
    entries: Vec<Timer<A>>,
    alarm: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<A: Supervised> Timers<A> {
    pub(crate) fn new() -> Self {
        Self {
            entries: Vec::with_capacity(1),
            alarm: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// `false` when there is no room.
    pub(crate) fn add(&mut self, timer: Timer<A>) -> bool {
        if self.entries.len() >= TIMERS_MAX {
            return false;
        }
        self.entries.push(timer);
        true
    }

    pub(crate) fn remove(&mut self, id: u64) -> bool {
        let Some(at) = self.entries.iter().position(|timer| timer.id == id) else {
            return false;
        };
        self.entries.swap_remove(at);
        true
    }

    /// `true` when the alarm has to be set anew for it.
    pub(crate) fn hasten(&mut self, id: u64, at: Instant) -> bool {
        let later = |timer: &&mut Timer<A>| timer.id == id && timer.at > at;
        let found = self.entries.iter_mut().find(later);
        found.map(|timer| timer.at = at).is_some()
    }

    fn earliest(&self) -> Option<(usize, Instant)> {
        let first = self
            .entries
            .iter()
            .enumerate()
            .min_by_key(|(_, timer)| (timer.at, timer.id))?;
        Some((first.0, first.1.at))
    }

    /// Takes a timer that is due, or sees to it that the task is woken for the next one.
    ///
    /// `armed` says that nothing was added since the last poll; then asking whether the alarm went off is
    /// one atomic load, which is what a message costs an actor that has timers.
    pub(crate) fn pop_due(&mut self, armed: bool, cx: &mut Context<'_>) -> Option<Timer<A>> {
        if armed
            && self
                .alarm
                .as_ref()
                .is_some_and(|(_, sleep)| !sleep.is_elapsed())
        {
            return None;
        }
        let Some((index, at)) = self.earliest() else {
            self.alarm = None;
            return None;
        };
        match &mut self.alarm {
            Some((set_for, sleep)) if *set_for != at => {
                sleep.as_mut().reset(at);
                *set_for = at;
            }
            Some(_) => {}
            none => *none = Some((at, Box::pin(sleep_until(at)))),
        }
        let (_, sleep) = self.alarm.as_mut()?;
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => {
                // A finished sleep must not be polled again; the caller comes back and gets a new one.
                self.alarm = None;
                Some(self.entries.swap_remove(index))
            }
            Poll::Pending => None,
        }
    }
}
