//! Panics that were caught: the latest, and one with its backtrace.

use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::Shared;
use super::body::{self, Page};
use super::caller::Role;
use super::operation::{Operation, get};
use super::problem::Problem;
use super::sources::CrashEntry;

/// A panic as the list of actors has it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Crash {
    /// The actor; `null` for a task.
    id: Option<u64>,
    name: String,
    kind: String,
    generation: u32,
    at_ms: u64,
    reason: String,
}

impl Crash {
    pub(super) fn of(crash: &CrashEntry) -> Self {
        Self {
            id: crash.actor,
            name: crash.name.clone(),
            kind: crash.kind.clone(),
            generation: crash.generation,
            at_ms: crash.at_ms,
            reason: crash.reason.clone(),
        }
    }
}

/// A panic without its backtrace.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CrashSummary {
    /// Rises by one with each crash, also over restarts of the node.
    number: u64,
    at_ms: u64,
    /// The actor; `null` for a task.
    actor: Option<u64>,
    name: String,
    kind: String,
    generation: u32,
    reason: String,
    /// What was being handled.
    message_type: Option<String>,
    /// Where in the source.
    location: Option<String>,
}

impl CrashSummary {
    pub(super) fn of(crash: &CrashEntry) -> Self {
        Self {
            number: crash.number,
            at_ms: crash.at_ms,
            actor: crash.actor,
            name: crash.name.clone(),
            kind: crash.kind.clone(),
            generation: crash.generation,
            reason: crash.reason.clone(),
            message_type: crash.message_type.clone(),
            location: crash.location.clone(),
        }
    }
}

/// A panic in full.
#[derive(Debug, Serialize, ToSchema)]
struct CrashInFull {
    #[serde(flatten)]
    crash: CrashSummary,
    /// `null` when there were too many at a time to look all of them up.
    backtrace: Option<String>,
}

/// A page of crashes.
#[derive(Debug, Serialize, ToSchema)]
struct Crashes {
    /// Newest first.
    crashes: Vec<CrashSummary>,
    /// Where the next page begins; `null` on the last one.
    next: Option<String>,
}

/// The crashes
///
/// Newest first. The latest 256, also of before a restart of the node; `<data-dir>/crashes.ndjson`
/// has more.
#[utoipa::path(get, path = "/crashes", tag = "actors", params(Page),
    responses((status = 200, body = Crashes)))]
async fn list(state: Shared, page: Page) -> Result<HttpResponse, Problem> {
    let (crashes, more) = state.crashes.newest(page.after()?, page.limit());
    let next = crashes
        .last()
        .filter(|_| more)
        .map(|last| last.number.to_string());
    let crashes = crashes
        .iter()
        .map(|crash| CrashSummary::of(crash))
        .collect();
    Ok(HttpResponse::Ok().json(Crashes { crashes, next }))
}

/// One crash with its backtrace
#[utoipa::path(get, path = "/crashes/{number}", tag = "actors",
    params(("number" = u64, Path, description = "The crash's number")),
    responses((status = 200, body = CrashInFull)))]
async fn show(state: Shared, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let text = body::segment(&request, "number");
    let found = text
        .parse()
        .ok()
        .and_then(|number| state.crashes.get(number));
    let crash = found.ok_or_else(|| {
        let detail = format!("there is no crash {text}, or it is no longer kept");
        Problem::not_found("unknown_crash", detail)
    })?;
    Ok(HttpResponse::Ok().json(CrashInFull {
        crash: CrashSummary::of(&crash),
        backtrace: crash.backtrace.clone(),
    }))
}

#[derive(OpenApi)]
#[openapi(paths(list, show))]
pub(super) struct Api;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        get("/crashes", Role::Viewer, "crashes.list", list),
        get("/crashes/{number}", Role::Viewer, "crashes.show", show),
    ]
}
