//! Chaos: faults by a seeded plan while the users of a run go on, and how long each took to get over.
//!
//! The [`plan`] is pure. An **operator** ([`operator::Operator`]) carries it out on a thread of its own,
//! one fault after the other: it has its **hands** ([`hands::Hands`]) on the server's process, disk and
//! admin API, and sends **intruders** ([`intruder`]), connections that misbehave. What befalls the users'
//! own connections it asks of the run by [`Order`]s, because they belong to the run's thread.
//!
//! What it deliberately does not do: judge. Users do as clients do, the [`crate::Checker`] decides. The
//! one thing noted here is a server that does not do what its operations page says: an exit code, a
//! start that fails.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod explained;
mod hands;
mod intruder;
mod operator;
pub mod plan;
pub(crate) mod switches;
mod tending;

use hands::Hands;
pub use tending::Ground;
pub(crate) use tending::Tending;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident => $name:literal, $need:ident;)*) => {
        /// What can go wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ChaosKind {
            $($(#[$doc])* $kind,)*
        }

        impl ChaosKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// What it is called on the command line and in the summary.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// What it takes.
            pub fn need(self) -> Need {
                match self { $(Self::$kind => Need::$need,)* }
            }
        }
    };
}

kinds! {
    /// `kill -9`, and a start at once.
    Kill => "kill", Process;
    /// The process is stopped for a while and goes on.
    Pause => "pause", Process;
    /// SIGTERM, and a start when it has ended.
    Terminate => "terminate", Process;
    /// A share of the connections is reset.
    Cut => "cut", Connections;
    /// A share of the users comes back on new connections; the old ones stay open with nobody behind.
    HalfOpen => "half_open", Connections;
    /// A share of the users reads nothing for a while.
    StuckReader => "stuck_reader", Connections;
    /// An extra connection sends a byte at a time.
    Dribble => "dribble", Connections;
    /// Extra connections send what is no HTTP, no WebSocket, no frame, or half of one.
    Garbage => "garbage", Connections;
    /// Extra connections send frames above every limit.
    Oversized => "oversized", Connections;
    /// Sessions of some users panic.
    PanicSession => "panic_session", Faults;
    /// The router panics.
    PanicRouter => "panic_router", Faults;
    /// An offline queue panics.
    PanicOfflineQueue => "panic_offline_queue", Faults;
    /// A dispatcher panics.
    PanicDispatcher => "panic_dispatcher", Faults;
    /// Connections of some users panic.
    PanicConnection => "panic_connection", Faults;
    /// For a while one in so many messages to sessions panics.
    PanicMessages => "panic_messages", Faults;
    /// The server's file system is filled up, and emptied again.
    DiskFull => "disk_full", Disk;
    /// Syncs fail; the server ends, as it must, and is started again.
    SyncFailure => "sync_failure", Switches;
    /// The server's clock is wrong by hours for a while, and is set right again.
    ClockStep => "clock_step", Switches;
    /// Extra connections until the server takes no more; they are held, then released.
    Descriptors => "descriptors", Limit;
}

impl fmt::Display for ChaosKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ChaosKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|kind| kind.name() == name);
        found.copied().ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
            format!("there is no such fault; there are {}", names.join(", "))
        })
    }
}

/// What a fault takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Nothing but the public listener.
    Connections,
    /// A server that opens its endpoint for faults.
    Faults,
    /// A server that the swarm started.
    Process,
    /// And that has a file system of its own.
    Disk,
    /// And that was started with the switches in front of its C library.
    Switches,
    /// And whose limit of descriptors is known to be small.
    Limit,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct ChaosOptions {
    /// Fixes which faults come when.
    pub seed: u64,
    /// Time from one to the next, on average.
    pub every: Duration,
    /// Only these; all when it is empty.
    pub only: Vec<ChaosKind>,
}

/// A kind of fault that was asked for and cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Which.
    pub kind: ChaosKind,
    /// Why.
    pub why: String,
}

/// What befalls connections of users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disturbance {
    Reset,
    HalfOpen,
    StopReading,
}

/// Asks the run to disturb a share of its users; it answers how many were hit.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) disturbance: Disturbance,
    pub(crate) share: f64,
    pub(crate) for_ms: u64,
    pub(crate) seed: u64,
    pub(crate) answer: Sender<u32>,
}

/// Signs of life after a fault: the first message accepted, and the first delivered.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    accepted: AtomicBool,
    delivered: AtomicBool,
    gone: AtomicBool,
}

impl Pulse {
    /// There will be no more signs: the run is over.
    pub(crate) fn give_up(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// Whether it makes no sense to wait.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// The run accepted a message.
    pub(crate) fn accepted(&self) {
        self.accepted.store(true, Ordering::Relaxed);
    }

    /// The run delivered a message.
    pub(crate) fn delivered(&self) {
        self.delivered.store(true, Ordering::Relaxed);
    }

    /// Looks for signs from now on.
    pub(crate) fn reset(&self) {
        self.accepted.store(false, Ordering::Relaxed);
        self.delivered.store(false, Ordering::Relaxed);
    }

    /// Whether there were both.
    pub(crate) fn beats(&self) -> bool {
        self.accepted.load(Ordering::Relaxed) && self.delivered.load(Ordering::Relaxed)
    }
}
