//! Marks on conversations that wait: for the store, or for room in another
//! queue's inbox.
//!
//! Nothing of a conversation is given up. What waits is put together instead, so
//! that of "delivered" the latest is kept and of "read" what it does not make
//! superfluous. The marks of a conversation stay in order, because a `read` is
//! judged by what was delivered before it. Bounded by the conversations that
//! moved, and by the reads: only a read is ever turned away, and its reader told.
//! Each knows since when it waits, because the store keeps what it follows from.

use std::collections::VecDeque;
use std::time::Instant;

use ahash::{HashMap, HashMapExt};
use stonechat_protocol::UserId;

use crate::receipts::{Mark, RefuseTo};

/// Reads of one conversation that may wait.
const READS_OF_CONVERSATION_MAX: usize = 256;
/// Reads of all conversations that may wait.
const READS_MAX: usize = 16_384;

/// Waiting marks. A sender is here while it has its turn or waits for it.
pub(crate) struct Marks<R = RefuseTo> {
    senders: HashMap<UserId, Waiting<R>>,
    /// Senders in the order of their turns; the others that are here have theirs.
    turns: VecDeque<UserId>,
    reads: usize,
}

/// What waits for one sender, by the other side of the conversation.
struct Waiting<R> {
    marks: HashMap<UserId, VecDeque<Kept<R>>>,
    /// Every key of `marks`, once.
    turns: VecDeque<UserId>,
    /// The sender has its turn with a mark that waits since then.
    begun: Option<Instant>,
}

struct Kept<R> {
    mark: Mark<R>,
    since: Instant,
}

impl<R> Marks<R> {
    pub(crate) fn new() -> Self {
        Self {
            senders: HashMap::new(),
            turns: VecDeque::new(),
            reads: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.senders.is_empty()
    }

    /// Senders for whom marks wait or are under way.
    pub(crate) fn len(&self) -> usize {
        self.senders.len()
    }

    /// Whether a mark for this sender has to wait behind others.
    pub(crate) fn has(&self, sender: &UserId) -> bool {
        !self.senders.is_empty() && self.senders.contains_key(sender)
    }

    /// Since when the mark waits that has waited longest.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let waiting = self.senders.values();
        waiting.filter_map(Waiting::oldest).min()
    }

    /// It is this sender's turn: until [`Self::done`] its marks wait. The one that is being
    /// carried out waits since `since`, or longer if it waited here before: that is returned.
    pub(crate) fn begin(&mut self, sender: &UserId, since: Instant) -> Instant {
        let waiting = self.entry(sender);
        *waiting.begun.get_or_insert(since)
    }

    fn entry(&mut self, sender: &UserId) -> &mut Waiting<R> {
        let new = || Waiting {
            marks: HashMap::new(),
            turns: VecDeque::new(),
            begun: None,
        };
        self.senders.entry(sender.clone()).or_insert_with(new)
    }

    /// Lets a mark wait behind those of its sender.
    ///
    /// # Errors
    /// Whom to tell that there are too many reads.
    pub(crate) fn add(&mut self, sender: &UserId, mark: Mark<R>) -> Result<(), R> {
        let since = Instant::now();
        self.keep(sender, Kept { mark, since })
    }

    /// Takes in all that waits in `other`, whoever had a turn there.
    pub(crate) fn take_over(&mut self, other: Self) {
        for (sender, waiting) in other.senders {
            for kept in waiting.marks.into_values().flatten() {
                // There was room for it, and there is: nothing came between.
                let _ = self.keep(&sender, kept);
            }
        }
    }

    fn keep(&mut self, sender: &UserId, kept: Kept<R>) -> Result<(), R> {
        let mark = &kept.mark;
        let full = self.reads >= READS_MAX;
        let known = self.has(sender);
        if full && !known && mark.is_read() {
            return kept.mark.refusal().map_or(Ok(()), Err);
        }
        let with = mark.with().clone();
        if !known {
            self.turns.push_back(sender.clone());
        }
        let waiting = self.entry(sender);
        let marks = waiting.marks.entry(with.clone()).or_default();
        if marks.is_empty() {
            waiting.turns.push_back(with.clone());
        }
        let before = reads_of(marks);
        let outcome = put_together(marks, kept, full);
        let after = reads_of(marks);
        if marks.is_empty() {
            // The read that was turned away was the first.
            waiting.marks.remove(&with);
            waiting.turns.pop_back();
        }
        self.reads = (self.reads + after).saturating_sub(before);
        outcome
    }

    /// Takes the next mark of the sender whose turn it is.
    pub(crate) fn next(&mut self) -> Option<(UserId, Mark<R>)> {
        while let Some(sender) = self.turns.pop_front() {
            if let Some(mark) = self.senders.get_mut(&sender).and_then(Waiting::next) {
                self.reads = self.reads.saturating_sub(mark.is_read().into());
                return Some((sender, mark));
            }
            self.senders.remove(&sender);
        }
        None
    }

    /// A mark that could not be carried out comes first when its sender has its next turn.
    pub(crate) fn put_back(&mut self, sender: &UserId, mark: Mark<R>) {
        self.reads += usize::from(mark.is_read());
        let waiting = self.entry(sender);
        let since = waiting.begun.take().unwrap_or_else(Instant::now);
        let with = mark.with().clone();
        let marks = waiting.marks.entry(with.clone()).or_default();
        if marks.is_empty() {
            waiting.turns.push_front(with);
        }
        marks.push_front(Kept { mark, since });
    }

    /// The turn of a sender ends; it gets another if more waits.
    pub(crate) fn done(&mut self, sender: &UserId) {
        if !self.has(sender) {
            return;
        }
        match self.senders.get_mut(sender) {
            Some(waiting) if !waiting.turns.is_empty() => {
                waiting.begun = None;
                self.turns.push_back(sender.clone());
            }
            _ => {
                self.senders.remove(sender);
            }
        }
    }
}

impl<R> Waiting<R> {
    fn next(&mut self) -> Option<Mark<R>> {
        let with = self.turns.pop_front()?;
        let marks = self.marks.get_mut(&with)?;
        let kept = marks.pop_front()?;
        if marks.is_empty() {
            self.marks.remove(&with);
        } else {
            self.turns.push_back(with);
        }
        self.begun = Some(kept.since);
        Some(kept.mark)
    }

    fn oldest(&self) -> Option<Instant> {
        // In order within a conversation.
        let first = self.marks.values().filter_map(VecDeque::front);
        first.map(|kept| kept.since).chain(self.begun).min()
    }
}

fn reads_of<R>(marks: &VecDeque<Kept<R>>) -> usize {
    marks.iter().filter(|kept| kept.mark.is_read()).count()
}

/// Adds a mark to those of its conversation and drops what it makes superfluous.
fn put_together<R>(marks: &mut VecDeque<Kept<R>>, kept: Kept<R>, full: bool) -> Result<(), R> {
    let reads_before = reads_of(marks);
    match &kept.mark {
        Mark::Delivered { upto, .. } => {
            // They come in order. Across a read they must not change places: it may be of the earlier one.
            if let Some(Kept {
                mark: Mark::Delivered { upto: earlier, .. },
                ..
            }) = marks.back()
            {
                if upto < earlier {
                    return Ok(());
                }
                marks.pop_back();
            }
        }
        Mark::Read {
            found: Some(at), ..
        } => {
            let at = *at;
            marks.retain(
                |other| !matches!(other.mark, Mark::Read { found: Some(other), .. } if other <= at),
            );
        }
        Mark::Read {
            id, found: None, ..
        } => {
            let last = marks.iter().rev().map(|other| &other.mark);
            let (id, last) = (*id, { last }.find(|other| !other.is_read()));
            if let Some(Mark::Delivered { id: last, upto, .. }) = last
                && *last == id
            {
                // Believed for certain, and so is any other that this drops.
                let upto = *upto;
                marks.retain(|other| match other.mark {
                    Mark::Delivered { .. } => true,
                    Mark::Read {
                        found: Some(at), ..
                    } => at > upto,
                    Mark::Read {
                        id: other,
                        found: None,
                        ..
                    } => other > id,
                });
            }
        }
    }
    if kept.mark.is_read() {
        drop_overtaken(marks);
        let reads = reads_of(marks);
        // In the place of one that was dropped there is always room.
        if full && reads == reads_before || reads >= READS_OF_CONVERSATION_MAX {
            return kept.mark.refusal().map_or(Ok(()), Err);
        }
    }
    marks.push_back(kept);
    Ok(())
}

/// Of `delivered` marks with no read between them the last is enough.
fn drop_overtaken<R>(marks: &mut VecDeque<Kept<R>>) {
    let mut later_is_delivered = false;
    marks.make_contiguous().reverse();
    marks.retain(|kept| {
        let delivered = !kept.mark.is_read();
        let overtaken = delivered && later_is_delivered;
        later_is_delivered = delivered;
        !overtaken
    });
    marks.make_contiguous().reverse();
}

#[cfg(test)]
#[path = "marks_tests.rs"]
mod tests;
