//! Many seeds on several threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Coverage, Failure, Sabotage, run_seed};

/// Seeds a thread takes at a time.
const SEEDS_AT_A_TIME: u64 = 64;

/// Which seeds to run, and how.
#[derive(Debug, Clone, Copy)]
pub struct Campaign {
    /// First seed.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// On how many threads.
    pub threads: usize,
    /// With this mistake in the server.
    pub sabotage: Option<Sabotage>,
}

/// How far a campaign is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Seeds done.
    pub done: u64,
    /// Seeds to do.
    pub seeds: u64,
}

/// What came of a campaign.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Of all schedules that kept their promises.
    pub coverage: Coverage,
    /// The failing schedule with the smallest seed among those found; the campaign stops at
    /// the first.
    pub failure: Option<Box<Failure>>,
}

impl Campaign {
    /// Runs the seeds, telling `progress` now and then from whichever thread.
    pub fn run(&self, progress: impl Fn(Progress) + Sync) -> Summary {
        let next = AtomicU64::new(0);
        let done = AtomicU64::new(0);
        let summary = Mutex::new(Summary {
            coverage: Coverage::default(),
            failure: None,
        });
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| self.work(&next, &done, &summary, &progress));
            }
        });
        summary
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn work(
        &self,
        next: &AtomicU64,
        done: &AtomicU64,
        summary: &Mutex<Summary>,
        progress: &(impl Fn(Progress) + Sync),
    ) {
        loop {
            let from = next.fetch_add(SEEDS_AT_A_TIME, Ordering::Relaxed);
            if from >= self.seeds {
                return;
            }
            let to = self.seeds.min(from + SEEDS_AT_A_TIME);
            let mut coverage = Coverage::default();
            let mut failure = None;
            for seed in from..to {
                match run_seed(self.first.wrapping_add(seed), self.sabotage) {
                    Ok(one) => coverage.merge(&one),
                    Err(found) => {
                        failure = Some(found);
                        next.store(self.seeds, Ordering::Relaxed);
                        break;
                    }
                }
            }
            let ran = to - from;
            let all = done.fetch_add(ran, Ordering::Relaxed) + ran;
            let mut summary = summary
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            summary.coverage.merge(&coverage);
            if let Some(found) = failure {
                let smaller = |known: &Failure| found.seed < known.seed;
                if summary.failure.as_deref().is_none_or(smaller) {
                    summary.failure = Some(found);
                }
            }
            drop(summary);
            progress(Progress {
                done: all,
                seeds: self.seeds,
            });
        }
    }
}
