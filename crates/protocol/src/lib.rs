//! The language Stonechat speaks: ids, frames, error codes, limits.
//!
//! `docs/protocol.md` is the normative text; this crate is its Rust form, and
//! the JSON Schemas in `docs/schema/` are generated from it.
//!
//! **Architecture invariant:** no IO, no async, no clock. Everything here is
//! data and its encoding, so that server, client library and load tests agree
//! by construction.

mod ids;
mod window;

pub use ids::{Address, DeviceId, IdError, MessageId, NAME_BYTES_MAX, Seq, UserId};
pub use window::{AcceptedId, IdWindow, Seen, UNACCEPTED_MAX};
