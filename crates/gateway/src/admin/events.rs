//! Events as they happen, by Server-Sent Events.
//!
//! A stream reads the ring at its own pace and keeps no queue: one that is slow
//! misses events and is told how many. How many streams there are is bounded.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, ContentEncoding};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream::unfold;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use utoipa::OpenApi;

use super::Shared;
use super::body;
use super::caller::{Caller, Role};
use super::operation::{Operation, get};
use super::problem::Problem;
use crate::events::{Batch, Events, What};

/// Streams at a time. Each is a connection, of which the listener takes 64.
pub(super) const STREAMS_MAX: usize = 16;
/// Events sent in one piece.
const BATCH_MAX: usize = 64;
/// A stream with nothing to say says so, so that the network between keeps it and a client that
/// is gone is noticed.
const QUIET: Duration = Duration::from_secs(15);

/// Which events.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only these kinds, separated by commas: connected, disconnected, crash, restart,
    /// actor_ended, limit, dead_letter, security, node.
    #[param(example = "crash,restart")]
    kinds: Option<String>,
    /// Begin behind the event with this number; `Last-Event-ID` wins over it. Without either only
    /// what happens from now on is told.
    after: Option<u64>,
    /// End after so many events.
    #[param(minimum = 1)]
    count: Option<u64>,
    /// End when there is nothing more to tell, rather than waiting for it.
    #[serde(default)]
    wait: Option<bool>,
}

/// One of the streams there may be.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(taken: &Arc<AtomicUsize>) -> Option<Self> {
        let more = |count| (count < STREAMS_MAX).then_some(count + 1);
        taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Self(Arc::clone(taken)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Stream {
    state: Shared,
    caller: Caller,
    events: Events,
    changes: watch::Receiver<u64>,
    next: u64,
    kinds: u16,
    left: u64,
    wait: bool,
    greeted: bool,
    _place: Place,
}

fn kinds(text: Option<&str>) -> Result<u16, Problem> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(u16::MAX);
    };
    let mut kinds = 0;
    for name in text.split(',') {
        let known = What::KINDS.iter().position(|kind| *kind == name.trim());
        let kind = known.ok_or_else(|| {
            let detail = format!("there is no kind {name:?} of events");
            Problem::bad_request("bad_query", detail)
        })?;
        kinds |= 1 << kind;
    }
    Ok(kinds)
}

impl Stream {
    /// What to send next; `None`: the end.
    async fn piece(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        if !self.greeted {
            self.greeted = true;
            // The headers leave with the first piece: a client knows at once that it listens.
            return Some(Bytes::from_static(b": listening\n\n"));
        }
        loop {
            self.changes.mark_unchanged();
            let max = usize::try_from(self.left)
                .unwrap_or(BATCH_MAX)
                .min(BATCH_MAX);
            let kinds = self.kinds;
            let batch = self
                .events
                .read(self.next, max, |what| kinds & (1 << what.kind()) != 0);
            self.next = batch.next;
            self.left = self.left.saturating_sub(batch.events.len() as u64);
            if batch.missed > 0 || !batch.events.is_empty() {
                return Some(text(&batch));
            }
            if !self.wait {
                return None;
            }
            // A token that is revoked or expires takes its streams along.
            if !self.state.stands(&self.caller) {
                return None;
            }
            match tokio::time::timeout(QUIET, self.changes.changed()).await {
                Ok(Ok(())) => {}
                Err(_) if self.state.stands(&self.caller) => {
                    return Some(Bytes::from_static(b": quiet\n\n"));
                }
                Ok(Err(_)) | Err(_) => return None,
            }
        }
    }
}

fn text(batch: &Batch) -> Bytes {
    let mut text = String::new();
    if batch.missed > 0 {
        metrics::counter!("stonechat_events_dropped_total").increment(batch.missed);
        let data = json!({"kind": "dropped", "count": batch.missed});
        text.push_str(&format!("event: dropped\ndata: {data}\n\n"));
    }
    for event in &batch.events {
        let kind = What::KINDS[event.what.kind()];
        // One line, whatever is in it: JSON has no line ends of its own.
        let data = serde_json::to_string(&**event).unwrap_or_default();
        text.push_str(&format!(
            "id: {}\nevent: {kind}\ndata: {data}\n\n",
            event.id
        ));
    }
    Bytes::from(text)
}

/// Events as they happen
///
/// Server-Sent Events: `id` is a number that rises, `event` the kind, `data` one JSON object with
/// `id`, `at_ms`, `kind` and what belongs to the kind. A reader that comes back with
/// `Last-Event-ID` goes on where it was, as far as the latest 4,096 events reach; what it missed
/// is told as one `dropped` with a `count`.
#[utoipa::path(get, path = "/events", tag = "events",
    params(Wanted, ("Last-Event-ID" = Option<u64>, Header, description = "The last event seen")),
    responses((status = 200, content_type = "text/event-stream", body = String)))]
pub(super) async fn stream(
    state: Shared,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let wanted: Wanted = body::query(&request)?;
    let kinds = kinds(wanted.kinds.as_deref())?;
    let last = match request.headers().get("last-event-id") {
        None => wanted.after,
        Some(header) => {
            let number = header
                .to_str()
                .ok()
                .and_then(|text| text.trim().parse().ok());
            let bad = || Problem::bad_request("bad_query", "Last-Event-ID is an event's number");
            Some(number.ok_or_else(bad)?)
        }
    };
    let place = Place::take(&state.streams).ok_or_else(|| {
        let detail = format!("{STREAMS_MAX} streams of events are open, which is the limit");
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_streams", detail).retry_after(15)
    })?;
    let events = state.parts.events.clone();
    let stream = Stream {
        changes: events.changes(),
        next: last.map_or_else(|| events.next(), |last| last.saturating_add(1)),
        events,
        state,
        caller,
        kinds,
        left: wanted.count.unwrap_or(u64::MAX),
        wait: wanted.wait.unwrap_or(true),
        greeted: false,
        _place: place,
    };
    let pieces = unfold(stream, |mut stream| async move {
        let piece = stream.piece().await?;
        Some((Ok::<_, Infallible>(piece), stream))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-store"))
        // A compressor would hold events back until it has enough of them.
        .insert_header(ContentEncoding::Identity)
        .streaming(pieces))
}

#[derive(OpenApi)]
#[openapi(paths(stream))]
pub(super) struct Api;

pub(super) fn operations() -> Vec<Operation> {
    vec![get("/events", Role::Viewer, "events.stream", stream)]
}
