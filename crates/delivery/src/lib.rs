//! The delivery logic of Stonechat as state machines without IO.
//!
//! Everything that decides (what to send, send again, acknowledge, refuse,
//! expire) is a plain state machine here: events in, effects out, and actors
//! elsewhere are thin shells around them. The rules D1 to D8 that the comments
//! cite are those of `docs/durability.md`.
//!
//! **Architecture invariant:** no IO, no clock, no threads, no actix. Time and
//! stored state come in as arguments. That is what lets one test run hundreds
//! of thousands of schedules of crashes, lost connections and slow readers, each
//! repeatable from its seed (`cargo xtask sim`).
//!
//! | machine | one for each | decides |
//! |---|---|---|
//! | [`Outbound`] | sending device | new, resend, too old, too many; answers in order |
//! | [`Feed`] | connected device | what to send, when to read the mailbox, what is acknowledged |
//! | [`Receipts`] | conversation, at the sender | whether a watermark moves |
//! | [`Coalescer`] | connected device | when watermarks are told |
//! | [`TokenBucket`] | user | rate limits |
//! | [`Attempts`] | session | when a message becomes a dead letter |
//! | [`expiry`] | | when a message expires |

mod attempts;
mod coalescer;
pub mod expiry;
mod feed;
mod outbound;
mod rate;
mod receipts;
#[cfg(any(test, feature = "sim"))]
pub mod sim;

pub use attempts::{Attempts, Verdict};
pub use coalescer::Coalescer;
pub use feed::{AckError, AckStep, Effect, Effects, Feed, FeedLimits, FeedStart, ReadItem};
pub use outbound::{Answer, Answers, Outbound, Outcome, SendDecision};
pub use rate::{Limited, RateLimits, TokenBucket};
pub use receipts::{ReadError, Receipts, SenderDevices, Watermarks};
