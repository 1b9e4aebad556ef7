//! The part of an actor that outlives its generations and that every handle shares: identity, policy,
//! inbox, figures, and who watches it.
//!
//! It never holds the actor's value: that lives on its arbiter, in `task`, and need not be `Send`.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    ActorId,
    error::TooManyWatchers,
    inbox::Inbox,
    observe::{Event, NodeInfo},
    panics::drop_guarded,
    reason::{Down, ExitReason},
    send::TellTo,
    signal::{Order, Phase, Signals},
    spec::Policy,
    supervised::Supervised,
    supervisor::SupNode,
};

/// Monitors, and likewise links, one actor may carry.
pub const WATCHERS_MAX: usize = 1024;

/// Who wants to know about an actor. Allocated with the first of them.
#[derive(Default)]
pub(crate) struct Relations {
    monitors: Vec<(u64, TellTo<Down>)>,
    links: Vec<(ActorId, Weak<dyn Node>)>,
    phase_waiters: Vec<oneshot::Sender<()>>,
}

struct Life {
    phase: Phase,
    last_exit: Option<Arc<ExitReason>>,
    relations: Option<Box<Relations>>,
}

/// What is known about any actor without its type.
pub(crate) struct Core {
    pub(crate) id: ActorId,
    pub(crate) name: Box<str>,
    pub(crate) sup: Arc<SupNode>,
    pub(crate) policy: Policy,
    pub(crate) generation: AtomicU32,
    pub(crate) restarts: AtomicU32,
    pub(crate) started_ms: AtomicU64,
    /// The thread it lives on, see `TreeShared::thread`.
    pub(crate) thread: AtomicU32,
    life: Mutex<Life>,
}

/// Milliseconds since the Unix epoch, for display only.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

impl Core {
    pub(crate) fn new(id: ActorId, name: Box<str>, sup: Arc<SupNode>, policy: Policy) -> Self {
        Self {
            id,
            name,
            sup,
            policy,
            generation: AtomicU32::new(0),
            restarts: AtomicU32::new(0),
            started_ms: AtomicU64::new(0),
            thread: AtomicU32::new(0),
            life: Mutex::new(Life {
                phase: Phase::Starting,
                last_exit: None,
                relations: None,
            }),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.life.lock().phase
    }

    pub(crate) fn last_exit(&self) -> Option<Arc<ExitReason>> {
        self.life.lock().last_exit.clone()
    }

    pub(crate) fn set_last_exit(&self, reason: &Arc<ExitReason>) {
        self.life.lock().last_exit = Some(Arc::clone(reason));
    }

    /// Moves to another phase; an actor that has ended stays so (`false`).
    pub(crate) fn set_phase(&self, phase: Phase) -> bool {
        let waiters = {
            let mut life = self.life.lock();
            if life.phase == Phase::Ended {
                return false;
            }
            life.phase = phase;
            life.relations
                .as_mut()
                .map(|relations| std::mem::take(&mut relations.phase_waiters))
        };
        notify(waiters);
        true
    }

    /// A receiver that fires at the next change of phase, unless `done` holds already.
    ///
    /// Unbounded on paper, but only the keeper, a shutdown and callers of `ended` wait here.
    fn watch_phase(&self, done: impl FnOnce(Phase) -> bool) -> Option<oneshot::Receiver<()>> {
        let mut life = self.life.lock();
        if done(life.phase) {
            return None;
        }
        let (tx, rx) = oneshot::channel();
        let waiters = &mut life.relations.get_or_insert_default().phase_waiters;
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(tx);
        Some(rx)
    }

    /// Waits until the phase satisfies `done`.
    pub(crate) async fn reached(&self, done: impl Fn(Phase) -> bool) {
        while let Some(changed) = self.watch_phase(&done) {
            // An error means that the waiters were dropped with the relations: look again.
            let _ = changed.await;
        }
    }

    /// Adds a monitor; hands it back when the actor has ended already.
    pub(crate) fn add_monitor(
        &self,
        monitor_id: u64,
        to: TellTo<Down>,
    ) -> Result<Option<TellTo<Down>>, TooManyWatchers> {
        let mut life = self.life.lock();
        if life.phase == Phase::Ended {
            return Ok(Some(to));
        }
        let monitors = &mut life.relations.get_or_insert_default().monitors;
        if monitors.len() >= WATCHERS_MAX {
            return Err(TooManyWatchers {
                watchers_max: WATCHERS_MAX,
            });
        }
        monitors.push((monitor_id, to));
        Ok(None)
    }

    pub(crate) fn remove_monitor(&self, monitor_id: u64) {
        if let Some(relations) = self.life.lock().relations.as_mut() {
            relations.monitors.retain(|(id, _)| *id != monitor_id);
        }
    }

    /// Links one way; `Ok(false)` when this actor has ended already.
    pub(crate) fn add_link(
        &self,
        other: ActorId,
        node: Weak<dyn Node>,
    ) -> Result<bool, TooManyWatchers> {
        let mut life = self.life.lock();
        if life.phase == Phase::Ended {
            return Ok(false);
        }
        let links = &mut life.relations.get_or_insert_default().links;
        if links.iter().any(|(id, _)| *id == other) {
            return Ok(true);
        }
        links.retain(|(_, node)| node.strong_count() > 0);
        if links.len() >= WATCHERS_MAX {
            return Err(TooManyWatchers {
                watchers_max: WATCHERS_MAX,
            });
        }
        links.push((other, node));
        Ok(true)
    }

    pub(crate) fn remove_link(&self, other: ActorId) {
        if let Some(relations) = self.life.lock().relations.as_mut() {
            relations.links.retain(|(id, _)| *id != other);
        }
    }

    pub(crate) fn down(&self, reason: &Arc<ExitReason>) -> Down {
        Down {
            id: self.id,
            name: Arc::from(&*self.name),
            reason: Arc::clone(reason),
        }
    }

    /// A generation ended: takes its links down, and the linked actors with it if the end was abnormal.
    pub(crate) fn fire_links(&self, reason: &Arc<ExitReason>) {
        let links = {
            let mut life = self.life.lock();
            match life.relations.as_mut() {
                Some(relations) if !relations.links.is_empty() => {
                    std::mem::take(&mut relations.links)
                }
                _ => return,
            }
        };
        let abnormal = reason.is_abnormal();
        let name: Arc<str> = Arc::from(&*self.name);
        for (_, node) in links {
            let Some(node) = node.upgrade() else { continue };
            // A link fires once: whoever starts again links again.
            node.unlink(self.id);
            if abnormal {
                node.stop(&Arc::new(ExitReason::Linked {
                    id: self.id,
                    name: Arc::clone(&name),
                    reason: Arc::clone(reason),
                }));
            }
        }
    }
}

fn notify(waiters: Option<Vec<oneshot::Sender<()>>>) {
    for waiter in waiters.into_iter().flatten() {
        // The waiter may have given up.
        let _ = waiter.send(());
    }
}

/// What every handle of one actor shares.
pub(crate) struct Cell<A: Supervised> {
    pub(crate) core: Core,
    pub(crate) inbox: Inbox<A>,
}

impl<A: Supervised> Cell<A> {
    /// The actor has ended for good: closes its inbox, tells everyone. `false` when that had happened.
    ///
    /// `discarded` counts the messages the caller has dropped already.
    pub(crate) fn finish(&self, reason: &Arc<ExitReason>, discarded: u32) -> bool {
        let core = &self.core;
        let relations = {
            let mut life = core.life.lock();
            if life.phase == Phase::Ended {
                return false;
            }
            life.phase = Phase::Ended;
            life.last_exit = Some(Arc::clone(reason));
            life.relations.take()
        };
        // A stuck actor keeps what it has taken up in its own hands: that is lost with it and counts.
        let in_hand = self.inbox.depth();
        let discarded = (discarded + self.discard()).max(match **reason {
            ExitReason::Abandoned => in_hand,
            _ => 0,
        });
        core.sup.forget(core.id);
        let tree = &core.sup.tree;
        tree.count_exit(reason);
        tree.emit(|| {
            let (id, name) = (core.id, Arc::from(&*core.name));
            if matches!(**reason, ExitReason::Abandoned) {
                Event::Abandoned {
                    id,
                    name,
                    discarded,
                }
            } else {
                Event::Exited {
                    id,
                    name,
                    reason: Arc::clone(reason),
                    discarded,
                }
            }
        });
        if let Some(mut relations) = relations {
            for (_, monitor) in relations.monitors.drain(..) {
                monitor.notice(core.down(reason));
            }
            let name: Arc<str> = Arc::from(&*core.name);
            for (_, node) in relations.links.drain(..) {
                let Some(node) = node.upgrade() else { continue };
                node.unlink(core.id);
                if reason.is_abnormal() {
                    node.stop(&Arc::new(ExitReason::Linked {
                        id: core.id,
                        name: Arc::clone(&name),
                        reason: Arc::clone(reason),
                    }));
                }
            }
            // Last, so that whoever awaits the end finds everybody told.
            notify(Some(relations.phase_waiters));
        }
        true
    }

    /// Drops what waited, one message at a time: a destructor may panic.
    fn discard(&self) -> u32 {
        let mut waiting = self.inbox.close();
        let mut discarded = 0;
        while let Some(envelope) = waiting.pop() {
            discarded += 1;
            if let Err(crash) = drop_guarded(envelope) {
                self.core.sup.tree.record_crash(&self.core, A::KIND, &crash);
            }
        }
        discarded
    }
}

/// A node of the tree without its actor type.
pub(crate) trait Node: Send + Sync {
    fn id(&self) -> ActorId;
    fn name(&self) -> &str;
    fn info(&self) -> NodeInfo;
    /// `None` for a supervisor.
    fn core(&self) -> Option<&Core>;
    fn as_supervisor(self: Arc<Self>) -> Option<Arc<SupNode>>;
    /// Asks it to end.
    fn stop(&self, reason: &Arc<ExitReason>);
    fn order(&self, order: Order);
    /// Gives it up, running or not.
    fn abandon(&self) -> bool;
    fn unlink(&self, other: ActorId);
    fn change_signals(&self, change: &mut dyn FnMut(&mut Signals)) -> bool;
}

impl<A: Supervised> Node for Cell<A> {
    fn id(&self) -> ActorId {
        self.core.id
    }

    fn name(&self) -> &str {
        &self.core.name
    }

    fn info(&self) -> NodeInfo {
        let core = &self.core;
        let inbox = &self.inbox;
        let blocked = Duration::from_nanos(inbox.blocked_ns_total.load(Ordering::Relaxed));
        NodeInfo {
            id: core.id,
            parent: Some(core.sup.id),
            name: core.name.to_string(),
            kind: A::KIND,
            phase: core.phase().name(),
            strategy: None,
            children: 0,
            generation: core.generation.load(Ordering::Relaxed),
            restarts: core.restarts.load(Ordering::Relaxed),
            last_exit: core.last_exit().map(|reason| reason.to_string()),
            depth: inbox.depth(),
            high_water: inbox.high_water(),
            capacity: inbox.capacity(),
            blocked_ms_total: u64::try_from(blocked.as_millis()).unwrap_or(u64::MAX),
            handled_total: inbox.handled_total(),
            started_ms: core.started_ms.load(Ordering::Relaxed),
            arbiter: core
                .sup
                .tree
                .thread(core.thread.load(Ordering::Relaxed))
                .map(|name| name.to_string()),
        }
    }

    fn core(&self) -> Option<&Core> {
        Some(&self.core)
    }

    fn as_supervisor(self: Arc<Self>) -> Option<Arc<SupNode>> {
        None
    }

    fn stop(&self, reason: &Arc<ExitReason>) {
        // `None`: it has ended already, which is what was asked for.
        let _ = self
            .inbox
            .signal(|signals| signals.stop(Arc::clone(reason)));
    }

    fn order(&self, order: Order) {
        if let Order::Resume { .. } = order {
            // Set here and not when the actor gets to it, so that whoever waits for the outcome cannot
            // mistake the old halt for a new one.
            self.core.set_phase(Phase::Starting);
        }
        let _ = self.inbox.signal(|signals| signals.order = Some(order));
    }

    fn abandon(&self) -> bool {
        self.finish(&Arc::new(ExitReason::Abandoned), 0)
    }

    fn unlink(&self, other: ActorId) {
        self.core.remove_link(other);
    }

    fn change_signals(&self, change: &mut dyn FnMut(&mut Signals)) -> bool {
        self.inbox.signal(change).is_some()
    }
}
