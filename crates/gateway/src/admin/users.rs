//! Users, their tokens and devices. Whatever is taken away from a user also
//! closes the connections that relied on it.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use stonechat_broker::Disconnect;
use stonechat_mailbox::MailboxStats;
use stonechat_protocol::{CloseReason, DeviceId, UserId};
use utoipa::{OpenApi, ToSchema};

use super::body::{self, Json};
use super::caller::{Caller, Role};
use super::directory::{self, Connection, User};
use super::operation::{Operation, delete, get, post};
use super::problem::Problem;
use super::{Shared, State, service_messages};

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
    pub(super) fn close_revoked(&self, user: &UserId, device: Option<DeviceId>) -> usize {
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
pub(super) fn sweep_later(state: &Shared, user: &UserId, token: Option<&str>) {
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

/// A user that is there now.
#[derive(Debug, Serialize, ToSchema)]
struct Created {
    user: String,
    created_ms: u64,
}

/// One device of a user.
#[derive(Debug, Serialize, ToSchema)]
struct Device {
    device: String,
    /// The place in the mailbox up to which it has acknowledged.
    cursor: u64,
    /// Messages it has not acknowledged.
    pending: u64,
    connected: bool,
    last_seen_ms: u64,
}

/// What a mailbox holds.
#[derive(Debug, Serialize, ToSchema)]
struct Mailbox {
    messages: u64,
    /// Bytes of their bodies.
    bytes: u64,
    /// Greatest place given out.
    last_seq: u64,
    /// Messages that left by their time to live, ever.
    expired_total: u64,
}

impl Mailbox {
    fn of(stats: &MailboxStats) -> Self {
        Self {
            messages: stats.messages,
            bytes: stats.bytes,
            last_seq: stats.last_seq,
            expired_total: stats.expired_total,
        }
    }
}

/// A user with devices and mailbox.
#[derive(Debug, Serialize, ToSchema)]
struct UserInFull {
    #[serde(flatten)]
    user: User,
    connected: bool,
    connections: Vec<Connection>,
    devices: Vec<Device>,
    mailbox: Mailbox,
}

fn no_content() -> Answer {
    Ok(HttpResponse::NoContent().finish())
}

/// A user to be created.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUser {
    #[schema(example = "alice")]
    user: String,
}

/// Create a user
///
/// One that exists is left as it is.
#[utoipa::path(post, path = "/users", tag = "users", request_body = NewUser,
    responses((status = 201, body = Created, description = "Created"),
        (status = 200, body = Created, description = "It was there already")))]
pub(super) async fn create(state: Shared, caller: Caller, Json(new): Json<NewUser>) -> Answer {
    caller.target(new.user.as_str());
    let user = UserId::new(&new.user)?;
    service_messages::refuse_reserved(&user)?;
    let (account, created) = state.parts.auth.create_user(&user).await?;
    let status = if created {
        tracing::info!(%user, "user created");
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(HttpResponse::build(status).json(Created {
        user: account.user.to_string(),
        created_ms: account.created_ms,
    }))
}

/// One user with devices and mailbox
#[utoipa::path(get, path = "/users/{user}", tag = "users",
    params(("user" = String, Path, description = "The user's name")),
    responses((status = 200, body = UserInFull)))]
pub(super) async fn show(state: Shared, request: HttpRequest) -> Answer {
    let user = body::user(&request)?;
    let store = state.parts.broker.store();
    let unknown = || Problem::not_found("unknown_user", format!("there is no user {user}"));
    let account = store.account(&user).await?.ok_or_else(unknown)?;
    let mailbox = store.open(&user).await?.ok_or_else(unknown)?;
    let connected = state.parts.broker.connected_devices(&user);
    let devices = mailbox
        .device_states()
        .into_iter()
        .map(|(device, known)| Device {
            cursor: known.cursor,
            pending: mailbox.pending(&device),
            connected: connected.contains(&device),
            last_seen_ms: known.last_seen_ms,
            device: device.to_string(),
        })
        .collect();
    Ok(HttpResponse::Ok().json(UserInFull {
        user: User::of(&account),
        connected: !connected.is_empty(),
        connections: directory::connections(&state, &user),
        devices,
        mailbox: Mailbox::of(&mailbox.stats()),
    }))
}

/// Remove a user and the mailbox
#[utoipa::path(delete, path = "/users/{user}", tag = "users",
    params(("user" = String, Path, description = "The user's name")),
    responses((status = 204, description = "Removed")))]
pub(super) async fn remove(state: Shared, request: HttpRequest) -> Answer {
    let user = body::user(&request)?;
    // First nobody can sign in, then nobody is connected, then the mailbox goes.
    state.parts.auth.set_disabled(&user, true).await?;
    let disconnected = state.close_revoked(&user, None);
    state.closed(&user, None).await;
    state.parts.broker.store().remove_account(&user).await?;
    state.parts.auth.forget_issued(&user).await?;
    sweep_later(&state, &user, None);
    tracing::info!(%user, disconnected, "user removed");
    no_content()
}

/// A token that was just issued.
#[derive(Debug, Serialize, ToSchema)]
struct IssuedToken {
    /// The token. It is shown here and never again.
    token: String,
    /// Names it when it is to be revoked; no secret.
    id: String,
    /// When it expires, milliseconds since the Unix epoch.
    expires_ms: u64,
}

/// A token to be issued.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    /// The only device it is good for; any when absent.
    device: Option<String>,
    /// How long it is good for, seconds.
    #[schema(minimum = 1)]
    ttl_s: Option<u64>,
}

/// Issue a token to a user
///
/// The token is not kept, only that it was issued: each call makes another one.
#[utoipa::path(post, path = "/users/{user}/tokens", tag = "users", request_body = NewToken,
    params(("user" = String, Path, description = "The user's name")),
    responses((status = 201, body = IssuedToken)))]
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
    Ok(HttpResponse::Created().json(IssuedToken {
        token: issued.token,
        id: issued.id,
        expires_ms: issued.expires_ms,
    }))
}

/// Void all tokens of a user
///
/// And close the connections made with them.
#[utoipa::path(delete, path = "/users/{user}/tokens", tag = "users",
    params(("user" = String, Path, description = "The user's name")),
    responses((status = 204, description = "All tokens issued so far are void")))]
pub(super) async fn revoke_tokens(state: Shared, request: HttpRequest) -> Answer {
    let user = body::user(&request)?;
    state.parts.auth.revoke_all(&user).await?;
    let disconnected = state.close_revoked(&user, None);
    sweep_later(&state, &user, None);
    tracing::info!(%user, disconnected, "all tokens of a user revoked");
    no_content()
}

/// Void one token of a user
#[utoipa::path(delete, path = "/tokens/{id}", tag = "users",
    params(("id" = String, Path, description = "The token's id")),
    responses((status = 204, description = "The token is void")))]
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

/// Remove a device
///
/// It holds nothing back in the mailbox any more.
#[utoipa::path(delete, path = "/users/{user}/devices/{device}", tag = "users",
    params(("user" = String, Path, description = "The user's name"), ("device" = String, Path, description = "The device's name")),
    responses((status = 204, description = "Removed")))]
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

/// How many connections were closed.
#[derive(Debug, Serialize, ToSchema)]
struct Disconnected {
    disconnected: usize,
}

/// Whose connections to close.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Whom {
    /// Only this device's; all when absent.
    device: Option<String>,
}

/// Close connections of a user
///
/// Nothing is taken away: clients may come back.
#[utoipa::path(post, path = "/users/{user}/disconnect", tag = "users", request_body = Whom,
    params(("user" = String, Path, description = "The user's name")),
    responses((status = 200, body = Disconnected)))]
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
    Ok(HttpResponse::Ok().json(Disconnected { disconnected }))
}

/// The keys after a rotation.
#[derive(Debug, Serialize, ToSchema)]
struct RotatedKeys {
    /// The key that signs from now on.
    kid: String,
    /// Keys whose tokens are good, this one included.
    keys: usize,
}

/// How to rotate.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotation {
    /// Void every token issued so far.
    #[serde(default)]
    void_older: bool,
}

/// Make a new signing key
///
/// Tokens signed with older ones stay good, unless `void_older`.
#[utoipa::path(post, path = "/keys/rotate", tag = "users", request_body = Rotation,
    responses((status = 200, body = RotatedKeys)))]
pub(super) async fn rotate_keys(state: Shared, Json(rotation): Json<Rotation>) -> Answer {
    let rotated = state.parts.auth.rotate(rotation.void_older).await?;
    Ok(HttpResponse::Ok().json(RotatedKeys {
        kid: rotated.kid,
        keys: rotated.keys,
    }))
}

#[derive(OpenApi)]
#[openapi(paths(
    create,
    show,
    remove,
    issue_token,
    revoke_tokens,
    revoke_token,
    remove_device,
    disconnect,
    rotate_keys
))]
pub(super) struct Api;

pub(super) fn operations() -> Vec<Operation> {
    use Role::{Admin, Operator, Viewer};
    let one_device = "/users/{user}/devices/{device}";
    vec![
        post("/users", Admin, "users.create", create),
        get("/users/{user}", Viewer, "users.show", show),
        delete("/users/{user}", Admin, "users.remove", remove),
        post("/users/{user}/tokens", Admin, "tokens.issue", issue_token),
        delete(
            "/users/{user}/tokens",
            Operator,
            "tokens.revoke_all",
            revoke_tokens,
        ),
        delete("/tokens/{id}", Operator, "tokens.revoke", revoke_token),
        delete(one_device, Operator, "devices.remove", remove_device),
        post(
            "/users/{user}/disconnect",
            Operator,
            "users.disconnect",
            disconnect,
        ),
        post("/keys/rotate", Admin, "keys.rotate", rotate_keys),
    ]
}
