//! How often somebody may ask: token buckets, one for each credential.
//!
//! Bounded: a bucket that is full again is forgotten when room is needed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

/// Credentials counted at a time. More than can be live, see the bounds of tokens and sessions.
const BUCKETS_MAX: usize = 4_096;

/// Lets through `per_s` for long and `burst` at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    pub(super) fn full(burst: f64, now: Instant) -> Self {
        Self {
            left: burst,
            at: now,
        }
    }

    /// Takes one; `Err`: there is none, and after how many seconds there will be.
    pub(super) fn take(&mut self, per_s: f64, burst: f64, now: Instant) -> Result<(), f64> {
        let passed_s = now.saturating_duration_since(self.at).as_secs_f64();
        let left = (self.left + passed_s * per_s).min(burst);
        let taken = left >= 1.0;
        self.left = if taken { left - 1.0 } else { left };
        self.at = now;
        if taken {
            Ok(())
        } else {
            Err((1.0 - left) / per_s)
        }
    }

    fn is_full(&self, per_s: f64, burst: f64, now: Instant) -> bool {
        let passed_s = now.saturating_duration_since(self.at).as_secs_f64();
        self.left + passed_s * per_s >= burst
    }
}

/// The buckets of all credentials.
pub(super) struct Rates {
    per_s: f64,
    burst: f64,
    buckets: Mutex<HashMap<Arc<str>, Bucket>>,
}

impl Rates {
    /// Four seconds' worth at once.
    pub(super) fn new(per_s: u32) -> Self {
        let per_s = f64::from(per_s.max(1));
        Self {
            per_s,
            burst: per_s * 4.0,
            buckets: Mutex::default(),
        }
    }

    /// Counts a request; `Err`: too many, with the seconds to wait.
    pub(super) fn admit(&self, credential: &Arc<str>, now: Instant) -> Result<(), u32> {
        let mut buckets = self.buckets.lock();
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(credential) {
            buckets.retain(|_, bucket| !bucket.is_full(self.per_s, self.burst, now));
            if buckets.len() >= BUCKETS_MAX {
                return Err(1);
            }
        }
        let bucket = buckets
            .entry(Arc::clone(credential))
            .or_insert_with(|| Bucket::full(self.burst, now));
        bucket
            .take(self.per_s, self.burst, now)
            // Whole seconds from 1 up, which any float in this range fits.
            .map_err(|wait_s| wait_s.ceil().max(1.0) as u32)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_credential_has_its_own_rate() {
        let rates = Rates::new(10);
        let (one, other): (Arc<str>, Arc<str>) = ("one".into(), "other".into());
        let now = Instant::now();
        let admitted = |who, now| (0..100).filter(|_| rates.admit(who, now).is_ok()).count();
        assert_eq!(admitted(&one, now), 40);
        assert_eq!(rates.admit(&one, now), Err(1));
        assert_eq!(admitted(&other, now), 40);
        assert_eq!(admitted(&one, now + Duration::from_secs(2)), 20);
        assert_eq!(admitted(&one, now + Duration::from_secs(2_000)), 40);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let rates = Rates::new(1);
        let now = Instant::now();
        for n in 0..BUCKETS_MAX {
            assert!(rates.admit(&n.to_string().into(), now).is_ok());
        }
        let one_more: Arc<str> = "one more".into();
        assert!(rates.admit(&one_more, now).is_err());
        assert!(rates.admit(&one_more, now + Duration::from_secs(5)).is_ok());
        assert_eq!(rates.buckets.lock().len(), 1);
    }
}
