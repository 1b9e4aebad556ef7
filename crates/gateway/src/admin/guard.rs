//! Before each handler: who is it, may they, not too often; and after it, what
//! came of it, for the audit log.
//!
//! There are two kinds of limits. Wrong credentials share one bucket; beyond its
//! rate they are answered 429 and not logged. Right ones have a bucket each. The
//! secret has none: guessing 256 bits is hopeless at any rate, locking the
//! operator out is not.

use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::AUTHORIZATION;
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpRequest};
use metrics::counter;
use parking_lot::Mutex;

use super::audit::target_of;
use super::caller::{Caller, Role, Via};
use super::operation::Rule;
use super::problem::{Code, Problem};
use super::rates::Bucket;
use super::{Shared, State, session};
use crate::events::What;

/// Wrong credentials answered as such at once.
const FAILURES_BURST: f64 = 10.0;
/// Wrong credentials answered as such a second, for long.
const FAILURES_PER_S: f64 = 1.0;

/// Counts wrong credentials.
pub(super) struct Failures(Mutex<Bucket>);

impl Default for Failures {
    fn default() -> Self {
        Self(Mutex::new(Bucket::full(FAILURES_BURST, Instant::now())))
    }
}

impl Failures {
    /// Counts one; `false` when there were too many of late.
    pub(super) fn admit(&self, now: Instant) -> bool {
        let mut bucket = self.0.lock();
        bucket.take(FAILURES_PER_S, FAILURES_BURST, now).is_ok()
    }
}

/// Who is behind a request, by whatever credential it carries.
///
/// An `Authorization` header counts alone: a request that carries one and a cookie is judged by
/// the header, right or wrong.
pub(super) fn credentials(state: &State, request: &ServiceRequest) -> Option<Caller> {
    let mut headers = request.headers().get_all(AUTHORIZATION);
    let Some(header) = headers.next() else {
        let mut caller = session::caller(state, request.headers())?;
        caller.peer = request.peer_addr();
        return Some(caller);
    };
    if headers.next().is_some() {
        // Two of them: whatever a proxy before this looked at, it may have been the other one.
        return None;
    }
    let mut caller = by_bearer(state, bearer(header.as_bytes())?)?;
    caller.peer = request.peer_addr();
    Some(caller)
}

/// Who brings this secret or token.
pub(super) fn by_bearer(state: &State, candidate: &[u8]) -> Option<Caller> {
    if state.parts.secret.matches(candidate) {
        return Some(Caller::new("secret", Role::Admin, "secret", Via::Secret));
    }
    state.parts.tokens.verify(candidate, super::now_ms())
}

/// Lets a request through to its handler or answers it with a problem.
pub(super) async fn gate<B: MessageBody + 'static>(
    rule: Rule,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse, Error> {
    let state = request
        .app_data::<Shared>()
        .cloned()
        .ok_or_else(|| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR))?;
    let Some(role) = rule.role else {
        return Ok(next.call(request).await?.map_into_boxed_body());
    };
    let Some(caller) = credentials(&state, &request) else {
        let given = request.headers().contains_key(AUTHORIZATION);
        let problem = refuse(&state, request.request(), given);
        return Ok(request.into_response(problem.answer()));
    };
    // From here on it is known who it is, so the outcome goes into the audit log.
    let begin = || {
        let target = target_of(request.request());
        state.audit.begin(&caller, rule.action, target)
    };
    let own = session::check(&state, &caller, request.method(), request.headers());
    if let Err(problem) = own.and_then(|()| admit(&state, rule, role, &caller)) {
        // Whoever may do nothing may not push out what others did either.
        if rule.audited && state.refusals.admit(&caller.id, Instant::now()).is_ok() {
            begin().done(Some(problem.code())).await;
        }
        return Ok(request.into_response(problem.answer()));
    }
    let pending = rule.audited.then(begin);
    request.extensions_mut().insert(caller);
    let response = next.call(request).await?;
    if let Some(pending) = pending {
        pending.done(problem_of(&response)).await;
    }
    Ok(response.map_into_boxed_body())
}

/// Whether somebody known may do this now.
fn admit(state: &State, rule: Rule, role: Role, caller: &Caller) -> Result<(), Problem> {
    if caller.via != Via::Secret {
        state
            .rates
            .admit(&caller.id, Instant::now())
            .map_err(|wait_s| {
                let detail = "this credential asks too often; admin.requests_per_s is the limit";
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail)
                    .retry_after(wait_s)
            })?;
    }
    caller.require(role)?;
    if rule.action.is_empty() {
        return Ok(());
    }
    caller.require_scope(rule.action)
}

/// What somebody unknown is told.
pub(super) fn refuse(state: &State, request: &HttpRequest, given: bool) -> Problem {
    counter!("stonechat_admin_unauthorized_total").increment(1);
    if !state.failures.admit(Instant::now()) {
        return Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_failures",
            "too many requests without a right credential; try again later",
        )
        .retry_after(1);
    }
    state.parts.events.tell(What::Security {
        what: "admin_unauthorized",
        detail: format!("{} {}", request.method(), request.path()),
        peer: request.peer_addr(),
        suppressed_count: 0,
    });
    tracing::warn!(
        peer = request.peer_addr().map(tracing::field::display),
        path = request.path(),
        given,
        "admin request without a right credential refused"
    );
    Problem::unauthorized()
}

/// The code of the problem that a response is, if it is one.
fn problem_of<B>(response: &ServiceResponse<B>) -> Option<&'static str> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return None;
    }
    let code = response.response().extensions().get::<Code>().copied();
    Some(code.map_or_else(|| Problem::of_status(status).code(), |code| code.0))
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
        let later = now + Duration::from_secs(3);
        let much_later = now + Duration::from_secs(3_600);
        assert_eq!((0..100).filter(|_| failures.admit(now)).count(), 10);
        assert_eq!((0..100).filter(|_| failures.admit(later)).count(), 3);
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
