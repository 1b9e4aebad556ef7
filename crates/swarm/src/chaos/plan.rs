//! Which fault comes when. Pure: a seed, what can be had, and a duration make a plan, always the same.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::{ChaosKind, ChaosOptions, LeftOut, Need};

/// Panics of what a node has only one of within [`NODE_WIDE_WITHIN`]. Supervision gives a node up that has
/// more (docs/supervision.md), which is a promise kept and not a fault to be found.
const NODE_WIDE_MAX: usize = 3;
const NODE_WIDE_WITHIN: Duration = Duration::from_secs(32);
/// Nothing begins so shortly before the end that it cannot be seen to be over.
const QUIET_END: Duration = Duration::from_secs(4);
/// A plan for days is longer than anybody waits.
const EVENTS_MAX: usize = 100_000;

/// A fault that is to be made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Planned {
    /// When, since the users began.
    pub at: Duration,
    /// What.
    pub kind: ChaosKind,
    /// How long, for what lasts.
    pub lasts: Duration,
    /// Share of the users it befalls, for what befalls users.
    pub share: f64,
    /// Fixes everything else about it.
    pub seed: u64,
}

/// Of the kinds that are asked for those that can be had, and those that cannot with the reason.
/// `missing` says why a need is not met.
pub fn kinds(
    only: &[ChaosKind],
    missing: impl Fn(Need) -> Option<String>,
) -> (Vec<ChaosKind>, Vec<LeftOut>) {
    let mut possible = Vec::new();
    let mut left_out = Vec::new();
    for kind in ChaosKind::ALL.iter().copied() {
        if !only.is_empty() && !only.contains(&kind) {
            continue;
        }
        match missing(kind.need()) {
            None => possible.push(kind),
            Some(why) => left_out.push(LeftOut { kind, why }),
        }
    }
    (possible, left_out)
}

/// The plan: after every round each of `kinds` has come once, in an order of its own each time.
pub fn plan(options: &ChaosOptions, kinds: &[ChaosKind], duration: Duration) -> Vec<Planned> {
    let mut random = SmallRng::seed_from_u64(options.seed);
    let every_s = options.every.as_secs_f64().max(0.1);
    let end = duration.saturating_sub(QUIET_END);
    let mut planned: Vec<Planned> = Vec::new();
    let mut round: Vec<ChaosKind> = Vec::new();
    for place in 1..=EVENTS_MAX {
        // No two are nearer than half the time between them.
        let jitter = random.random_range(-0.25..=0.25);
        let mut at = Duration::from_secs_f64(every_s * (place as f64 - 0.5 + jitter));
        if round.is_empty() {
            round.extend_from_slice(kinds);
            round.shuffle(&mut random);
        }
        let Some(kind) = round.pop() else {
            break;
        };
        if let Some(last) = planned.last() {
            at = at.max(last.at + Duration::from_secs_f64(every_s / 2.0));
        }
        if let Some(free) = node_wide(kind).then(|| free_from(&planned)).flatten() {
            at = at.max(free);
        }
        if at > end {
            break;
        }
        planned.push(Planned {
            at,
            kind,
            lasts: lasts(kind, &mut random),
            share: random.random_range(0.05..=0.4),
            seed: random.random(),
        });
    }
    planned
}

fn node_wide(kind: ChaosKind) -> bool {
    use ChaosKind::{PanicDispatcher, PanicOfflineQueue, PanicRouter};
    matches!(kind, PanicRouter | PanicOfflineQueue | PanicDispatcher)
}

/// From when on another panic of the node is bearable.
fn free_from(planned: &[Planned]) -> Option<Duration> {
    let before = planned.iter().rev().filter(|event| node_wide(event.kind));
    let oldest = before.take(NODE_WIDE_MAX).nth(NODE_WIDE_MAX - 1)?;
    Some(oldest.at + NODE_WIDE_WITHIN)
}

fn lasts(kind: ChaosKind, random: &mut SmallRng) -> Duration {
    use ChaosKind as K;
    let (least_ms, most_ms) = match kind {
        K::Pause => (1_000, 5_000),
        K::StuckReader | K::PanicMessages => (2_000, 5_000),
        K::DiskFull | K::ClockStep | K::Descriptors => (1_500, 4_000),
        K::Dribble => (500, 1_500),
        _ => return Duration::ZERO,
    };
    Duration::from_millis(random.random_range(least_ms..=most_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(seed: u64, every_s: f64) -> ChaosOptions {
        ChaosOptions {
            seed,
            every: Duration::from_secs_f64(every_s),
            only: Vec::new(),
        }
    }

    const TWO_MINUTES: Duration = Duration::from_secs(120);

    #[test]
    fn the_seed_makes_the_plan() {
        let of = |seed| plan(&options(seed, 5.0), ChaosKind::ALL, TWO_MINUTES);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn each_kind_comes_once_a_round_and_none_too_soon_or_too_late() {
        for seed in 0..200 {
            let planned = plan(&options(seed, 5.0), ChaosKind::ALL, TWO_MINUTES);
            let first: Vec<_> = planned.iter().take(ChaosKind::ALL.len()).collect();
            for kind in ChaosKind::ALL {
                let times = first.iter().filter(|event| event.kind == *kind).count();
                assert_eq!(times, 1, "{kind} with seed {seed}");
            }
            for two in planned.windows(2) {
                assert!(
                    two[1].at - two[0].at >= Duration::from_millis(2_499),
                    "{two:?}"
                );
            }
            assert!(planned[0].at >= Duration::from_secs(1), "{:?}", planned[0]);
            assert!(planned.last().unwrap().at <= TWO_MINUTES - QUIET_END);
        }
    }

    #[test]
    fn a_node_is_not_driven_beyond_what_supervision_bears() {
        let of_the_node = [ChaosKind::PanicRouter, ChaosKind::PanicDispatcher];
        let planned = plan(&options(3, 1.0), &of_the_node, TWO_MINUTES);
        assert!(planned.len() > 8, "{}", planned.len());
        for some in planned.windows(NODE_WIDE_MAX + 1) {
            let span = some[NODE_WIDE_MAX].at - some[0].at;
            assert!(span >= NODE_WIDE_WITHIN, "{some:?}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_left_out_and_says_why() {
        let unmet = |need| (need > Need::Faults).then(|| "no process".to_owned());
        let (possible, left_out) = kinds(&[], unmet);
        assert_eq!(possible.len() + left_out.len(), ChaosKind::ALL.len());
        assert!(possible.contains(&ChaosKind::Cut) && possible.contains(&ChaosKind::PanicRouter));
        assert!(left_out.iter().any(|out| out.kind == ChaosKind::Kill));
        let (possible, left_out) = kinds(&[ChaosKind::Kill, ChaosKind::Garbage], unmet);
        assert_eq!(possible, [ChaosKind::Garbage]);
        assert_eq!(left_out.len(), 1);
        assert_eq!(left_out[0].why, "no process");
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for kind in ChaosKind::ALL {
            assert_eq!(kind.name().parse(), Ok(*kind));
            let in_json = serde_json::to_string(kind).unwrap();
            assert_eq!(in_json, format!("\"{}\"", kind.name()));
        }
        let error = "flood".parse::<ChaosKind>().unwrap_err();
        assert!(error.contains("panic_router"), "{error}");
    }
}
