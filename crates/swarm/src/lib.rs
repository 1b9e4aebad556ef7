//! Load on a Stonechat server: tens of thousands of simulated users in one thread.
//!
//! An [`Engine`] holds the connections of a [`Roster`] of users in one epoll loop and speaks the
//! public protocol as a careful client does: ids that increase, at most 64 sends unanswered,
//! cumulative acknowledgements that ride on other frames. What the users do is a [`Behaviour`].
//!
//! **Architecture invariant:** this crate never links the server, so it can be pointed at any. It is
//! written to cost much less than what it measures: nothing is allocated for a frame, bodies are
//! made and checked in place, and all that one turn of the loop produces for a connection leaves in
//! one write.
//!
//! What the engine deliberately does not do: TLS, or reconnecting by itself (asked to, it resumes: what
//! is unanswered is sent again, what was taken over is acknowledged and dropped). It judges no more
//! than every client must see (order of `seq` and of answers, what comes twice). The rest is the
//! [`Checker`]'s, which knows everything that was sent, accepted and delivered.

mod admin;
mod behaviour;
mod chaos;
mod checker;
mod connection;
mod coordinate;
mod counts;
mod engine;
mod error;
mod events;
mod flood;
mod frames;
mod ids;
mod latency;
mod lateness;
mod machine;
mod mark;
mod pairs;
mod people;
mod precise;
pub mod report;
mod roster;
mod run;
mod scan;
mod scenario;
mod schedule;
mod series;
mod shared;
mod sources;
mod spawn;
mod summary;
mod user;
mod view;
mod websocket;

pub use admin::Admin;
pub use behaviour::{Behaviour, Breach, Incoming, Receipt, Refused, Sent};
pub use chaos::{ChaosKind, ChaosOptions, Ground, LeftOut, Need, plan};
pub use checker::{
    Checker, GAPS_MAX, Kind, Outcome, REFUSALS_MAX, Totals, VIOLATIONS_MAX_EACH, Verdict,
    Violation, Violations,
};
pub use coordinate::{Task, coordinate, merged, work};
pub use counts::Counts;
pub use engine::{Engine, Options};
pub use error::SwarmError;
pub use events::Event;
pub use flood::{Drain, Flood, Pace, Quiet, Tally};
pub use latency::Latency;
pub use lateness::Lateness;
pub use machine::machine;
pub use mark::{MARK_BYTES_MIN, Mark};
pub use pairs::{PairUser, Pairs};
pub use people::{Latencies, People};
pub use roster::{Names, Roster};
pub use run::{Finished, Target, Watch, Wish, run, watched};
pub use scenario::{
    BodyBytes, Contacts, End, Phase, Presence, READY, Reading, ReadyScenario, Scenario,
    ScenarioError, Traffic,
};
pub use schedule::Schedule;
pub use series::{
    POINTS_MAX, Point, Probe, Recorder, Second, Series, ServerLook, ServerUse, own_rss_bytes,
};
pub use sources::{NotSources, Sources};
pub use spawn::{SpawnOptions, Spawned};
pub use summary::{LatencySummary, Percentiles, Progress, Summary};
pub use user::{Leave, User};
pub use view::{Requests, Title, View};
pub use websocket::{ACCEPT, opcode, read_header, write_header};
