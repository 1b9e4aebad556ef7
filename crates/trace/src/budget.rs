//! How many traces may begin in a second. It does not choose among them: the first
//! ones are taken.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

const WINDOW: Duration = Duration::from_secs(1);

/// So many a second.
#[derive(Debug)]
pub(crate) struct Budget {
    per_s_max: u32,
    /// When the running second began, and what it has had.
    window: Mutex<(Instant, u32)>,
}

impl Budget {
    pub(crate) fn new(per_s_max: u32, now: Instant) -> Self {
        Self {
            per_s_max,
            window: Mutex::new((now, 0)),
        }
    }

    /// Whether there is one left.
    pub(crate) fn take(&self, now: Instant) -> bool {
        let mut window = self.window.lock();
        if now.saturating_duration_since(window.0) >= WINDOW {
            *window = (now, 0);
        }
        let left = window.1 < self.per_s_max;
        window.1 += u32::from(left);
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_share_and_no_more() {
        let start = Instant::now();
        let budget = Budget::new(2, start);
        let at = |ms: u64| start + Duration::from_millis(ms);
        let taken = [0, 1, 999, 1_000, 1_001, 1_002, 60_000].map(|ms| budget.take(at(ms)));
        assert_eq!(taken, [true, true, false, true, true, false, true]);
        assert!(!Budget::new(0, start).take(start));
    }
}
