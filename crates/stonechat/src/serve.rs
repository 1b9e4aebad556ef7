//! `stonechat serve`: starts the parts in order, waits for a reason to end, and
//! stops them in the opposite order within a deadline.

mod control;
mod drain;
mod parent;
mod signals;
mod start;

use std::sync::Arc;
use std::time::Duration;

use stonechat_gateway::admin::EdgeView;
use stonechat_gateway::edge::{RunningEdge, SendLatencies};
use stonechat_protocol::UserId;

use crate::banner;
use crate::cli::{ConfigArgs, ServeArgs};
use crate::config::{LogFormat, Settings};
use crate::exit::{Exit, Failure};
use crate::logging::{self, LogControl};
use crate::node_file::NodeFile;
use control::Control;
use signals::{Signal, Signals};
use start::Node;

/// How often metrics are tidied up, so that they stay bounded when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(10);

/// Why the server ends.
enum End {
    /// It was asked to.
    Asked,
    /// The store failed; what it said.
    Store(String),
    /// The supervision tree gave up.
    Tree(String),
}

/// Runs the server until it ends.
pub(crate) fn run(config_args: &ConfigArgs, args: &ServeArgs) -> Result<(), Failure> {
    let config = config_args.load(args.overrides())?;
    let settings = config.settings.clone();
    let log = logging::start(settings.log.format, &settings.log.filter);
    if args.exit_with_parent {
        parent::watch()?;
    }
    let control = Arc::new(Control::new(&config, log.clone()));
    let serving = Serving {
        config_args: config_args.clone(),
        args: args.clone(),
        settings,
        log,
        control,
    };
    actix_rt::System::new().block_on(serving.run())
}

struct Serving {
    config_args: ConfigArgs,
    args: ServeArgs,
    settings: Settings,
    log: LogControl,
    control: Arc<Control>,
}

impl Serving {
    async fn run(self) -> Result<(), Failure> {
        let node = start::start(&self.settings, Arc::clone(&self.control)).await?;
        // Not before: during a long recovery a signal ends the process at once, which is safe
        // and what whoever sent it wants.
        let mut signals = Signals::new()?;
        let data_dir = self.settings.data_dir();
        let node_file = node.node_file();
        node_file
            .write(data_dir)
            .map_err(|error| Failure::io("node.json in the data directory", &error))?;
        self.announce(&node_file);

        let end = self.wait(&node, &mut signals).await;
        let result = drain::drain(&self.settings, &node, &end, &mut signals).await;
        NodeFile::remove(data_dir);
        match end {
            End::Asked => result,
            End::Store(error) => Err(Failure::new(Exit::Io, error)),
            End::Tree(reason) => Err(Failure::new(
                Exit::Software,
                format!("too many crashes: {reason}; the log has them, start again"),
            )),
        }
    }

    fn announce(&self, node: &NodeFile) {
        if self.settings.log.format == LogFormat::Human {
            let program = std::env::args()
                .next()
                .unwrap_or_else(|| "stonechat".to_owned());
            eprintln!(
                "{}",
                banner::banner(&program, &self.config_args, &self.settings, node)
            );
        }
        tracing::info!(
            listen = %node.listen,
            admin_listen = %node.admin_listen,
            tls = node.tls,
            admin_tls = node.admin_tls,
            data_dir = %self.settings.data_dir().display(),
            version = env!("CARGO_PKG_VERSION"),
            "ready"
        );
    }

    /// Waits for a reason to end, and does what comes up meanwhile.
    async fn wait(&self, node: &Node, signals: &mut Signals) -> End {
        let mut upkeep = tokio::time::interval(UPKEEP);
        let store_failed = node.sink.failed();
        let tree_failed = node.tree.failed();
        tokio::pin!(store_failed, tree_failed);
        loop {
            tokio::select! {
                error = &mut store_failed => {
                    tracing::error!(error, "the store failed: stopping; check the disk, then start again");
                    return End::Store(error);
                }
                reason = &mut tree_failed => {
                    tracing::error!(%reason, "supervision gave up: stopping; start again");
                    return End::Tree(reason.to_string());
                }
                () = node.edge.stopped() => {
                    tracing::error!("the listener for clients ended: stopping; start again");
                    return End::Tree("the listener for clients ended".to_owned());
                }
                signal = signals.next() => match signal {
                    Signal::End { name, .. } => {
                        tracing::info!(signal = name, "stopping");
                        return End::Asked;
                    }
                    Signal::Reload => self.reload(node),
                },
                _ = upkeep.tick() => node.metrics.run_upkeep(),
            }
        }
    }

    /// SIGHUP: certificates and log filter. Everything else needs a restart.
    fn reload(&self, node: &Node) {
        // They say what came of it; the certificate in use stays if nothing did.
        let _ = node.edge.reload_tls();
        let _ = node.admin.reload_tls();
        let filter = self
            .config_args
            .load(self.args.overrides())
            .map_err(|error| error.to_string())
            .map(|config| config.settings.log.filter);
        match filter.and_then(|filter| self.log.set(&filter).map(|()| filter)) {
            Ok(filter) => tracing::info!(filter, "configuration read again: log filter set"),
            Err(error) => tracing::error!(error, "the log filter stays as it was"),
        }
    }
}

/// The edge as the admin API sees it.
struct View(Arc<RunningEdge>);

impl EdgeView for View {
    fn connections(&self) -> u64 {
        self.0.connections() as u64
    }

    fn connections_max(&self) -> u64 {
        self.0.connections_max() as u64
    }

    fn send_latencies(&self) -> SendLatencies {
        self.0.send_latencies()
    }

    fn is_stopping(&self) -> bool {
        self.0.is_stopping()
    }

    fn inject_connection_panic(&self, user: Option<UserId>) -> usize {
        self.0.inject_connection_panic(user)
    }
}
