//! The client library against a scripted server in the same process.

#![allow(
    clippy::unwrap_used,
    reason = "in a test a panic is the report; helpers count as tests here"
)]

mod connection;
mod messages;
mod server;
mod tls;
