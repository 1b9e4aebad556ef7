//! Users, their tokens and devices. Whatever is taken away from a user also
//! closes the connections that relied on it.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::json;
use stonechat_broker::Disconnect;
use stonechat_mailbox::Account;
use stonechat_protocol::{CloseReason, DeviceId, UserId};

use super::body::{self, Json, Page};
use super::problem::Problem;
use super::{Shared, State};

type Answer = Result<HttpResponse, Problem>;

/// After something was taken away, connections are looked at again after these times: a device
/// that was just signing in shows up only when its connection is set up.
const SWEEPS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(15)];

/// How long connections that were told to close may take before what they belong to is removed.
const CLOSED_DEADLINE: Duration = Duration::from_secs(2);

impl State {
    /// Waits until a user (or one device) has no connection any more, so that nothing is noted
    /// for it after it was removed. Goes on after a while: the store copes with latecomers.
    async fn closed(&self, user: &UserId, device: Option<&DeviceId>) {
        let connected = || {
            let devices = self.parts.broker.connected_devices(user);
            devices
                .iter()
                .any(|one| device.is_none_or(|device| device == one))
        };
        let waiting = async {
            while connected() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(CLOSED_DEADLINE, waiting)
            .await
            .is_err()
        {
            tracing::warn!(%user, "a connection is slow to close");
        }
    }

    /// Closes a user's connections (one device's, or all) as revoked.
    fn close_revoked(&self, user: &UserId, device: Option<DeviceId>) -> usize {
        let what = Disconnect {
            user: user.clone(),
            device,
            reason: CloseReason::Revoked,
        };
        self.parts.broker.disconnect(&what)
    }
}

/// Closes, a little later and once more, what slipped in while `user` lost an account, tokens
/// or the token named `token`.
fn sweep_later(state: &Shared, user: &UserId, token: Option<&str>) {
    let (shared, user, token) = (state.clone(), user.clone(), token.map(str::to_owned));
    let tree = state.parts.broker.tree();
    tree.spawn_task("revocation-sweep", async move {
        for pause in SWEEPS {
            tokio::time::sleep(pause).await;
            for device in shared.parts.broker.connected_devices(&user) {
                let auth = &shared.parts.auth;
                if !auth.still_stands(&user, &device, token.as_deref()).await {
                    let disconnected = shared.close_revoked(&user, Some(device));
                    tracing::info!(%user, disconnected, "closed what had just signed in");
                }
            }
        }
    });
}

fn account_json(account: &Account) -> serde_json::Value {
    json!({
        "user": account.user,
        "created_ms": account.created_ms,
        "disabled": account.disabled,
    })
}

fn no_content() -> Answer {
    Ok(HttpResponse::NoContent().finish())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUser {
    user: String,
}

pub(super) async fn create(state: Shared, Json(new): Json<NewUser>) -> Answer {
    let user = UserId::new(&new.user)?;
    let (account, created) = state.parts.auth.create_user(&user).await?;
    let status = if created {
        tracing::info!(%user, "user created");
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let body = json!({"user": account.user, "created_ms": account.created_ms});
    Ok(HttpResponse::build(status).json(body))
}

pub(super) async fn list(state: Shared, request: HttpRequest) -> Answer {
    let page = Page::of(&request)?;
    let after: Option<UserId> = page.after()?;
    let store = state.parts.broker.store();
    let accounts = store.accounts(after.as_ref(), page.limit()).await?;
    let next = accounts
        .last()
        .filter(|_| accounts.len() == page.limit())
        .map(|account| account.user.clone());
    let users: Vec<_> = accounts.iter().map(account_json).collect();
    Ok(HttpResponse::Ok().json(json!({"users": users, "next": next})))
}

pub(super) async fn show(state: Shared, request: HttpRequest) -> Answer {
    let user = body::user(&request)?;
    let store = state.parts.broker.store();
    let unknown = || Problem::not_found("unknown_user", format!("there is no user {user}"));
    let account = store.account(&user).await?.ok_or_else(unknown)?;
    let mailbox = store.open(&user).await?.ok_or_else(unknown)?;
    let connected = state.parts.broker.connected_devices(&user);
    let devices: Vec<_> = mailbox
        .device_states()
        .into_iter()
        .map(|(device, known)| {
            json!({
                "device": device,
                "cursor": known.cursor,
                "pending": mailbox.pending(&device),
                "connected": connected.contains(&device),
                "last_seen_ms": known.last_seen_ms,
            })
        })
        .collect();
    Ok(HttpResponse::Ok().json(json!({
        "user": account.user,
        "created_ms": account.created_ms,
        "disabled": account.disabled,
        "connected": !connected.is_empty(),
        "devices": devices,
        "mailbox": mailbox.stats(),
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    disabled: bool,
}

pub(super) async fn change(
    state: Shared,
    request: HttpRequest,
    Json(change): Json<Change>,
) -> Answer {
    let user = body::user(&request)?;
    let account = state
        .parts
        .auth
        .set_disabled(&user, change.disabled)
        .await?;
    if change.disabled {
        let disconnected = state.close_revoked(&user, None);
        sweep_later(&state, &user, None);
        tracing::info!(%user, disconnected, "user disabled");
    } else {
        tracing::info!(%user, "user enabled");
    }
    Ok(HttpResponse::Ok().json(account_json(&account)))
}

pub(super) async fn remove(state: Shared, request: HttpRequest) -> Answer {
    let user = body::user(&request)?;
    // First nobody can sign in, then nobody is connected, then the mailbox goes.
    state.parts.auth.set_disabled(&user, true).await?;
    let disconnected = state.close_revoked(&user, None);
    state.closed(&user, None).await;
    state.parts.broker.store().remove_account(&user).await?;
    sweep_later(&state, &user, None);
    tracing::info!(%user, disconnected, "user removed");
    no_content()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    device: Option<String>,
    ttl_s: Option<u64>,
}

pub(super) async fn issue_token(
    state: Shared,
    request: HttpRequest,
    Json(new): Json<NewToken>,
) -> Answer {
    let user = body::user(&request)?;
    let device = new.device.map(DeviceId::new).transpose()?;
    let auth = &state.parts.auth;
    let issued = auth.issue(&user, device.as_ref(), new.ttl_s).await?;
    tracing::info!(%user, id = issued.id, expires_ms = issued.expires_ms, "token issued");
    Ok(HttpResponse::Created().json(issued))
}

pub(super) async fn revoke_tokens(state: Shared, request: HttpRequest) -> Answer {
    let user = body::user(&request)?;
    state.parts.auth.revoke_all(&user).await?;
    let disconnected = state.close_revoked(&user, None);
    sweep_later(&state, &user, None);
    tracing::info!(%user, disconnected, "all tokens of a user revoked");
    no_content()
}

pub(super) async fn revoke_token(state: Shared, request: HttpRequest) -> Answer {
    let id = body::segment(&request, "id");
    let auth = &state.parts.auth;
    let user = auth.revoke(id).await?;
    let mut disconnected = 0;
    for device in state.parts.broker.connected_devices(&user) {
        if auth.may_have_used(&user, &device, id) {
            disconnected += state.close_revoked(&user, Some(device));
        }
    }
    sweep_later(&state, &user, Some(id));
    tracing::info!(%user, id, disconnected, "token revoked");
    no_content()
}

pub(super) async fn remove_device(state: Shared, request: HttpRequest) -> Answer {
    let (user, device) = (body::user(&request)?, body::device(&request)?);
    let store = state.parts.broker.store();
    let mailbox = store
        .open(&user)
        .await?
        .ok_or_else(|| Problem::not_found("unknown_user", format!("there is no user {user}")))?;
    if mailbox.device(&device).is_none() {
        let detail = format!("{user} has no device {device}");
        return Err(Problem::not_found("unknown_device", detail));
    }
    let disconnected = state.close_revoked(&user, Some(device.clone()));
    state.closed(&user, Some(&device)).await;
    store.remove_device(&mailbox, &device).await?;
    tracing::info!(%user, %device, disconnected, "device removed");
    no_content()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Whom {
    device: Option<String>,
}

pub(super) async fn disconnect(
    state: Shared,
    request: HttpRequest,
    Json(whom): Json<Whom>,
) -> Answer {
    let user = body::user(&request)?;
    let device = whom.device.map(DeviceId::new).transpose()?;
    if state.parts.broker.store().account(&user).await?.is_none() {
        let detail = format!("there is no user {user}");
        return Err(Problem::not_found("unknown_user", detail));
    }
    // Nothing was taken away, so clients may come back: the reason says so.
    let what = Disconnect {
        user: user.clone(),
        device,
        reason: CloseReason::Shutdown,
    };
    let disconnected = state.parts.broker.disconnect(&what);
    tracing::info!(%user, disconnected, "connections of a user closed");
    Ok(HttpResponse::Ok().json(json!({"disconnected": disconnected})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotation {
    #[serde(default)]
    void_older: bool,
}

pub(super) async fn rotate_keys(state: Shared, Json(rotation): Json<Rotation>) -> Answer {
    let rotated = state.parts.auth.rotate(rotation.void_older).await?;
    Ok(HttpResponse::Ok().json(rotated))
}
