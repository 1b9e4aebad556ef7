//! The idempotency window of one sending device (contract D3).
//!
//! Pure data, shared by what decides on a resend (`delivery`) and what keeps
//! the window across a crash (`mailbox`). It holds only *accepted* ids; sends
//! that are still on their way to the disk are tracked by `delivery`.
//!
//! The idea is that of Kafka's idempotent producer: ids strictly increase and
//! a device may have at most [`UNACCEPTED_MAX`] sends unanswered, so the last
//! [`UNACCEPTED_MAX`] accepted ids recognise every possible resend.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::MessageId;

/// Sends of one device that may be unanswered at a time, and ids a window holds.
pub const UNACCEPTED_MAX: usize = 64;

/// An accepted send: its id and the time the server accepted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedId {
    /// Id chosen by the sending device.
    pub id: MessageId,
    /// When the server accepted it, milliseconds since the Unix epoch.
    pub ts_ms: u64,
}

/// What a window knows about an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Greater than everything accepted: a new send.
    New,
    /// Accepted before, at this time.
    Accepted {
        /// When the server accepted it, milliseconds since the Unix epoch.
        ts_ms: u64,
    },
    /// Not above the greatest accepted id and not among those remembered.
    Below,
}

/// The last [`UNACCEPTED_MAX`] ids accepted from one device, in increasing order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdWindow {
    /// A ring: a full window loses its first and gains a last without moving the two kilobytes
    /// in between, which is done for every message, in the journal's thread and in the session's.
    accepted: VecDeque<AcceptedId>,
}

impl IdWindow {
    /// Classifies an id.
    pub fn classify(&self, id: MessageId) -> Seen {
        match self.accepted.back() {
            None => Seen::New,
            Some(last) if id > last.id => Seen::New,
            Some(_) => match self.accepted.binary_search_by_key(&id, |entry| entry.id) {
                Ok(at) => Seen::Accepted {
                    ts_ms: self.accepted[at].ts_ms,
                },
                Err(_) => Seen::Below,
            },
        }
    }

    /// Remembers an accepted id. Inserting one twice, or one below a full
    /// window, changes nothing: replaying a journal over newer state is safe.
    pub fn insert(&mut self, id: MessageId, ts_ms: u64) {
        let at = match self.accepted.back() {
            Some(last) if id <= last.id => {
                match self.accepted.binary_search_by_key(&id, |entry| entry.id) {
                    Ok(_) => return,
                    Err(at) => at,
                }
            }
            _ => self.accepted.len(),
        };
        if self.accepted.len() == UNACCEPTED_MAX {
            if at == 0 {
                return;
            }
            self.accepted.pop_front();
            self.accepted.insert(at - 1, AcceptedId { id, ts_ms });
        } else {
            self.accepted.insert(at, AcceptedId { id, ts_ms });
        }
    }

    /// The greatest accepted id.
    pub fn last(&self) -> Option<MessageId> {
        self.accepted.back().map(|entry| entry.id)
    }

    /// What is remembered, in increasing order of id.
    pub fn entries(&self) -> &VecDeque<AcceptedId> {
        &self.accepted
    }

    /// Nothing accepted yet.
    pub fn is_empty(&self) -> bool {
        self.accepted.is_empty()
    }

    /// Rebuilds a window from stored entries, in any order.
    pub fn from_entries(entries: impl IntoIterator<Item = AcceptedId>) -> Self {
        let mut window = Self::default();
        for entry in entries {
            window.insert(entry.id, entry.ts_ms);
        }
        window
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u128) -> MessageId {
        MessageId::from_u128(n)
    }

    proptest! {
        /// Whatever the order and however often, the window is the greatest 64.
        #[test]
        fn keeps_the_greatest(ids in prop::collection::vec(0u128..200, 0..400)) {
            let mut window = IdWindow::default();
            for n in &ids {
                window.insert(id(*n), *n as u64);
            }
            let mut model: Vec<u128> = ids.clone();
            model.sort_unstable();
            model.dedup();
            let kept = model.split_off(model.len().saturating_sub(UNACCEPTED_MAX));
            let got: Vec<u128> = window.entries().iter().map(|e| e.id.to_u128()).collect();
            prop_assert_eq!(&got, &kept);
            for n in 0..210 {
                let want = if kept.contains(&n) {
                    Seen::Accepted { ts_ms: n as u64 }
                } else if kept.last().is_none_or(|last| n > *last) {
                    Seen::New
                } else {
                    Seen::Below
                };
                prop_assert_eq!(window.classify(id(n)), want);
            }
        }
    }
}
