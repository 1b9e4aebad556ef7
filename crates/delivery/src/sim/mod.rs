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

macro_rules! sabotages {
    ($($name:ident: $what:literal,)+) => {
        /// A deliberate mistake in the simulated server's wiring, to see that it is found.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Sabotage {
            $(#[doc = $what] $name,)+
        }

        impl Sabotage {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// What it does.
            pub fn what(self) -> &'static str {
                match self {
                    $(Self::$name => $what,)+
                }
            }
        }
    };
}

sabotages! {
    AckOffByOne: "the store hears of one more message acknowledged than there was",
    SmallWindow: "only the last 8 ids of a device are remembered across sessions",
    AnswerBeforeSync: "`accepted` is said when written, not when synced",
    CursorAtSend: "a device's cursor moves when a message is sent to it",
    PrevUnchecked: "live messages are taken whatever was committed before them",
    DuplicateAsFresh: "a resend is appended again",
    NoRedelivery: "a device that reconnects starts after what was sent, not after what it acknowledged",
    ReceiptsNotMonotonic: "watermarks follow the last event, whatever its place",
    NoBarrier: "a new session loads windows while sends of the last one are under way",
    SeqReused: "after a crash numbering starts after what is held, not after what was ever given",
    ReadClaimsEnd: "a bounded read says that it saw everything",
    BelieveReads: "a reader is believed whatever it says it has read",
    LimitResends: "the rate limit is asked before a resend is recognised",
    AttachNotDurable: "messages are sent before the device's registration is durable",
    TellBeforeDurable: "receipts are told before what they derive from is durable",
    NeverMarked: "`redelivered` is never said",
    StaleRefusals: "a session takes what became of an earlier session's send for news of its own",
    ExpireEarly: "messages leave a mailbox before their time, uncounted",
    BelieveFailedSync: "a sync that failed is taken for one that succeeded",
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
