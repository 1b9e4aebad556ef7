//! What is logged, changed while the node runs: until its next start, or for a
//! while, after which what was logged before is put back by itself.
//!
//! It knows filters as text only; what they mean is the program's.

use std::time::Duration;

use actix_web::HttpResponse;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::{OpenApi, ToSchema};

use super::body::Json;
use super::caller::{Caller, Role};
use super::operation::{Operation, get, put};
use super::problem::Problem;
use super::{Shared, State, now_ms};

type Answer = Result<HttpResponse, Problem>;

/// Longest filter, bytes.
const FILTER_BYTES_MAX: usize = 1_024;
/// How long a filter may be set for, seconds: a day.
const FOR_S_MAX: u64 = 86_400;

/// A filter that holds for a while.
struct Passing {
    /// Which change it was.
    number: u64,
    filter: String,
    back_to: String,
    back_ms: u64,
    /// Dropped with the rest: whoever waits for the end of this one is not needed any more.
    _superseded: oneshot::Sender<()>,
}

#[derive(Default)]
struct Changes {
    /// Changes made so far.
    count: u64,
    /// The one that will be taken back, if there is one.
    passing: Option<Passing>,
}

/// What was changed of the filter since the start.
#[derive(Default)]
pub(super) struct LogFilter(Mutex<Changes>);

/// What to log.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WantedLog {
    /// A level (error, warn, info, debug, trace), or levels by module.
    #[schema(max_length = 1024, example = "info,stonechat_gateway=debug")]
    filter: String,
    /// Put back what was logged before after so many seconds. Until the next start when absent.
    #[schema(minimum = 1, maximum = 86_400)]
    for_s: Option<u64>,
}

/// The log.
#[derive(Debug, Serialize, ToSchema)]
struct Log {
    /// A level, or levels by module.
    #[schema(example = "info,stonechat_gateway=debug")]
    filter: String,
    /// What will be logged again by itself; `null` when nothing will change.
    back_to: Option<String>,
    /// When that will be, milliseconds since the Unix epoch.
    back_ms: Option<u64>,
}

fn shown(state: &State) -> Log {
    let filter = state.parts.control.log_filter();
    let changes = state.log_filter.0.lock();
    // What was set meanwhile by other means stays.
    let passing = changes.passing.as_ref().filter(|one| one.filter == filter);
    Log {
        filter,
        back_to: passing.map(|one| one.back_to.clone()),
        back_ms: passing.map(|one| one.back_ms),
    }
}

/// What is logged
#[utoipa::path(get, path = "/node/log", tag = "node", responses((status = 200, body = Log)))]
async fn log(state: Shared) -> HttpResponse {
    HttpResponse::Ok().json(shown(&state))
}

/// Change what is logged
///
/// For a while, or until the next start or SIGHUP, which puts `log.filter` of the configuration
/// back.
#[utoipa::path(put, path = "/node/log", tag = "node", request_body = WantedLog,
    responses((status = 200, body = Log)))]
async fn set_log(state: Shared, caller: Caller, Json(wanted): Json<WantedLog>) -> Answer {
    caller.target(wanted.filter.as_str());
    let refused = |detail: String| Err(Problem::bad_request("bad_filter", detail));
    if wanted.filter.len() > FILTER_BYTES_MAX {
        return refused(format!("a filter has at most {FILTER_BYTES_MAX} bytes"));
    }
    if wanted
        .for_s
        .is_some_and(|for_s| !(1..=FOR_S_MAX).contains(&for_s))
    {
        return refused(format!("a filter is set for 1 to {FOR_S_MAX} seconds"));
    }
    set(&state, &wanted).map_err(|error| Problem::bad_request("bad_filter", error))?;
    tracing::info!(filter = wanted.filter, for_s = wanted.for_s, by = %caller.name, "log filter set");
    Ok(HttpResponse::Ok().json(shown(&state)))
}

fn set(state: &Shared, wanted: &WantedLog) -> Result<(), String> {
    let control = &state.parts.control;
    let mut changes = state.log_filter.0.lock();
    let before = control.log_filter();
    control.set_log_filter(&wanted.filter)?;
    let last = changes.passing.take();
    changes.count += 1;
    let Some(for_s) = wanted.for_s else {
        return Ok(());
    };
    let number = changes.count;
    let (superseded, ended) = oneshot::channel();
    changes.passing = Some(Passing {
        number,
        filter: control.log_filter(),
        back_to: match last {
            // From one that passes to another: back to what was before both.
            Some(last) if last.filter == before => last.back_to,
            _ => before,
        },
        back_ms: now_ms() + for_s * 1_000,
        _superseded: superseded,
    });
    let shared = state.clone();
    let tree = state.parts.broker.tree();
    tree.spawn_task("log-filter", async move {
        let ended = tokio::time::timeout(Duration::from_secs(for_s), ended);
        if ended.await.is_err() {
            put_back(&shared, number);
        }
    });
    Ok(())
}

/// Ends the filter that was set as number `number`, unless something else was set since.
pub(super) fn put_back(state: &State, number: u64) {
    let control = &state.parts.control;
    let mut changes = state.log_filter.0.lock();
    let Some(over) = changes.passing.take_if(|one| one.number == number) else {
        return;
    };
    if control.log_filter() != over.filter {
        return;
    }
    match control.set_log_filter(&over.back_to) {
        Ok(()) => tracing::info!(filter = over.back_to, "log filter put back"),
        Err(error) => {
            tracing::warn!(
                filter = over.back_to,
                error,
                "the log filter stays: set it by hand"
            );
        }
    }
}

#[derive(OpenApi)]
#[openapi(paths(log, set_log))]
pub(super) struct Api;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        get("/node/log", Role::Viewer, "node.log", log),
        put("/node/log", Role::Operator, "node.set_log", set_log),
    ]
}
