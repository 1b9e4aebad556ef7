//! One run by several processes: the users split over them, one report out of all.
//!
//! A process holds as many connections as it may have descriptors, and one thread of a core's worth of
//! users. Beyond that the users are split into shares ([`Scenario::split`](crate::Scenario::split)), and
//! each share is run and **checked** by a process of its own. Nobody writes to somebody of another share,
//! so each checker knows both sides of everything it judges, and the verdict is the worst of theirs. To
//! the server it makes no difference who knows whom.
//!
//! It deliberately does not reach beyond this machine: for several, run the swarm on each.

mod merge;
mod team;
mod words;
mod worker;

pub use merge::merged;
pub use team::coordinate;
pub use words::Task;
pub use worker::work;
