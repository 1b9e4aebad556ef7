//! What a cache line costs that is far, at the moment: the one thing in which two runs of the same
//! server on the same quiet machine differ most.
//!
//! The last cache and the way to memory are shared with whatever else runs on the processor, other
//! virtual machines included, and nothing else tells how busy they are. So a chase through more memory
//! than the near caches hold is timed between rounds, for a few hundredths of a second each.

use std::hint::black_box;
use std::time::Instant;

/// Beyond any near cache, within what a last one may hold.
const BYTES: usize = 20 << 20;
/// Bytes of a cache line.
const LINE: usize = 64;
const STEPS: u32 = 100_000;

/// A way through memory whose every step has to wait for the one before.
pub(crate) struct Chase {
    /// At each line's first word the number of the line that is next.
    words: Vec<u32>,
    at: usize,
    steps_ns: Vec<f64>,
}

impl Chase {
    pub(crate) fn new() -> Self {
        let stride = LINE / size_of::<u32>();
        let mut words = vec![0; BYTES / size_of::<u32>()];
        // Sattolo's algorithm: a permutation that is one cycle. Any spread will do, the same each time.
        let mut order: Vec<u32> = (0..).take(BYTES / LINE).collect();
        let mut random = 0x2545_F491_4F6C_DD1D_u64;
        for upto in (1..order.len()).rev() {
            // Marsaglia's xorshift64.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            order.swap(upto, random as usize % upto);
        }
        for (from, to) in order.iter().enumerate() {
            words[from * stride] = *to;
        }
        Self {
            words,
            at: 0,
            steps_ns: Vec::new(),
        }
    }

    fn walk(&mut self, steps: u32) {
        let stride = LINE / size_of::<u32>();
        for _ in 0..steps {
            self.at = self.words[self.at * stride] as usize;
        }
        black_box(self.at);
    }

    /// Goes on for a while and notes what a step took.
    pub(crate) fn look(&mut self) {
        // All of it once, into whatever cache there is for it now.
        self.walk((BYTES / LINE) as u32);
        let began = Instant::now();
        self.walk(STEPS);
        let step_ns = began.elapsed().as_secs_f64() * 1e9 / f64::from(STEPS);
        self.steps_ns.push(step_ns);
    }

    /// Least, median and most of what was noted, nanoseconds a step.
    pub(crate) fn told(&mut self) -> Option<[f64; 3]> {
        self.steps_ns.sort_by(f64::total_cmp);
        let middle = *self.steps_ns.get(self.steps_ns.len() / 2)?;
        Some([*self.steps_ns.first()?, middle, *self.steps_ns.last()?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_leads_past_every_line_before_it_comes_back() {
        let mut chase = Chase::new();
        let mut seen = vec![false; BYTES / LINE];
        for _ in 0..seen.len() {
            assert!(!std::mem::replace(&mut seen[chase.at], true));
            chase.at = chase.words[chase.at * LINE / size_of::<u32>()] as usize;
        }
        assert_eq!(chase.at, 0);
        assert!(chase.told().is_none());
        chase.look();
        assert!(chase.told().is_some_and(|[least, _, _]| least > 0.0));
    }
}
