//! The supervision tree: supervisors with what is below them summed up.
//!
//! Actors of dynamic supervisors, of which there may be very many, are listed
//! only on request.

use std::collections::HashMap;

use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};

use super::Shared;
use super::actor_view::{Actor, Seen, look};
use super::body;
use super::caller::Role;
use super::operation::{Operation, get};
use super::problem::Problem;

/// Entries of a list at most.
const LIST_MAX: usize = 1_000;

/// Which part of the tree.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Part {
    /// Only what is directly below this supervisor, with those of whom there may be very many.
    under: Option<u64>,
    /// Levels of supervisors at most: all when absent.
    #[param(minimum = 1, maximum = 64)]
    depth: Option<usize>,
    /// Actors below `under` at most: 1,000 when absent and at most.
    #[param(minimum = 1, maximum = 1_000)]
    limit: Option<usize>,
    /// Of those below `under`, only actors with a greater id.
    after: Option<u64>,
}

/// A supervisor with what is below it, summed up.
#[derive(Debug, Serialize, ToSchema)]
struct Branch {
    #[serde(flatten)]
    supervisor: Actor,
    /// Levels below the root: 0 for the root itself.
    level: usize,
    /// Actors directly below it.
    actors_count: usize,
    /// Restarts of theirs, summed up.
    restarts_sum: u64,
    /// Messages that wait for them, summed up.
    depth_sum: u64,
    /// The longest inbox among them.
    depth_top: u32,
    /// Of them, how many do not run at the moment.
    not_running_count: usize,
    rate_per_s_sum: f64,
}

/// The supervision tree.
#[derive(Debug, Serialize, ToSchema)]
struct TreePage {
    /// Parents before children; `parent` says which belongs where.
    supervisors: Vec<Branch>,
    /// The actors below them, without those of dynamic supervisors unless asked for by `under`.
    actors: Vec<Actor>,
    /// Where the next page of actors begins; `null` when these are all.
    next: Option<String>,
}

/// The supervision tree
#[utoipa::path(get, path = "/actors/tree", tag = "actors", params(Part),
    responses((status = 200, body = TreePage),
        (status = 404, description = "There is no such supervisor")))]
async fn tree(state: Shared, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let part: Part = body::query(&request)?;
    let all = look(&state, |_| true);
    let mut supervisors: Vec<Branch> = Vec::new();
    let mut place = HashMap::new();
    let is_supervisor = |one: &&Seen| one.node.kind == "supervisor";
    for one in all.iter().filter(is_supervisor) {
        let one = one.show();
        let level = one
            .parent
            .and_then(|id| place.get(&id).copied())
            .map_or(0, |at: usize| supervisors[at].level + 1);
        place.insert(one.id, supervisors.len());
        supervisors.push(Branch {
            supervisor: one,
            level,
            actors_count: 0,
            restarts_sum: 0,
            depth_sum: 0,
            depth_top: 0,
            not_running_count: 0,
            rate_per_s_sum: 0.0,
        });
    }
    let mut actors = Vec::new();
    for one in all.iter().filter(|one| !is_supervisor(one)) {
        let node = &one.node;
        let parent = node.parent.map(|id| id.0);
        let Some(at) = parent.and_then(|id| place.get(&id).copied()) else {
            continue;
        };
        let branch = &mut supervisors[at];
        branch.actors_count += 1;
        branch.restarts_sum += u64::from(node.restarts);
        branch.depth_sum += u64::from(node.depth);
        branch.depth_top = branch.depth_top.max(node.depth);
        branch.not_running_count += usize::from(node.phase != "running");
        branch.rate_per_s_sum += one.rate_per_s;
        let shown = match part.under {
            Some(under) => parent == Some(under) && node.id.0 > part.after.unwrap_or(0),
            None => branch.supervisor.strategy != Some("dynamic"),
        };
        if shown {
            actors.push(one);
        }
    }
    if let Some(under) = part.under {
        if !place.contains_key(&under) {
            let detail = format!("there is no supervisor {under}");
            return Err(Problem::not_found("unknown_actor", detail));
        }
        supervisors
            .retain(|one| one.supervisor.id == under || one.supervisor.parent == Some(under));
    }
    if let Some(depth) = part.depth {
        let top = supervisors.first().map_or(0, |one| one.level);
        supervisors.retain(|one| one.level < top + depth);
        let kept: Vec<u64> = supervisors.iter().map(|one| one.supervisor.id).collect();
        actors.retain(|one| one.node.parent.is_some_and(|id| kept.contains(&id.0)));
    }
    let limit = part.limit.unwrap_or(LIST_MAX).clamp(1, LIST_MAX);
    actors.sort_unstable_by_key(|one| one.node.id);
    let more = actors.len() > limit;
    actors.truncate(limit);
    let last = actors.last().filter(|_| more);
    let next = last.map(|last| last.node.id.to_string());
    let actors = actors.into_iter().map(Seen::show).collect();
    Ok(HttpResponse::Ok().json(TreePage {
        supervisors,
        actors,
        next,
    }))
}

#[derive(OpenApi)]
#[openapi(paths(tree))]
pub(super) struct Api;

pub(super) fn operations() -> Vec<Operation> {
    vec![get("/actors/tree", Role::Viewer, "actors.tree", tree)]
}
