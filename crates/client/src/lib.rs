//! The Rust SDK of Stonechat.
