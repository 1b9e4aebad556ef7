//! Crashes in mid-load, over and over: `kill -9`, and power cuts of a disk that keeps only what
//! reached it.
//!
//! A [`fleet`] of users sends to each other, a [run](rounds) crashes the server under it, and
//! the [truth] knows everything that was sent, accepted, delivered, acknowledged and told. It does
//! not use the project's client and knows nothing of the server but the protocol.

pub mod cache;
pub mod device;
pub mod disk;
pub mod facts;
pub mod fleet;
mod frame;
pub mod lossy;
pub mod manner;
mod receipts;
mod rig;
pub mod rounds;
pub mod truth;

pub use facts::{Breach, Counts};
pub use rounds::{Crash, Round, RunOptions, Summary, run};
