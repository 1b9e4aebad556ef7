//! Dead letters: messages whose handling kept failing. To be looked at, put
//! back or thrown away. Lists leave bodies out; one entry shows its body.

use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use stonechat_mailbox::{DeadLetter as Letter, StoreError};
use utoipa::{OpenApi, ToSchema};

use super::Shared;
use super::body::{self, Page};
use super::caller::{Caller, Role};
use super::operation::{Operation, delete, get, post};
use super::problem::Problem;

type Answer = Result<HttpResponse, Problem>;

/// Which device sent a message.
#[derive(Debug, Serialize, ToSchema)]
struct Sender {
    user: String,
    device: String,
}

/// Whom a message was for.
#[derive(Debug, Serialize, ToSchema)]
struct Recipient {
    user: String,
}

/// A message whose handling kept failing, without its body.
#[derive(Debug, Serialize, ToSchema)]
struct DeadLetter {
    /// Names it in this API.
    number: u64,
    /// In whose mailbox it was.
    user: String,
    /// Its place there.
    seq: u64,
    /// The message's id.
    id: String,
    from: Sender,
    to: Recipient,
    /// When it was accepted, milliseconds since the Unix epoch.
    ts_ms: u64,
    /// When it would have expired.
    expires_ms: u64,
    body_bytes: usize,
    /// Why it was set aside.
    reason: String,
    /// When it was set aside.
    dead_ms: u64,
}

impl DeadLetter {
    fn of(letter: &Letter) -> Self {
        let envelope = &letter.stored.envelope;
        Self {
            number: letter.number,
            user: letter.user.to_string(),
            seq: letter.stored.seq,
            id: envelope.id.to_string(),
            from: Sender {
                user: envelope.from.user.to_string(),
                device: envelope.from.device.to_string(),
            },
            to: Recipient {
                user: envelope.to.to_string(),
            },
            ts_ms: envelope.ts_ms,
            expires_ms: envelope.expires_ms,
            body_bytes: envelope.body.len(),
            reason: letter.reason.clone(),
            dead_ms: letter.ts_ms,
        }
    }
}

/// A dead letter with the message's body.
#[derive(Debug, Serialize, ToSchema)]
struct DeadLetterInFull {
    #[serde(flatten)]
    letter: DeadLetter,
    /// The body as the sender encoded it.
    #[schema(value_type = Value)]
    body: serde_json::Value,
}

/// A page of dead letters.
#[derive(Debug, Serialize, ToSchema)]
struct DeadLetters {
    /// Oldest first.
    dead_letters: Vec<DeadLetter>,
    /// Where the next page begins; `null` on the last one.
    next: Option<String>,
}

/// What was put back.
#[derive(Debug, Serialize, ToSchema)]
struct Replayed {
    number: u64,
    /// In whose mailbox it is again.
    user: String,
}

fn number(request: &HttpRequest) -> Result<u64, Problem> {
    let text = body::segment(request, "number");
    text.parse().map_err(|_| unknown(text))
}

fn unknown(number: impl std::fmt::Display) -> Problem {
    Problem::not_found(
        "unknown_dead_letter",
        format!("there is no dead letter {number}"),
    )
}

/// The dead letters
#[utoipa::path(get, path = "/dead-letters", tag = "dead letters", params(Page),
    responses((status = 200, body = DeadLetters)))]
pub(super) async fn list(state: Shared, page: Page) -> Answer {
    let after: u64 = page.after()?.unwrap_or(0);
    let store = state.parts.broker.store();
    let letters = store.dead_letters(after, page.limit()).await?;
    let next = letters
        .last()
        .filter(|_| letters.len() == page.limit())
        .map(|letter| letter.number.to_string());
    let dead_letters = letters.iter().map(DeadLetter::of).collect();
    Ok(HttpResponse::Ok().json(DeadLetters { dead_letters, next }))
}

async fn find(state: &Shared, number: u64) -> Result<Letter, Problem> {
    match state.parts.broker.dead_letter(number).await {
        Err(StoreError::NotFound(_)) => Err(unknown(number)),
        found => Ok(found?),
    }
}

/// One dead letter with its body
#[utoipa::path(get, path = "/dead-letters/{number}", tag = "dead letters",
    params(("number" = u64, Path, description = "The dead letter's number")),
    responses((status = 200, body = DeadLetterInFull)))]
pub(super) async fn show(state: Shared, request: HttpRequest) -> Answer {
    let letter = find(&state, number(&request)?).await?;
    // A body that is not JSON (which no accepted message has) is shown as text.
    let bytes = &letter.stored.envelope.body;
    let text = String::from_utf8_lossy(bytes).into_owned();
    let body = serde_json::from_str::<&RawValue>(&text)
        .ok()
        .and_then(|raw| serde_json::to_value(raw).ok());
    Ok(HttpResponse::Ok().json(DeadLetterInFull {
        letter: DeadLetter::of(&letter),
        body: body.unwrap_or_else(|| text.into()),
    }))
}

/// Put a dead letter back
///
/// At the end of its mailbox, with a new time to live, once the cause is mended.
#[utoipa::path(post, path = "/dead-letters/{number}/replay", tag = "dead letters",
    params(("number" = u64, Path, description = "The dead letter's number")),
    responses((status = 200, body = Replayed)))]
pub(super) async fn replay(state: Shared, request: HttpRequest) -> Answer {
    let letter = find(&state, number(&request)?).await?;
    state.parts.broker.replay_dead_letter(letter.number).await?;
    tracing::info!(number = letter.number, user = %letter.user, "dead letter put back");
    Ok(HttpResponse::Ok().json(Replayed {
        number: letter.number,
        user: letter.user.to_string(),
    }))
}

/// Why.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Why {
    /// For the audit log.
    reason: Option<String>,
}

/// Throw a dead letter away
///
/// For good: nobody gets it any more.
#[utoipa::path(delete, path = "/dead-letters/{number}", tag = "dead letters",
    params(("number" = u64, Path, description = "The dead letter's number"), Why),
    responses((status = 204, description = "Thrown away")))]
pub(super) async fn remove(state: Shared, caller: Caller, request: HttpRequest) -> Answer {
    let why: Why = body::query(&request)?;
    if let Some(reason) = why.reason {
        caller.reason(reason);
    }
    let number = number(&request)?;
    find(&state, number).await?;
    let letter = state.parts.broker.store().take_dead_letter(number).await?;
    tracing::info!(number, user = %letter.user, "dead letter thrown away");
    Ok(HttpResponse::NoContent().finish())
}

#[derive(OpenApi)]
#[openapi(paths(list, show, replay, remove))]
pub(super) struct Api;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        get("/dead-letters", Role::Viewer, "dead_letters.list", list),
        // A body is read: nobody else's business, so it is written down who did.
        get(
            "/dead-letters/{number}",
            Role::Operator,
            "dead_letters.show",
            show,
        )
        .audited(),
        post(
            "/dead-letters/{number}/replay",
            Role::Operator,
            "dead_letters.replay",
            replay,
        ),
        delete(
            "/dead-letters/{number}",
            Role::Operator,
            "dead_letters.discard",
            remove,
        ),
    ]
}
