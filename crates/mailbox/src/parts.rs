//! What a mailbox in memory is made of: devices, recent messages, the index of
//! stored chunks, and the account of what left. Data only.

use std::sync::Arc;

use smallvec::SmallVec;
use stonechat_protocol::{DeviceId, IdWindow, Seq};

use crate::api::{DeviceState, Envelope};

/// Memory a recent message takes beside its body, bytes, roughly.
const RECENT_OVERHEAD_BYTES: u64 = 256;

/// One device and what is still to be journaled of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    pub(crate) state: DeviceState,
    /// The start of the process (numbered) in which it connected; 0: not connected.
    pub(crate) connected_epoch: u64,
    /// `Some`: to be journaled, with the greatest cursor of any device before the change.
    pub(crate) unjournaled: Option<Seq>,
}

impl Device {
    pub(crate) fn new(id: DeviceId) -> Self {
        Self {
            id,
            state: DeviceState {
                cursor: 0,
                sent: 0,
                receipts_seen: 0,
                window: IdWindow::default(),
                last_seen_ms: 0,
            },
            connected_epoch: 0,
            unjournaled: None,
        }
    }
}

/// A message whose durable copy is still in the journal alone.
#[derive(Debug, Clone)]
pub(crate) struct Recent {
    pub(crate) seq: Seq,
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) segment: u64,
    /// When it came, milliseconds since the store was opened.
    pub(crate) at_ms: u64,
}

impl Recent {
    pub(crate) fn memory_bytes(&self) -> u64 {
        recent_bytes(&self.envelope)
    }
}

/// Memory a recent message takes in one mailbox, bytes.
pub(crate) fn recent_bytes(envelope: &Envelope) -> u64 {
    envelope.body.len() as u64 + RECENT_OVERHEAD_BYTES
}

/// Consecutive messages stored as one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) first: Seq,
    pub(crate) span: u32,
    pub(crate) body_bytes: u32,
    pub(crate) value_bytes: u32,
    pub(crate) parts: u8,
    pub(crate) expires_ms_min: u64,
    pub(crate) ts_ms_first: u64,
}

impl Chunk {
    pub(crate) fn last(&self) -> Seq {
        self.first + u64::from(self.span) - 1
    }

    /// Messages in it above `after`.
    pub(crate) fn above(&self, after: Seq) -> u64 {
        u64::from(self.span).min(self.last().saturating_sub(after))
    }
}

/// What left a mailbox: the store's totals and segments have to hear of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Freed {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) memory_bytes: u64,
    /// Recent messages gone, by segment.
    pub(crate) segments: SmallVec<[(u64, u64); 2]>,
    /// Chunks to be removed from the database.
    pub(crate) chunks: Vec<(Seq, u8)>,
}

impl Freed {
    /// Counts a recent message that is gone.
    pub(crate) fn recent(&mut self, recent: &Recent) {
        self.memory_bytes += recent.memory_bytes();
        match self.segments.last_mut() {
            Some((segment, count)) if *segment == recent.segment => *count += 1,
            _ => self.segments.push((recent.segment, 1)),
        }
    }
}
