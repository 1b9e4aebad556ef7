//! A load client for XMPP servers (RFC 6120, 6121, XEP-0198), to compare them with ours.
//!
//! One thread, one poller, thousands of connections, in the manner of the `swarm` engine: SASL PLAIN,
//! bind, stream management, presence, then plain chat messages to bare addresses. What comes in is cut
//! into stanzas by a scanner that knows just enough XML.
//!
//! What it deliberately does not do: rosters, resumption, STARTTLS (connections that are to be
//! encrypted go through `tls_tunnel`), or anything that a server under comparison does not send.

mod connection;
mod engine;
mod scan;
mod stanza;

pub(crate) use engine::{Engine, Options};
