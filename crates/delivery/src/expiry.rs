//! When a message stops being worth delivering (contract D5).
//!
//! Arithmetic only: who removes what has expired, and counts it, is the
//! store's business.

/// When a message accepted at `ts_ms` expires: after the time its sender asked
/// for, and never later than `ttl_s_max` after acceptance. Saturates.
pub fn expires_ms(ts_ms: u64, ttl_s: Option<u64>, ttl_s_max: u64) -> u64 {
    let ttl_s = ttl_s.map_or(ttl_s_max, |asked| asked.min(ttl_s_max));
    ts_ms.saturating_add(ttl_s.saturating_mul(1000))
}

/// Whether a message is past its time. A message lives up to and including its last millisecond.
pub fn is_expired(expires_ms: u64, now_ms: u64) -> bool {
    now_ms > expires_ms
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_senders_wish_is_capped() {
        assert_eq!(expires_ms(1000, None, 60), 61_000);
        assert_eq!(expires_ms(1000, Some(5), 60), 6_000);
        assert_eq!(expires_ms(1000, Some(61), 60), 61_000);
        assert_eq!(expires_ms(1000, Some(0), 60), 1_000);
        assert_eq!(expires_ms(u64::MAX, Some(1), 60), u64::MAX);
        assert_eq!(expires_ms(1, Some(u64::MAX), u64::MAX), u64::MAX);
        assert!(!is_expired(1000, 1000));
        assert!(is_expired(1000, 1001));
    }

    proptest! {
        #[test]
        fn never_later_than_the_cap(ts in any::<u64>(), ttl in any::<Option<u64>>(), max in any::<u64>()) {
            let at = expires_ms(ts, ttl, max);
            prop_assert!(at >= ts);
            prop_assert!(at <= expires_ms(ts, None, max));
        }
    }
}
