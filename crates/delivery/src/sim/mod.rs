//! A deterministic simulation of the delivery contract.
//!
//! A few users with a few devices, a server wired from this crate's machines, a
//! disk that loses unsynced writes when the process dies, a network that loses
//! connections, and a checker that knows everything. A seed decides all of it,
//! so a failure is repeated by its seed alone.
//!
//! What it stands for: sessions, shards, committer and store as the real server
//! has them, with every hand-over between them a step that chance puts off. What
//! it leaves out: bytes (frames, records), the database behind the journal, and
//! time spent. Those have tests of their own.
//!
//! It is compiled for this crate's tests and with the feature `sim`.

mod backend;
mod campaign;
mod client;
mod coverage;
mod effects;
mod plan;
mod rng;
mod sends;
mod server;
mod store;
mod transitions;
mod truth;
mod types;
mod world;

pub use campaign::{Campaign, Progress, Summary};
pub use coverage::{Case, Coverage};
pub use transitions::{Cell, Sheet, Transitions};
pub(crate) use transitions::{FeedState, OutboundState};

/// A deliberate mistake in the simulated server's wiring, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// The store hears of one more message acknowledged than there was.
    AckOffByOne,
    /// Only the last 8 ids of a device are remembered across sessions.
    SmallWindow,
    /// `accepted` is said when written, not when synced.
    AnswerBeforeSync,
    /// A device's cursor moves when a message is sent to it.
    CursorAtSend,
    /// Live messages are taken whatever was committed before them.
    PrevUnchecked,
    /// A resend is appended again.
    DuplicateAsFresh,
    /// A device that reconnects starts after what was sent, not after what it acknowledged.
    NoRedelivery,
    /// Watermarks follow the last event, whatever its place.
    ReceiptsNotMonotonic,
    /// A new session loads windows while sends of the last one are under way.
    NoBarrier,
    /// After a crash numbering starts after what is held, not after what was ever given.
    SeqReused,
    /// A bounded read says that it saw everything.
    ReadClaimsEnd,
    /// A reader is believed whatever it says it has read.
    BelieveReads,
    /// The rate limit is asked before a resend is recognised.
    LimitResends,
    /// Messages are sent before the device's registration is durable.
    AttachNotDurable,
    /// Receipts are told before what they derive from is durable.
    TellBeforeDurable,
    /// `redelivered` is never said.
    NeverMarked,
    /// A session takes what became of an earlier session's send for news of its own.
    StaleRefusals,
    /// Messages leave a mailbox before their time, uncounted.
    ExpireEarly,
    /// A sync that failed is taken for one that succeeded.
    BelieveFailedSync,
}

impl Sabotage {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::AckOffByOne,
        Self::SmallWindow,
        Self::AnswerBeforeSync,
        Self::CursorAtSend,
        Self::PrevUnchecked,
        Self::DuplicateAsFresh,
        Self::NoRedelivery,
        Self::ReceiptsNotMonotonic,
        Self::NoBarrier,
        Self::SeqReused,
        Self::ReadClaimsEnd,
        Self::BelieveReads,
        Self::LimitResends,
        Self::AttachNotDurable,
        Self::TellBeforeDurable,
        Self::NeverMarked,
        Self::StaleRefusals,
        Self::ExpireEarly,
        Self::BelieveFailedSync,
    ];
}

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which: D1 to D8, or `liveness`.
    pub rule: &'static str,
    /// What happened.
    pub what: String,
}

/// A schedule that broke a promise.
#[derive(Debug, Clone, thiserror::Error)]
#[error("seed {seed} breaks {}: {}; replay it with: cargo xtask sim --seed {seed} --trace", violation.rule, violation.what)]
pub struct Failure {
    /// Repeats it.
    pub seed: u64,
    /// The promise.
    pub violation: Violation,
    /// What happened last, oldest first; at most 400 lines.
    pub trace: Vec<String>,
}

/// Runs the schedule of one seed.
///
/// # Errors
/// [`Failure`] with the first promise that was broken.
pub fn run_seed(seed: u64, sabotage: Option<Sabotage>) -> Result<Coverage, Box<Failure>> {
    run(seed, sabotage, false)
}

/// Runs the schedule of one seed and returns what happened, whether it fails or not.
pub fn trace_seed(seed: u64, sabotage: Option<Sabotage>) -> (Vec<String>, Option<Violation>) {
    let mut world = world::World::new(seed, sabotage, true);
    let plan = format!("plan {:?}", world.plan);
    world.note(|| plan);
    world.run();
    let trace = world.trace.take().unwrap_or_default();
    (trace.into(), world.violation)
}

fn run(seed: u64, sabotage: Option<Sabotage>, trace: bool) -> Result<Coverage, Box<Failure>> {
    let mut world = world::World::new(seed, sabotage, trace);
    world.run();
    match world.violation {
        None => Ok(world.coverage),
        // Tracing costs, so only what failed is run again with it.
        Some(_) if !trace => run(seed, sabotage, true),
        Some(violation) => Err(Box::new(Failure {
            seed,
            violation,
            trace: world.trace.unwrap_or_default().into(),
        })),
    }
}

#[cfg(test)]
mod tests;
