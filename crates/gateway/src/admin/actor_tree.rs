//! The supervision tree: supervisors with what is below them summed up.
//!
//! Actors of dynamic supervisors, of which there may be very many, are listed
//! only on request.

use std::collections::HashMap;

use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use stonechat_actors::NodeInfo;
use utoipa::{OpenApi, ToSchema};

use super::Shared;
use super::actor_view::{Actor, Order, Page, visit};
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

impl Branch {
    fn new(supervisor: Actor, level: usize) -> Self {
        Self {
            supervisor,
            level,
            actors_count: 0,
            restarts_sum: 0,
            depth_sum: 0,
            depth_top: 0,
            not_running_count: 0,
            rate_per_s_sum: 0.0,
        }
    }

    /// Sums up one actor directly below.
    fn add(&mut self, node: &NodeInfo, rate_per_s: f64) {
        self.actors_count += 1;
        self.restarts_sum += u64::from(node.restarts);
        self.depth_sum += u64::from(node.depth);
        self.depth_top = self.depth_top.max(node.depth);
        self.not_running_count += usize::from(node.phase != "running");
        self.rate_per_s_sum += rate_per_s;
    }
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
    let limit = part.limit.unwrap_or(LIST_MAX).clamp(1, LIST_MAX);
    let mut supervisors: Vec<Branch> = Vec::new();
    let mut place = HashMap::new();
    let mut actors = Page::new(Order::Id, 0, limit);
    visit(&state, |node, rate_per_s| {
        let parent = node.parent.map(|id| id.0);
        let parent_at = parent.and_then(|id| place.get(&id).copied());
        if node.kind == "supervisor" {
            let level = parent_at.map_or(0, |at: usize| supervisors[at].level + 1);
            place.insert(node.id.0, supervisors.len());
            supervisors.push(Branch::new(Actor::of(node, rate_per_s), level));
            return;
        }
        let Some(at) = parent_at else { return };
        let branch = &mut supervisors[at];
        branch.add(&node, rate_per_s);
        let shown = match part.under {
            Some(under) => parent == Some(under) && node.id.0 > part.after.unwrap_or(0),
            None => {
                branch.supervisor.strategy != Some("dynamic")
                    && part.depth.is_none_or(|depth| branch.level < depth)
            }
        };
        if shown {
            actors.see(node, rate_per_s);
        }
    });
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
    }
    let (actors, more) = actors.done();
    let last = actors.last().filter(|_| more);
    let next = last.map(|last| last.id.to_string());
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
