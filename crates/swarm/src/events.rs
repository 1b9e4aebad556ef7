//! What was done to a server while a run went: one entry for each disturbance, marked on every chart.
//!
//! Only what happened and when; who does it, and how, is not this module's business.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One disturbance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What kind, in one word: `kill`, `pause`, `cut`.
    pub kind: String,
    /// When it began, milliseconds since the run began.
    pub at_ms: u64,
    /// How long it lasted; 0 for what happens at once.
    pub for_ms: u64,
    /// From its end until messages went through again; `None` when they did not before the run ended.
    pub recovery_ms: Option<u64>,
    /// What else there is to say: which process, how many connections.
    pub detail: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at_s, for_s) = (self.at_ms as f64 / 1e3, self.for_ms as f64 / 1e3);
        write!(f, "{at_s:7.1} s  {:<20}{for_s:5.1} s", self.kind)?;
        match self.recovery_ms {
            Some(ms) => write!(f, ", recovered in {ms} ms")?,
            None => f.write_str(", no recovery seen")?,
        }
        write!(f, ": {}", self.detail)
    }
}
