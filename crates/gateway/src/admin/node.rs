//! The node itself: health, figures, actors, and (when allowed) injected panics.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use stonechat_broker::Fault;
use stonechat_protocol::{MessageId, UserId};
use utoipa::{OpenApi, ToSchema};

use super::Shared;
use super::body::Json;
use super::caller::{Caller, Role};
use super::control::{Build, Limit, limits_of};
use super::operation::{Operation, get, post};
use super::problem::Problem;

type Answer = Result<HttpResponse, Problem>;

/// The process lives and answers.
pub(super) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "ok"}))
}

/// Whether clients should be sent here.
pub(super) async fn readyz(state: Shared) -> HttpResponse {
    let broker = &state.parts.broker;
    let mut reasons = Vec::new();
    if broker.is_draining() {
        reasons.push("draining: the node takes no new sessions".to_owned());
    }
    if let Some(why) = broker.store().unavailable() {
        reasons.push(format!("store: {why}"));
    }
    let body = json!({"ready": reasons.is_empty(), "reasons": reasons});
    if reasons.is_empty() {
        HttpResponse::Ok().json(body)
    } else {
        HttpResponse::ServiceUnavailable().json(body)
    }
}

/// The node.
#[derive(Debug, Serialize, ToSchema)]
struct Node {
    version: &'static str,
    build: Build,
    /// When it started, milliseconds since the Unix epoch.
    started_ms: u64,
    uptime_s: u64,
    /// Takes no new sessions.
    draining: bool,
    /// Why the store accepts nothing; `null` when it does.
    unavailable: Option<String>,
    connections: u64,
    /// Users connected, or gone only a moment ago.
    sessions: u64,
    /// Devices connected.
    devices: u64,
    /// Panics caught since the start.
    panics: u64,
    /// Running totals of the supervision tree.
    #[schema(value_type = Object)]
    actors: stonechat_actors::Totals,
    /// Figures of the store.
    #[schema(value_type = Object)]
    store: stonechat_mailbox::StoreStats,
    /// The limits, the nearest first.
    limits: Vec<Limit>,
}

/// The node in figures
#[utoipa::path(get, path = "/node", tag = "node", responses((status = 200, body = Node)))]
pub(super) async fn node(state: Shared) -> HttpResponse {
    let parts = &state.parts;
    let broker = parts.broker.stats();
    let totals = parts.broker.tree().totals();
    let store = parts.broker.store();
    HttpResponse::Ok().json(Node {
        version: parts.version,
        build: parts.control.build(),
        started_ms: state.started_ms(),
        uptime_s: state.started.elapsed().as_secs(),
        draining: parts.broker.is_draining(),
        unavailable: store.unavailable().map(|why| why.to_string()),
        connections: parts.edge.connections(),
        sessions: broker.sessions,
        devices: broker.devices,
        panics: totals.panics,
        actors: totals,
        store: store.stats(),
        limits: limits_of(&state),
    })
}

/// What is to panic.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Target {
    Session,
    Router,
    OfflineQueue,
    Dispatcher,
    Connection,
    Messages,
}

/// A panic to be injected.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Injection {
    target: Target,
    /// Whose session or connection.
    user: Option<String>,
    /// Which offline queue or dispatcher; the first when absent.
    shard: Option<usize>,
    /// Each time the session handles the message with this id.
    on_id: Option<String>,
    /// One in so many messages; 0 ends it.
    every: Option<u32>,
}

/// What was injected.
#[derive(Debug, Serialize, ToSchema)]
struct Injected {
    injected: u64,
}

/// Make a part of the node panic
///
/// For tests of supervision. There only when the node allows it (`admin.fault_injection`).
#[utoipa::path(post, path = "/faults/panic", tag = "node", request_body = Injection,
    responses((status = 200, body = Injected),
        (status = 404, description = "Not allowed on this node, or nothing alive to panic")))]
pub(super) async fn inject_panic(
    state: Shared,
    caller: Caller,
    injection: Result<Json<Injection>, Problem>,
) -> Answer {
    // Before the body is looked at: the endpoint is as if it were not there.
    if !state.fault_injection {
        return Err(Problem::of_status(StatusCode::NOT_FOUND));
    }
    let Json(injection) = injection?;
    caller.target(format!("{:?}", injection.target).to_lowercase());
    let user = injection.user.map(UserId::new).transpose()?;
    let on_id = injection
        .on_id
        .as_deref()
        .map(MessageId::parse)
        .transpose()?;
    let broker = &state.parts.broker;
    let injected = match (injection.target, user, on_id) {
        (Target::Session, Some(user), None) => usize::from(broker.inject(Fault::Session(user))),
        (Target::Session, Some(user), Some(id)) => {
            usize::from(broker.inject(Fault::Poison(user, id)))
        }
        (Target::Session, None, _) => {
            return Err(Problem::bad_request("bad_json", "a session needs \"user\""));
        }
        (Target::Router, ..) => usize::from(broker.inject(Fault::Router)),
        (Target::OfflineQueue, ..) => {
            usize::from(broker.inject(Fault::OfflineQueue(injection.shard.unwrap_or(0))))
        }
        (Target::Dispatcher, ..) => {
            usize::from(broker.inject(Fault::Dispatcher(injection.shard.unwrap_or(0))))
        }
        (Target::Connection, user, _) => state.parts.edge.inject_connection_panic(user),
        (Target::Messages, ..) => {
            let every = injection.every.unwrap_or(0);
            let injected = broker.tree().inject_panics("session", every);
            tracing::warn!(every, injected, "panics of messages to sessions changed");
            return Ok(HttpResponse::Ok().json(Injected { injected }));
        }
    };
    if injected == 0 {
        return Err(Problem::not_found(
            "no_target",
            "there is nothing alive to make panic",
        ));
    }
    tracing::warn!(injected, "panic injected");
    let injected = injected as u64;
    Ok(HttpResponse::Ok().json(Injected { injected }))
}

#[derive(OpenApi)]
#[openapi(paths(node, inject_panic))]
pub(super) struct Api;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        get("/node", Role::Viewer, "node.show", node),
        post("/faults/panic", Role::Admin, "faults.inject", inject_panic),
    ]
}
