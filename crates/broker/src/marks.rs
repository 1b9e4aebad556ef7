//! Marks on conversations that wait: for the store, or for room in another
//! queue's inbox.
//!
//! Nothing of a conversation is given up. What waits is put together instead, so
//! that of "delivered" the latest is kept and of "read" what it does not make
//! superfluous. The marks of a conversation stay in order, because a `read` is
//! judged by what was delivered before it. Bounded by the conversations that
//! moved, and by the reads: only a read is ever turned away, and its reader told.

use std::collections::VecDeque;

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
    marks: HashMap<UserId, VecDeque<Mark<R>>>,
    /// Every key of `marks`, once.
    turns: VecDeque<UserId>,
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

    /// It is this sender's turn: until [`Self::done`] its marks wait.
    pub(crate) fn begin(&mut self, sender: &UserId) {
        if !self.has(sender) {
            let waiting = Waiting {
                marks: HashMap::new(),
                turns: VecDeque::new(),
            };
            self.senders.insert(sender.clone(), waiting);
        }
    }

    /// Lets a mark wait behind those of its sender.
    ///
    /// # Errors
    /// Whom to tell that there are too many reads.
    pub(crate) fn add(&mut self, sender: &UserId, mark: Mark<R>) -> Result<(), R> {
        let full = self.reads >= READS_MAX;
        let known = self.has(sender);
        if full && !known && mark.is_read() {
            return mark.refusal().map_or(Ok(()), Err);
        }
        self.begin(sender);
        if !known {
            self.turns.push_back(sender.clone());
        }
        let Some(waiting) = self.senders.get_mut(sender) else {
            return Ok(());
        };
        let with = mark.with().clone();
        let marks = waiting.marks.entry(with.clone()).or_default();
        if marks.is_empty() {
            waiting.turns.push_back(with.clone());
        }
        let before = reads_of(marks);
        let outcome = put_together(marks, mark, full);
        self.reads = (self.reads + reads_of(marks)).saturating_sub(before);
        if marks.is_empty() {
            // The read that was turned away was the first.
            waiting.marks.remove(&with);
            waiting.turns.pop_back();
        }
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
        self.begin(sender);
        self.reads += usize::from(mark.is_read());
        if let Some(waiting) = self.senders.get_mut(sender) {
            let with = mark.with().clone();
            let marks = waiting.marks.entry(with.clone()).or_default();
            if marks.is_empty() {
                waiting.turns.push_front(with);
            }
            marks.push_front(mark);
        }
    }

    /// The turn of a sender ends; it gets another if more waits.
    pub(crate) fn done(&mut self, sender: &UserId) {
        if !self.has(sender) {
            return;
        }
        match self.senders.get(sender) {
            Some(waiting) if !waiting.turns.is_empty() => self.turns.push_back(sender.clone()),
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
        let mark = marks.pop_front();
        if marks.is_empty() {
            self.marks.remove(&with);
        } else {
            self.turns.push_back(with);
        }
        mark
    }
}

fn reads_of<R>(marks: &VecDeque<Mark<R>>) -> usize {
    marks.iter().filter(|mark| mark.is_read()).count()
}

/// Adds a mark to those of its conversation and drops what it makes superfluous.
fn put_together<R>(marks: &mut VecDeque<Mark<R>>, mark: Mark<R>, full: bool) -> Result<(), R> {
    let reads_before = reads_of(marks);
    match &mark {
        Mark::Delivered { upto, .. } => {
            // They come in order. Across a read they must not change places: it may be of the earlier one.
            if let Some(Mark::Delivered { upto: earlier, .. }) = marks.back() {
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
                |other| !matches!(other, Mark::Read { found: Some(other), .. } if *other <= at),
            );
        }
        Mark::Read {
            id, found: None, ..
        } => {
            let (id, last) = (*id, marks.iter().rev().find(|other| !other.is_read()));
            if let Some(Mark::Delivered { id: last, upto, .. }) = last
                && *last == id
            {
                // Believed for certain, and so is any other that this drops.
                let upto = *upto;
                marks.retain(|other| match other {
                    Mark::Delivered { .. } => true,
                    Mark::Read {
                        found: Some(at), ..
                    } => *at > upto,
                    Mark::Read {
                        id: other,
                        found: None,
                        ..
                    } => *other > id,
                });
            }
        }
    }
    if mark.is_read() {
        drop_overtaken(marks);
        let reads = reads_of(marks);
        // In the place of one that was dropped there is always room.
        if full && reads == reads_before || reads >= READS_OF_CONVERSATION_MAX {
            return mark.refusal().map_or(Ok(()), Err);
        }
    }
    marks.push_back(mark);
    Ok(())
}

/// Of `delivered` marks with no read between them the last is enough.
fn drop_overtaken<R>(marks: &mut VecDeque<Mark<R>>) {
    let mut later_is_delivered = false;
    marks.make_contiguous().reverse();
    marks.retain(|mark| {
        let delivered = !mark.is_read();
        let overtaken = delivered && later_is_delivered;
        later_is_delivered = delivered;
        !overtaken
    });
    marks.make_contiguous().reverse();
}

#[cfg(test)]
#[path = "marks_tests.rs"]
mod tests;
