//! The admin API: users, tokens, dead letters, the node, health and metrics,
//! on a listener of its own.
//!
//! For the loopback interface, or with TLS. Everything under `/admin/v1` asks for the
//! secret in `<data-dir>/admin.secret` or an admin token; health and metrics do
//! not. Each handler is behind the guard, which knows who may call it
//! (`operation`, `guard`). It decides nothing about delivery.

mod access;
mod actor_tree;
mod actor_view;
mod actors;
mod assets;
mod audit;
mod backups;
mod body;
mod caller;
mod control;
mod crashes;
mod dead_letters;
#[allow(
    unused_qualifications,
    reason = "written by the macro that describes paths"
)]
mod directory;
mod docs_page;
mod events;
mod exposition;
mod guard;
mod history;
mod issued_tokens;
mod ledger;
mod log_filter;
#[allow(
    unused_qualifications,
    reason = "written by the macro that describes paths"
)]
mod mailboxes;
mod metrics;
mod node;
mod openapi;
mod operation;
mod portable;
mod problem;
mod process;
mod rates;
mod secret;
mod service_messages;
mod session;
mod sources;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;
mod users;

use std::any::Any;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant, SystemTime};

use ::metrics::{counter, describe_counter};
use actix_rt::net::TcpStream;
use actix_web::dev::ServerHandle;
use actix_web::http::header::{ALLOW, CONTENT_TYPE};
use actix_web::middleware::{Compress, ErrorHandlerResponse, ErrorHandlers};
use actix_web::{App, HttpServer, web};
use metrics_exporter_prometheus::PrometheusHandle;
use socket2::SockRef;
use stonechat_actors::Tree;
use stonechat_broker::Broker;
use stonechat_protocol::UserId;

use crate::auth::Authenticator;
use crate::edge::tls::Certificate;
use crate::edge::{EdgeError, SendLatencies, TlsFiles};
use crate::events::Events;
use crate::stopping;
use audit::Audit;
use caller::{Caller, Via};
pub use control::{Build, ConfigValue, NodeControl};
use guard::Failures;
use problem::Problem;
use rates::Rates;
pub use secret::{SECRET_FILE, Secret, SecretError};
use sources::Crashes;
pub use tokens::{AdminTokenError, AdminTokens};

/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Requests that may be under way at a time.
const CONNECTIONS_MAX: usize = 64;

/// Refusals of one credential that go into the audit log a second, for long.
const REFUSALS_PER_S: u32 = 1;
/// Time for a TLS handshake, and for the head of a request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// How long a client may leave what it is sent unread.
const STUCK: Duration = Duration::from_secs(30);

/// What the admin API needs to know of the edge.
pub trait EdgeView: Send + Sync + 'static {
    /// Connections at the moment.
    fn connections(&self) -> u64;
    /// Connections there may be.
    fn connections_max(&self) -> u64 {
        0
    }
    /// How long sends waited for their `accepted`, since the start.
    fn send_latencies(&self) -> SendLatencies {
        SendLatencies::default()
    }
    /// The node is being stopped: no new connections, for good.
    fn is_stopping(&self) -> bool {
        false
    }
    /// Makes connections of a user (or any one) panic; returns how many. For tests of supervision.
    fn inject_connection_panic(&self, user: Option<UserId>) -> usize;
}

/// Settings of the admin listener.
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Allows an address that is not loopback, although the secret and tokens cross the
    /// network in the clear then.
    pub insecure_listen: bool,
    /// Certificate; without one the listener speaks plain HTTP.
    pub tls: Option<TlsFiles>,
    /// How often its files are looked at, in milliseconds; 0: only when told to.
    pub tls_watch_ms: u64,
    /// Opens the endpoint that makes parts of the node panic.
    pub fault_injection: bool,
    /// Requests a second of one admin token for long; four times as many at once. The secret
    /// is not limited.
    pub requests_per_s: u32,
}

/// What the admin API serves.
pub struct AdminParts {
    /// The broker, with the store and the supervision tree behind it.
    pub broker: Broker,
    /// Tokens and accounts.
    pub auth: Authenticator,
    /// The edge.
    pub edge: Arc<dyn EdgeView>,
    /// Where counters are collected.
    pub metrics: PrometheusHandle,
    /// What requests must bring, unless they bring an admin token.
    pub secret: Secret,
    /// The admin tokens.
    pub tokens: AdminTokens,
    /// Where the audit log and the crashes are kept.
    pub data_dir: PathBuf,
    /// What happens on the node, told by the edge as well.
    pub events: Events,
    /// The program around it: configuration, log, build.
    pub control: Arc<dyn NodeControl>,
    /// Version of the program.
    pub version: &'static str,
}

/// Why the admin listener could not be started.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Not a loopback address.
    #[error(
        "the admin address {0} is not a loopback address: the admin secret and all tokens issued would cross the network in the clear; set admin.tls_cert and admin.tls_key, use 127.0.0.1, or set admin.insecure_listen = true to accept that"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be had.
    #[error(
        "the admin address {address} cannot be listened on: {source}; stop what uses it or choose another with --admin-listen"
    )]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its certificate or key are no good.
    #[error("the admin listener: {0}")]
    Tls(#[from] EdgeError),
}

/// A running admin listener.
pub struct RunningAdmin {
    address: SocketAddr,
    certificate: Option<Arc<Certificate>>,
    handle: ServerHandle,
}

impl RunningAdmin {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Whether it speaks TLS.
    pub fn has_tls(&self) -> bool {
        self.certificate.is_some()
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
        certificate.reload_and_tell().map(|()| true)
    }

    /// Stops it, requests under way included.
    pub async fn stop(&self) {
        // Not gracefully: that would wait for clients that merely keep a connection open.
        stopping::stop(&self.handle, false).await;
    }
}

/// What handlers see.
struct State {
    parts: AdminParts,
    fault_injection: bool,
    started: Instant,
    /// The same by the wall clock, for people.
    started_at: SystemTime,
    failures: Failures,
    rates: Rates,
    /// How often a credential's refusals go into the audit log.
    refusals: Rates,
    audit: Audit,
    backups: backups::Jobs,
    history: history::History,
    sessions: session::Sessions,
    crashes: Crashes,
    actor_rates: actor_view::Rates,
    drain: control::Drain,
    log_filter: log_filter::LogFilter,
    /// Streams of events that are open.
    streams: Arc<AtomicUsize>,
}

impl State {
    fn started_ms(&self) -> u64 {
        let since = self.started_at.duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }

    /// Whether whoever was let in before would be let in still.
    fn stands(&self, caller: &Caller) -> bool {
        match caller.via {
            Via::Secret => true,
            Via::Token => self.parts.tokens.is_good(&caller.id, now_ms()),
            Via::Cookie => session::stands(self, caller),
        }
    }
}

type Shared = web::Data<State>;

/// Starts the admin listener on a thread of its own.
///
/// # Errors
/// [`AdminError`]
pub fn start(
    config: &AdminConfig,
    parts: AdminParts,
    tree: &Tree,
) -> Result<RunningAdmin, AdminError> {
    let certificate = tls::load(config)?;
    if !config.listen.ip().is_loopback() && !config.insecure_listen && certificate.is_none() {
        return Err(AdminError::NotLoopback(config.listen));
    }
    let failed = |source| AdminError::Listen {
        address: config.listen,
        source,
    };
    let listener = TcpListener::bind(config.listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    describe();
    let state = state(parts, config);
    tree.spawn_task("admin-history", history::keep(state.clone()));
    sources::start(&state, tree);
    let server = HttpServer::new(move || {
        App::new()
            .wrap(ErrorHandlers::new().default_handler(as_problem))
            // For whoever takes it; what is to arrive piece by piece says that it is not for this.
            .wrap(Compress::default())
            .app_data(state.clone())
            .configure(routes)
    })
    .workers(1)
    .max_connections(CONNECTIONS_MAX)
    .client_request_timeout(REQUEST_DEADLINE)
    .tls_handshake_timeout(REQUEST_DEADLINE)
    .on_connect(|socket, _| give_up_on_the_stuck(socket))
    .disable_signals();
    let server = match &certificate {
        Some(certificate) => {
            tls::watch(certificate, config, tree);
            let settings = certificate.server_config()?;
            server.listen_rustls_0_23(listener, (*settings).clone())
        }
        None => server.listen(listener),
    };
    let server = server.map_err(failed)?.run();
    let handle = server.handle();
    tree.spawn_task("admin-http", async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the admin listener ended; restart the node to get it back");
        }
    });
    Ok(RunningAdmin {
        address,
        certificate,
        handle,
    })
}

/// Ends a connection whose client takes nothing of what it is sent for a while: a stream of events
/// would hold its place for ever, and connections are few.
fn give_up_on_the_stuck(socket: &dyn Any) {
    if let Some(socket) = socket.downcast_ref().or_else(|| tls::socket(socket)) {
        let socket: &TcpStream = socket;
        let set = SockRef::from(socket).set_tcp_user_timeout(Some(STUCK));
        if let Err(error) = set {
            tracing::debug!(%error, "the admin listener cannot limit how long a client is stuck");
        }
    }
}

/// Names what this module counts, so that it is told from the start.
fn describe() {
    describe_counter!(
        "stonechat_admin_unauthorized_total",
        "Requests to the admin API without a right credential"
    );
    counter!("stonechat_admin_unauthorized_total").increment(0);
    describe_counter!(
        "stonechat_admin_ledger_failures_total",
        "Lines of the audit log or of crashes that could not be written, by file"
    );
    for file in [audit::FILE, sources::FILE] {
        counter!("stonechat_admin_ledger_failures_total", "file" => file).increment(0);
    }
    describe_counter!(
        "stonechat_events_dropped_total",
        "Events a slow reader missed"
    );
    counter!("stonechat_events_dropped_total").increment(0);
}

fn state(parts: AdminParts, config: &AdminConfig) -> Shared {
    web::Data::new(State {
        fault_injection: config.fault_injection,
        started: Instant::now(),
        started_at: SystemTime::now(),
        failures: Failures::default(),
        rates: Rates::new(config.requests_per_s),
        refusals: Rates::new(REFUSALS_PER_S),
        audit: Audit::open(&parts.data_dir, parts.events.clone()),
        history: history::History::default(),
        sessions: session::Sessions::default(),
        crashes: Crashes::open(&parts.data_dir),
        actor_rates: actor_view::Rates::default(),
        drain: control::Drain::default(),
        log_filter: log_filter::LogFilter::default(),
        streams: Arc::default(),
        backups: backups::Jobs::default(),
        parts,
    })
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/healthz", web::get().to(node::healthz))
        .route("/readyz", web::get().to(node::readyz))
        .route("/metrics", web::get().to(metrics::metrics))
        .configure(assets::routes)
        .service(operation::mount(
            web::scope("/admin/v1"),
            openapi::operations(),
        ));
}

/// Whatever refused a request, the answer is problem details.
fn as_problem<B>(
    response: actix_web::dev::ServiceResponse<B>,
) -> actix_web::Result<ErrorHandlerResponse<B>> {
    let is_one = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes() == problem::CONTENT_TYPE_PROBLEM.as_bytes())
        || response.request().path() == "/readyz";
    if is_one {
        return Ok(ErrorHandlerResponse::Response(
            response.map_into_left_body(),
        ));
    }
    let allow = response.headers().get(ALLOW).cloned();
    let mut answer = Problem::of_status(response.status()).answer();
    if let Some(allow) = allow {
        answer.headers_mut().insert(ALLOW, allow);
    }
    Ok(ErrorHandlerResponse::Response(
        response.into_response(answer).map_into_right_body(),
    ))
}
