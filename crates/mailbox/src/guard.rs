//! What `cargo xtask bench guard` counts of the journal: a message's record, framed, in memory. Not part
//! of the server.

use stonechat_protocol::Seq;

use crate::api::Envelope;
use crate::journal::{frame, record};

/// Puts the batch of one message, as it would stand in the journal at `lsn`, into `buffer`.
pub fn batch_of_one(buffer: &mut Vec<u8>, envelope: &Envelope, seq: Seq, lsn: u64) {
    frame::begin(buffer);
    record::put_message(buffer, envelope, [(&envelope.to, seq)].into_iter());
    frame::finish(buffer, lsn, lsn, 1);
}
