//! Messages from the service itself to one, some or all users: durable and
//! delivered as any other, from a name no user can have.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use stonechat_broker::Posted;
use stonechat_mailbox::Envelope;
use stonechat_protocol::{Address, DeviceId, MessageId, UserId};
use stonechat_trace::TraceRef;
use utoipa::{OpenApi, ToSchema};

use super::body::Json;
use super::caller::{Caller, Role};
use super::operation::{Operation, post};
use super::problem::Problem;
use super::{Shared, State, now_ms};

type Answer = Result<HttpResponse, Problem>;

/// Who service messages come from. No user can be created with this name.
const SENDER: &str = "_service";
/// The device they come from.
const DEVICE: &str = "node";
/// How long one waits for its recipient, milliseconds: 30 days.
const TTL_MS: u64 = 30 * 86_400_000;
/// Users named in one request, at most.
const NAMED_MAX: usize = 1_000;
/// Messages stored in one go: the next ones wait until these are durable.
const BATCH: usize = 256;

/// Refuses the name service messages come from.
pub(super) fn refuse_reserved(user: &UserId) -> Result<(), Problem> {
    if user.as_str() != SENDER {
        return Ok(());
    }
    let detail = format!("{SENDER} is the sender of service messages; choose another name");
    Err(Problem::new(StatusCode::CONFLICT, "reserved_name", detail))
}

/// To whom.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, deny_unknown_fields)]
enum To {
    /// One user.
    One { user: String },
    /// Some users.
    Some { users: Vec<String> },
    /// Every user there is.
    All { all: bool },
}

/// A message to be sent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewMessage {
    to: To,
    /// Any JSON.
    #[schema(value_type = Value)]
    body: Box<RawValue>,
}

/// A message on its way.
#[derive(Debug, Serialize, ToSchema)]
struct Sent {
    /// Its id, the same for all recipients.
    id: String,
    /// Users it goes to. For all, those there are; some may have left by their turn.
    recipients_count: u64,
}

/// Send a message from the service
///
/// To one or some: stored when this answers. To all: stored in the background, a few hundred
/// at a time; the log says when it is done and whom it did not reach.
#[utoipa::path(post, path = "/service-messages", tag = "users", request_body = NewMessage,
    responses((status = 202, body = Sent)))]
async fn send(state: Shared, caller: Caller, Json(new): Json<NewMessage>) -> Answer {
    let id = MessageId::from_u128(uuid::Uuid::now_v7().as_u128());
    let message = Message {
        id,
        body: new.body.get().to_owned().into(),
    };
    let recipients = match new.to {
        To::One { user } => {
            caller.target(&user);
            message.send_to_named(&state, vec![user]).await?
        }
        To::Some { users } => {
            caller.target(format!("{} users", users.len()));
            message.send_to_named(&state, users).await?
        }
        To::All { all: true } => {
            caller.target("all users");
            message.send_to_all(state).await?
        }
        To::All { all: false } => {
            let detail = "to is {\"user\": …}, {\"users\": […]} or {\"all\": true}";
            return Err(Problem::bad_request("bad_json", detail));
        }
    };
    Ok(HttpResponse::Accepted().json(Sent {
        id: id.to_string(),
        recipients_count: recipients,
    }))
}

#[derive(Clone)]
struct Message {
    id: MessageId,
    body: actix_web::web::Bytes,
}

impl Message {
    /// The message in the mailbox of one user; `None`: there is no such user.
    async fn posted(&self, state: &State, user: &UserId) -> Result<Option<Posted>, Problem> {
        let Some(mailbox) = state.parts.broker.store().open(user).await? else {
            return Ok(None);
        };
        let ts_ms = now_ms();
        Ok(Some(Posted {
            mailbox,
            sender: None,
            envelope: Envelope {
                from: Address {
                    user: UserId::new(SENDER)?,
                    device: DeviceId::new(DEVICE)?,
                },
                to: user.clone(),
                id: self.id,
                ts_ms,
                expires_ms: ts_ms + TTL_MS,
                body: self.body.clone(),
                trace: TraceRef::default(),
            },
        }))
    }

    /// To users by name: all of them exist, or nothing is sent.
    async fn send_to_named(&self, state: &State, names: Vec<String>) -> Result<u64, Problem> {
        if names.is_empty() || names.len() > NAMED_MAX {
            let detail = format!("name 1 to {NAMED_MAX} users");
            return Err(Problem::bad_request("bad_recipients", detail));
        }
        let mut users = names
            .iter()
            .map(UserId::new)
            .collect::<Result<Vec<_>, _>>()?;
        users.sort_unstable();
        users.dedup();
        let mut messages = Vec::with_capacity(users.len());
        for user in &users {
            let unknown = || Problem::not_found("unknown_user", format!("there is no user {user}"));
            messages.push(self.posted(state, user).await?.ok_or_else(unknown)?);
        }
        for result in state.parts.broker.post(messages).await {
            result?;
        }
        Ok(users.len() as u64)
    }

    /// To everybody, in the background. Returns how many there are.
    async fn send_to_all(self, state: Shared) -> Result<u64, Problem> {
        let store = state.parts.broker.store();
        let mut count = 0;
        let mut after: Option<UserId> = None;
        loop {
            let accounts = store.accounts(after.as_ref(), 1_000).await?;
            count += accounts.len() as u64;
            match accounts.into_iter().next_back() {
                Some(last) => after = Some(last.user),
                None => break,
            }
        }
        let tree = state.parts.broker.tree().clone();
        tree.spawn_task("service-message", async move {
            match self.each(&state).await {
                Ok((stored, refused)) => {
                    tracing::info!(id = %self.id, stored, refused, "service message to all users stored");
                }
                Err(problem) => {
                    tracing::error!(id = %self.id, %problem, "service message to all users broke off; send it again");
                }
            }
        });
        Ok(count)
    }

    async fn each(&self, state: &State) -> Result<(u64, u64), Problem> {
        let broker = &state.parts.broker;
        let (mut stored, mut refused) = (0, 0);
        let mut after: Option<UserId> = None;
        loop {
            let accounts = broker.store().accounts(after.as_ref(), BATCH).await?;
            let Some(last) = accounts.last() else {
                return Ok((stored, refused));
            };
            after = Some(last.user.clone());
            let mut messages = Vec::with_capacity(accounts.len());
            for account in &accounts {
                messages.extend(self.posted(state, &account.user).await?);
            }
            for result in broker.post(messages).await {
                match result {
                    Ok(()) => stored += 1,
                    Err(stonechat_mailbox::StoreError::TooLarge(_)) => refused += 1,
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

#[derive(OpenApi)]
#[openapi(paths(send))]
pub(super) struct Api;

pub(super) fn operations() -> Vec<Operation> {
    vec![post(
        "/service-messages",
        Role::Operator,
        "service_messages.send",
        send,
    )]
}
