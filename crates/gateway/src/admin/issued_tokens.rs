//! Which tokens a user was issued: what is remembered of them, never the tokens.

use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::Shared;
use super::body;
use super::caller::Role;
use super::operation::{Operation, get};
use super::problem::Problem;
use crate::auth::{IssuedBefore, TokenState};

/// What has become of a token.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It opens.
    Good,
    /// Somebody voided it: alone, with all of its user, or with its signing key.
    Revoked,
    /// Its time is over.
    Expired,
}

/// A token that was issued.
#[derive(Debug, Serialize, ToSchema)]
struct UserToken {
    /// Names it when it is to be revoked; no secret.
    #[schema(example = "alice.3vXkO1mJ0Rk8yJvS0y1lYQ")]
    id: String,
    /// The only device it is good for; `null`: any.
    device: Option<String>,
    /// When it was issued, milliseconds since the Unix epoch.
    issued_ms: u64,
    /// When it expires, milliseconds since the Unix epoch.
    expires_ms: u64,
    state: State,
}

impl UserToken {
    fn of(token: IssuedBefore) -> Self {
        Self {
            id: token.id,
            device: token.device.map(|device| device.to_string()),
            issued_ms: token.issued_ms,
            expires_ms: token.expires_ms,
            state: match token.state {
                TokenState::Good => State::Good,
                TokenState::Revoked => State::Revoked,
                TokenState::Expired => State::Expired,
            },
        }
    }
}

/// The tokens of a user.
#[derive(Debug, Serialize, ToSchema)]
struct UserTokens {
    /// Newest first.
    tokens: Vec<UserToken>,
}

/// The tokens issued to a user
///
/// The latest 64, without the tokens themselves. What was issued by a version that did not
/// remember, or before these, may still be good: `DELETE` voids all of them.
#[utoipa::path(get, path = "/users/{user}/tokens", tag = "users",
    params(("user" = String, Path, description = "The user's name")),
    responses((status = 200, body = UserTokens)))]
async fn list(state: Shared, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let user = body::user(&request)?;
    let tokens = state.parts.auth.issued(&user).await?;
    let tokens = tokens.into_iter().map(UserToken::of).collect();
    Ok(HttpResponse::Ok().json(UserTokens { tokens }))
}

#[derive(OpenApi)]
#[openapi(paths(list))]
pub(super) struct Api;

pub(super) fn operations() -> Vec<Operation> {
    vec![get(
        "/users/{user}/tokens",
        Role::Viewer,
        "tokens.list",
        list,
    )]
}
