//! Message ids that only ever increase.
//!
//! Version 7 UUIDs whose time part never runs backwards: when the clock stands
//! still or is set back, the random part counts up instead. This module reads
//! no clock and keeps nothing on disk.

use rand::Rng;
use rand::rngs::SmallRng;
use stonechat_protocol::MessageId;

const RANDOM_BITS: u32 = 74;
const RANDOM_MAX: u128 = (1 << RANDOM_BITS) - 1;
const MS_MAX: u128 = (1 << 48) - 1;

/// Makes the ids of one client.
#[derive(Debug, Clone, Default)]
pub(crate) struct IdSource {
    last: Option<MessageId>,
}

impl IdSource {
    /// Continues above `last`.
    pub(crate) fn new(last: Option<MessageId>) -> Self {
        Self { last }
    }

    /// The greatest id made or taken so far.
    pub(crate) fn last(&self) -> Option<MessageId> {
        self.last
    }

    /// The next id: above the last, and at or above `unix_ms`.
    pub(crate) fn next(&mut self, unix_ms: u64, rng: &mut SmallRng) -> MessageId {
        let now = u128::from(unix_ms).min(MS_MAX);
        let id = match self.last.map(split) {
            Some((ms, random)) if ms >= now => {
                // A random step, not one: two processes that continue from the same state
                // by mistake make different ids.
                let random = random + u128::from(rng.random_range(1..=u64::from(u32::MAX)));
                if random <= RANDOM_MAX {
                    join(ms, random)
                } else {
                    join((ms + 1).min(MS_MAX), fresh(rng))
                }
            }
            _ => join(now, fresh(rng)),
        };
        self.last = Some(id);
        id
    }

    /// Takes an id the application chose. `false` when it does not increase.
    pub(crate) fn take(&mut self, id: MessageId) -> bool {
        if self.last.is_some_and(|last| id <= last) {
            return false;
        }
        self.last = Some(id);
        true
    }
}

/// The top bit stays clear, so that a millisecond has room to count up.
fn fresh(rng: &mut SmallRng) -> u128 {
    rng.random::<u128>() & (RANDOM_MAX >> 1)
}

fn join(ms: u128, random: u128) -> MessageId {
    let high = random >> 62;
    let low = random & ((1 << 62) - 1);
    MessageId::from_u128((ms << 80) | (0x7 << 76) | (high << 64) | (0b10 << 62) | low)
}

fn split(id: MessageId) -> (u128, u128) {
    let bits = id.to_u128();
    let high = (bits >> 64) & 0xfff;
    (bits >> 80, (high << 62) | (bits & ((1 << 62) - 1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;

    proptest! {
        /// Whatever the clock does, ids increase and are version 7.
        #[test]
        fn ids_increase(clock in prop::collection::vec(0u64..5, 1..300), base in 0u64..1 << 47, seed: u64) {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut ids = IdSource::default();
            let mut last = None;
            for ms in clock {
                let id = ids.next(base + ms, &mut rng);
                prop_assert_eq!(MessageId::parse(&id.to_string()).unwrap(), id);
                prop_assert!(last.is_none_or(|last| id > last));
                prop_assert_eq!(join(split(id).0, split(id).1), id);
                last = Some(id);
            }
        }
    }

    #[test]
    fn a_full_millisecond_moves_on() {
        let mut rng = SmallRng::seed_from_u64(1);
        let full = join(7, RANDOM_MAX);
        let mut ids = IdSource::new(Some(full));
        let next = ids.next(3, &mut rng);
        assert!(next > full);
        assert_eq!(split(next).0, 8);
    }

    #[test]
    fn chosen_ids_must_increase() {
        let mut ids = IdSource::new(Some(join(5, 5)));
        assert!(!ids.take(join(5, 5)));
        assert!(!ids.take(join(4, 9)));
        assert!(ids.take(join(5, 6)));
        assert_eq!(ids.last(), Some(join(5, 6)));
    }
}
