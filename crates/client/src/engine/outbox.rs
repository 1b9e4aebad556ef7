//! Sends without an answer, and read marks without a sign that they arrived.
//!
//! Sends stand in the order of their ids. Those before `unsent_from` are on
//! their way; after a lost connection all stand before everything new again.
//! A refused send is not repeated here: what was sent after it may have been
//! accepted, so only the application can say whether it still belongs there.

use std::collections::VecDeque;

use serde_json::value::RawValue;
use stonechat_protocol::{Limits, MessageId, Party, TraceParent, UNACCEPTED_MAX, UserId};

use super::frames::{Outgoing, Riding, SendOut};
use crate::resume::PendingSend;

/// Conversations whose read marks may wait.
pub(crate) const READS_MAX: usize = 1_024;

/// Bytes of a `send` frame that are not its body; generous.
const SEND_OVERHEAD_BYTES: usize = 512;

/// Longest body that goes through: a frame above its limit would end the connection.
pub(super) fn body_bytes_max(limits: &Limits) -> usize {
    limits
        .body_bytes_max
        .min(limits.frame_bytes_max.saturating_sub(SEND_OVERHEAD_BYTES))
}

/// A send that waits for its answer.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: MessageId,
    to: Party,
    body: Box<RawValue>,
    ttl_s: Option<u64>,
    pub(super) ephemeral: bool,
    traceparent: Option<TraceParent>,
    /// Taken over from a stored state: nobody holds a future for it.
    pub(super) restored: bool,
    mark: u64,
}

impl Waiting {
    pub(super) fn new(id: MessageId, send: OutgoingSend) -> Self {
        Self {
            id,
            to: Party { user: send.to },
            body: send.body,
            ttl_s: send.ttl_s,
            ephemeral: send.ephemeral,
            traceparent: send.traceparent,
            restored: false,
            mark: 0,
        }
    }

    fn frame(&self, riding: Riding) -> String {
        Outgoing::Send(SendOut {
            id: self.id,
            to: &self.to,
            body: &self.body,
            ttl_s: self.ttl_s,
            ephemeral: self.ephemeral,
            traceparent: self.traceparent,
            ack: riding.ack,
            rev: riding.rev,
        })
        .text()
    }
}

/// What the application wants to send.
#[derive(Debug)]
pub(crate) struct OutgoingSend {
    pub(crate) to: UserId,
    pub(crate) body: Box<RawValue>,
    pub(crate) ttl_s: Option<u64>,
    pub(crate) ephemeral: bool,
    pub(crate) traceparent: Option<TraceParent>,
}

/// A read mark. `mark` is set while it is on its way.
#[derive(Debug)]
struct ReadMark {
    from: UserId,
    id: MessageId,
    mark: Option<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    sends: VecDeque<Waiting>,
    unsent_from: usize,
    reads: VecDeque<ReadMark>,
    /// Counts frames that prove, when answered, that everything before them arrived.
    marks: u64,
    /// The server asked for a pause.
    hold_until_ms: Option<u64>,
}

impl Outbox {
    pub(super) fn restored(sends: Vec<PendingSend>) -> Self {
        let sends = sends
            .into_iter()
            .map(|send| Waiting {
                id: send.id,
                to: Party { user: send.to },
                body: send.body,
                ttl_s: send.ttl_s,
                ephemeral: false,
                traceparent: None,
                restored: true,
                mark: 0,
            })
            .collect();
        Self {
            sends,
            ..Self::default()
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.sends.len() >= UNACCEPTED_MAX
    }

    pub(super) fn push(&mut self, send: Waiting) {
        assert!(!self.is_full(), "the caller holds one of 64 slots");
        assert!(self.sends.back().is_none_or(|last| last.id < send.id));
        self.sends.push_back(send);
    }

    /// Remembers a read mark, replacing an older one of the conversation. `false` when full.
    pub(super) fn read(&mut self, from: UserId, id: MessageId) -> bool {
        if let Some(at) = self.reads.iter().position(|read| read.from == from) {
            if self.reads[at].id == id {
                return true;
            }
            self.reads.remove(at);
        } else if self.reads.len() >= READS_MAX {
            return false;
        }
        self.reads.push_back(ReadMark {
            from,
            id,
            mark: None,
        });
        true
    }

    fn next_mark(&mut self) -> u64 {
        self.marks += 1;
        self.marks
    }

    fn may_send(&self, now_ms: u64, limits: &Limits) -> bool {
        self.unsent_from < self.sends.len()
            && self.unsent_from < limits.unaccepted_max
            && self.hold_until_ms.is_none_or(|until| now_ms >= until)
    }

    fn unsent_read(&self) -> Option<usize> {
        // Marks on their way are in front, so the search from the back is short.
        let sent = self.reads.iter().rposition(|read| read.mark.is_some());
        let at = sent.map_or(0, |at| at + 1);
        (at < self.reads.len()).then_some(at)
    }

    /// The next frame; `riding` is asked for only when there is one.
    pub(super) fn transmit(
        &mut self,
        now_ms: u64,
        limits: &Limits,
        riding: impl FnOnce() -> Riding,
    ) -> Option<String> {
        if self.may_send(now_ms, limits) {
            let mark = self.next_mark();
            let send = &mut self.sends[self.unsent_from];
            send.mark = mark;
            self.unsent_from += 1;
            return Some(send.frame(riding()));
        }
        let at = self.unsent_read()?;
        let mark = self.next_mark();
        let read = &mut self.reads[at];
        read.mark = Some(mark);
        Some(
            Outgoing::Read {
                from: &read.from,
                id: read.id,
                riding: riding(),
            }
            .text(),
        )
    }

    /// A `ping`; its nonce tells, when it comes back, what has arrived.
    pub(super) fn ping(&mut self, riding: Riding) -> String {
        let nonce = self.next_mark();
        Outgoing::Ping { nonce, riding }.text()
    }

    /// The server answered a send.
    pub(super) fn answered(&mut self, id: MessageId) -> Option<Waiting> {
        let at = self.sends.binary_search_by_key(&id, |send| send.id).ok()?;
        if at >= self.unsent_from {
            // An answer to what was not sent on this connection: not ours to believe.
            return None;
        }
        let send = self.sends.remove(at)?;
        self.unsent_from -= 1;
        self.arrived(send.mark);
        Some(send)
    }

    /// Everything up to this mark has reached the server.
    pub(super) fn arrived(&mut self, mark: u64) {
        self.reads
            .retain(|read| read.mark.is_none_or(|sent| sent > mark));
    }

    /// The server wants a pause.
    pub(super) fn hold(&mut self, until_ms: u64) {
        self.hold_until_ms = self.hold_until_ms.max(Some(until_ms));
    }

    /// Time has passed: a pause may be over.
    pub(super) fn timeout(&mut self, now_ms: u64) {
        self.hold_until_ms = self.hold_until_ms.filter(|until| now_ms < *until);
    }

    /// When a pause ends, if something waits for it.
    pub(super) fn held_until_ms(&self) -> Option<u64> {
        self.hold_until_ms
            .filter(|_| self.unsent_from < self.sends.len())
    }

    /// Starts over: what is unanswered is to be sent again. Returns what is not worth it.
    pub(super) fn connection_lost(&mut self) -> Vec<Waiting> {
        self.unsent_from = 0;
        self.hold_until_ms = None;
        for read in &mut self.reads {
            read.mark = None;
        }
        self.take_if(|send| send.ephemeral)
    }

    /// Takes out what these limits forbid: sent, it would end the connection each time.
    pub(super) fn take_oversized(&mut self, limits: &Limits) -> Vec<(Waiting, usize)> {
        let bytes_max = body_bytes_max(limits);
        self.take_if(|send| send.body.get().len() > bytes_max)
            .into_iter()
            .map(|send| {
                let bytes = send.body.get().len();
                (send, bytes)
            })
            .collect()
    }

    /// Only between connections, when nothing is on its way.
    fn take_if(&mut self, unwanted: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        assert_eq!(self.unsent_from, 0, "nothing is on its way");
        let (taken, kept) = self.sends.drain(..).partition(unwanted);
        self.sends = kept;
        taken.into_iter().collect::<Vec<_>>()
    }

    /// Ids of all that wait, oldest first.
    pub(super) fn ids(&self) -> impl Iterator<Item = MessageId> + '_ {
        self.sends.iter().map(|send| send.id)
    }

    /// Nothing waits for an answer, and no read mark waits to be sent.
    pub(super) fn is_settled(&self) -> bool {
        self.sends.is_empty() && self.unsent_read().is_none()
    }

    /// For a stored state; ephemeral sends are not worth keeping.
    pub(super) fn pending(&self) -> Vec<PendingSend> {
        self.sends
            .iter()
            .filter(|send| !send.ephemeral)
            .map(|send| PendingSend {
                id: send.id,
                to: send.to.user.clone(),
                body: send.body.clone(),
                ttl_s: send.ttl_s,
            })
            .collect()
    }
}
