//! The WebSocket edge: accepts sockets, turns upgrade requests into
//! connections, and connections into inputs for the broker.
//!
//! A socket goes through actix-server's accept thread to a worker, through
//! actix-http's HTTP/1.1 dispatcher until the upgrade request is there
//! (`service`, `handshake`, `origin`, `tls`), and is then a task of its own
//! (`connection`) that reads (`frame`) and writes (`frame_out`) WebSocket frames
//! over the bare socket. Nothing here decides who receives what.
//!
//! **Architecture invariant:** a connection holds no message for longer than
//! it takes to hand it on; whatever is lost with it is in the mailbox, or was
//! never accepted.

mod backend;
mod config;
mod connection;
mod figures;
mod frame;
mod frame_out;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handshake;
mod latency;
mod origin;
mod peers;
mod service;
mod shared;
#[cfg(test)]
mod tests;
mod tls;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_rt::net::TcpSocket;
use actix_server::{Server, ServerHandle};
use stonechat_actors::Tree;
use stonechat_broker::Broker;
use stonechat_protocol::UserId;
use tokio::sync::watch;
use tracing::{debug, error, info};

pub use self::config::{EdgeConfig, TlsFiles};
pub use self::latency::SendLatencies;

use self::backend::{Backend, Node};
use self::config::Room;
use self::service::Parts;
use self::shared::Shared;
use self::tls::{Acceptor, Certificate};
use crate::auth::Authenticator;
use crate::events::Events;

/// Connections the kernel may complete before they are accepted.
const BACKLOG: u32 = 4096;

/// When the workers stop, requests that were not upgraded get this long, in seconds.
const STOP_S: u64 = 1;

/// How long connections may take to say goodbye before the workers stop.
const LAST_WORDS: Duration = Duration::from_millis(1_500);

/// Why the edge could not be started, or its certificate not be read.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// A setting is out of bounds.
    #[error("{key}: {problem}")]
    Config {
        /// The setting.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Another process listens on the address already.
    #[error("{0} is in use by another process; stop that one or listen on another address")]
    AddressInUse(SocketAddr),
    /// Another reason not to listen.
    #[error(
        "cannot listen on {address}: {source}; choose an address and port this machine and user may use"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Certificate or key are no good. The certificate in use, if any, stays in use.
    #[error("TLS: {}: {problem}; both files have to be readable PEM and belong together", file.display())]
    Tls {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// Starts edges.
#[derive(Debug, Clone, Copy)]
pub struct Edge;

impl Edge {
    /// Listens. Has to be called on an arbiter of an actix system: the workers become
    /// arbiters of the same system, and connections and sessions live on them.
    ///
    /// # Errors
    /// [`EdgeError`], and then nothing was started.
    pub fn start(
        config: EdgeConfig,
        broker: Broker,
        auth: Authenticator,
        tree: &Tree,
    ) -> Result<RunningEdge, EdgeError> {
        start(config, Node { broker, auth }, tree)
    }
}

fn start<B: Backend>(
    config: EdgeConfig,
    backend: B,
    tree: &Tree,
) -> Result<RunningEdge, EdgeError> {
    config.check()?;
    let certificate = config.tls.clone().map(Certificate::load).transpose()?;
    let encryption = certificate
        .as_ref()
        .map(Certificate::server_config)
        .transpose()?
        .map(|tls| {
            let deadline = Duration::from_millis(config.request_deadline_ms);
            Acceptor::new(tls, deadline)
        });
    let mut listeners = Vec::with_capacity(config.listen.len());
    let mut addresses = Vec::with_capacity(config.listen.len());
    for &address in &config.listen {
        let (listener, bound) = listen(address).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => EdgeError::AddressInUse(address),
            _ => EdgeError::Listen { address, source },
        })?;
        listeners.push((address, listener));
        addresses.push(bound);
    }
    let room = Room::within(descriptors_max(), config.connections_max);
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let workers = config.workers.unwrap_or(processors).min(512);
    info!(
        ?addresses,
        tls = certificate.is_some(),
        workers,
        room.connections_max,
        "listening"
    );

    let watch_ms = config.tls_watch_ms;
    let shared = Arc::new(Shared::new(config, backend, room.connections_max));
    let parts = Parts {
        shared: Arc::clone(&shared),
        tree: tree.clone(),
    };
    let mut builder = Server::build()
        .workers(workers)
        .max_concurrent_connections(room.requests_max.div_ceil(workers).max(16))
        .shutdown_timeout(STOP_S)
        .disable_signals();
    for (address, listener) in listeners {
        let parts = parts.clone();
        let added = match encryption.clone() {
            Some(tls) => builder.listen("edge", listener, move || {
                service::encrypted(parts.clone(), tls.clone())
            }),
            None => builder.listen("edge", listener, move || service::plain(parts.clone())),
        };
        builder = added.map_err(|source| EdgeError::Listen { address, source })?;
    }
    let server = builder.run();
    let handle = server.handle();
    if let Some(certificate) = &certificate {
        let every = (watch_ms > 0).then(|| Duration::from_millis(watch_ms));
        tree.spawn_task(
            "certificate watch",
            tls::watch(Arc::clone(certificate), every),
        );
    }
    let (ended, stopped) = watch::channel(false);
    tree.spawn_task("edge server", async move {
        match server.await {
            Ok(()) => debug!("the edge's workers have stopped"),
            Err(error) => error!(%error, "the edge stopped; restart the server"),
        }
        let _ = ended.send(true);
    });
    Ok(RunningEdge {
        addresses,
        certificate,
        control: shared,
        server: handle,
        stopped,
    })
}

fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restart need not wait for old connections to fade.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?.into_std()?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

/// The process's limit of open files.
fn descriptors_max() -> usize {
    match rlimit::Resource::NOFILE.get() {
        Ok((soft, _)) => usize::try_from(soft).unwrap_or(usize::MAX),
        // What POSIX guarantees is hardly a server; 1024 is the usual limit.
        Err(_) => 1024,
    }
}

/// What a running edge lets be done with its connections, whatever their backend.
trait Control: Send + Sync {
    fn connections(&self) -> usize;
    fn connections_max(&self) -> usize;
    fn send_latencies(&self) -> SendLatencies;
    fn is_stopping(&self) -> bool;
    fn start_draining(&self);
    fn report_to(&self, events: Events);
    fn inject_panic(&self, user: Option<UserId>) -> usize;
}

impl<B: Backend> Control for Shared<B> {
    fn connections(&self) -> usize {
        self.connections()
    }

    fn connections_max(&self) -> usize {
        self.connections_max()
    }

    fn send_latencies(&self) -> SendLatencies {
        self.latencies.read()
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping()
    }

    fn start_draining(&self) {
        self.start_draining();
    }

    fn report_to(&self, events: Events) {
        self.report_to(events);
    }

    fn inject_panic(&self, user: Option<UserId>) -> usize {
        let count = match &user {
            Some(user) => self.backend.connections_of(user),
            None => self.connections().min(1),
        };
        self.fault.arm(user, count);
        count
    }
}

/// A running edge. Dropping it changes nothing: it goes on until stopped.
pub struct RunningEdge {
    addresses: Vec<SocketAddr>,
    certificate: Option<Arc<Certificate>>,
    control: Arc<dyn Control>,
    server: ServerHandle,
    stopped: watch::Receiver<bool>,
}

impl RunningEdge {
    /// The first address it listens on, with the port the system chose if it was to.
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All addresses it listens on.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Connections at the moment.
    pub fn connections(&self) -> usize {
        self.control.connections()
    }

    /// Connections there may be.
    pub fn connections_max(&self) -> usize {
        self.control.connections_max()
    }

    /// How long sends waited for their `accepted`, since the start.
    pub fn send_latencies(&self) -> SendLatencies {
        self.control.send_latencies()
    }

    /// It is being stopped and takes no more connections, for good.
    pub fn is_stopping(&self) -> bool {
        self.control.is_stopping()
    }

    /// Tells `events` of connections, limits and refused sign-ins from now on.
    pub fn report_to(&self, events: Events) {
        self.control.report_to(events);
    }

    /// Reads the certificate again, for new connections, and logs what came of it; false when
    /// there is none to read.
    ///
    /// # Errors
    /// [`EdgeError::Tls`]; the certificate in use stays in use.
    pub fn reload_tls(&self) -> Result<bool, EdgeError> {
        let Some(certificate) = &self.certificate else {
            return Ok(false);
        };
        let outcome = certificate.reload();
        tls::tell_reload(&outcome);
        outcome.map(|()| true)
    }

    /// Refuses upgrades from now on, with 503 and `Retry-After`. Connections stay: closing
    /// them is the broker's `drain`, which tells them why.
    pub async fn stop_accepting(&self) {
        self.control.start_draining();
    }

    /// Closes the listeners and stops the workers, and with them what still lives on their
    /// arbiters: connections and sessions. So it comes last.
    ///
    /// Connections that have something left to say get `patience` for it.
    pub async fn stop(&self, patience: Duration) {
        self.control.start_draining();
        // Who has no session is told by its own connection; give that time to happen.
        let told = Instant::now() + patience.min(LAST_WORDS);
        while self.connections() > 0 && Instant::now() < told {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.server.stop(true).await;
        self.stopped().await;
    }

    /// Completes when the edge has stopped, by itself or by [`RunningEdge::stop`].
    pub async fn stopped(&self) {
        // An error means the task that reports it is gone, so it has stopped all the same.
        let _ = self.stopped.clone().wait_for(|stopped| *stopped).await;
    }

    /// Makes each connection of `user` (one of anyone's) panic when it is woken next; returns
    /// how many that will be. For tests of isolation, behind the operator's switch.
    pub fn inject_connection_panic(&self, user: Option<UserId>) -> usize {
        self.control.inject_panic(user)
    }
}

impl std::fmt::Debug for RunningEdge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningEdge")
            .field("addresses", &self.addresses)
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}
