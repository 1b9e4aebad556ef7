//! The edge against a scripted node: the parts, one connection over a pipe,
//! and the whole edge over sockets.

mod closing;
mod conformance;
mod connection;
mod descriptors;
mod listening;
mod node;
mod pipe;
mod tls;
