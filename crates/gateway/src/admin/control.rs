//! Steering the node: configuration and limits as they are, drain and undrain.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde::{Deserialize, Serialize};
use stonechat_protocol::CloseReason;
use tokio::sync::watch;
use utoipa::{OpenApi, ToSchema};

use super::body::Json;
use super::caller::{Caller, Role};
use super::operation::{Operation, get, post};
use super::problem::Problem;
use super::{Shared, events, process, tokens};
use crate::events::What;

type Answer = Result<HttpResponse, Problem>;

/// How long a drain tells clients to go when nothing else is asked for, milliseconds.
const DRAIN_MS_DEFAULT: u64 = 60_000;
/// How long at most, milliseconds.
const DRAIN_MS_MAX: u64 = 3_600_000;
/// When clients are to come back unless asked otherwise, milliseconds.
const RETRY_AFTER_MS_DEFAULT: u64 = 1_000;

/// One setting in effect.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ConfigValue {
    /// Section and key.
    #[schema(example = "server.listen")]
    pub key: String,
    /// The value; `null` when there is none or it is masked.
    #[schema(value_type = Value)]
    pub value: serde_json::Value,
    /// Where it was set.
    #[schema(example = "default")]
    pub source: String,
    /// It is a secret and not shown.
    pub masked: bool,
}

/// How the program was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Build {
    /// Version of the program.
    pub version: &'static str,
    /// The commit it was built from, when the build was told.
    pub commit: Option<&'static str>,
    /// The compiler.
    pub rustc: &'static str,
    /// `debug` or `release`.
    pub profile: &'static str,
}

/// What of the program the admin API steers that is not the broker's or the edge's.
pub trait NodeControl: Send + Sync + 'static {
    /// The configuration in effect, secrets masked.
    fn config(&self) -> Vec<ConfigValue>;
    /// The log's filter.
    fn log_filter(&self) -> String;
    /// Puts another filter of the log in force.
    ///
    /// # Errors
    /// What is wrong with it.
    fn set_log_filter(&self, filter: &str) -> Result<(), String>;
    /// How the program was built.
    fn build(&self) -> Build;
}

/// Numbers the drain under way, so that an undrain ends it.
pub(super) struct Drain(watch::Sender<u64>);

impl Default for Drain {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

/// The configuration in effect.
#[derive(Debug, Serialize, ToSchema)]
struct Config {
    config: Vec<ConfigValue>,
}

/// The configuration in effect
///
/// Each key with where it was set. Secrets are masked.
#[utoipa::path(get, path = "/node/config", tag = "node", responses((status = 200, body = Config)))]
async fn config(state: Shared) -> HttpResponse {
    let config = state.parts.control.config();
    HttpResponse::Ok().json(Config { config })
}

/// How near a limit is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Limit {
    /// The limit: a configuration key where there is one.
    name: &'static str,
    used: u64,
    max: u64,
    /// `used` of `max`, from 0 to 1.
    share: f64,
}

/// The limits of the node.
#[derive(Debug, Serialize, ToSchema)]
struct Limits {
    /// The nearest first.
    limits: Vec<Limit>,
}

/// The limits that fill up with use, the nearest first.
pub(super) fn limits_of(state: &Shared) -> Vec<Limit> {
    let parts = &state.parts;
    let config = parts.control.config();
    let set = |key: &str| {
        let found = config.iter().find(|one| one.key == key);
        found.and_then(|one| one.value.as_u64()).unwrap_or(0)
    };
    let stats = parts.broker.store().stats();
    let process = process::read();
    let streams = state.streams.load(std::sync::atomic::Ordering::Relaxed);
    let all = [
        (
            "descriptors",
            process.open_fds.unwrap_or(0),
            process.fds_max.unwrap_or(0),
        ),
        (
            "limits.connections_max",
            parts.edge.connections(),
            parts.edge.connections_max(),
        ),
        (
            "limits.sessions_max",
            parts.broker.stats().sessions,
            set("limits.sessions_max"),
        ),
        (
            "storage.journal_bytes_max",
            stats.journal_bytes,
            set("storage.journal_bytes_max"),
        ),
        (
            "storage.recent_bytes_max",
            stats.recent_bytes,
            set("storage.recent_bytes_max"),
        ),
        (
            "storage.resident_max",
            stats.resident,
            set("storage.resident_max"),
        ),
        (
            "admin_tokens",
            parts.tokens.good_count(super::now_ms()) as u64,
            tokens::TOKENS_MAX as u64,
        ),
        ("event_streams", streams as u64, events::STREAMS_MAX as u64),
    ];
    let mut limits: Vec<Limit> = all
        .into_iter()
        // What is not limited, or cannot be read here, is not near anything.
        .filter(|(_, _, max)| *max > 0)
        .map(|(name, used, max)| Limit {
            name,
            used,
            max,
            share: (used as f64 / max as f64 * 10_000.0).round() / 10_000.0,
        })
        .collect();
    limits.sort_by(|a, b| b.share.total_cmp(&a.share));
    limits
}

/// The limits, and how near they are
#[utoipa::path(get, path = "/node/limits", tag = "node", responses((status = 200, body = Limits)))]
async fn limits(state: Shared) -> HttpResponse {
    HttpResponse::Ok().json(Limits {
        limits: limits_of(&state),
    })
}

/// How to drain.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HowToDrain {
    /// What clients are told: connect again after this; a second when absent.
    #[schema(maximum = 3_600_000)]
    retry_after_ms: Option<u64>,
    /// How long connections are told to go; a minute when absent. New ones are refused until the
    /// undrain, whatever this is.
    #[schema(maximum = 3_600_000)]
    deadline_ms: Option<u64>,
}

/// Whether the node takes clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Intake {
    Serving,
    Draining,
    Drained,
}

/// How far a drain is.
#[derive(Debug, Serialize, ToSchema)]
struct DrainState {
    state: Intake,
    connections_left: u64,
}

fn drain_state(state: &Shared) -> DrainState {
    let left = state.parts.edge.connections();
    DrainState {
        state: match (state.parts.broker.is_draining(), left) {
            (false, _) => Intake::Serving,
            (true, 0) => Intake::Drained,
            (true, _) => Intake::Draining,
        },
        connections_left: left,
    }
}

/// How far a drain is
#[utoipa::path(get, path = "/node/drain", tag = "node",
    responses((status = 200, body = DrainState)))]
async fn drain_progress(state: Shared) -> HttpResponse {
    HttpResponse::Ok().json(drain_state(&state))
}

/// Take no more clients and send away those there are
///
/// `/readyz` says 503, new connections are refused, those there are get `bye` with reason
/// `shutdown` and `retry_after_ms`. Nothing is lost: what waits for them stays in their mailboxes.
#[utoipa::path(post, path = "/node/drain", tag = "node", request_body = HowToDrain,
    responses((status = 202, body = DrainState)))]
async fn drain(state: Shared, caller: Caller, Json(how): Json<HowToDrain>) -> Answer {
    let retry_after_ms = how.retry_after_ms.unwrap_or(RETRY_AFTER_MS_DEFAULT);
    let deadline_ms = how.deadline_ms.unwrap_or(DRAIN_MS_DEFAULT);
    if retry_after_ms.max(deadline_ms) > DRAIN_MS_MAX {
        let detail = format!("times of a drain are at most {DRAIN_MS_MAX} milliseconds");
        return Err(Problem::bad_request("bad_drain", detail));
    }
    // One drain at a time: a later one takes over with its own times.
    let number = {
        let mut number = 0;
        state.drain.0.send_modify(|current| {
            *current += 1;
            number = *current;
        });
        number
    };
    let mut superseded = state.drain.0.subscribe();
    let broker = state.parts.broker.clone();
    broker.start_draining();
    state.parts.events.tell(What::Node {
        state: "draining",
        detail: format!("by {}", caller.name),
    });
    tracing::warn!(retry_after_ms, deadline_ms, by = %caller.name, "draining: no new clients");
    let shared = state.clone();
    state.parts.broker.tree().spawn_task("drain", async move {
        let deadline = Duration::from_millis(deadline_ms);
        tokio::select! {
            left = broker.drain(CloseReason::Shutdown, retry_after_ms, deadline) => {
                shared.parts.events.tell(What::Node {
                    state: "drained",
                    detail: format!("{left} devices are left"),
                });
                tracing::info!(left, "drained");
            }
            // An error means that the state is gone, and the node with it.
            _ = superseded.wait_for(|current| *current != number) => {}
        }
    });
    Ok(HttpResponse::Accepted().json(drain_state(&state)))
}

/// Take clients again
#[utoipa::path(post, path = "/node/undrain", tag = "node",
    responses((status = 200, body = DrainState)))]
async fn undrain(state: Shared, caller: Caller) -> Answer {
    if state.parts.edge.is_stopping() || state.parts.broker.tree().is_closing() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "stopping",
            "the node is being stopped, which cannot be taken back; start it again",
        ));
    }
    if state.parts.broker.is_draining() {
        // First the drain under way, or it would go on sending clients away.
        state.drain.0.send_modify(|number| *number += 1);
        state.parts.broker.undrain();
        state.parts.events.tell(What::Node {
            state: "serving",
            detail: format!("by {}", caller.name),
        });
        tracing::warn!(by = %caller.name, "undrained: clients are taken again");
    }
    Ok(HttpResponse::Ok().json(drain_state(&state)))
}

/// For nodes without a program around them, in tests.
#[cfg(test)]
pub(super) fn fake() -> std::sync::Arc<dyn NodeControl> {
    struct Fake(parking_lot::Mutex<String>);
    impl NodeControl for Fake {
        fn config(&self) -> Vec<ConfigValue> {
            vec![ConfigValue {
                key: "limits.sessions_max".to_owned(),
                value: 1_000.into(),
                source: "default".to_owned(),
                masked: false,
            }]
        }

        fn log_filter(&self) -> String {
            self.0.lock().clone()
        }

        fn set_log_filter(&self, filter: &str) -> Result<(), String> {
            if filter.contains("=b=") {
                return Err("no filter".to_owned());
            }
            filter.clone_into(&mut self.0.lock());
            Ok(())
        }

        fn build(&self) -> Build {
            Build {
                version: "1.2.3",
                commit: None,
                rustc: "rustc 1.95.0",
                profile: "debug",
            }
        }
    }
    std::sync::Arc::new(Fake(parking_lot::Mutex::new("info".to_owned())))
}

#[derive(OpenApi)]
#[openapi(paths(config, limits, drain_progress, drain, undrain))]
pub(super) struct Api;

pub(super) fn operations() -> Vec<Operation> {
    use Role::{Operator, Viewer};
    vec![
        get("/node/config", Viewer, "node.config", config),
        get("/node/limits", Viewer, "node.limits", limits),
        get("/node/drain", Viewer, "node.drain_state", drain_progress),
        post("/node/drain", Operator, "node.drain", drain),
        post("/node/undrain", Operator, "node.undrain", undrain),
    ]
}
