//! What an engine has seen so far. Plain numbers; rates are the reader's business.

/// What an engine has seen so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections opened.
    pub opened: u64,
    /// WebSockets opened.
    pub upgraded: u64,
    /// Sign-ins that succeeded.
    pub welcomed: u64,
    /// Connections that ended, wanted or not.
    pub ended: u64,
    /// `send` frames written, resends included.
    pub sent: u64,
    /// `accepted` frames.
    pub accepted: u64,
    /// `accepted` frames that said `duplicate`.
    pub duplicates: u64,
    /// `error` frames.
    pub refused: u64,
    /// Messages taken over, each for the first time.
    pub received: u64,
    /// Messages that came again and were dropped.
    pub redelivered: u64,
    /// Messages whose `seq` did not increase although they were not marked `redelivered`.
    pub out_of_order: u64,
    /// `receipt` frames.
    pub receipts: u64,
    /// `ack` frames; acknowledgements that rode on a send are not counted.
    pub acks: u64,
    /// Pings of the server that were answered.
    pub pings: u64,
    /// Reads of sockets.
    pub reads: u64,
    /// Writes to sockets.
    pub writes: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
    /// Turns of the loop.
    pub turns: u64,
}
