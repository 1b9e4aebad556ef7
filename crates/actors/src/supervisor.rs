//! Supervisors: nodes that own children, without a task of their own.
//!
//! A supervisor is a list of children in start order plus the rules for them. The rules are applied where
//! things happen: a lone restart on the child's arbiter, anything that concerns siblings on the keeper.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use actix_rt::ArbiterHandle;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    ActorId,
    actor_ref::ActorRef,
    cell::{Cell, Core, Node, unix_ms},
    error::StartError,
    group::{ShutdownReport, shut_down},
    inbox::Inbox,
    observe::{Event, NodeInfo},
    reason::ExitReason,
    signal::{Order, Phase, Signals},
    spec::{ChildSpec, Failures, NAME_BYTES_MAX, RESTARTS_MAX, SupervisorSpec},
    supervised::{StartInfo, Supervised},
    task::Launch,
    tree::TreeShared,
};

struct Children {
    /// Ids rise with time, so this is start order.
    nodes: BTreeMap<ActorId, Arc<dyn Node>>,
    closed: bool,
}

struct Past {
    failures: Failures,
    last_exit: Option<Arc<ExitReason>>,
}

/// A supervisor in the tree.
pub(crate) struct SupNode {
    pub(crate) id: ActorId,
    pub(crate) name: Box<str>,
    pub(crate) spec: SupervisorSpec,
    pub(crate) tree: Arc<TreeShared>,
    parent: Weak<SupNode>,
    children: Mutex<Children>,
    pub(crate) restarts: AtomicU32,
    past: Mutex<Past>,
    started_ms: u64,
}

impl SupNode {
    pub(crate) fn new(
        tree: Arc<TreeShared>,
        parent: Weak<Self>,
        spec: SupervisorSpec,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: tree.next_id(),
            name: spec.name.as_str().into(),
            spec,
            tree,
            parent,
            children: Mutex::new(Children {
                nodes: BTreeMap::new(),
                closed: false,
            }),
            restarts: AtomicU32::new(0),
            past: Mutex::new(Past {
                failures: Failures::default(),
                last_exit: None,
            }),
            started_ms: unix_ms(),
        })
    }

    pub(crate) fn parent(&self) -> Option<Arc<Self>> {
        self.parent.upgrade()
    }

    fn adopt(&self, node: Arc<dyn Node>) -> Result<(), StartError> {
        let mut children = self.children.lock();
        if children.closed {
            return Err(StartError::ShuttingDown);
        }
        if children.nodes.len() >= self.spec.children_max {
            return Err(StartError::TooManyChildren {
                children_max: self.spec.children_max,
            });
        }
        children.nodes.insert(node.id(), node);
        Ok(())
    }

    pub(crate) fn forget(&self, id: ActorId) {
        // Dropped after the lock is released: it may be the last of its kind.
        let _gone = self.children.lock().nodes.remove(&id);
    }

    pub(crate) fn child(&self, id: ActorId) -> Option<Arc<dyn Node>> {
        self.children.lock().nodes.get(&id).cloned()
    }

    /// The children in start order.
    pub(crate) fn children(&self) -> Vec<Arc<dyn Node>> {
        self.children.lock().nodes.values().cloned().collect()
    }

    fn child_count(&self) -> usize {
        self.children.lock().nodes.len()
    }

    /// Takes no more children; the ones there are, in start order.
    pub(crate) fn close(&self) -> Vec<Arc<dyn Node>> {
        let mut children = self.children.lock();
        children.closed = true;
        children.nodes.values().cloned().collect()
    }

    pub(crate) fn set_last_exit(&self, reason: &Arc<ExitReason>) {
        self.past.lock().last_exit = Some(Arc::clone(reason));
    }

    /// Counts a failure now; whether the supervisor may go on.
    pub(crate) fn survives_failure(&self) -> bool {
        let intensity = self.spec.intensity;
        self.past
            .lock()
            .failures
            .record(Instant::now(), intensity.restarts_max, intensity.within)
    }

    /// Leaves the tree.
    pub(crate) fn finish(&self, reason: &Arc<ExitReason>) {
        if let Some(parent) = self.parent() {
            parent.forget(self.id);
        }
        self.tree.emit(|| Event::Exited {
            id: self.id,
            name: Arc::from(&*self.name),
            reason: Arc::clone(reason),
            discarded: 0,
        });
    }

    /// This node and all below it, parents before children, each in start order.
    pub(crate) fn visit(self: &Arc<Self>, see: &mut dyn FnMut(NodeInfo)) {
        see(self.info());
        for node in self.children() {
            match Arc::clone(&node).as_supervisor() {
                Some(sup) => sup.visit(see),
                None => see(node.info()),
            }
        }
    }

    /// The first node of this subtree that satisfies `wanted`, actors before supervisors below.
    pub(crate) fn find(
        self: &Arc<Self>,
        wanted: &dyn Fn(&dyn Node) -> bool,
    ) -> Option<Arc<dyn Node>> {
        let mut below = Vec::new();
        {
            let children = self.children.lock();
            for node in children.nodes.values() {
                if wanted(&**node) {
                    return Some(Arc::clone(node));
                }
                if node.core().is_none() {
                    below.push(Arc::clone(node));
                }
            }
        }
        below
            .into_iter()
            .filter_map(Node::as_supervisor)
            .find_map(|sup| sup.find(wanted))
    }

    /// The node with this id: a look-up in each supervisor.
    pub(crate) fn find_id(&self, id: ActorId) -> Option<Arc<dyn Node>> {
        let below: Vec<_> = {
            let children = self.children.lock();
            if let Some(node) = children.nodes.get(&id) {
                return Some(Arc::clone(node));
            }
            children
                .nodes
                .values()
                .filter(|node| node.core().is_none())
                .cloned()
                .collect()
        };
        below
            .into_iter()
            .filter_map(Node::as_supervisor)
            .find_map(|sup| sup.find_id(id))
    }
}

impl Node for SupNode {
    fn id(&self) -> ActorId {
        self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn info(&self) -> NodeInfo {
        let restarts = self.restarts.load(Ordering::Relaxed);
        NodeInfo {
            id: self.id,
            parent: self.parent().map(|parent| parent.id),
            name: self.name.to_string(),
            kind: "supervisor",
            phase: Phase::Running.name(),
            strategy: Some(self.spec.strategy.name()),
            children: self.child_count(),
            generation: restarts.saturating_add(1),
            restarts,
            last_exit: self.past.lock().last_exit.as_ref().map(ToString::to_string),
            depth: 0,
            high_water: 0,
            capacity: 0,
            blocked_ms_total: 0,
            handled_total: 0,
            started_ms: self.started_ms,
            arbiter: None,
        }
    }

    fn core(&self) -> Option<&Core> {
        None
    }

    fn as_supervisor(self: Arc<Self>) -> Option<Arc<SupNode>> {
        Some(self)
    }

    // A supervisor is handled through its children.
    fn stop(&self, _reason: &Arc<ExitReason>) {}

    fn order(&self, _order: Order) {}

    fn abandon(&self) -> bool {
        false
    }

    fn unlink(&self, _other: ActorId) {}

    fn change_signals(&self, _change: &mut dyn FnMut(&mut Signals)) -> bool {
        false
    }
}

/// A handle to a supervisor.
#[derive(Clone)]
pub struct Supervisor {
    pub(crate) node: Arc<SupNode>,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("id", &self.id())
            .field("name", &self.name())
            .finish()
    }
}

impl Supervisor {
    pub(crate) fn from_node(node: Arc<SupNode>) -> Self {
        Self { node }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> ActorId {
        self.node.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// Its children, supervisors included.
    #[must_use]
    pub fn child_count(&self) -> usize {
        self.node.child_count()
    }

    /// Starts a child on `arbiter`. `factory` runs there, for the first generation and for every later one.
    ///
    /// Returns at once: messages sent before the first generation runs wait in the inbox.
    pub fn start_child<A, F>(
        &self,
        spec: ChildSpec,
        arbiter: &ArbiterHandle,
        factory: F,
    ) -> Result<ActorRef<A>, StartError>
    where
        A: Supervised,
        F: FnMut(&StartInfo) -> A + Send + 'static,
    {
        let policy = spec.policy()?;
        let sup = &self.node;
        if sup.tree.is_closing() {
            return Err(StartError::ShuttingDown);
        }
        let cell = Arc::new(Cell::<A> {
            core: Core::new(
                sup.tree.next_id(),
                spec.name.into_boxed_str(),
                Arc::clone(sup),
                policy,
            ),
            inbox: Inbox::new(spec.inbox_capacity),
        });
        sup.adopt(cell.clone())?;
        let launch = Launch::new(Arc::clone(&cell), Box::new(factory));
        // A refused launch is dropped, and that ends the actor.
        if !arbiter.spawn_fn(move || launch.go()) {
            return Err(StartError::ArbiterGone);
        }
        Ok(ActorRef { cell })
    }

    /// Adds a supervisor below this one.
    pub fn start_supervisor(&self, spec: SupervisorSpec) -> Result<Self, StartError> {
        if spec.name.is_empty() || spec.name.len() > NAME_BYTES_MAX {
            return Err(StartError::BadSpec("a name is 1 to 256 bytes"));
        }
        if spec.intensity.restarts_max > RESTARTS_MAX {
            return Err(StartError::BadSpec("restarts_max is at most 65,536"));
        }
        let node = SupNode::new(
            Arc::clone(&self.node.tree),
            Arc::downgrade(&self.node),
            spec,
        );
        self.node.adopt(node.clone())?;
        Ok(Self { node })
    }

    /// Stops everything below this supervisor in reverse start order and takes it out of the tree.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        let sup = Arc::clone(&self.node);
        self.node.tree.on_keeper(shut_down(sup, deadline)).await
    }
}
