//! Who receives a message: sessions, the router with its registry, and the
//! offline queues that own the mailboxes.
//!
//! **Architecture invariant:** no socket, no HTTP, no JSON. An edge speaks in
//! [`Input`]s and [`Event`]s. Decisions are made in `stonechat_delivery`; what
//! is here carries them out.
//!
//! One message's way: an edge's [`SessionLink::input`] → the sender's session
//! (`session::sending`) → the store's journal → `sink` → the `dispatcher` of
//! the recipient's thread → the recipient's session (`session::outgoing`) → the
//! [`Outlet`] of each device. `docs/architecture.md`
//! follows it in full.

mod api;
mod broker;
mod config;
mod dispatcher;
mod figures;
mod lagging;
mod marks;
mod offline_queue;
mod outlet;
mod posting;
mod receipts;
mod registry;
mod router;
mod session;
mod settle;
mod shared;
mod sink;
mod traced;
mod traffic;

pub use api::{Attach, AttachError, BrokerStats, Command, Disconnect, Fault, Input};
pub use broker::{Attached, Broker, BrokerStartError, InputError, Offered, SessionLink, Untaken};
pub use config::{BrokerConfig, RateConfig};
pub use outlet::{Closed, Drain, Event, Outlet, OutletLimits, Taken, outlet};
pub use posting::Posted;
pub use sink::{SinkHandle, commit_sink};
pub use traffic::{Connection, Traffic, TrafficCounts};
