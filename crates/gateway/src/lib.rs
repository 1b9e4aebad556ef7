//! The edge: sockets, frames, HTTP.
//!
//! **Architecture invariant:** the only crate that knows HTTP and JSON on the
//! server's side. It authenticates, decodes, hands [`stonechat_broker::Input`]s
//! on and writes [`stonechat_broker::Event`]s; it decides nothing about
//! delivery.

pub mod admin;
pub mod auth;
pub mod edge;
pub mod events;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod stopping;
