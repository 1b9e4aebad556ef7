//! What all connections of an edge share: settings, the node behind them, the
//! count against the limit, and the switch for injected panics.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use stonechat_protocol::UserId;

use super::EdgeConfig;
use super::backend::Backend;
use super::figures::Figures;
use super::latency::Latencies;
use super::peers::Peers;
use crate::events::{Events, What};

/// State of one edge.
pub(crate) struct Shared<B> {
    pub(crate) config: EdgeConfig,
    pub(crate) backend: B,
    pub(crate) figures: Figures,
    pub(crate) latencies: Latencies,
    pub(crate) fault: Fault,
    pub(crate) peers: Arc<Peers>,
    connections: AtomicUsize,
    connections_max: usize,
    draining: AtomicBool,
    /// Who is told of what happens, once somebody wants to know.
    events: OnceLock<Events>,
}

impl<B: Backend> Shared<B> {
    pub(crate) fn new(config: EdgeConfig, backend: B, connections_max: usize) -> Self {
        // Checked before; what cannot be read trusts nobody.
        let trusted = config.networks_trusted().unwrap_or_default();
        Self {
            peers: Peers::new(config.unauthenticated_per_peer_max, trusted),
            config,
            backend,
            figures: Figures::new(),
            latencies: Latencies::new(),
            fault: Fault::default(),
            connections: AtomicUsize::new(0),
            connections_max,
            draining: AtomicBool::new(false),
            events: OnceLock::new(),
        }
    }

    /// Connections at the moment.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Tells `events` from now on; the first one stays.
    pub(crate) fn report_to(&self, events: Events) {
        let _ = self.events.set(events);
    }

    /// Tells what happened, if anybody wants to know. Not for anything a message passes.
    pub(crate) fn tell(&self, what: impl FnOnce() -> What) {
        if let Some(events) = self.events.get() {
            events.tell(what());
        }
    }

    /// Connections there may be.
    pub(crate) fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// The edge itself is being stopped.
    pub(crate) fn is_stopping(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Refuses upgrades from now on.
    pub(crate) fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed) || self.backend.is_draining()
    }

    /// A place for one more connection, if there is one.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Place<B>> {
        self.connections
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < self.connections_max).then_some(count + 1)
            })
            .ok()?;
        self.figures.connections.increment(1);
        self.figures.connections_total.increment(1);
        Some(Place(Arc::clone(self)))
    }
}

/// A connection's place; given back when dropped, also by a panic.
pub(crate) struct Place<B>(Arc<Shared<B>>);

impl<B> std::ops::Deref for Place<B> {
    type Target = Shared<B>;
    fn deref(&self) -> &Shared<B> {
        &self.0
    }
}

impl<B> Drop for Place<B> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.figures.connections.decrement(1);
    }
}

/// A panic that connections are to run into, for tests of isolation. Costs an idle node
/// one relaxed load for each wake-up of a connection.
#[derive(Default)]
pub(crate) struct Fault {
    armed: AtomicBool,
    target: Mutex<Option<Target>>,
}

struct Target {
    /// Any connection when absent.
    user: Option<UserId>,
    left: usize,
}

impl Fault {
    /// The next `count` wake-ups of connections of `user` (of anyone) panic. Replaces what
    /// was armed before.
    pub(crate) fn arm(&self, user: Option<UserId>, count: usize) {
        *self.target.lock() = (count > 0).then_some(Target { user, left: count });
        self.armed.store(count > 0, Ordering::Release);
    }

    /// Whether the connection of `user` is to panic now.
    pub(crate) fn strikes(&self, user: Option<&UserId>) -> bool {
        if !self.armed.load(Ordering::Relaxed) {
            return false;
        }
        let mut target = self.target.lock();
        let Some(aim) = target.as_mut() else {
            return false;
        };
        if aim.user.as_ref().is_some_and(|wanted| user != Some(wanted)) {
            return false;
        }
        aim.left -= 1;
        if aim.left == 0 {
            *target = None;
            self.armed.store(false, Ordering::Release);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_its_target_as_often_as_asked() {
        let (alice, bob) = (UserId::new("alice").unwrap(), UserId::new("bob").unwrap());
        let fault = Fault::default();
        assert!(!fault.strikes(Some(&alice)));
        fault.arm(Some(alice.clone()), 2);
        assert!(!fault.strikes(Some(&bob)));
        assert!(!fault.strikes(None));
        assert!(fault.strikes(Some(&alice)));
        assert!(fault.strikes(Some(&alice)));
        assert!(!fault.strikes(Some(&alice)));
        fault.arm(None, 1);
        assert!(fault.strikes(None));
        assert!(!fault.strikes(Some(&bob)));
    }
}
