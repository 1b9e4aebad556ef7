//! Users for benchmarks: names they share, and those of the bare relay.

use anyhow::Result;
use stonechat_swarm::{Admin, Roster};

/// What the names of simulated users start with, and the name of their only device.
const PREFIX: &str = "u";
const DEVICE: &str = "d";

/// Creates users 0 to `count`, the first `with_tokens` of them with a token.
pub(crate) fn create(admin: &Admin, count: usize, with_tokens: usize) -> Result<Roster> {
    Ok(admin.create((PREFIX, DEVICE), count, with_tokens)?)
}

/// Users for the bare relay, which takes the name for a token.
pub(crate) fn unchecked(count: usize) -> Roster {
    Roster::new(PREFIX, DEVICE, (0..count).map(|n| format!("{PREFIX}{n}")))
}
