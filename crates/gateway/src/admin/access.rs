//! Who one is, and admin tokens: made, listed, revoked.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};

use super::body::{self, Json, Page};
use super::caller::{Caller, Role, Via};
use super::openapi;
use super::operation::{Operation, delete, get, post};
use super::problem::Problem;
use super::tokens::{AdminTokenError, Kept, Wanted};
use super::{Shared, now_ms};

type Answer = Result<HttpResponse, Problem>;

/// How long a token is good for when nothing else is asked for, seconds: a month.
const TTL_S_DEFAULT: u64 = 30 * 24 * 3_600;
/// How long at most, seconds: a year.
const TTL_S_MAX: u64 = 366 * 24 * 3_600;
/// Characters of a token's name.
const NAME_CHARS_MAX: usize = 64;
/// Actions and groups a scope may name.
const SCOPE_MAX: usize = 64;
/// The name of whoever brings the secret; no token may have it.
const NAME_RESERVED: &str = "secret";

/// Whoever asks.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WhoAmI {
    /// The credential's name, as the audit log has it.
    name: String,
    role: Role,
    via: Via,
    /// When the credential expires, milliseconds since the Unix epoch; `null` for the secret.
    expires_ms: Option<u64>,
    /// The actions the credential is limited to; `null`: whatever the role allows.
    scope: Option<Vec<String>>,
}

/// Who one is and what one may do
#[utoipa::path(get, path = "/whoami", tag = "access", responses((status = 200, body = WhoAmI)))]
pub(super) async fn whoami(caller: Caller) -> HttpResponse {
    HttpResponse::Ok().json(WhoAmI {
        name: caller.name.to_string(),
        role: caller.role,
        via: caller.via,
        expires_ms: caller.expires_ms,
        scope: caller.scope.as_deref().map(<[String]>::to_vec),
    })
}

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewAdminToken {
    /// Who it is for, as the audit log will name them. Of the tokens that are good only one can
    /// have it.
    #[schema(min_length = 1, max_length = 64, example = "ann")]
    name: String,
    role: Role,
    /// How long it is good for, seconds; a month when absent, a year at most.
    #[schema(minimum = 1, maximum = 31_622_400)]
    ttl_s: Option<u64>,
    /// Limits it to these actions ("users.list") or groups of them ("users").
    #[schema(max_items = 64, example = json!(["users", "node.show"]))]
    scope: Option<Vec<String>>,
}

/// A token that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct IssuedAdminToken {
    /// Names it when it is to be revoked; no secret.
    id: String,
    name: String,
    role: Role,
    scope: Option<Vec<String>>,
    /// When it expires, milliseconds since the Unix epoch.
    expires_ms: u64,
    /// The token. It is shown here and never again.
    token: String,
}

/// What is known of a token.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AdminToken {
    id: String,
    name: String,
    role: Role,
    scope: Option<Vec<String>>,
    created_ms: u64,
    expires_ms: u64,
    /// When it was revoked; `null` while it is not.
    revoked_ms: Option<u64>,
    /// Whether it opens anything now.
    good: bool,
}

impl AdminToken {
    fn of(id: String, kept: Kept, now_ms: u64) -> Self {
        Self {
            good: kept.is_good(now_ms),
            id,
            name: kept.name,
            role: kept.role,
            scope: kept.scope,
            created_ms: kept.created_ms,
            expires_ms: kept.expires_ms,
            revoked_ms: kept.revoked_ms,
        }
    }
}

/// A page of tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AdminTokens {
    admin_tokens: Vec<AdminToken>,
    /// Where the next page begins; `null` on the last one.
    next: Option<String>,
}

fn wanted(new: NewAdminToken) -> Result<Wanted, Problem> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-@+".contains(c);
    let length = new.name.chars().count();
    if length == 0 || length > NAME_CHARS_MAX || !new.name.chars().all(allowed) {
        return Err(Problem::bad_request(
            "bad_name",
            "a name is 1 to 64 letters, digits or any of . _ - @ +",
        ));
    }
    if new.name == NAME_RESERVED {
        return Err(Problem::bad_request(
            "bad_name",
            "this name is the one of whoever brings the secret; choose another",
        ));
    }
    let ttl_s = new.ttl_s.unwrap_or(TTL_S_DEFAULT);
    if !(1..=TTL_S_MAX).contains(&ttl_s) {
        let detail = format!("an admin token is good for 1 to {TTL_S_MAX} seconds");
        return Err(Problem::bad_request("bad_ttl", detail));
    }
    if let Some(scope) = &new.scope {
        check_scope(scope)?;
    }
    Ok(Wanted {
        name: new.name,
        role: new.role,
        scope: new.scope,
        ttl_s,
    })
}

/// A slip in a scope would make a token that opens nothing, or not what was meant.
fn check_scope(scope: &[String]) -> Result<(), Problem> {
    let bad = |detail: String| Err(Problem::bad_request("bad_scope", detail));
    if scope.is_empty() || scope.len() > SCOPE_MAX {
        return bad(format!("a scope names 1 to {SCOPE_MAX} actions or groups"));
    }
    let operations = openapi::operations();
    for entry in scope {
        let known = operations.iter().any(|one| {
            let rest = one.rule.action.strip_prefix(entry.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        if !known {
            return bad(format!(
                "there is no action or group {entry:?}; the document of the API has them as x-action"
            ));
        }
    }
    Ok(())
}

/// Make an admin token
///
/// Not to be repeated blindly: each call makes another one, and a name is taken once.
#[utoipa::path(post, path = "/admin-tokens", tag = "access", request_body = NewAdminToken,
    responses((status = 201, body = IssuedAdminToken)))]
pub(super) async fn issue(state: Shared, caller: Caller, Json(new): Json<NewAdminToken>) -> Answer {
    let wanted = wanted(new)?;
    caller.target(format!("{} ({})", wanted.name, wanted.role.name()));
    let (id, kept, token) = state.parts.tokens.issue(wanted, now_ms()).await?;
    tracing::info!(name = kept.name, role = kept.role.name(), id, by = %caller.name, "admin token issued");
    Ok(HttpResponse::Created().json(IssuedAdminToken {
        id,
        name: kept.name,
        role: kept.role,
        scope: kept.scope,
        expires_ms: kept.expires_ms,
        token,
    }))
}

/// The admin tokens
///
/// Oldest first, those revoked included until they would have expired.
#[utoipa::path(get, path = "/admin-tokens", tag = "access", params(Page),
    responses((status = 200, body = AdminTokens)))]
pub(super) async fn list(state: Shared, page: Page) -> Answer {
    let now_ms = now_ms();
    let after: Option<String> = page.after()?;
    let all = state.parts.tokens.list();
    // A token that is gone meanwhile begins the list anew, rather than ending it.
    let start = after.map_or(0, |after| {
        all.iter()
            .position(|(id, _)| *id == after)
            .map_or(0, |at| at + 1)
    });
    let more = all.len() - start > page.limit();
    let shown: Vec<AdminToken> = all
        .into_iter()
        .skip(start)
        .take(page.limit())
        .map(|(id, kept)| AdminToken::of(id, kept, now_ms))
        .collect();
    let next = shown.last().filter(|_| more).map(|last| last.id.clone());
    Ok(HttpResponse::Ok().json(AdminTokens {
        admin_tokens: shown,
        next,
    }))
}

/// Revoke an admin token
///
/// It opens nothing from the moment this is answered.
#[utoipa::path(delete, path = "/admin-tokens/{id}", tag = "access",
    params(("id" = String, Path, description = "The token's id")),
    responses((status = 204, description = "Revoked, now or before")))]
pub(super) async fn revoke(state: Shared, caller: Caller, request: HttpRequest) -> Answer {
    let id = body::segment(&request, "id");
    let kept = state.parts.tokens.revoke(id, now_ms()).await?;
    caller.target(format!("{} ({})", kept.name, kept.role.name()));
    tracing::info!(name = kept.name, id, by = %caller.name, "admin token revoked");
    Ok(HttpResponse::NoContent().finish())
}

impl From<AdminTokenError> for Problem {
    fn from(error: AdminTokenError) -> Self {
        let detail = error.to_string();
        match error {
            AdminTokenError::TooMany(_) => {
                Self::new(StatusCode::CONFLICT, "too_many_tokens", detail)
            }
            AdminTokenError::NameTaken(_) => Self::new(StatusCode::CONFLICT, "name_taken", detail),
            AdminTokenError::Unknown(_) => Self::not_found("unknown_token", detail),
            AdminTokenError::Store(error) => error.into(),
            AdminTokenError::Damaged { .. } | AdminTokenError::Random(_) => {
                tracing::error!(%error, "an admin token could not be made");
                Self::of_status(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

#[derive(OpenApi)]
#[openapi(paths(whoami, issue, list, revoke))]
pub(super) struct Api;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        get("/whoami", Role::Viewer, "access.whoami", whoami),
        get("/admin-tokens", Role::Admin, "admin_tokens.list", list),
        post("/admin-tokens", Role::Admin, "admin_tokens.issue", issue),
        delete(
            "/admin-tokens/{id}",
            Role::Admin,
            "admin_tokens.revoke",
            revoke,
        ),
    ]
}
