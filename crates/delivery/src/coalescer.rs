//! Watermarks on their way to one connected device: the latest of each
//! conversation, told after a short linger or with the next frame (contract D8).
//!
//! It keeps the order of the last change, which is the order of `rev`: a client
//! that has seen a `rev` has seen everything before it. It sets no timers; the
//! owner asks [`Coalescer::due_ms`] and calls [`Coalescer::take`].

use stonechat_protocol::UserId;

/// Pending watermarks of one connection; `T` is the receipt as it will be told. No heap
/// while nothing is pending.
#[derive(Debug)]
pub struct Coalescer<T> {
    /// In the order of the last change. At most `conversations_max`.
    pending: Vec<(UserId, T)>,
    since_ms: u64,
    linger_ms: u32,
    conversations_max: u32,
}

impl<T> Coalescer<T> {
    /// Holds receipts back for `linger_ms` at most and `conversations_max` of them at a time.
    pub fn new(linger_ms: u32, conversations_max: u32) -> Self {
        Self {
            pending: Vec::new(),
            since_ms: 0,
            linger_ms,
            conversations_max: conversations_max.max(1),
        }
    }

    /// A conversation's watermarks moved; replaces what was pending for it. Returns what has
    /// to be told now because there is no room to wait, usually nothing.
    #[must_use]
    pub fn push(&mut self, with: UserId, receipt: T, now_ms: u64) -> Vec<(UserId, T)> {
        if let Some(at) = self.pending.iter().position(|(user, _)| *user == with) {
            self.pending.remove(at);
        } else if self.pending.is_empty() {
            self.since_ms = now_ms;
        }
        self.pending.push((with, receipt));
        if self.pending.len() >= self.conversations_max as usize {
            self.take()
        } else {
            Vec::new()
        }
    }

    /// When [`Coalescer::take`] is due; `None` while nothing is pending.
    pub fn due_ms(&self) -> Option<u64> {
        let due = self.since_ms.saturating_add(u64::from(self.linger_ms));
        (!self.pending.is_empty()).then_some(due)
    }

    /// Whether the linger is over. A clock that stepped back counts as over: late by a step
    /// is worse than early.
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.due_ms()
            .is_some_and(|due| now_ms >= due || now_ms < self.since_ms)
    }

    /// Everything pending, in the order in which it has to be told.
    pub fn take(&mut self) -> Vec<(UserId, T)> {
        std::mem::take(&mut self.pending)
    }

    /// Conversations pending.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Nothing pending.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn user(n: u8) -> UserId {
        UserId::new(format!("u{n}")).unwrap()
    }

    #[test]
    fn waits_for_the_linger_from_the_first_change() {
        let mut coalescer = Coalescer::new(10, 8);
        assert_eq!(coalescer.due_ms(), None);
        assert!(coalescer.push(user(1), 1, 100).is_empty());
        assert!(coalescer.push(user(1), 2, 109).is_empty());
        assert_eq!(coalescer.due_ms(), Some(110));
        assert!(!coalescer.is_due(109));
        assert!(coalescer.is_due(110));
        assert!(coalescer.is_due(99), "the clock stepped back");
        assert_eq!(coalescer.take(), vec![(user(1), 2)]);
        assert!(!coalescer.is_due(1000));
    }

    proptest! {
        /// Told in increasing revision, the latest of each conversation never left out,
        /// never more than the bound held.
        #[test]
        fn order_and_bound(moves in prop::collection::vec((0u8..6, any::<bool>()), 0..80), max in 1u32..6) {
            let mut coalescer = Coalescer::new(10, max);
            let mut told = Vec::new();
            let mut latest = std::collections::BTreeMap::new();
            for (rev, (with, take)) in moves.iter().enumerate() {
                latest.insert(user(*with), rev);
                told.extend(coalescer.push(user(*with), rev, rev as u64));
                prop_assert!(coalescer.len() < max as usize);
                if *take {
                    told.extend(coalescer.take());
                }
            }
            told.extend(coalescer.take());
            prop_assert!(told.windows(2).all(|pair| pair[0].1 < pair[1].1));
            for (with, rev) in latest {
                prop_assert!(told.contains(&(with, rev)));
            }
        }
    }
}
