//! Dead letters: messages whose handling kept failing. To be looked at, put
//! back or thrown away. Lists leave bodies out; one entry shows its body.

use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;
use serde_json::value::RawValue;
use stonechat_mailbox::{DeadLetter, StoreError};

use super::Shared;
use super::body::{self, Page};
use super::problem::Problem;

type Answer = Result<HttpResponse, Problem>;

fn summary(letter: &DeadLetter) -> serde_json::Value {
    let envelope = &letter.stored.envelope;
    json!({
        "number": letter.number,
        "user": letter.user,
        "seq": letter.stored.seq,
        "id": envelope.id,
        "from": {"user": envelope.from.user, "device": envelope.from.device},
        "to": {"user": envelope.to},
        "ts_ms": envelope.ts_ms,
        "expires_ms": envelope.expires_ms,
        "body_bytes": envelope.body.len(),
        "reason": letter.reason,
        "dead_ms": letter.ts_ms,
    })
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

pub(super) async fn list(state: Shared, request: HttpRequest) -> Answer {
    let page = Page::of(&request)?;
    let after: u64 = page.after()?.unwrap_or(0);
    let store = state.parts.broker.store();
    let letters = store.dead_letters(after, page.limit()).await?;
    let next = letters
        .last()
        .filter(|_| letters.len() == page.limit())
        .map(|letter| letter.number.to_string());
    let letters: Vec<_> = letters.iter().map(summary).collect();
    Ok(HttpResponse::Ok().json(json!({"dead_letters": letters, "next": next})))
}

async fn find(state: &Shared, number: u64) -> Result<DeadLetter, Problem> {
    match state.parts.broker.dead_letter(number).await {
        Err(StoreError::NotFound(_)) => Err(unknown(number)),
        found => Ok(found?),
    }
}

pub(super) async fn show(state: Shared, request: HttpRequest) -> Answer {
    let letter = find(&state, number(&request)?).await?;
    let mut shown = summary(&letter);
    // A body that is not JSON (which no accepted message has) is shown as text.
    let bytes = &letter.stored.envelope.body;
    let text = String::from_utf8_lossy(bytes).into_owned();
    let body = serde_json::from_str::<&RawValue>(&text)
        .ok()
        .and_then(|raw| serde_json::to_value(raw).ok());
    shown["body"] = body.unwrap_or_else(|| text.into());
    Ok(HttpResponse::Ok().json(shown))
}

pub(super) async fn replay(state: Shared, request: HttpRequest) -> Answer {
    let letter = find(&state, number(&request)?).await?;
    state.parts.broker.replay_dead_letter(letter.number).await?;
    tracing::info!(number = letter.number, user = %letter.user, "dead letter put back");
    Ok(HttpResponse::Ok().json(json!({"number": letter.number, "user": letter.user})))
}

pub(super) async fn remove(state: Shared, request: HttpRequest) -> Answer {
    let number = number(&request)?;
    find(&state, number).await?;
    let letter = state.parts.broker.store().take_dead_letter(number).await?;
    tracing::info!(number, user = %letter.user, "dead letter thrown away");
    Ok(HttpResponse::NoContent().finish())
}
