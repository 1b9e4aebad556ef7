//! OTP-style supervision on actix.
//!
//! Actors live on actix arbiters, one task each, under supervisors that restart them. A restart happens in
//! place: the inbox, the messages in it and every handle survive; the actor's value is built anew. Inboxes
//! are bounded, exits are typed, and the whole tree can be watched from outside. `docs/supervision.md` is
//! the contract; `docs/adr/0002-supervision-on-actix.md` says why it is built this way.
//!
//! Not here: anything about messaging. And no other crate of the workspace starts actix tasks or touches
//! actix's actor internals.
//!
//! ```
//! use std::time::Duration;
//! use stonechat_actors::{Ask, ChildSpec, Ctx, Supervised, Tree, TreeConfig};
//!
//! struct Counter(u64);
//!
//! impl Supervised for Counter {
//!     const KIND: &'static str = "counter";
//! }
//!
//! struct Add(u64);
//!
//! impl Ask<Add> for Counter {
//!     type Reply = u64;
//!     fn ask(&mut self, Add(n): Add, _ctx: &mut Ctx<Self>) -> u64 {
//!         self.0 = self.0.checked_add(n).expect("the counter overflowed");
//!         self.0
//!     }
//! }
//!
//! actix_rt::System::new().block_on(async {
//!     let tree = Tree::new(TreeConfig::default());
//!     let arbiter = actix_rt::Arbiter::current();
//!     let counter = tree.root().start_child(ChildSpec::new("counter"), &arbiter, |_| Counter(0))?;
//!     let deadline = Duration::from_secs(5);
//!     assert_eq!(counter.ask(Add(2), deadline).await?, 2);
//!     counter.ask(Add(u64::MAX), deadline).await.expect_err("that panics");
//!     assert_eq!(counter.ask(Add(3), deadline).await?, 3, "the same handle, a fresh counter");
//!     assert!(tree.shutdown(deadline).await.is_clean());
//!     Ok::<(), Box<dyn std::error::Error>>(())
//! }).expect("the example runs");
//! ```

mod actor_ref;
mod cell;
mod ctx;
mod error;
mod faults;
mod group;
mod inbox;
mod lifecycle;
#[cfg(test)]
mod model;
mod observe;
mod panics;
mod reason;
mod send;
mod signal;
mod spec;
mod steer;
mod supervised;
mod supervisor;
mod sync;
mod task;
mod tasks;
mod timers;
mod tree;
mod watchdog;

use serde::Serialize;

pub use crate::{
    actor_ref::{ActorRef, InboxStats, Monitor},
    cell::WATCHERS_MAX,
    ctx::{Ctx, FUTURES_MAX, TimerHandle},
    error::{
        AskError, InspectError, StartError, TellError, TooManyWatchers, TreeError, TrySendError,
    },
    group::{ABANDONED_NAMED_MAX, ShutdownReport},
    observe::{
        ALARM_PANICS_MAX, CRASHES_KEPT, CrashAlarm, CrashRecord, EVENTS_BUFFERED, Event, NodeInfo,
        Totals,
    },
    panics::panics_unwind,
    reason::{CrashTrace, Down, ExitReason},
    send::TellTo,
    spec::{
        Backoff, ChildSpec, INBOX_CAPACITY_MAX, Intensity, NAME_BYTES_MAX, RESTARTS_MAX, Restart,
        Strategy, SupervisorSpec,
    },
    steer::SteerError,
    supervised::{Ask, Handle, StartInfo, Supervised},
    supervisor::Supervisor,
    tasks::TaskHandle,
    timers::TIMERS_MAX,
    tree::{OnAlarm, Tree, TreeConfig},
};

/// Names an actor or supervisor within its tree; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ActorId(pub u64);

impl std::fmt::Display for ActorId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
