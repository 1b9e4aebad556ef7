//! Starting: descriptors, data directory, store, broker, edge, admin API, in
//! this order, so that whoever can connect finds everything behind it ready.

use std::num::NonZero;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::{Arbiter, ArbiterHandle};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use stonechat_actors::{Tree, TreeConfig};
use stonechat_broker::{Broker, SinkHandle, commit_sink};
use stonechat_gateway::admin::{self, AdminParts, AdminTokens, RunningAdmin, Secret};
use stonechat_gateway::auth::Authenticator;
use stonechat_gateway::edge::{Edge, RunningEdge};
use stonechat_gateway::events::Events;
use stonechat_mailbox::{JournalStore, Store};

use super::View;
use super::control::Control;
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::node_file::NodeFile;
use crate::traces::Traces;

/// Time for what had started already when a later part could not.
const CLEANUP_DEADLINE: Duration = Duration::from_secs(2);

/// Buckets of histograms of times: a data sync takes 0.1 ms on a good disk and a second on one in
/// trouble. Fixed buckets, unlike quantiles made here, can be added up over time and over nodes.
const SECONDS_BUCKETS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0,
];

/// Buckets of histograms of numbers of messages.
const MESSAGES_BUCKETS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, 4_096.0, 16_384.0];

/// All parts of the running server.
pub(super) struct Node {
    pub(super) store: Arc<dyn Store>,
    pub(super) sink: SinkHandle,
    pub(super) tree: Tree,
    pub(super) broker: Broker,
    pub(super) edge: Arc<RunningEdge>,
    pub(super) admin: RunningAdmin,
    pub(super) metrics: PrometheusHandle,
    /// When there is somewhere to export them to.
    pub(super) traces: Option<Traces>,
    /// Threads of the broker's actors.
    pub(super) arbiters: Vec<Arbiter>,
    tls: bool,
}

impl Node {
    /// Where it can be reached.
    pub(super) fn node_file(&self) -> NodeFile {
        NodeFile {
            pid: std::process::id(),
            listen: self.edge.local_addr(),
            admin_listen: self.admin.local_addr(),
            tls: self.tls,
            admin_tls: self.admin.has_tls(),
        }
    }
}

pub(super) async fn start(settings: &Settings, control: Arc<Control>) -> Result<Node, Failure> {
    raise_descriptor_limit();
    make_data_dir(settings.data_dir())?;
    // Before anything takes a handle to a counter.
    let metrics = recorder().map_err(|error| Failure::new(Exit::Software, error))?;
    let traces = Traces::start(settings)?;

    let (commits, sink) = commit_sink();
    let store: Arc<dyn Store> = JournalStore::open(settings.store(), commits)?;
    let tree = Tree::try_new(TreeConfig::default())
        .map_err(|error| Failure::new(Exit::Software, error))?;
    let started = start_on(
        settings,
        control,
        Arc::clone(&store),
        sink,
        tree.clone(),
        (metrics, traces),
    )
    .await;
    if started.is_err() {
        // In order, or the next start would have to repair what this one merely opened.
        tree.shutdown(CLEANUP_DEADLINE).await;
        if let Err(error) = store.close().await {
            tracing::warn!(%error, "the store did not close in order");
        }
    }
    started
}

/// What counts; from then on everything that counts is exposed.
fn recorder() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_messages".to_owned()), MESSAGES_BUCKETS)?
        .install_recorder()
}

/// Everything that stands on the store.
async fn start_on(
    settings: &Settings,
    control: Arc<Control>,
    store: Arc<dyn Store>,
    sink: SinkHandle,
    tree: Tree,
    (metrics, traces): (PrometheusHandle, Option<Traces>),
) -> Result<Node, Failure> {
    let secret = Secret::load_or_create(settings.data_dir())?;
    let tokens = AdminTokens::open(Arc::clone(&store)).await?;
    let auth = Authenticator::open(Arc::clone(&store), settings.auth()).await?;
    let arbiters: Vec<Arbiter> = (0..threads(settings)).map(|_| Arbiter::new()).collect();
    let handles: Vec<ArbiterHandle> = arbiters.iter().map(Arbiter::handle).collect();
    let broker = Broker::start(
        settings.broker(),
        Arc::clone(&store),
        &sink,
        tree.clone(),
        &handles,
    )
    .map_err(|error| Failure::new(Exit::Software, error))?;

    let edge = Edge::start(settings.edge(), broker.clone(), auth.clone(), &tree)?;
    let edge = Arc::new(edge);
    if let Some(traces) = &traces {
        edge.trace_with(traces.tracer());
    }
    let events = Events::new();
    edge.report_to(events.clone());
    let parts = AdminParts {
        broker: broker.clone(),
        auth,
        edge: Arc::new(View(Arc::clone(&edge))),
        metrics: metrics.clone(),
        secret,
        tokens,
        events,
        control,
        data_dir: settings.data_dir().to_owned(),
        version: env!("CARGO_PKG_VERSION"),
    };
    let admin = match admin::start(&settings.admin(), parts, &tree) {
        Ok(admin) => admin,
        Err(error) => {
            edge.stop(Duration::ZERO).await;
            return Err(error.into());
        }
    };
    Ok(Node {
        store,
        sink,
        tree,
        broker,
        edge,
        admin,
        metrics,
        traces,
        arbiters,
        tls: settings.server.tls_cert.is_some(),
    })
}

fn threads(settings: &Settings) -> usize {
    match usize::try_from(settings.server.workers) {
        Ok(0) | Err(_) => std::thread::available_parallelism().map_or(1, NonZero::get),
        Ok(workers) => workers,
    }
}

/// As many descriptors as the system allows: each connection takes one.
fn raise_descriptor_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "file descriptors"),
        Err(error) => tracing::warn!(%error, "the file descriptor limit stays as it is"),
    }
}

fn make_data_dir(path: &Path) -> Result<(), Failure> {
    if let Ok(metadata) = std::fs::metadata(path)
        && metadata.is_dir()
    {
        if metadata.permissions().mode() & 0o077 != 0 {
            let path = path.display();
            tracing::warn!(%path, "others on this machine can look into the data directory; chmod 700 it");
        }
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| {
            Failure::io(
                format_args!("the data directory {}", path.display()),
                &error,
            )
        })
}
