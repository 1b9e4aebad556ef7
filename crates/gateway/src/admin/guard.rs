//! Who may use the admin API: whoever brings the secret.

use std::time::Instant;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::AUTHORIZATION;
use actix_web::middleware::Next;
use actix_web::{Error, web};
use parking_lot::Mutex;

use super::State;
use super::problem::Problem;

/// Wrong secrets answered as such at once.
const FAILURES_BURST: f64 = 10.0;
/// Wrong secrets answered as such a second, for long.
const FAILURES_PER_S: f64 = 1.0;

/// Counts wrong secrets (a token bucket).
///
/// Beyond its rate they are answered 429 and not logged. The right secret is never turned
/// away: guessing 256 bits is hopeless at any rate, locking the operator out is not.
pub(super) struct Failures(Mutex<(f64, Instant)>);

impl Default for Failures {
    fn default() -> Self {
        Self(Mutex::new((FAILURES_BURST, Instant::now())))
    }
}

impl Failures {
    /// Counts one; `false` when there were too many of late.
    fn admit(&self, now: Instant) -> bool {
        let mut state = self.0.lock();
        let passed_s = now.saturating_duration_since(state.1).as_secs_f64();
        let left = (state.0 + passed_s * FAILURES_PER_S).min(FAILURES_BURST);
        let admitted = left >= 1.0;
        *state = (if admitted { left - 1.0 } else { left }, now);
        admitted
    }
}

/// Middleware that lets a request through or answers it with a problem.
pub(super) async fn guard<B: MessageBody + 'static>(
    state: web::Data<State>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let header = request.headers().get(AUTHORIZATION);
    let bearer = header.and_then(|value| bearer(value.as_bytes()));
    if bearer.is_some_and(|candidate| state.parts.secret.matches(candidate)) {
        return Ok(next.call(request).await?.map_into_left_body());
    }
    let problem = if state.failures.admit(Instant::now()) {
        tracing::warn!(
            peer = request.peer_addr().map(tracing::field::display),
            path = request.path(),
            given = bearer.is_some(),
            "admin request without the right secret refused"
        );
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "send the secret in <data-dir>/admin.secret as Authorization: Bearer",
        )
    } else {
        Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_failures",
            "too many requests without the right secret; try again later",
        )
        .retry_after(1)
    };
    Ok(request
        .into_response(problem.answer())
        .map_into_right_body())
}

fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = header.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn failures_are_bounded_and_forgiven() {
        let failures = Failures::default();
        let now = Instant::now();
        assert_eq!((0..100).filter(|_| failures.admit(now)).count(), 10);
        let later = now + Duration::from_secs(3);
        assert_eq!((0..100).filter(|_| failures.admit(later)).count(), 3);
        let much_later = now + Duration::from_secs(3_600);
        assert_eq!((0..100).filter(|_| failures.admit(much_later)).count(), 10);
    }

    #[test]
    fn the_scheme_is_read_in_any_case() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        assert_eq!(bearer(b"Basic abc"), None);
        assert_eq!(bearer(b"Bear"), None);
    }
}
