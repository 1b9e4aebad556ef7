//! What concerns more than one child: group restarts, escalation, ordered shutdown.
//!
//! The keeper, one thread a tree, works these off one at a time, so a supervisor needs no task and no state
//! machine of its own, and a blocked arbiter cannot hold up the deadlines that are there to deal with it.
//! A lone child's restart never comes here: that happens on the child's own arbiter, in `task`.
//!
//! The queue of operations is bounded by the tree: an actor that asks for one is halted until it is done.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde::Serialize;
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::{error, info, warn};

use crate::{
    ActorId,
    cell::Node,
    observe::Event,
    reason::ExitReason,
    signal::{Order, Phase},
    spec::{Restart, Strategy},
    supervisor::SupNode,
};

/// Abandoned actors named in a report; the rest are counted.
pub const ABANDONED_NAMED_MAX: usize = 1000;

/// Something for the keeper to do.
pub(crate) enum Op {
    /// A child of a one-for-all or rest-for-one supervisor failed and is halted.
    Group {
        sup: Arc<SupNode>,
        child: ActorId,
        generation: u32,
        delay: Duration,
    },
    /// A child failed too often, is halted, and its failure is its supervisor's.
    Escalate {
        sup: Arc<SupNode>,
        child: ActorId,
        generation: u32,
        reason: Arc<ExitReason>,
    },
}

/// How a shutdown went.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ShutdownReport {
    /// Actors that stopped in time.
    pub stopped: usize,
    /// Actors that did not.
    pub abandoned_total: usize,
    /// Their names, at most [`ABANDONED_NAMED_MAX`].
    pub abandoned: Vec<String>,
    /// How long it took.
    pub elapsed_ms: u64,
}

impl ShutdownReport {
    /// Whether every actor stopped in time.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.abandoned_total == 0
    }
}

type Boxed<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The keeper's loop; ends when the tree is gone.
pub(crate) async fn keep(mut ops: UnboundedReceiver<Op>) {
    while let Some(op) = ops.recv().await {
        match op {
            Op::Group {
                sup,
                child,
                generation,
                delay,
            } => {
                if delay.is_zero() {
                    restart_group(&sup, child, generation).await;
                } else {
                    // The siblings go on meanwhile; what they send the halted child waits in its inbox.
                    tokio::spawn(async move {
                        sleep(delay).await;
                        let tree = Arc::clone(&sup.tree);
                        tree.request(Op::Group {
                            sup,
                            child,
                            generation,
                            delay: Duration::ZERO,
                        });
                    });
                }
            }
            Op::Escalate {
                sup,
                child,
                generation,
                reason,
            } => escalate(sup, child, generation, reason).await,
        }
    }
}

/// The child, if it still waits for the verdict on this very failure.
fn waiting(sup: &SupNode, child: ActorId, generation: u32) -> Option<Arc<dyn Node>> {
    let node = sup.child(child)?;
    let core = node.core()?;
    let waits =
        core.phase() == Phase::Halted && core.generation.load(Ordering::Relaxed) == generation;
    // Otherwise an earlier operation has restarted or ended it.
    waits.then_some(node)
}

async fn restart_group(sup: &Arc<SupNode>, child: ActorId, generation: u32) {
    if sup.tree.is_closing() || waiting(sup, child, generation).is_none() {
        return;
    }
    let affected = affected(sup, child);
    info!(
        supervisor = &*sup.name,
        strategy = sup.spec.strategy.name(),
        children = affected.len(),
        "group restart"
    );
    halt_all(&affected).await;
    resume_all(&affected, false).await;
}

/// Whom a child's failure touches, in start order.
fn affected(sup: &SupNode, child: ActorId) -> Vec<Arc<dyn Node>> {
    let children = sup.children();
    match sup.spec.strategy {
        Strategy::OneForAll => children,
        Strategy::RestForOne => children
            .into_iter()
            .filter(|node| node.id() >= child)
            .collect(),
        Strategy::OneForOne | Strategy::Dynamic => children
            .into_iter()
            .filter(|node| node.id() == child)
            .collect(),
    }
}

async fn escalate(sup: Arc<SupNode>, child: ActorId, generation: u32, reason: Arc<ExitReason>) {
    let Some(culprit) = waiting(&sup, child, generation) else {
        return;
    };
    let tree = Arc::clone(&sup.tree);
    if tree.is_closing() {
        return;
    }
    let mut failed = sup;
    loop {
        tree.emit(|| Event::Escalated {
            id: failed.id,
            name: Arc::from(&*failed.name),
            reason: Arc::clone(&reason),
        });
        failed.set_last_exit(&reason);
        let Some(parent) = failed.parent() else {
            error!(culprit = culprit.name(), %reason, "a failure reached the root supervisor: end the process");
            // In this order: whoever sees the culprit end finds the tree failed.
            tree.fail(&reason);
            culprit.stop(&reason);
            return;
        };
        if failed.survives_failure() {
            warn!(supervisor = &*failed.name, culprit = culprit.name(), %reason, "supervisor restarts its children");
            let affected = affected(&parent, failed.id);
            halt_all(&affected).await;
            resume_all(&affected, true).await;
            return;
        }
        if !failed.spec.escalate {
            error!(supervisor = &*failed.name, culprit = culprit.name(), %reason, "supervisor and its children ended");
            let mut report = ShutdownReport::default();
            stop_children(&failed, None, &mut report).await;
            failed.finish(&reason);
            return;
        }
        failed = parent;
    }
}

async fn halt_all(nodes: &[Arc<dyn Node>]) {
    for node in nodes.iter().rev() {
        halt(node).await;
    }
}

fn halt(node: &Arc<dyn Node>) -> Boxed<'_> {
    Box::pin(async move {
        let Some(core) = node.core() else {
            if let Some(sup) = Arc::clone(node).as_supervisor() {
                halt_all(&sup.children()).await;
            }
            return;
        };
        if core.policy.restart == Restart::Temporary {
            node.stop(&Arc::new(ExitReason::Shutdown));
        } else {
            node.order(Order::Halt);
        }
        let halted = core.reached(|phase| matches!(phase, Phase::Halted | Phase::Ended));
        if timeout(core.policy.shutdown_deadline(), halted)
            .await
            .is_err()
        {
            abandon(node);
        }
    })
}

async fn resume_all(nodes: &[Arc<dyn Node>], fresh: bool) {
    for node in nodes {
        resume(node, fresh).await;
    }
}

fn resume(node: &Arc<dyn Node>, fresh: bool) -> Boxed<'_> {
    Box::pin(async move {
        let Some(core) = node.core() else {
            if let Some(sup) = Arc::clone(node).as_supervisor() {
                sup.restarts.fetch_add(1, Ordering::Relaxed);
                resume_all(&sup.children(), fresh).await;
            }
            return;
        };
        if core.phase() != Phase::Halted || core.sup.tree.is_closing() {
            return;
        }
        node.order(Order::Resume { fresh });
        // Start order: the next one begins when this one runs. One that fails again asks for its own
        // operation; one whose start hangs is left behind.
        let settled = core.reached(|phase| phase != Phase::Starting);
        if timeout(core.policy.shutdown_deadline(), settled)
            .await
            .is_err()
        {
            warn!(
                actor = node.name(),
                id = node.id().0,
                "still starting: going on with its siblings"
            );
        }
    })
}

fn abandon(node: &Arc<dyn Node>) -> bool {
    let abandoned = node.abandon();
    if abandoned {
        error!(
            actor = node.name(),
            id = node.id().0,
            "actor did not stop within its deadline: abandoned"
        );
    }
    abandoned
}

/// Stops everything below `sup` in reverse start order, each child by its own deadline and all of them by
/// `until`. Nothing can be started below it any more.
pub(crate) fn stop_children<'a>(
    sup: &'a Arc<SupNode>,
    until: Option<Instant>,
    report: &'a mut ShutdownReport,
) -> Boxed<'a> {
    Box::pin(async move {
        let children = sup.close();
        let shutdown = Arc::new(ExitReason::Shutdown);
        let together = sup.spec.strategy == Strategy::Dynamic;
        if together {
            for node in children.iter().rev() {
                if node.core().is_some() {
                    node.stop(&shutdown);
                }
            }
        }
        let began = Instant::now();
        for node in children.iter().rev() {
            let Some(core) = node.core() else {
                if let Some(below) = Arc::clone(node).as_supervisor() {
                    stop_children(&below, until, report).await;
                    below.finish(&shutdown);
                }
                continue;
            };
            let from = if together { began } else { Instant::now() };
            node.stop(&shutdown);
            let own = from + core.policy.shutdown_deadline();
            let deadline = until.map_or(own, |until| until.min(own));
            let ended = core.reached(|phase| phase == Phase::Ended);
            if timeout_at(deadline, ended).await.is_err() && abandon(node) {
                report.abandoned_total += 1;
                if report.abandoned.len() < ABANDONED_NAMED_MAX {
                    report.abandoned.push(node.name().to_owned());
                }
            } else {
                report.stopped += 1;
            }
        }
    })
}

/// Stops a whole subtree; its top stays closed.
pub(crate) async fn shut_down(sup: Arc<SupNode>, deadline: Duration) -> ShutdownReport {
    let began = Instant::now();
    let mut report = ShutdownReport::default();
    stop_children(&sup, began.checked_add(deadline), &mut report).await;
    sup.finish(&Arc::new(ExitReason::Shutdown));
    report.elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    info!(
        supervisor = &*sup.name,
        stopped = report.stopped,
        abandoned = report.abandoned_total,
        elapsed_ms = report.elapsed_ms,
        "shut down"
    );
    report
}
