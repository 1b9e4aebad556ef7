//! Sessions of the dashboard: an admin token or the secret, once, for a cookie.
//!
//! A page must not keep a token where a script can read it, so the server keeps
//! the session and the browser a name for it that no script sees (HttpOnly), no
//! other site can make it send (SameSite=Strict), and that opens nothing but the
//! admin API (Path). What changes something also needs a second value in a
//! header, which only a page of this origin can have read. Sessions are in
//! memory: a restart ends them, and so does the end of their token.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use actix_web::http::header::{CACHE_CONTROL, COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use utoipa::{OpenApi, ToSchema};

use super::body::Json;
use super::caller::{Caller, Role, Via};
use super::guard::{by_bearer, refuse};
use super::operation::{Operation, delete, get, post};
use super::problem::Problem;
use super::{Shared, State};

/// Name of the cookie.
const COOKIE_NAME: &str = "stonechat_session";
/// Where it is sent.
const COOKIE_PATH: &str = "/admin";
/// Header that requests of a session bring when they change something.
const CSRF_HEADER: &str = "x-csrf-token";
/// Sessions at a time; one more ends the one that was used longest ago.
const SESSIONS_MAX: usize = 64;
/// A session nobody has used for so long ends. An open page uses it all the time.
const IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// So long a session lasts at most.
const AGE_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// A session is found by the hash of its cookie: what is in memory opens nothing.
pub(super) type Name = [u8; 32];

struct Session {
    /// Who signed in: the token's id; `None` for the secret.
    token: Option<String>,
    csrf: String,
    opened: Instant,
    used: Instant,
}

impl Session {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.opened) >= AGE_MAX
            || now.saturating_duration_since(self.used) >= IDLE_MAX
    }
}

/// The sessions of the dashboard.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<Name, Session>>);

impl Sessions {
    /// Begins one; its cookie and the value for the header.
    fn open(&self, token: Option<String>, now: Instant) -> Result<(String, String), Problem> {
        let (cookie, csrf) = (random()?, random()?);
        let mut all = self.0.lock();
        all.retain(|_, session| !session.is_over(now));
        if all.len() >= SESSIONS_MAX
            && let Some(oldest) = all
                .iter()
                .min_by_key(|(_, session)| session.used)
                .map(|(name, _)| *name)
        {
            all.remove(&oldest);
        }
        let session = Session {
            token,
            csrf: csrf.clone(),
            opened: now,
            used: now,
        };
        all.insert(name_of(&cookie), session);
        Ok((cookie, csrf))
    }

    /// What `look` makes of a session that lasts, which counts as use.
    fn with<T>(&self, cookie: &str, now: Instant, look: impl FnOnce(&Session) -> T) -> Option<T> {
        let mut all = self.0.lock();
        let name = name_of(cookie);
        let session = all.get_mut(&name)?;
        if session.is_over(now) {
            all.remove(&name);
            return None;
        }
        session.used = now;
        Some(look(session))
    }

    fn close(&self, cookie: &str) {
        self.0.lock().remove(&name_of(cookie));
    }
}

fn name_of(cookie: &str) -> Name {
    Sha256::digest(cookie).into()
}

/// 256 random bits as text.
fn random() -> Result<String, Problem> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        tracing::error!(%error, "the system gives no random bytes: nobody can sign in");
        Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR)
    })?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// The session's cookie. Of two with the same name one was set by somebody else: then neither counts.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let mut found = headers
        .get_all(COOKIE)
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE_NAME)
        .map(|(_, value)| value);
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// Who is behind a request's cookie; nobody once the session or its token has ended.
pub(super) fn caller(state: &State, headers: &HeaderMap) -> Option<Caller> {
    let cookie = cookie(headers)?;
    let token = state
        .sessions
        .with(cookie, Instant::now(), |session| session.token.clone())?;
    let found = match token {
        None => Some(Caller::new("secret", Role::Admin, "secret", Via::Secret)),
        Some(id) => state.parts.tokens.by_id(&id, super::now_ms()),
    };
    let Some(mut caller) = found else {
        state.sessions.close(cookie);
        return None;
    };
    caller.via = Via::Cookie;
    caller.session = Some(name_of(cookie));
    Some(caller)
}

/// Whether a session by which somebody was let in still lasts; asking is no use of it.
pub(super) fn stands(state: &State, caller: &Caller) -> bool {
    let sessions = state.sessions.0.lock();
    let session = caller.session.and_then(|name| sessions.get(&name));
    session.is_some_and(|session| {
        let token = session.token.as_deref();
        !session.is_over(Instant::now())
            && token.is_none_or(|id| state.parts.tokens.is_good(id, super::now_ms()))
    })
}

/// Refuses what changes something and does not come from a page of ours.
pub(super) fn check(
    state: &State,
    caller: &Caller,
    method: &Method,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    if caller.via != Via::Cookie || *method == Method::GET || *method == Method::HEAD {
        return Ok(());
    }
    let given = headers.get(CSRF_HEADER).map(HeaderValue::as_bytes);
    let right = cookie(headers).and_then(|cookie| {
        state.sessions.with(cookie, Instant::now(), |session| {
            let same = |given: &[u8]| session.csrf.as_bytes().ct_eq(given).into();
            given.is_some_and(same)
        })
    });
    if right == Some(true) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "csrf",
        "a session's writes need the header X-CSRF-Token with the csrf of GET /session; \
         programs send a token as Authorization: Bearer instead",
    ))
}

/// What to sign in with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SignIn {
    /// An admin token, or the secret of the data directory.
    token: String,
}

/// A session, as the dashboard needs to know it.
#[derive(Debug, Serialize, ToSchema)]
struct SessionInfo {
    /// What writes carry in the header `X-CSRF-Token`.
    csrf: String,
    /// Who is signed in.
    name: String,
    role: Role,
}

fn answer(csrf: String, caller: &Caller) -> SessionInfo {
    SessionInfo {
        csrf,
        name: caller.name.to_string(),
        role: caller.role,
    }
}

/// The cookie as it is set; an empty one ends it.
fn set_cookie(
    request: &HttpRequest,
    cookie: &str,
) -> (actix_web::http::header::HeaderName, String) {
    let age_s = if cookie.is_empty() {
        0
    } else {
        AGE_MAX.as_secs()
    };
    let secure = if request.app_config().secure() {
        "; Secure"
    } else {
        ""
    };
    let text = format!(
        "{COOKIE_NAME}={cookie}; Path={COOKIE_PATH}; Max-Age={age_s}; HttpOnly; SameSite=Strict{secure}"
    );
    (SET_COOKIE, text)
}

/// Sign in to the dashboard
///
/// Takes a token once and sets a cookie. A session lasts 12 hours at most, ends after 30 minutes
/// in which nobody used it, and with its token. Programs have no use for it: they send the token
/// with each request.
#[utoipa::path(post, path = "/session", tag = "access", request_body = SignIn,
    responses((status = 200, body = SessionInfo)))]
pub(super) async fn open(
    state: Shared,
    request: HttpRequest,
    Json(sign_in): Json<SignIn>,
) -> Result<HttpResponse, Problem> {
    let Some(mut caller) = by_bearer(&state, sign_in.token.as_bytes()) else {
        return Err(refuse(&state, &request, true));
    };
    caller.peer = request.peer_addr();
    let token = (caller.via == Via::Token).then(|| caller.id.to_string());
    caller.via = Via::Cookie;
    let pending = state.audit.begin(&caller, "session.open", String::new());
    // One browser, one session: signing in again ends the one before.
    if let Some(before) = cookie(request.headers()) {
        state.sessions.close(before);
    }
    let (cookie, csrf) = state.sessions.open(token, Instant::now())?;
    pending.done(None).await;
    Ok(HttpResponse::Ok()
        .insert_header(set_cookie(&request, &cookie))
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(answer(csrf, &caller)))
}

/// Who is signed in to the dashboard
///
/// By the cookie alone; 204 when nobody is.
#[utoipa::path(get, path = "/session", tag = "access",
    responses((status = 200, body = SessionInfo), (status = 204, description = "Nobody is signed in")))]
pub(super) async fn show(state: Shared, request: HttpRequest) -> HttpResponse {
    let headers = request.headers();
    let info = caller(&state, headers).and_then(|caller| {
        let csrf = state
            .sessions
            .with(cookie(headers)?, Instant::now(), |session| {
                session.csrf.clone()
            })?;
        Some(answer(csrf, &caller))
    });
    let none = (CACHE_CONTROL, "no-store");
    match info {
        Some(info) => HttpResponse::Ok().insert_header(none).json(info),
        None => HttpResponse::NoContent().insert_header(none).finish(),
    }
}

/// Sign out of the dashboard
#[utoipa::path(delete, path = "/session", tag = "access",
    responses((status = 204, description = "The session has ended, if there was one")))]
pub(super) async fn close(state: Shared, request: HttpRequest) -> HttpResponse {
    if let Some(cookie) = cookie(request.headers()) {
        state.sessions.close(cookie);
    }
    HttpResponse::NoContent()
        .insert_header(set_cookie(&request, ""))
        .finish()
}

#[derive(OpenApi)]
#[openapi(paths(open, show, close))]
pub(super) struct Api;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        post("/session", Role::Viewer, "session.open", open).open(),
        get("/session", Role::Viewer, "session.show", show).open(),
        delete("/session", Role::Viewer, "session.close", close),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_by_age_by_idleness_and_by_too_many_others() {
        let sessions = Sessions::default();
        let start = Instant::now();
        let alive = |cookie: &str, at| sessions.with(cookie, at, |_| ()).is_some();
        let (idle, _) = sessions.open(None, start).unwrap();
        let (busy, _) = sessions.open(None, start).unwrap();
        let minutes = |count: u64| start + Duration::from_secs(count * 60);
        assert!(alive(&busy, minutes(29)));
        assert!(!alive(&idle, minutes(30)), "nobody used it");
        for minute in (30..720).step_by(29) {
            assert!(alive(&busy, minutes(minute)), "{minute}");
        }
        assert!(!alive(&busy, minutes(720)), "it is too old");

        let later = minutes(1_000);
        let all: Vec<_> = (0..=SESSIONS_MAX as u64)
            .map(|second| {
                sessions
                    .open(None, later + Duration::from_secs(second))
                    .unwrap()
                    .0
            })
            .collect();
        let then = later + Duration::from_secs(100);
        assert!(!alive(&all[0], then), "the one used longest ago made room");
        assert!(all[1..].iter().all(|cookie| alive(cookie, then)));
        assert_eq!(sessions.0.lock().len(), SESSIONS_MAX);
    }

    #[test]
    fn only_the_one_cookie_of_this_name_counts() {
        let headers = |all: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for text in all {
                headers.append(COOKIE, HeaderValue::from_static(text));
            }
            headers
        };
        for (given, found) in [
            (&["stonechat_session=abc"][..], Some("abc")),
            (&["a=b; stonechat_session=abc ;c=d"], Some("abc")),
            (&["a=b", "stonechat_session=abc"], Some("abc")),
            (&["xstonechat_session=abc"], None),
            (&["stonechat_session"], None),
            (&["stonechat_session=a; stonechat_session=b"], None),
            (&["stonechat_session=a", "stonechat_session=a"], None),
            (&[], None),
        ] {
            assert_eq!(cookie(&headers(given)), found, "{given:?}");
        }
    }
}
