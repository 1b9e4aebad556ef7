//! How fast a user may send: a token bucket for messages and one for bytes
//! (contract D6).
//!
//! Integers only, the clock comes in. It refuses, it never delays: what to do
//! with a refused send is the caller's business.

/// Limits of a user. They are passed to each call, so that a bucket stays small
/// and a changed configuration holds at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// Messages a second, sustained; at least 1.
    pub messages_per_s: u32,
    /// Messages at once.
    pub messages_burst: u32,
    /// Bytes a second, sustained; at least 1.
    pub bytes_per_s: u32,
    /// Bytes at once. A single larger message needs the full bucket and empties it.
    pub bytes_burst: u32,
}

/// Too much in a short time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many messages or bytes; try again in {retry_after_ms} ms")]
pub struct Limited {
    /// When the same send would be let through, if nothing else is sent.
    pub retry_after_ms: u64,
}

/// One user's buckets, in thousandths, so that a millisecond's refill is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    messages_milli: u64,
    bytes_milli: u64,
    refilled_ms: u64,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(limits: &RateLimits, now_ms: u64) -> Self {
        Self {
            messages_milli: milli(limits.messages_burst.max(1)),
            bytes_milli: milli(limits.bytes_burst.max(1)),
            refilled_ms: now_ms,
        }
    }

    /// Takes a message of `bytes` out.
    ///
    /// # Errors
    /// [`Limited`] when there is not enough left; nothing is taken then.
    pub fn take(&mut self, limits: &RateLimits, bytes: u32, now_ms: u64) -> Result<(), Limited> {
        self.refill(limits, now_ms);
        let cost_messages = 1000;
        let cost_bytes = milli(bytes.min(limits.bytes_burst.max(1)));
        let wait = wait_ms(self.messages_milli, cost_messages, limits.messages_per_s).max(wait_ms(
            self.bytes_milli,
            cost_bytes,
            limits.bytes_per_s,
        ));
        if wait > 0 {
            return Err(Limited {
                retry_after_ms: wait,
            });
        }
        self.messages_milli -= cost_messages;
        self.bytes_milli -= cost_bytes;
        Ok(())
    }

    fn refill(&mut self, limits: &RateLimits, now_ms: u64) {
        // A clock that stepped back gives nothing and costs nothing: count from there on.
        let elapsed_ms = now_ms.saturating_sub(self.refilled_ms);
        self.refilled_ms = now_ms;
        let fill = |tokens: u64, per_s: u32, burst: u32| {
            tokens
                .saturating_add(elapsed_ms.saturating_mul(u64::from(per_s.max(1))))
                .min(milli(burst.max(1)))
        };
        self.messages_milli = fill(
            self.messages_milli,
            limits.messages_per_s,
            limits.messages_burst,
        );
        self.bytes_milli = fill(self.bytes_milli, limits.bytes_per_s, limits.bytes_burst);
    }
}

fn milli(tokens: u32) -> u64 {
    u64::from(tokens) * 1000
}

fn wait_ms(have_milli: u64, cost_milli: u64, per_s: u32) -> u64 {
    cost_milli
        .saturating_sub(have_milli)
        .div_ceil(u64::from(per_s.max(1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: RateLimits = RateLimits {
        messages_per_s: 10,
        messages_burst: 3,
        bytes_per_s: 100,
        bytes_burst: 50,
    };

    #[test]
    fn burst_then_the_sustained_rate() {
        let mut bucket = TokenBucket::new(&LIMITS, 1000);
        for _ in 0..3 {
            assert_eq!(bucket.take(&LIMITS, 1, 1000), Ok(()));
        }
        let limited = bucket.take(&LIMITS, 1, 1000).unwrap_err();
        assert_eq!(limited.retry_after_ms, 100);
        assert!(bucket.take(&LIMITS, 1, 1099).is_err());
        assert_eq!(bucket.take(&LIMITS, 1, 1100), Ok(()));
    }

    #[test]
    fn a_large_message_needs_the_full_bucket() {
        let mut bucket = TokenBucket::new(&LIMITS, 0);
        assert_eq!(bucket.take(&LIMITS, 4000, 0), Ok(()));
        let limited = bucket.take(&LIMITS, 10, 0).unwrap_err();
        assert_eq!(limited.retry_after_ms, 100);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let mut bucket = TokenBucket::new(&LIMITS, 1_000_000);
        for _ in 0..3 {
            bucket.take(&LIMITS, 0, 1_000_000).unwrap();
        }
        assert!(bucket.take(&LIMITS, 0, 10).is_err());
        assert!(bucket.take(&LIMITS, 0, 100).is_err());
        assert_eq!(bucket.take(&LIMITS, 0, 110), Ok(()));
    }

    proptest! {
        /// In any span, never more than burst plus rate times time; and waiting as told helps.
        #[test]
        fn never_above_the_rate(
            sends in prop::collection::vec((0u64..300, 0u32..40), 1..100),
        ) {
            let mut bucket = TokenBucket::new(&LIMITS, 0);
            let (mut now, mut messages, mut bytes) = (0, 0u64, 0u64);
            for (pause, size) in sends {
                now += pause;
                match bucket.take(&LIMITS, size, now) {
                    Ok(()) => {
                        messages += 1;
                        bytes += u64::from(size);
                    }
                    Err(limited) => {
                        prop_assert!(limited.retry_after_ms > 0);
                        let mut early = bucket;
                        prop_assert!(early.take(&LIMITS, size, now + limited.retry_after_ms - 1).is_err());
                        let mut later = bucket;
                        prop_assert!(later.take(&LIMITS, size, now + limited.retry_after_ms).is_ok());
                    }
                }
                prop_assert!(messages * 1000 <= 3000 + now * 10);
                prop_assert!(bytes * 1000 <= 50_000 + now * 100);
            }
        }
    }
}
