//! The root of everything supervised in a process, and what can be asked of it.
//!
//! A tree has one thread of its own, the keeper: it restarts groups, keeps deadlines and samples the
//! watchdog, and is the one place that works on when every arbiter is blocked. Actors never run there.

use std::{
    future::Future,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{broadcast, mpsc, oneshot, watch},
    time::timeout,
};
use tracing::{error, warn};

use crate::{
    ActorId,
    cell::{Core, unix_ms},
    error::{InspectError, StartError, TreeError},
    faults::Faults,
    group::{Op, ShutdownReport, keep, shut_down},
    observe::{
        Counters, CrashAlarm, CrashLog, CrashRecord, EVENTS_BUFFERED, Event, NodeInfo, Totals,
    },
    panics::install_hook,
    reason::ExitReason,
    signal::INSPECTIONS_MAX,
    spec::{Strategy, SupervisorSpec},
    supervisor::{SupNode, Supervisor},
    watchdog::{Pulse, of_this_thread, watch as watch_pulses},
};

/// What the crash-rate alarm calls.
pub type OnAlarm = Arc<dyn Fn(CrashAlarm) + Send + Sync>;

/// How a tree is set up.
#[derive(Clone)]
pub struct TreeConfig {
    /// The root supervisor's name.
    pub name: String,
    /// The root supervisor's strategy.
    pub strategy: Strategy,
    /// More panics than this within `alarm_within`, over all actors and tasks, raise the alarm.
    pub alarm_panics_max: usize,
    /// The alarm's window.
    pub alarm_within: Duration,
    /// Called when the alarm goes off, on the thread that saw the last panic. Keep it short.
    pub on_alarm: Option<OnAlarm>,
    /// A turn that holds its arbiter for longer than this is reported.
    pub stall_after: Duration,
}

impl Default for TreeConfig {
    /// Root `root`, one-for-one; alarm at more than 50 panics in 10 s; stalls from 500 ms.
    fn default() -> Self {
        Self {
            name: "root".to_owned(),
            strategy: Strategy::OneForOne,
            alarm_panics_max: 50,
            alarm_within: Duration::from_secs(10),
            on_alarm: None,
            stall_after: Duration::from_millis(500),
        }
    }
}

/// What all nodes of a tree share.
pub(crate) struct TreeShared {
    number: u64,
    pub(crate) totals: Counters,
    pub(crate) pulses: Mutex<Vec<Arc<Pulse>>>,
    /// Names of the threads actors have lived on, by the pulse's number less one.
    threads: Mutex<Vec<Arc<str>>>,
    events: broadcast::Sender<Event>,
    crashes: Mutex<CrashLog>,
    on_alarm: Option<OnAlarm>,
    closing: AtomicBool,
    id_next: AtomicU64,
    ops: mpsc::UnboundedSender<Op>,
    keeper: Handle,
    root: OnceLock<Weak<SupNode>>,
    failed: watch::Sender<Option<Arc<ExitReason>>>,
    pub(crate) faults: Faults,
}

impl TreeShared {
    pub(crate) fn next_id(&self) -> ActorId {
        ActorId(self.id_next.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(crate) fn request(&self, op: Op) {
        // The keeper outlives the tree, and whoever asks holds the tree.
        let _ = self.ops.send(op);
    }

    /// Runs on the keeper's thread, which no actor can block.
    pub(crate) async fn on_keeper<T: Send + 'static + Default>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        self.keeper.spawn(work).await.unwrap_or_default()
    }

    /// Publishes an event; makes it only if somebody listens.
    pub(crate) fn emit(&self, event: impl FnOnce() -> Event) {
        if self.events.receiver_count() > 0 {
            let _ = self.events.send(event());
        }
    }

    pub(crate) fn pulse(&self) -> Arc<Pulse> {
        let (pulse, new) = of_this_thread(self.number);
        if new {
            let mut threads = self.threads.lock();
            threads.push(Arc::clone(&pulse.thread));
            let number = u32::try_from(threads.len()).unwrap_or(0);
            pulse.number.store(number, Ordering::Relaxed);
            self.pulses.lock().push(Arc::clone(&pulse));
        }
        pulse
    }

    /// The name of the thread with this number.
    pub(crate) fn thread(&self, number: u32) -> Option<Arc<str>> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.threads.lock().get(index).cloned()
    }

    pub(crate) fn name_of(&self, id: ActorId) -> Arc<str> {
        self.root
            .get()
            .and_then(Weak::upgrade)
            .and_then(|root| root.find_id(id))
            .map_or_else(|| Arc::from("a task"), |node| Arc::from(node.name()))
    }

    pub(crate) fn count_exit(&self, reason: &ExitReason) {
        self.totals.exited.fetch_add(1, Ordering::Relaxed);
        match reason {
            ExitReason::Abandoned => self.totals.abandoned.fetch_add(1, Ordering::Relaxed),
            ExitReason::IntensityExceeded { .. } => self
                .totals
                .intensity_exceeded
                .fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }

    pub(crate) fn record_crash(&self, core: &Core, kind: &'static str, reason: &Arc<ExitReason>) {
        let generation = core.generation.load(Ordering::Relaxed);
        warn!(actor = &*core.name, id = core.id.0, kind, generation, %reason, "actor panicked");
        self.keep_crash(CrashRecord {
            id: Some(core.id),
            name: Arc::from(&*core.name),
            kind,
            generation,
            at_ms: unix_ms(),
            reason: Arc::clone(reason),
        });
    }

    pub(crate) fn record_task_crash(&self, name: &str, reason: &Arc<ExitReason>) {
        warn!(task = name, %reason, "task panicked");
        let name: Arc<str> = Arc::from(name);
        self.keep_crash(CrashRecord {
            id: None,
            name: Arc::clone(&name),
            kind: "task",
            generation: 1,
            at_ms: unix_ms(),
            reason: Arc::clone(reason),
        });
        self.emit(|| Event::TaskPanicked {
            name,
            reason: Arc::clone(reason),
        });
    }

    fn keep_crash(&self, crash: CrashRecord) {
        self.totals.panics.fetch_add(1, Ordering::Relaxed);
        self.emit(|| Event::Crashed(crash.clone()));
        let alarm = self.crashes.lock().add(crash);
        if let Some(alarm) = alarm {
            self.totals.alarms.fetch_add(1, Ordering::Relaxed);
            error!(panics = alarm.panics, within = ?alarm.within, "crash rate too high: look at the recent crashes");
            self.emit(|| Event::Alarm(alarm));
            if let Some(on_alarm) = &self.on_alarm
                && let Err(reason) = crate::panics::guard("alarm", || on_alarm(alarm))
            {
                error!(%reason, "the crash alarm's own callback panicked");
            }
        }
    }

    /// A failure reached the root. The first one counts.
    pub(crate) fn fail(&self, reason: &Arc<ExitReason>) {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            if first {
                *failed = Some(Arc::clone(reason));
            }
            first
        });
        self.emit(|| Event::RootFailed {
            reason: Arc::clone(reason),
        });
    }
}

/// The tree of everything supervised. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Tree {
    pub(crate) shared: Arc<TreeShared>,
    root: Arc<SupNode>,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree")
            .field("root", &&*self.root.name)
            .finish_non_exhaustive()
    }
}

/// Room for formatting a log line with a deep error in it; the keeper's own frames are shallow.
const KEEPER_STACK_BYTES: usize = 512 * 1024;

impl Tree {
    /// Makes a tree with an empty root supervisor.
    ///
    /// # Panics
    /// When the keeper's thread cannot be started. [`Tree::try_new`] returns that instead.
    #[must_use]
    pub fn new(config: TreeConfig) -> Self {
        match Self::try_new(config) {
            Ok(tree) => tree,
            Err(refused) => panic!("{refused}"),
        }
    }

    /// Makes a tree with an empty root supervisor.
    pub fn try_new(config: TreeConfig) -> Result<Self, TreeError> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        install_hook();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let (ops, ops_rx) = mpsc::unbounded_channel();
        let shared = Arc::new(TreeShared {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            totals: Counters::default(),
            pulses: Mutex::new(Vec::new()),
            threads: Mutex::new(Vec::new()),
            events: broadcast::Sender::new(EVENTS_BUFFERED),
            crashes: Mutex::new(CrashLog::new(config.alarm_panics_max, config.alarm_within)),
            on_alarm: config.on_alarm,
            closing: AtomicBool::new(false),
            id_next: AtomicU64::new(1),
            ops,
            keeper: runtime.handle().clone(),
            root: OnceLock::new(),
            failed: watch::Sender::new(None),
            faults: Faults::default(),
        });
        let watched = Arc::downgrade(&shared);
        let stall_after = config.stall_after;
        std::thread::Builder::new()
            .name("actors-keeper".to_owned())
            .stack_size(KEEPER_STACK_BYTES)
            .spawn(move || {
                runtime.block_on(async move {
                    tokio::spawn(watch_pulses(watched, stall_after));
                    keep(ops_rx).await;
                });
            })?;
        let root = SupNode::new(
            Arc::clone(&shared),
            Weak::new(),
            SupervisorSpec::new(config.name, config.strategy),
        );
        // Set once, right here.
        let _ = shared.root.set(Arc::downgrade(&root));
        Ok(Self { shared, root })
    }

    /// The root supervisor.
    #[must_use]
    pub fn root(&self) -> Supervisor {
        Supervisor::from_node(Arc::clone(&self.root))
    }

    /// Adds a supervisor with default limits below `parent`; [`Supervisor::start_supervisor`] takes all of them.
    pub fn supervisor(
        &self,
        parent: &Supervisor,
        name: impl Into<String>,
        strategy: Strategy,
    ) -> Result<Supervisor, StartError> {
        parent.start_supervisor(SupervisorSpec::new(name, strategy))
    }

    /// Every node now, parents before children, children in start order. Costs a pass over all actors.
    #[must_use]
    pub fn snapshot(&self) -> Vec<NodeInfo> {
        let mut nodes = Vec::new();
        self.visit(|node| nodes.push(node));
        nodes
    }

    /// Shows every node now, in the order of [`Tree::snapshot`], and keeps none of them.
    pub fn visit(&self, mut see: impl FnMut(NodeInfo)) {
        self.root.visit(&mut see);
    }

    /// One live node by id.
    #[must_use]
    pub fn info(&self, id: ActorId) -> Option<NodeInfo> {
        Some(self.root.find_id(id)?.info())
    }

    /// The first live node with this name. For people: it looks at every actor.
    #[must_use]
    pub fn find_by_name(&self, name: &str) -> Option<NodeInfo> {
        Some(self.root.find(&|node| node.name() == name)?.info())
    }

    /// The state of one actor, as its `snapshot` tells it, between two of its messages.
    pub async fn inspect(
        &self,
        id: ActorId,
        deadline: Duration,
    ) -> Result<serde_json::Value, InspectError> {
        let node = self.root.find_id(id).ok_or(InspectError::NotFound)?;
        let (tx, rx) = oneshot::channel();
        let mut tx = Some(tx);
        let asked = node.change_signals(&mut |signals| {
            signals.inspections.retain(|waiting| !waiting.is_closed());
            if signals.inspections.len() < INSPECTIONS_MAX {
                signals.inspections.extend(tx.take());
            }
        });
        if !asked {
            return Err(InspectError::Gone);
        }
        if tx.is_some() {
            return Err(InspectError::Busy);
        }
        drop(node);
        match timeout(deadline, rx).await {
            Ok(Ok(state)) => Ok(state),
            Ok(Err(_dropped)) => Err(InspectError::Gone),
            Err(_elapsed) => Err(InspectError::Timeout),
        }
    }

    /// What happens from now on. A subscriber that falls more than [`EVENTS_BUFFERED`] behind is told how
    /// many it missed.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// The last crashes, oldest first, at most [`crate::CRASHES_KEPT`].
    #[must_use]
    pub fn recent_crashes(&self) -> Vec<CrashRecord> {
        self.shared.crashes.lock().kept()
    }

    /// Running totals.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.totals.read()
    }

    /// Whether a shutdown has begun.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.shared.is_closing()
    }

    /// Waits until a failure reaches the root. The program should then shut down and exit non-zero.
    pub async fn failed(&self) -> Arc<ExitReason> {
        let mut failed = self.shared.failed.subscribe();
        loop {
            if let Some(reason) = failed.borrow_and_update().clone() {
                return reason;
            }
            if failed.changed().await.is_err() {
                // The sender lives in this very tree.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Stops everything in reverse start order, each child by its own deadline, all of them by `deadline`.
    ///
    /// Whoever has not stopped by then is abandoned and named in the report; the report comes in time even
    /// if an arbiter is blocked, unless it is the one that waits for it.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        self.shared.closing.store(true, Ordering::Release);
        self.shared
            .on_keeper(shut_down(Arc::clone(&self.root), deadline))
            .await
    }
}
