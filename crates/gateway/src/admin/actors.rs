//! Actors: list, the top of them by a figure, one with its state; restart and
//! stop.
//!
//! Only the state of one actor is asked of the actor itself, with a deadline.

use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use stonechat_actors::{ActorId, InspectError, NodeInfo, SteerError, Totals};
use utoipa::{OpenApi, ToSchema};

use super::Shared;
use super::actor_view::{Actor, Order, Page, visit};
use super::body::{self, Json};
use super::caller::{Caller, Role};
use super::crashes::{Crash, CrashSummary};
use super::operation::{Operation, get, post};
use super::problem::Problem;

type Answer = Result<HttpResponse, Problem>;

/// How long one actor may take to show its state.
const STATE_DEADLINE: Duration = Duration::from_secs(1);
/// Crashes shown with the list.
const CRASHES_SHOWN_MAX: usize = 32;
/// Entries of a list at most.
const LIST_MAX: usize = 1_000;

/// Which actors, and in which order.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Only this kind.
    kind: Option<String>,
    /// Only names that contain this.
    q: Option<String>,
    /// By what they are ordered, greatest first; by id when absent.
    #[param(inline)]
    sort: Option<Order>,
    /// What an earlier page gave as `next`. In any order but by id the pages are of different
    /// moments, so that an actor may come twice or not at all.
    after: Option<String>,
    /// Entries at most: 100 when absent, 1,000 at most.
    #[param(minimum = 1, maximum = 1_000)]
    limit: Option<usize>,
}

impl Filter {
    fn lets_through(&self, node: &NodeInfo) -> bool {
        self.kind.as_deref().is_none_or(|kind| kind == node.kind)
            && self
                .q
                .as_deref()
                .is_none_or(|part| node.name.contains(part))
    }
}

/// A page of actors.
#[derive(Debug, Serialize, ToSchema)]
struct Actors {
    actors: Vec<Actor>,
    /// Where the next page begins; `null` on the last one.
    next: Option<String>,
    /// Running totals since the start.
    #[schema(value_type = Object)]
    totals: Totals,
    /// The last crashes, newest last; `/crashes` has more of them and of each.
    crashes: Vec<Crash>,
}

/// The actors
///
/// The supervision tree as a list: there may be an actor for every connected user.
#[utoipa::path(get, path = "/actors", tag = "actors", params(Filter),
    responses((status = 200, body = Actors)))]
async fn list(state: Shared, request: HttpRequest) -> Answer {
    let filter: Filter = body::query(&request)?;
    let order = filter.sort.unwrap_or(Order::Id);
    let limit = filter.limit.unwrap_or(100).clamp(1, LIST_MAX);
    let after: u64 = match filter.after.as_deref().filter(|text| !text.is_empty()) {
        None => 0,
        Some(text) => text.parse().map_err(|_| {
            Problem::bad_request("bad_query", "after is what an earlier page gave as next")
        })?,
    };
    // By id the cursor is an id, otherwise a place.
    let skip = match order {
        Order::Id => 0,
        _ => usize::try_from(after).unwrap_or(usize::MAX),
    };
    let mut page = Page::new(order, skip, limit);
    visit(&state, |node, rate_per_s| {
        if filter.lets_through(&node) && (order != Order::Id || node.id.0 > after) {
            page.see(node, rate_per_s);
        }
    });
    let (actors, more) = page.done();
    let next = more.then(|| match order {
        Order::Id => actors.last().map_or(0, |last| last.id).to_string(),
        _ => (skip + limit).to_string(),
    });
    let (mut crashes, _) = state.crashes.newest(None, CRASHES_SHOWN_MAX);
    crashes.reverse();
    Ok(HttpResponse::Ok().json(Actors {
        actors,
        next,
        totals: state.parts.broker.tree().totals(),
        crashes: crashes.iter().map(|crash| Crash::of(crash)).collect(),
    }))
}

/// By which figure, and how many.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Top {
    /// The figure; the inbox's depth when absent.
    #[param(inline)]
    by: Option<Order>,
    /// Entries at most: 20 when absent, 1,000 at most.
    #[param(minimum = 1, maximum = 1_000)]
    limit: Option<usize>,
}

/// The actors at the top.
#[derive(Debug, Serialize, ToSchema)]
struct TopActors {
    actors: Vec<Actor>,
    /// How many there are, supervisors not counted.
    actors_count: usize,
}

/// The actors at the top by a figure
#[utoipa::path(get, path = "/actors/top", tag = "actors", params(Top),
    responses((status = 200, body = TopActors)))]
async fn top(state: Shared, request: HttpRequest) -> Answer {
    let top: Top = body::query(&request)?;
    let limit = top.limit.unwrap_or(20).clamp(1, LIST_MAX);
    let mut page = Page::new(top.by.unwrap_or(Order::Depth), 0, limit);
    let mut actors_count = 0;
    visit(&state, |node, rate_per_s| {
        if node.kind != "supervisor" {
            actors_count += 1;
            page.see(node, rate_per_s);
        }
    });
    let (actors, _) = page.done();
    Ok(HttpResponse::Ok().json(TopActors {
        actors,
        actors_count,
    }))
}

/// One actor with its state.
#[derive(Debug, Serialize, ToSchema)]
struct ActorInFull {
    #[serde(flatten)]
    actor: Actor,
    /// What it says of itself; `null` when it has nothing to say or could not be asked.
    #[schema(value_type = Value)]
    state: serde_json::Value,
    /// Why the state is missing.
    state_missing: Option<String>,
    /// Its last crash.
    last_crash: Option<CrashSummary>,
}

fn unknown(id: impl std::fmt::Display) -> Problem {
    Problem::not_found(
        "unknown_actor",
        format!("there is no actor {id}; take a fresh list"),
    )
}

fn id_of(request: &HttpRequest) -> Result<ActorId, Problem> {
    let text = body::segment(request, "id");
    text.parse().map(ActorId).map_err(|_| unknown(text))
}

async fn in_full(state: &Shared, id: ActorId) -> Answer {
    let tree = state.parts.broker.tree();
    let node = tree.info(id).or_else(|| {
        // The root is nobody's child, so it is not found by looking at children.
        (tree.root().id() == id).then(|| tree.snapshot().swap_remove(0))
    });
    let node = node.ok_or_else(|| unknown(id))?;
    let rate_per_s = state
        .actor_rates
        .of_one(&node, Instant::now(), super::now_ms());
    let is_supervisor = node.kind == "supervisor";
    let actor = Actor::of(node, rate_per_s);
    let shown = if is_supervisor {
        Ok(serde_json::Value::Null)
    } else {
        tree.inspect(id, STATE_DEADLINE).await
    };
    let (shown, state_missing) = match shown {
        Ok(shown) => (shown, None),
        Err(InspectError::NotFound) => return Err(unknown(id)),
        Err(error) => (serde_json::Value::Null, Some(error.to_string())),
    };
    let last_crash = state.crashes.last_of(id.0);
    Ok(HttpResponse::Ok().json(ActorInFull {
        actor,
        state: shown,
        state_missing,
        last_crash: last_crash.map(|crash| CrashSummary::of(&crash)),
    }))
}

/// One actor with its state
#[utoipa::path(get, path = "/actors/{id}", tag = "actors",
    params(("id" = u64, Path, description = "The actor's id")),
    responses((status = 200, body = ActorInFull)))]
async fn show(state: Shared, request: HttpRequest) -> Answer {
    in_full(&state, id_of(&request)?).await
}

/// The actor of a user
///
/// The session of a user who is connected, or was a moment ago.
#[utoipa::path(get, path = "/users/{user}/actor", tag = "actors",
    params(("user" = String, Path, description = "The user's name")),
    responses((status = 200, body = ActorInFull)))]
async fn of_user(state: Shared, request: HttpRequest) -> Answer {
    let user = body::user(&request)?;
    let id = state.parts.broker.session_actor(&user).ok_or_else(|| {
        let detail = format!("{user} has no session: nobody is connected as {user}");
        Problem::not_found("no_session", detail)
    })?;
    in_full(&state, id).await
}

/// Why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Why {
    /// For the audit log.
    reason: Option<String>,
}

/// What was asked of an actor.
#[derive(Debug, Serialize, ToSchema)]
struct Asked {
    id: u64,
}

fn steered(outcome: Result<(), SteerError>, id: ActorId) -> Answer {
    let conflict =
        |code, error: SteerError| Err(Problem::new(StatusCode::CONFLICT, code, error.to_string()));
    match outcome {
        // It takes effect after the message being handled.
        Ok(()) => Ok(HttpResponse::Accepted().json(Asked { id: id.0 })),
        Err(SteerError::NotFound) => Err(unknown(id)),
        Err(error @ SteerError::Supervisor) => conflict("not_an_actor", error),
        Err(error @ SteerError::Essential) => conflict("actor_essential", error),
        Err(error @ SteerError::Temporary) => conflict("actor_temporary", error),
    }
}

/// Restart an actor
///
/// Its state is dropped and rebuilt, its inbox stays. It is no failure: it is no crash in any
/// figure, and however often it is done, the actor is not given up for it.
#[utoipa::path(post, path = "/actors/{id}/restart", tag = "actors", request_body = Why,
    params(("id" = u64, Path, description = "The actor's id")),
    responses((status = 202, body = Asked)))]
async fn restart(
    state: Shared,
    caller: Caller,
    request: HttpRequest,
    Json(why): Json<Why>,
) -> Answer {
    let id = id_of(&request)?;
    note(&state, &caller, id, why);
    let why = format!("restarted by {}", caller.name);
    let outcome = state.parts.broker.tree().restart_actor(id, &why);
    if outcome.is_ok() {
        tracing::warn!(%id, by = %caller.name, "actor restarted from outside");
    }
    steered(outcome, id)
}

/// Stop an actor
///
/// One among many only: a session. Its user's connections are closed, and may come back. What
/// the program needs is refused with `actor_essential`.
#[utoipa::path(post, path = "/actors/{id}/stop", tag = "actors", request_body = Why,
    params(("id" = u64, Path, description = "The actor's id")),
    responses((status = 202, body = Asked)))]
async fn stop(state: Shared, caller: Caller, request: HttpRequest, Json(why): Json<Why>) -> Answer {
    let id = id_of(&request)?;
    note(&state, &caller, id, why);
    let outcome = state.parts.broker.tree().stop_actor(id);
    if outcome.is_ok() {
        tracing::warn!(%id, by = %caller.name, "actor stopped from outside");
    }
    steered(outcome, id)
}

/// Names the actor in the audit log: its number means nothing later.
fn note(state: &Shared, caller: &Caller, id: ActorId, why: Why) {
    if let Some(node) = state.parts.broker.tree().info(id) {
        caller.target(format!("{id} ({} {})", node.kind, node.name));
    }
    if let Some(reason) = why.reason {
        caller.reason(reason);
    }
}

#[derive(OpenApi)]
#[openapi(paths(list, top, show, of_user, restart, stop))]
pub(super) struct Api;

pub(super) fn operations() -> Vec<Operation> {
    use Role::{Operator, Viewer};
    vec![
        get("/actors", Viewer, "actors.list", list),
        get("/actors/top", Viewer, "actors.top", top),
        get("/actors/{id}", Viewer, "actors.show", show),
        get("/users/{user}/actor", Viewer, "actors.of_user", of_user),
        post("/actors/{id}/restart", Operator, "actors.restart", restart),
        post("/actors/{id}/stop", Operator, "actors.stop", stop),
    ]
}
