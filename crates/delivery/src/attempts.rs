//! When a message whose handling keeps panicking becomes a dead letter
//! (contract D7).
//!
//! Counts failures of a few keys, the least recently failed forgotten first. It
//! must outlive what panics: keep it with the supervisor's side, not in the
//! state that is rebuilt. Storing the dead letter is the store's business.

/// What to do with a message whose handling failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Try again after the restart.
    Retry {
        /// Failures so far.
        failures: u32,
    },
    /// Take it out of the mailbox.
    DeadLetter,
}

/// Failures by key (a message's `seq`, or its id). No heap until the first failure.
#[derive(Debug, Clone)]
pub struct Attempts<K> {
    /// Least recently failed first. At most `keys_max`.
    failures: Vec<(K, u32)>,
    keys_max: usize,
    attempts_max: u32,
}

impl<K: PartialEq> Attempts<K> {
    /// A message is given up after `attempts_max` failures; `keys_max` messages are watched.
    pub fn new(attempts_max: u32, keys_max: usize) -> Self {
        Self {
            failures: Vec::new(),
            keys_max: keys_max.max(1),
            attempts_max: attempts_max.max(1),
        }
    }

    /// Handling failed.
    pub fn failed(&mut self, key: K) -> Verdict {
        let failures = 1 + self.forget(&key);
        if failures >= self.attempts_max {
            return Verdict::DeadLetter;
        }
        if self.failures.len() == self.keys_max {
            self.failures.remove(0);
        }
        self.failures.push((key, failures));
        Verdict::Retry { failures }
    }

    /// Handling succeeded, or the message is gone: forget its failures. Returns how many.
    pub fn forget(&mut self, key: &K) -> u32 {
        let at = self.failures.iter().position(|(known, _)| known == key);
        at.map_or(0, |at| self.failures.remove(at).1)
    }

    /// Messages watched.
    pub fn len(&self) -> usize {
        self.failures.len()
    }

    /// Nothing failed lately.
    pub fn is_empty(&self) -> bool {
        self.failures.is_empty()
    }
}

impl<K: PartialEq> Default for Attempts<K> {
    /// Three attempts, sixteen messages watched.
    fn default() -> Self {
        Self::new(3, 16)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_third_failure_is_the_last() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.failed(7u64), Verdict::Retry { failures: 1 });
        assert_eq!(attempts.failed(8), Verdict::Retry { failures: 1 });
        assert_eq!(attempts.failed(7), Verdict::Retry { failures: 2 });
        assert_eq!(attempts.failed(7), Verdict::DeadLetter);
        assert_eq!(attempts.len(), 1);
        assert_eq!(attempts.failed(7), Verdict::Retry { failures: 1 });
    }

    proptest! {
        /// Against a model that forgets nothing: as long as no more keys fail than are
        /// watched, the verdicts are the same; the bound holds always.
        #[test]
        fn counts_like_a_map(keys in prop::collection::vec((0u8..8, any::<bool>()), 0..200)) {
            let mut attempts = Attempts::new(3, 8);
            let mut tight = Attempts::new(3, 2);
            let mut model = std::collections::BTreeMap::new();
            for (key, ok) in keys {
                if ok {
                    model.remove(&key);
                    attempts.forget(&key);
                    continue;
                }
                let count = model.entry(key).or_insert(0u32);
                *count += 1;
                let want = if *count == 3 {
                    model.remove(&key);
                    Verdict::DeadLetter
                } else {
                    Verdict::Retry { failures: *count }
                };
                prop_assert_eq!(attempts.failed(key), want);
                tight.failed(key);
                prop_assert!(tight.len() <= 2);
            }
        }
    }
}
