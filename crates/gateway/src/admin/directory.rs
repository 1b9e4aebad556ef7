//! The list of users: found, paged, and what holds for one of them changed.

use std::net::SocketAddr;

use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Deserializer, Serialize};
use stonechat_mailbox::{Account, UserLimits};
use stonechat_protocol::UserId;
use utoipa::{IntoParams, OpenApi, ToSchema};

use super::Shared;
use super::body::{self, Json};
use super::caller::{Caller, Role};
use super::operation::{Operation, get, patch};
use super::problem::Problem;
use super::users::sweep_later;

type Answer = Result<HttpResponse, Problem>;

/// Accounts looked at for one page, however few of them fit: the next page goes on from there.
const LOOKED_AT_MAX: usize = 20_000;
/// Accounts looked at in one go.
const STRETCH: usize = 1_000;

/// What holds for one user instead of what is configured for all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    /// Messages the user may send a second; twice as many at once.
    #[schema(minimum = 1)]
    messages_per_s: Option<u32>,
    /// Messages the mailbox holds.
    mailbox_messages_max: Option<u64>,
    /// Bytes of bodies the mailbox holds.
    mailbox_bytes_max: Option<u64>,
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct User {
    #[schema(example = "alice")]
    user: String,
    /// When it was created, milliseconds since the Unix epoch.
    created_ms: u64,
    /// May not sign in.
    disabled: bool,
    /// Absent: as configured for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
}

impl User {
    pub(super) fn of(account: &Account) -> Self {
        let limits = &account.limits;
        Self {
            user: account.user.to_string(),
            created_ms: account.created_ms,
            disabled: account.disabled,
            limits: (!limits.is_none()).then_some(Limits {
                messages_per_s: limits.messages_per_s,
                mailbox_messages_max: limits.mailbox_messages_max,
                mailbox_bytes_max: limits.mailbox_bytes_max,
            }),
        }
    }
}

/// One connection of a user.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Connection {
    device: String,
    /// Since when, milliseconds since the Unix epoch.
    since_ms: u64,
    /// Sends taken from it and not yet answered.
    unanswered_count: u32,
    /// Address and port of the other end: of the client, or of a proxy before this node.
    #[schema(value_type = Option<String>, example = "192.0.2.7:50122")]
    peer: Option<SocketAddr>,
    /// Frames from the client so far.
    received_frames_count: u64,
    /// Frames to the client so far.
    sent_frames_count: u64,
    /// Bytes from the client so far, TLS not counted.
    received_bytes: u64,
    /// Bytes to the client so far, TLS not counted.
    sent_bytes: u64,
}

/// A user's connections.
pub(super) fn connections(state: &Shared, user: &UserId) -> Vec<Connection> {
    let connections = state.parts.broker.connections(user).into_iter();
    let connections = connections.map(|connection| Connection {
        device: connection.device.to_string(),
        since_ms: connection.since_ms,
        unanswered_count: connection.unanswered,
        peer: connection.peer,
        received_frames_count: connection.traffic.frames_received,
        sent_frames_count: connection.traffic.frames_sent,
        received_bytes: connection.traffic.received_bytes,
        sent_bytes: connection.traffic.sent_bytes,
    });
    connections.collect()
}

/// A page of users.
#[derive(Debug, Serialize, ToSchema)]
struct Users {
    /// By name.
    users: Vec<User>,
    /// Where the next page begins; `null` on the last one.
    next: Option<String>,
}

/// Which users: `?q=…&disabled=…&connected=…`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Part of the name.
    q: Option<String>,
    /// Only those who may not sign in, or only those who may.
    disabled: Option<bool>,
    /// Only those who are connected, or only those who are not.
    connected: Option<bool>,
    /// What an earlier page gave as `next`.
    after: Option<String>,
    /// Entries at most: 100 when absent, 1,000 at most.
    #[param(minimum = 1, maximum = 1_000)]
    limit: Option<usize>,
}

impl Filter {
    fn takes(&self, state: &Shared, account: &Account) -> bool {
        let named = self
            .q
            .as_ref()
            .is_none_or(|part| account.user.as_str().contains(part.as_str()));
        let disabled = self
            .disabled
            .is_none_or(|wanted| wanted == account.disabled);
        named
            && disabled
            && self.connected.is_none_or(|wanted| {
                let connected = state.parts.broker.connected_devices(&account.user);
                wanted != connected.is_empty()
            })
    }
}

/// The users
///
/// A page may have fewer entries than asked for, or none, and still a `next`: a search looks
/// at so many users at a time.
#[utoipa::path(get, path = "/users", tag = "users", params(Filter),
    responses((status = 200, body = Users)))]
pub(super) async fn list(state: Shared, request: HttpRequest) -> Answer {
    let filter: Filter = body::query(&request)?;
    let limit = filter.limit.unwrap_or(100).clamp(1, 1_000);
    let after = filter.after.as_deref().filter(|text| !text.is_empty());
    let mut after = after.map(UserId::new).transpose().map_err(|_| {
        Problem::bad_request("bad_query", "after is what an earlier page gave as next")
    })?;
    let store = state.parts.broker.store();
    let mut users = Vec::new();
    let mut looked_at = 0;
    loop {
        let accounts = store.accounts(after.as_ref(), STRETCH).await?;
        let ends = accounts.len() < STRETCH;
        for account in accounts {
            looked_at += 1;
            if filter.takes(&state, &account) {
                users.push(User::of(&account));
            }
            after = Some(account.user);
            if users.len() == limit {
                let next = after.map(|user| user.to_string());
                return Ok(HttpResponse::Ok().json(Users { users, next }));
            }
        }
        if ends || looked_at >= LOOKED_AT_MAX {
            let next = after.filter(|_| !ends).map(|user| user.to_string());
            return Ok(HttpResponse::Ok().json(Users { users, next }));
        }
    }
}

/// What to change of a user; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    /// May not sign in.
    disabled: Option<bool>,
    /// What holds for this user; `null`: as configured for all. Takes the role admin.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Limits>)]
    limits: Option<Option<Limits>>,
}

/// Tells `null` from absent.
fn given<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<Limits>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// Change what holds for a user
///
/// Disabling closes the user's connections. Limits hold at once.
#[utoipa::path(patch, path = "/users/{user}", tag = "users", request_body = Change,
    params(("user" = String, Path, description = "The user's name")),
    responses((status = 200, body = User)))]
async fn change(
    state: Shared,
    caller: Caller,
    request: HttpRequest,
    Json(change): Json<Change>,
) -> Answer {
    let user = body::user(&request)?;
    let auth = &state.parts.auth;
    let limits = change.limits.map(Option::unwrap_or_default);
    let mut account = None;
    if let Some(limits) = limits {
        caller.require(Role::Admin)?;
        if limits.messages_per_s == Some(0) {
            let detail = "messages_per_s is at least 1; disable a user who may not send at all";
            return Err(Problem::bad_request("bad_limits", detail));
        }
        let limits = UserLimits {
            messages_per_s: limits.messages_per_s,
            mailbox_messages_max: limits.mailbox_messages_max,
            mailbox_bytes_max: limits.mailbox_bytes_max,
        };
        account = Some(auth.set_limits(&user, limits).await?);
        tracing::info!(%user, ?limits, "limits of a user set");
    }
    if let Some(disabled) = change.disabled {
        account = Some(auth.set_disabled(&user, disabled).await?);
        if disabled {
            let disconnected = state.close_revoked(&user, None);
            sweep_later(&state, &user, None);
            tracing::info!(%user, disconnected, "user disabled");
        } else {
            tracing::info!(%user, "user enabled");
        }
    }
    let Some(account) = account else {
        let detail = "say what to change: disabled, limits or both";
        return Err(Problem::bad_request("bad_json", detail));
    };
    Ok(HttpResponse::Ok().json(User::of(&account)))
}

#[derive(OpenApi)]
#[openapi(paths(list, change))]
pub(super) struct Api;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        get("/users", Role::Viewer, "users.list", list),
        patch("/users/{user}", Role::Operator, "users.change", change),
    ]
}
