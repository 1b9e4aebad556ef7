//! The Rust SDK of Stonechat: send messages that arrive once, receive each
//! message once, and let the library worry about the network.
//!
//! ```no_run
//! use stonechat_client::{Client, Event};
//! use stonechat_client::protocol::UserId;
//!
//! # async fn example(token: String) -> Result<(), Box<dyn std::error::Error>> {
//! let (client, mut events) = Client::builder("ws://127.0.0.1:8080", "laptop")
//!     .token(token)
//!     .connect()?;
//!
//! let bob = UserId::new("bob")?;
//! let sent = client.send(&bob, "hello").await?; // queued, resent until answered
//! let accepted = sent.await?; // on the server's disk
//! println!("accepted at {}", accepted.ts_ms);
//!
//! while let Some(event) = events.next().await {
//!     if let Event::Message(message) = event {
//!         println!("{}: {}", message.from.user, message.body);
//!     } // asking for the next event acknowledges this one
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Two programs to start from: `examples/send_one.rs` and `examples/echo_bot.rs`.
//!
//! # What it does
//!
//! - **Connects** with exponential back-off and full jitter, not before the
//!   server's `retry_after_ms`, and stops for good ([`Event::Terminal`]) for
//!   reasons that do not pass.
//! - **Sends once.** At most 64 sends are unanswered; [`Client::send`] waits
//!   for a slot, which is the back-pressure of the server reaching the caller.
//!   After a lost connection the unanswered go out again, in order, under their
//!   old ids, before anything new. Ids strictly increase even when the clock
//!   does not.
//! - **Receives once.** What was handed to the application is not handed out
//!   again in the life of the client, however often the server sends it.
//! - **Acknowledges** what the application has handled ([`AckMode`]), several
//!   messages at a time, riding on other frames where possible.
//! - **Notices** a half-open connection by asking when the server is silent.
//! - **Survives a crash of the application** when it keeps a [`ResumeState`].
//!   Kept in one transaction with the effects of the messages, each is handled
//!   exactly once; otherwise at least once.
//!
//! # What it does not
//!
//! It repeats no refused send: later ones may have been accepted meanwhile, so
//! only the application can say whether the message still belongs there
//! ([`Refused::may_retry`] tells whether it makes sense). It keeps nothing on
//! disk, and never looks into a body.
//!
//! # Bounds
//!
//! | what | at most | beyond |
//! |---|---|---|
//! | unanswered sends | 64 | `send` waits, `try_send` says [`SendError::Full`] |
//! | read marks not yet sent | 1,024 conversations | [`ReadError::Full`] |
//! | events not taken | [`Tuning::events_max`], [`Tuning::event_bytes_max`] | the connection ends ([`DisconnectCause::Overrun`]) and what was not taken comes again; ephemeral messages and notices are counted in [`Event::Lagged`] |
//! | a frame from the server | [`Tuning::frame_bytes_max`] | the connection ends |
//! | each wait | the `_ms_max` of [`Tuning`] | the connection ends, another attempt follows |
//!
//! **Architecture invariant:** every decision is made by a state machine
//! without IO and clock (`engine`); the task around it only carries out. So
//! every decision can be tested without a network, with time as a number.

mod builder;
mod client;
mod driver;
mod engine;
mod error;
mod event;
mod ids;
mod resume;
mod shared;
mod transport;
mod tuning;

pub use builder::{ClientBuilder, TokenError};
pub use client::{AckMode, Client, Events, SendOptions, Sent};
pub use error::{AckError, BuildError, DisconnectCause, ReadError, Refused, SendError, Terminal};
pub use event::Event;
pub use resume::{PendingSend, ResumeError, ResumeState};
pub use stonechat_protocol as protocol;
pub use tuning::Tuning;
