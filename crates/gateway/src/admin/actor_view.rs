//! An actor as the admin API shows it: its figures, how fast it works, and the
//! orders by which actors are listed.
//!
//! Figures are read without asking the actors, so that none waits for it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use stonechat_actors::NodeInfo;
use utoipa::ToSchema;

use super::{Shared, now_ms};

/// Rates are over at least this long.
const RATE_OVER: Duration = Duration::from_secs(1);

/// One actor or supervisor.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Actor {
    pub(super) id: u64,
    /// Its supervisor; `null` for the root.
    pub(super) parent: Option<u64>,
    /// A session is named after its user.
    pub(super) name: String,
    /// `supervisor`, `session`, `router`, `offline_queue`, `dispatcher`.
    pub(super) kind: &'static str,
    /// `starting`, `running`, `backoff`, `halted` or `ended`.
    pub(super) phase: &'static str,
    /// A supervisor's strategy.
    pub(super) strategy: Option<&'static str>,
    /// A supervisor's children.
    pub(super) children: usize,
    /// 1 for the first.
    pub(super) generation: u32,
    pub(super) restarts: u32,
    /// Why the generation before ended.
    pub(super) last_exit: Option<String>,
    /// Messages that wait.
    pub(super) depth: u32,
    /// The most that ever waited.
    pub(super) depth_max: u32,
    /// The most that may wait.
    pub(super) capacity: u32,
    /// Messages taken up, ever.
    pub(super) handled_count: u64,
    /// Messages taken up a second, over the time since the list was last asked for (a second at
    /// least), or since the actor started.
    pub(super) rate_per_s: f64,
    /// How long what waits will take at this rate; `null` when nothing is taken up.
    pub(super) drain_ms: Option<u64>,
    /// Time senders have spent waiting for room, summed over them.
    pub(super) blocked_ms: u64,
    /// When the current generation started, milliseconds since the Unix epoch.
    pub(super) started_ms: u64,
    /// The thread it lives on.
    pub(super) arbiter: Option<String>,
    /// The same as `blocked_ms`, by its former name.
    pub(super) blocked_ms_total: u64,
    /// The same as `depth_max`, by its former name.
    pub(super) high_water: u32,
    /// The same as `handled_count`, by its former name.
    pub(super) handled_total: u64,
}

impl Actor {
    pub(super) fn of(node: NodeInfo, rate_per_s: f64) -> Self {
        let drain_ms = match node.depth {
            0 => Some(0),
            _ if rate_per_s <= 0.0 => None,
            depth => Some((f64::from(depth) / rate_per_s * 1_000.0).ceil() as u64),
        };
        Self {
            id: node.id.0,
            parent: node.parent.map(|id| id.0),
            name: node.name,
            kind: node.kind,
            phase: node.phase,
            strategy: node.strategy,
            children: node.children,
            generation: node.generation,
            restarts: node.restarts,
            last_exit: node.last_exit,
            depth: node.depth,
            depth_max: node.high_water,
            capacity: node.capacity,
            handled_count: node.handled_total,
            rate_per_s: (rate_per_s * 100.0).round() / 100.0,
            drain_ms,
            blocked_ms: node.blocked_ms_total,
            started_ms: node.started_ms,
            arbiter: node.arbiter,
            blocked_ms_total: node.blocked_ms_total,
            high_water: node.high_water,
            handled_total: node.handled_total,
        }
    }
}

/// What had been handled at two moments, for rates. Takes memory only while somebody looks.
#[derive(Default)]
pub(super) struct Rates(Mutex<Option<Looks>>);

struct Looks {
    /// The one before, which rates are measured from.
    old: (Instant, HashMap<u64, u64>),
    new: (Instant, HashMap<u64, u64>),
}

impl Rates {
    /// The rate of each node, in their order.
    pub(super) fn of(&self, nodes: &[NodeInfo], now: Instant, now_ms: u64) -> Vec<f64> {
        let mut looks = self.0.lock();
        let counts = || {
            nodes
                .iter()
                .map(|node| (node.id.0, node.handled_total))
                .collect()
        };
        match &mut *looks {
            None => {
                let first = (now, counts());
                *looks = Some(Looks {
                    old: (now, HashMap::new()),
                    new: first,
                });
            }
            Some(looks) if now.duration_since(looks.new.0) >= RATE_OVER => {
                looks.old = std::mem::replace(&mut looks.new, (now, counts()));
            }
            Some(_) => {}
        }
        let old = looks.as_ref().map(|looks| &looks.old);
        let since_start = |node: &NodeInfo| {
            let age_ms = now_ms.saturating_sub(node.started_ms).max(1_000);
            node.handled_total as f64 / (age_ms as f64 / 1_000.0)
        };
        let rate = |node: &NodeInfo| {
            let Some((at, counts)) = old else {
                return since_start(node);
            };
            match counts.get(&node.id.0) {
                Some(before) => {
                    let passed_s = now.duration_since(*at).as_secs_f64().max(0.001);
                    node.handled_total.saturating_sub(*before) as f64 / passed_s
                }
                None => since_start(node),
            }
        };
        nodes.iter().map(rate).collect()
    }
}

/// By what actors are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    Id,
    Depth,
    DepthMax,
    Restarts,
    BlockedMs,
    Rate,
    Handled,
}

/// A node as it was looked at.
pub(super) struct Seen {
    pub(super) node: NodeInfo,
    pub(super) rate_per_s: f64,
}

impl Seen {
    pub(super) fn show(&self) -> Actor {
        Actor::of(self.node.clone(), self.rate_per_s)
    }
}

impl Order {
    fn key(self, seen: &Seen) -> u64 {
        let node = &seen.node;
        match self {
            Self::Id => 0,
            Self::Depth => u64::from(node.depth),
            Self::DepthMax => u64::from(node.high_water),
            Self::Restarts => u64::from(node.restarts),
            Self::BlockedMs => node.blocked_ms_total,
            // Hundredths: what is shown has no more.
            Self::Rate => (seen.rate_per_s * 100.0) as u64,
            Self::Handled => node.handled_total,
        }
    }

    /// Those from place `skip` on, at most `limit`, the greatest first (by id: the least), equal
    /// ones by id; and whether there are more. Only what is shown is put in order and copied.
    pub(super) fn pick(self, seen: &[Seen], skip: usize, limit: usize) -> (Vec<Actor>, bool) {
        let mut places: Vec<(Reverse<u64>, u64, usize)> = seen
            .iter()
            .enumerate()
            .map(|(at, one)| (Reverse(self.key(one)), one.node.id.0, at))
            .collect();
        let end = skip.saturating_add(limit);
        let more = places.len() > end;
        if more {
            places.select_nth_unstable(end);
            places.truncate(end);
        }
        places.sort_unstable();
        let shown = places.iter().skip(skip).map(|(.., at)| seen[*at].show());
        (shown.collect(), more)
    }
}

/// All nodes that are wanted, parents before children.
pub(super) fn look(state: &Shared, wanted: impl Fn(&NodeInfo) -> bool) -> Vec<Seen> {
    let nodes = state.parts.broker.tree().snapshot();
    let rates = state.actor_rates.of(&nodes, Instant::now(), now_ms());
    nodes
        .into_iter()
        .zip(rates)
        .filter(|(node, _)| wanted(node))
        .map(|(node, rate_per_s)| Seen { node, rate_per_s })
        .collect()
}
