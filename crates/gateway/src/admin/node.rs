//! The node itself: health, figures, actors, and (when allowed) injected panics.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::json;
use stonechat_broker::Fault;
use stonechat_protocol::{MessageId, UserId};

use super::Shared;
use super::body::{Json, Page};
use super::problem::Problem;

type Answer = Result<HttpResponse, Problem>;

/// Crashes shown with the actors, newest last.
const CRASHES_SHOWN_MAX: usize = 32;

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

pub(super) async fn node(state: Shared) -> HttpResponse {
    let parts = &state.parts;
    let broker = parts.broker.stats();
    let totals = parts.broker.tree().totals();
    let store = parts.broker.store();
    HttpResponse::Ok().json(json!({
        "version": parts.version,
        "uptime_s": state.started.elapsed().as_secs(),
        "draining": parts.broker.is_draining(),
        "unavailable": store.unavailable().map(|why| why.to_string()),
        "connections": parts.edge.connections(),
        "sessions": broker.sessions,
        "devices": broker.devices,
        "panics": totals.panics,
        "actors": totals,
        "store": store.stats(),
    }))
}

/// The supervision tree, a page at a time: there may be an actor for every connected user.
pub(super) async fn actors(state: Shared, request: HttpRequest) -> Answer {
    let page = Page::of(&request)?;
    let after: u64 = page.after()?.unwrap_or(0);
    let tree = state.parts.broker.tree();
    let mut nodes = tree.snapshot();
    nodes.retain(|node| node.id.0 > after);
    nodes.sort_by_key(|node| node.id);
    let more = nodes.len() > page.limit();
    nodes.truncate(page.limit());
    let next = nodes
        .last()
        .filter(|_| more)
        .map(|node| node.id.to_string());
    let crashes = tree.recent_crashes();
    let first = crashes.len().saturating_sub(CRASHES_SHOWN_MAX);
    let crashes: Vec<_> = crashes[first..]
        .iter()
        .map(|crash| {
            json!({
                "id": crash.id,
                "name": &*crash.name,
                "kind": crash.kind,
                "generation": crash.generation,
                "at_ms": crash.at_ms,
                "reason": crash.reason.to_string(),
            })
        })
        .collect();
    Ok(HttpResponse::Ok().json(json!({
        "actors": nodes,
        "next": next,
        "totals": tree.totals(),
        "crashes": crashes,
    })))
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Target {
    Session,
    Router,
    OfflineQueue,
    Dispatcher,
    Connection,
    Messages,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Injection {
    target: Target,
    user: Option<String>,
    shard: Option<usize>,
    on_id: Option<String>,
    every: Option<u32>,
}

pub(super) async fn inject_panic(
    state: Shared,
    injection: Result<Json<Injection>, Problem>,
) -> Answer {
    // Before the body is looked at: the endpoint is as if it were not there.
    if !state.fault_injection {
        return Err(Problem::of_status(StatusCode::NOT_FOUND));
    }
    let Json(injection) = injection?;
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
            return Ok(HttpResponse::Ok().json(json!({"injected": injected})));
        }
    };
    if injected == 0 {
        return Err(Problem::not_found(
            "no_target",
            "there is nothing alive to make panic",
        ));
    }
    tracing::warn!(injected, "panic injected");
    Ok(HttpResponse::Ok().json(json!({"injected": injected})))
}
