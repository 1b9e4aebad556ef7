//! An actor as the admin API shows it: its figures, how fast it works, and the
//! orders by which actors are listed.
//!
//! Figures are read without asking the actors, so that none waits for it.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
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

/// What had been handled at two moments, for rates. Takes memory only once somebody has looked.
#[derive(Default)]
pub(super) struct Rates(Mutex<Option<Looks>>);

struct Looks {
    /// The one before, which rates are measured from.
    old: (Instant, HashMap<u64, u64>),
    new: (Instant, HashMap<u64, u64>),
}

/// One pass over all nodes, which are asked about one after another.
pub(super) struct Pass<'a> {
    looks: MutexGuard<'a, Option<Looks>>,
    /// Whether this pass is one that later rates are measured from.
    remembered: bool,
    now: Instant,
    now_ms: u64,
}

impl Rates {
    /// Begins a pass over all nodes; there is one at a time.
    pub(super) fn pass(&self, now: Instant, now_ms: u64) -> Pass<'_> {
        let mut looks = self.0.lock();
        let remembered = match &mut *looks {
            None => {
                *looks = Some(Looks {
                    old: (now, HashMap::new()),
                    new: (now, HashMap::new()),
                });
                true
            }
            Some(looks) if now.duration_since(looks.new.0) >= RATE_OVER => {
                std::mem::swap(&mut looks.old, &mut looks.new);
                looks.new.0 = now;
                looks.new.1.clear();
                true
            }
            Some(_) => false,
        };
        Pass {
            looks,
            remembered,
            now,
            now_ms,
        }
    }

    /// The rate of one node, outside of a pass over all.
    pub(super) fn of_one(&self, node: &NodeInfo, now: Instant, now_ms: u64) -> f64 {
        let mut pass = Pass {
            looks: self.0.lock(),
            remembered: false,
            now,
            now_ms,
        };
        pass.of(node)
    }
}

impl Pass<'_> {
    /// The rate of the next node.
    pub(super) fn of(&mut self, node: &NodeInfo) -> f64 {
        let since_start = || {
            let age_ms = self.now_ms.saturating_sub(node.started_ms).max(1_000);
            node.handled_total as f64 / (age_ms as f64 / 1_000.0)
        };
        let Some(looks) = self.looks.as_mut() else {
            return since_start();
        };
        if self.remembered {
            looks.new.1.insert(node.id.0, node.handled_total);
        }
        let (at, counts) = &looks.old;
        match counts.get(&node.id.0) {
            Some(before) => {
                let passed_s = self.now.duration_since(*at).as_secs_f64().max(0.001);
                node.handled_total.saturating_sub(*before) as f64 / passed_s
            }
            None => since_start(),
        }
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

impl Order {
    fn key(self, node: &NodeInfo, rate_per_s: f64) -> u64 {
        match self {
            Self::Id => 0,
            Self::Depth => u64::from(node.depth),
            Self::DepthMax => u64::from(node.high_water),
            Self::Restarts => u64::from(node.restarts),
            Self::BlockedMs => node.blocked_ms_total,
            // Hundredths: what is shown has no more.
            Self::Rate => (rate_per_s * 100.0) as u64,
            Self::Handled => node.handled_total,
        }
    }
}

/// A page of all actors seen, in one order: the greatest first (by id: the least), equal ones by id.
/// Keeps no more of them than are shown and skipped.
pub(super) struct Page {
    order: Order,
    skip: usize,
    limit: usize,
    /// The last of those kept is on top.
    kept: BinaryHeap<Kept>,
    more: bool,
}

/// Ordered by its place on the page alone, which no other has.
struct Kept {
    place: (Reverse<u64>, u64),
    actor: Actor,
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for Kept {}

impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kept {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place.cmp(&other.place)
    }
}

impl Page {
    /// Those from place `skip` on, at most `limit`.
    pub(super) fn new(order: Order, skip: usize, limit: usize) -> Self {
        Self {
            order,
            skip,
            limit,
            kept: BinaryHeap::new(),
            more: false,
        }
    }

    pub(super) fn see(&mut self, node: NodeInfo, rate_per_s: f64) {
        let place = (Reverse(self.order.key(&node, rate_per_s)), node.id.0);
        if self.kept.len() == self.skip.saturating_add(self.limit) {
            self.more = true;
            if self.kept.peek().is_none_or(|last| last.place < place) {
                return;
            }
            self.kept.pop();
        }
        self.kept.push(Kept {
            place,
            actor: Actor::of(node, rate_per_s),
        });
    }

    /// The page, and whether there are more actors after it.
    pub(super) fn done(self) -> (Vec<Actor>, bool) {
        let kept = self.kept.into_sorted_vec().into_iter();
        let shown = kept.skip(self.skip).map(|kept| kept.actor);
        (shown.collect(), self.more)
    }
}

/// Shows all nodes with their rates, parents before children, and keeps none: of twenty thousand
/// actors a copy would take ten megabytes, each time somebody looks.
pub(super) fn visit(state: &Shared, mut see: impl FnMut(NodeInfo, f64)) {
    let mut rates = state.actor_rates.pass(Instant::now(), now_ms());
    state.parts.broker.tree().visit(|node| {
        let rate_per_s = rates.of(&node);
        see(node, rate_per_s);
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stonechat_actors::ActorId;

    use super::*;

    fn node(id: u64, depth: u32) -> NodeInfo {
        NodeInfo {
            id: ActorId(id),
            parent: None,
            name: format!("user-{id}"),
            kind: "session",
            phase: "running",
            strategy: None,
            children: 0,
            generation: 1,
            restarts: 0,
            last_exit: None,
            depth,
            high_water: 0,
            capacity: 10,
            blocked_ms_total: 0,
            handled_total: 0,
            started_ms: 0,
            arbiter: None,
        }
    }

    proptest! {
        #[test]
        fn a_page_is_what_sorting_all_would_give(
            depths in prop::collection::vec(0_u32..5, 0..40),
            skip in 0_usize..30,
            limit in 1_usize..20,
            by_id: bool,
        ) {
            let order = if by_id { Order::Id } else { Order::Depth };
            let mut page = Page::new(order, skip, limit);
            // Not in the order of the ids.
            let ids = (0..).map(|at| at * 7 % 41);
            let all: Vec<(u64, u32)> = ids.zip(depths).collect();
            for (id, depth) in &all {
                page.see(node(*id, *depth), 0.0);
            }
            let mut sorted = all;
            sorted.sort_by_key(|(id, depth)| (Reverse(if by_id { 0 } else { *depth }), *id));
            let (shown, more) = page.done();
            let shown: Vec<(u64, u32)> = shown.iter().map(|one| (one.id, one.depth)).collect();
            prop_assert_eq!(more, sorted.len() > skip + limit);
            sorted.truncate(skip + limit);
            prop_assert_eq!(shown, sorted.split_off(skip.min(sorted.len())));
        }
    }

    #[test]
    fn rates_are_between_two_looks_and_one_actor_alone_does_not_move_them() {
        let rates = Rates::default();
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let seen = |handled_total| NodeInfo {
            handled_total,
            ..node(1, 0)
        };
        rates.pass(at(0), 10_000).of(&seen(100));
        rates.pass(at(2_000), 12_000).of(&seen(300));
        assert_eq!(rates.of_one(&seen(500), at(4_000), 14_000), 100.0);
        // Looked at again soon: from where it was before.
        assert_eq!(rates.pass(at(2_500), 12_500).of(&seen(350)), 100.0);
        assert_eq!(rates.pass(at(4_000), 14_000).of(&seen(500)), 100.0);
        // Never seen before: over its life.
        assert_eq!(rates.of_one(&node(2, 0), at(4_000), 14_000), 0.0);
    }
}
