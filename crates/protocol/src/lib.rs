//! The language Stonechat speaks: ids, frames, error codes, limits.
//!
//! `docs/protocol.md` is the normative text; this crate is its Rust form, and
//! the JSON Schemas in `docs/schema/` are generated from it.
//!
//! **Architecture invariant:** no IO, no async, no clock. Everything here is
//! data and its encoding, so that server, client library and load tests agree
//! by construction.

mod client_frame;
mod codes;
mod fields;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod ids;
mod limits;
mod scan;
#[cfg(feature = "schema")]
pub mod schema;
mod server_frame;
mod trace_context;
mod window;

pub use client_frame::{ClientFrame, ClientFrameKind, FrameError, NONCE_BYTES_MAX, SendFrame};
pub use codes::{CloseReason, ErrorCode};
pub use ids::{Address, DeviceId, IdError, MessageId, NAME_BYTES_MAX, Seq, UserId};
pub use limits::Limits;
pub use server_frame::{
    Accepted, Bye, ErrorFrame, Message, MessageParts, Party, Pong, Receipt, ServerFrame, Welcome,
    write_accepted, write_frame, write_message, write_receipt,
};
pub use trace_context::{SpanId, TraceId, TraceParent};
pub use window::{AcceptedId, IdWindow, Seen, UNACCEPTED_MAX};

/// The WebSocket subprotocol of this version.
pub const SUBPROTOCOL: &str = "stonechat.v1.json";
