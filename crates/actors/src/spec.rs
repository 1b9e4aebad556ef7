//! What a child promises and what its supervisor allows: restart policy, intensity, back-off, bounds.
//!
//! Plain data and arithmetic on it. Nothing here runs an actor.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::{error::StartError, reason::ExitReason};

/// Largest inbox one may ask for.
pub const INBOX_CAPACITY_MAX: u32 = 1 << 20;
/// Largest number of restarts an intensity window may allow; the window's history is kept in memory.
pub const RESTARTS_MAX: u32 = 1 << 16;
/// Longest actor name, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// When a child is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// After every end but a shutdown.
    Permanent,
    /// After an abnormal end only.
    Transient,
    /// Never.
    Temporary,
}

/// How many failures within a sliding window are tolerated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts allowed within the window; one more is too many. At most [`RESTARTS_MAX`].
    pub restarts_max: u32,
    /// Length of the window.
    pub within: Duration,
}

impl Default for Intensity {
    fn default() -> Self {
        Self {
            restarts_max: 5,
            within: Duration::from_secs(30),
        }
    }
}

/// How long a restart waits. The first one after a quiet period is immediate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Delay before the second restart in a row.
    pub initial: Duration,
    /// The delay doubles up to this.
    pub max: Duration,
    /// Without a failure for this long, the next restart is immediate again.
    pub reset_after: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(50),
            max: Duration::from_secs(5),
            reset_after: Duration::from_secs(60),
        }
    }
}

/// How a supervisor treats the others when one child fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Only the failed child is restarted.
    OneForOne,
    /// All children are stopped in reverse start order and started again in start order.
    OneForAll,
    /// The failed child and those started after it.
    RestForOne,
    /// One-for-one for children that come and go by the thousand: at shutdown they are stopped together
    /// instead of one after the other.
    Dynamic,
}

impl Strategy {
    pub(crate) fn is_group(self) -> bool {
        matches!(self, Self::OneForAll | Self::RestForOne)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OneForOne => "one_for_one",
            Self::OneForAll => "one_for_all",
            Self::RestForOne => "rest_for_one",
            Self::Dynamic => "dynamic",
        }
    }
}

/// How one child is to be run.
#[derive(Clone, Debug)]
pub struct ChildSpec {
    /// Its name in the tree, logs and reports; need not be unique. At most [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// When it is started again.
    pub restart: Restart,
    /// How many failures are tolerated.
    pub intensity: Intensity,
    /// How long restarts wait.
    pub backoff: Backoff,
    /// Messages that may wait in its inbox, 1 to [`INBOX_CAPACITY_MAX`].
    pub inbox_capacity: u32,
    /// How long it may take to stop before it is abandoned.
    pub shutdown_deadline: Duration,
    /// Whether too many failures are its supervisor's failure too (`true`), or only end this child and are
    /// reported (`false`: right for one user among many).
    pub escalate: bool,
}

impl ChildSpec {
    /// A permanent child with the defaults: 5 restarts in 30 s, back-off 50 ms to 5 s, 1,024 messages,
    /// 5 s to stop, escalates.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            restart: Restart::Permanent,
            intensity: Intensity::default(),
            backoff: Backoff::default(),
            inbox_capacity: 1024,
            shutdown_deadline: Duration::from_secs(5),
            escalate: true,
        }
    }

    /// Sets when it is started again.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Sets how many failures are tolerated.
    #[must_use]
    pub fn intensity(mut self, restarts_max: u32, within: Duration) -> Self {
        self.intensity = Intensity {
            restarts_max,
            within,
        };
        self
    }

    /// Sets how long restarts wait.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets how many messages may wait.
    #[must_use]
    pub fn inbox_capacity(mut self, messages_max: u32) -> Self {
        self.inbox_capacity = messages_max;
        self
    }

    /// Sets how long it may take to stop.
    #[must_use]
    pub fn shutdown_deadline(mut self, deadline: Duration) -> Self {
        self.shutdown_deadline = deadline;
        self
    }

    /// Sets whether too many failures are its supervisor's failure too.
    #[must_use]
    pub fn escalate(mut self, escalate: bool) -> Self {
        self.escalate = escalate;
        self
    }

    pub(crate) fn policy(&self) -> Result<Policy, StartError> {
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX {
            return Err(StartError::BadSpec("a name is 1 to 256 bytes"));
        }
        if self.inbox_capacity == 0 || self.inbox_capacity > INBOX_CAPACITY_MAX {
            return Err(StartError::BadSpec("inbox_capacity is 1 to 1,048,576"));
        }
        if self.intensity.restarts_max > RESTARTS_MAX {
            return Err(StartError::BadSpec("restarts_max is at most 65,536"));
        }
        Ok(Policy {
            restart: self.restart,
            escalate: self.escalate,
            restarts_max: self.intensity.restarts_max,
            within_ms: millis(self.intensity.within),
            backoff_initial_ms: millis(self.backoff.initial),
            backoff_max_ms: millis(self.backoff.max),
            backoff_reset_ms: millis(self.backoff.reset_after),
            shutdown_ms: millis(self.shutdown_deadline),
        })
    }
}

/// How a supervisor is run, and how it behaves as a child of its parent.
#[derive(Clone, Debug)]
pub struct SupervisorSpec {
    /// Its name in the tree.
    pub name: String,
    /// What happens to the others when one child fails.
    pub strategy: Strategy,
    /// How many escalations from its children it survives by restarting them all.
    pub intensity: Intensity,
    /// Beyond that: its parent's failure too (`true`), or its subtree is ended and reported (`false`).
    pub escalate: bool,
    /// Most children at a time.
    pub children_max: usize,
}

impl SupervisorSpec {
    /// The defaults: 3 restarts in 60 s, escalates, at most 1,048,576 children.
    pub fn new(name: impl Into<String>, strategy: Strategy) -> Self {
        Self {
            name: name.into(),
            strategy,
            intensity: Intensity {
                restarts_max: 3,
                within: Duration::from_secs(60),
            },
            escalate: true,
            children_max: 1 << 20,
        }
    }
}

/// A [`ChildSpec`] folded into 32 bytes: every child carries one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    pub(crate) restart: Restart,
    pub(crate) escalate: bool,
    pub(crate) restarts_max: u32,
    within_ms: u32,
    backoff_initial_ms: u32,
    backoff_max_ms: u32,
    backoff_reset_ms: u32,
    shutdown_ms: u32,
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

impl Policy {
    pub(crate) fn wants_restart(&self, reason: &ExitReason) -> bool {
        match self.restart {
            Restart::Permanent => !matches!(
                reason,
                ExitReason::Shutdown | ExitReason::ArbiterGone | ExitReason::Abandoned
            ),
            Restart::Transient => {
                reason.is_abnormal()
                    && !matches!(reason, ExitReason::ArbiterGone | ExitReason::Abandoned)
            }
            Restart::Temporary => false,
        }
    }

    pub(crate) fn within(&self) -> Duration {
        Duration::from_millis(self.within_ms.into())
    }

    pub(crate) fn shutdown_deadline(&self) -> Duration {
        Duration::from_millis(self.shutdown_ms.into())
    }

    fn delay(&self, failures_in_a_row: u32) -> Duration {
        if failures_in_a_row <= 1 {
            return Duration::ZERO;
        }
        let doublings = (failures_in_a_row - 2).min(31);
        let delay_ms = u64::from(self.backoff_initial_ms) << doublings;
        Duration::from_millis(delay_ms.min(self.backoff_max_ms.into()))
    }
}

/// The sliding window of failures of one child or supervisor. Bounded by `restarts_max + 1` entries.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    recent: VecDeque<Instant>,
    in_a_row: u32,
    last: Option<Instant>,
}

impl Failures {
    /// Records a failure now; `false` when it is one too many.
    pub(crate) fn record(&mut self, now: Instant, restarts_max: u32, within: Duration) -> bool {
        while self
            .recent
            .front()
            .is_some_and(|at| now.duration_since(*at) > within)
        {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        if self.recent.len() > restarts_max as usize {
            // Keep the bound: the newest `restarts_max` say as much as all of them.
            self.recent.pop_front();
            return false;
        }
        true
    }

    /// Records a failure now: the delay before the restart, or `None` when it is one too many.
    pub(crate) fn next_delay(&mut self, now: Instant, policy: &Policy) -> Option<Duration> {
        let quiet = Duration::from_millis(policy.backoff_reset_ms.into());
        if self.last.is_none_or(|at| now.duration_since(at) > quiet) {
            self.in_a_row = 0;
        }
        self.last = Some(now);
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.record(now, policy.restarts_max, policy.within())
            .then(|| policy.delay(self.in_a_row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(spec: &ChildSpec) -> Policy {
        spec.policy().expect("a good spec")
    }

    #[test]
    fn backoff_starts_at_nothing_doubles_to_its_maximum_and_resets_after_quiet() {
        let backoff = Backoff {
            initial: Duration::from_millis(50),
            max: Duration::from_millis(300),
            reset_after: Duration::from_secs(60),
        };
        let policy = policy(
            &ChildSpec::new("a")
                .intensity(100, Duration::from_secs(1))
                .backoff(backoff),
        );
        let mut failures = Failures::default();
        let mut now = Instant::now();
        let mut delays_ms = Vec::new();
        for _ in 0..6 {
            now += Duration::from_secs(10);
            delays_ms.push(
                failures
                    .next_delay(now, &policy)
                    .expect("allowed")
                    .as_millis(),
            );
        }
        assert_eq!(delays_ms, [0, 50, 100, 200, 300, 300]);
        now += Duration::from_secs(61);
        assert_eq!(failures.next_delay(now, &policy), Some(Duration::ZERO));
    }

    #[test]
    fn a_huge_backoff_does_not_overflow() {
        let backoff = Backoff {
            initial: Duration::MAX,
            max: Duration::MAX,
            reset_after: Duration::MAX,
        };
        let policy = policy(
            &ChildSpec::new("a")
                .intensity(1000, Duration::from_secs(1))
                .backoff(backoff),
        );
        for failures_in_a_row in [0, 1, 2, 33, u32::MAX] {
            assert!(policy.delay(failures_in_a_row) <= Duration::from_millis(u32::MAX.into()));
        }
    }

    #[test]
    fn the_intensity_window_slides() {
        let within = Duration::from_secs(10);
        let mut failures = Failures::default();
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        assert!(failures.record(at(0), 2, within));
        assert!(failures.record(at(6), 2, within));
        assert!(
            failures.record(at(11), 2, within),
            "the first has left the window"
        );
        assert!(
            !failures.record(at(12), 2, within),
            "6, 11 and 12 are three"
        );
        assert!(failures.recent.len() <= 2, "the history is bounded");
        assert!(
            !Failures::default().record(start, 0, within),
            "none allowed is none"
        );
    }

    #[test]
    fn restart_policies() {
        let failed = ExitReason::Failed("x".into());
        for (restart, on_normal, on_shutdown, on_failed) in [
            (Restart::Permanent, true, false, true),
            (Restart::Transient, false, false, true),
            (Restart::Temporary, false, false, false),
        ] {
            let policy = policy(&ChildSpec::new("a").restart(restart));
            assert_eq!(policy.wants_restart(&ExitReason::Normal), on_normal);
            assert_eq!(policy.wants_restart(&ExitReason::Shutdown), on_shutdown);
            assert_eq!(policy.wants_restart(&failed), on_failed);
            assert!(!policy.wants_restart(&ExitReason::Abandoned));
            assert!(!policy.wants_restart(&ExitReason::ArbiterGone));
        }
    }

    #[test]
    fn bad_specs_are_refused() {
        for spec in [
            ChildSpec::new(""),
            ChildSpec::new("x".repeat(257)),
            ChildSpec::new("a").inbox_capacity(0),
            ChildSpec::new("a").inbox_capacity(INBOX_CAPACITY_MAX + 1),
            ChildSpec::new("a").intensity(RESTARTS_MAX + 1, Duration::from_secs(1)),
        ] {
            assert!(
                matches!(spec.policy(), Err(StartError::BadSpec(_))),
                "{spec:?}"
            );
        }
    }
}
