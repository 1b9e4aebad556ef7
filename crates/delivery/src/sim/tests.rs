//! The simulation in the test command, and the test of the simulation.

use super::{Campaign, Sabotage, run_seed, trace_seed};

/// Schedules in the test command; `cargo xtask sim` runs millions.
const SCHEDULES: u64 = 100_000;
/// Seeds within which each deliberate mistake has to be found.
const SABOTAGE_SEEDS_MAX: u64 = 40_000;

fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

fn campaign(seeds: u64, sabotage: Option<Sabotage>) -> Campaign {
    Campaign {
        first: 1,
        seeds,
        threads: threads(),
        sabotage,
    }
}

#[test]
fn every_schedule_keeps_every_promise() {
    let summary = campaign(SCHEDULES, None).run(|_| {});
    if let Some(failure) = summary.failure {
        let last = failure.trace.len().saturating_sub(60);
        panic!("{failure}\n{}", failure.trace[last..].join("\n"));
    }
    assert_eq!(summary.coverage.schedules, SCHEDULES);
    let holes = summary.coverage.holes();
    assert!(holes.is_empty(), "never happened: {holes:#?}");
}

/// A checker that finds nothing wrong proves something only if it finds what is wrong.
#[test]
fn every_deliberate_mistake_is_found() {
    for sabotage in Sabotage::ALL {
        let summary = campaign(SABOTAGE_SEEDS_MAX, Some(*sabotage)).run(|_| {});
        assert!(summary.failure.is_some(), "{sabotage:?} was not found");
    }
}

#[test]
fn a_seed_is_a_schedule() {
    for seed in 0..50 {
        assert_eq!(trace_seed(seed, None), trace_seed(seed, None));
    }
    assert_ne!(trace_seed(1, None), trace_seed(2, None));
    let failing = (0..SABOTAGE_SEEDS_MAX)
        .find_map(|seed| run_seed(seed, Some(Sabotage::CursorAtSend)).err())
        .expect("some seed finds it");
    let again = run_seed(failing.seed, Some(Sabotage::CursorAtSend)).unwrap_err();
    assert_eq!(failing.violation, again.violation);
    assert!(failing.to_string().contains("cargo xtask sim --seed"));
}
