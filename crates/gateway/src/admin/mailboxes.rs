//! Mailboxes: what waits for a user, without bodies; throwing it away, taking
//! it out and bringing it back; which are fullest; what all of it takes on disk.

use std::sync::Arc;

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use stonechat_mailbox::{Fullest, MailboxRef, Store, Stored};
use stonechat_protocol::{Seq, UserId};
use utoipa::{IntoParams, OpenApi, ToSchema};

use super::Shared;
use super::body::{self, Json, Page};
use super::caller::{Caller, Role};
use super::operation::{Operation, get, post};
use super::portable::{Import, Line, NDJSON};
use super::problem::Problem;

type Answer = Result<HttpResponse, Problem>;

/// Bytes of bodies read for one page or one stretch of an export.
const READ_BYTES: usize = 1 << 20;
/// Messages of one stretch of an export.
const STRETCH: usize = 256;

/// Where a device stands.
#[derive(Debug, Serialize, ToSchema)]
struct Cursor {
    device: String,
    /// Everything up to here is acknowledged.
    cursor: u64,
    /// Messages it has not acknowledged.
    pending: u64,
}

/// What waits for a user.
#[derive(Debug, Serialize, ToSchema)]
struct MailboxInFull {
    user: String,
    /// Messages held.
    depth: u64,
    /// Bytes of their bodies.
    bytes: u64,
    /// When the oldest was accepted, milliseconds since the Unix epoch.
    oldest_ms: Option<u64>,
    /// Greatest place given out.
    newest_seq: u64,
    /// Messages that left by their time to live, ever.
    expired_total: u64,
    cursors: Vec<Cursor>,
}

/// A message that waits, without its body.
#[derive(Debug, Serialize, ToSchema)]
struct Waiting {
    /// Its place.
    seq: u64,
    id: String,
    from: Sender,
    /// Whom it was addressed to: another user in a sender's own copy.
    to: String,
    ts_ms: u64,
    expires_ms: u64,
    body_bytes: usize,
}

/// Which device sent a message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MessageSender)]
struct Sender {
    user: String,
    device: String,
}

/// A page of a mailbox.
#[derive(Debug, Serialize, ToSchema)]
struct WaitingMessages {
    /// By place.
    messages: Vec<Waiting>,
    /// Where the next page begins; `null` on the last one.
    next: Option<String>,
}

/// A mailbox of an existing user.
pub(super) async fn open(state: &Shared, user: &UserId) -> Result<MailboxRef, Problem> {
    let found = state.parts.broker.store().open(user).await?;
    found.ok_or_else(|| Problem::not_found("unknown_user", format!("there is no user {user}")))
}

/// What waits for a user
#[utoipa::path(get, path = "/users/{user}/mailbox", tag = "mailboxes",
    params(("user" = String, Path, description = "The user's name")),
    responses((status = 200, body = MailboxInFull)))]
async fn show(state: Shared, request: HttpRequest) -> Answer {
    let user = body::user(&request)?;
    let mailbox = open(&state, &user).await?;
    let stats = mailbox.stats();
    let cursors = mailbox
        .device_states()
        .into_iter()
        .map(|(device, known)| Cursor {
            cursor: known.cursor,
            pending: mailbox.pending(&device),
            device: device.to_string(),
        });
    Ok(HttpResponse::Ok().json(MailboxInFull {
        user: user.to_string(),
        depth: stats.messages,
        bytes: stats.bytes,
        oldest_ms: mailbox.oldest_ms(),
        newest_seq: stats.last_seq,
        expired_total: stats.expired_total,
        cursors: cursors.collect(),
    }))
}

/// The messages that wait, without bodies
#[utoipa::path(get, path = "/users/{user}/mailbox/messages", tag = "mailboxes",
    params(("user" = String, Path, description = "The user's name"), Page),
    responses((status = 200, body = WaitingMessages)))]
pub(super) async fn messages(state: Shared, request: HttpRequest, page: Page) -> Answer {
    let mailbox = open(&state, &body::user(&request)?).await?;
    let after: Seq = page.after()?.unwrap_or(0);
    let store = state.parts.broker.store();
    let batch = store
        .read(&mailbox, after, page.limit(), READ_BYTES)
        .await?;
    let messages = batch.messages.iter().map(|message| {
        let envelope = &message.envelope;
        Waiting {
            seq: message.seq,
            id: envelope.id.to_string(),
            from: Sender {
                user: envelope.from.user.to_string(),
                device: envelope.from.device.to_string(),
            },
            to: envelope.to.to_string(),
            ts_ms: envelope.ts_ms,
            expires_ms: envelope.expires_ms,
            body_bytes: envelope.body.len(),
        }
    });
    Ok(HttpResponse::Ok().json(WaitingMessages {
        messages: messages.collect(),
        next: (!batch.end).then(|| batch.upto.to_string()),
    }))
}

/// What to throw away.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Purge {
    /// Everything up to this place; all there is now when absent.
    up_to_seq: Option<u64>,
    /// Why, for the audit log.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// What was thrown away.
#[derive(Debug, Serialize, ToSchema)]
struct Purged {
    purged_count: u64,
    /// Everything up to here is gone.
    up_to_seq: u64,
}

/// Throw away what waits for a user
///
/// For good: the senders are not told, and no device gets it any more.
#[utoipa::path(post, path = "/users/{user}/mailbox/purge", tag = "mailboxes", request_body = Purge,
    params(("user" = String, Path, description = "The user's name")),
    responses((status = 200, body = Purged)))]
async fn purge(
    state: Shared,
    caller: Caller,
    request: HttpRequest,
    Json(purge): Json<Purge>,
) -> Answer {
    let reason = purge.reason.trim();
    if reason.is_empty() || reason.len() > 500 {
        let detail = "say why in 1 to 500 bytes: what is thrown away was promised to somebody";
        return Err(Problem::bad_request("bad_reason", detail));
    }
    caller.reason(reason);
    let mailbox = open(&state, &body::user(&request)?).await?;
    let store = state.parts.broker.store();
    let purged = store.purge(&mailbox, purge.up_to_seq).await?;
    Ok(HttpResponse::Ok().json(Purged {
        purged_count: purged.messages,
        up_to_seq: purged.upto,
    }))
}

/// Take out what waits for a user
///
/// One JSON object a line, bodies included; the mailbox stays as it is. `import` takes it.
#[utoipa::path(get, path = "/users/{user}/mailbox/export", tag = "mailboxes",
    params(("user" = String, Path, description = "The user's name")),
    responses((status = 200, content_type = "application/x-ndjson", body = String)))]
async fn export(state: Shared, request: HttpRequest) -> Answer {
    let mailbox = open(&state, &body::user(&request)?).await?;
    let store = Arc::clone(state.parts.broker.store());
    let stretches = stream::try_unfold(Some(0), move |after: Option<Seq>| {
        let (store, mailbox) = (Arc::clone(&store), Arc::clone(&mailbox));
        async move {
            let Some(after) = after else {
                return Ok::<_, Problem>(None);
            };
            let batch = read(&*store, &mailbox, after).await?;
            Ok(Some((
                lines(&batch.messages),
                (!batch.end).then_some(batch.upto),
            )))
        }
    });
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, NDJSON))
        .streaming(Box::pin(stretches)))
}

async fn read(
    store: &dyn Store,
    mailbox: &MailboxRef,
    after: Seq,
) -> Result<stonechat_mailbox::ReadBatch, Problem> {
    Ok(store.read(mailbox, after, STRETCH, READ_BYTES).await?)
}

fn lines(messages: &[Stored]) -> web::Bytes {
    let mut text = Vec::new();
    for message in messages {
        Line::write(message, &mut text);
    }
    text.into()
}

/// What an import came to.
#[derive(Debug, Serialize, ToSchema)]
struct Imported {
    imported_count: u64,
    /// Were there already, or have expired.
    skipped_count: u64,
}

/// Bring messages into a user's mailbox
///
/// As `export` wrote them, in that order, each at a new place. What the mailbox holds already
/// is skipped, so an import that broke off can be repeated.
#[utoipa::path(post, path = "/users/{user}/mailbox/import", tag = "mailboxes",
    request_body(content = String, content_type = "application/x-ndjson"),
    params(("user" = String, Path, description = "The user's name")),
    responses((status = 200, body = Imported)))]
async fn import(state: Shared, request: HttpRequest, payload: web::Payload) -> Answer {
    let mailbox = open(&state, &body::user(&request)?).await?;
    let store = state.parts.broker.store();
    let mut import = Import::new(Arc::clone(&mailbox));
    let mut after = Some(0);
    while let Some(from) = after {
        let batch = read(&**store, &mailbox, from).await?;
        import.holds(&batch.messages);
        after = (!batch.end).then_some(batch.upto);
    }
    import.run(&state.parts.broker, payload).await?;
    tracing::info!(user = %mailbox.user(), imported = import.imported, skipped = import.skipped, "messages imported");
    Ok(HttpResponse::Ok().json(Imported {
        imported_count: import.imported,
        skipped_count: import.skipped,
    }))
}

/// In which order.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum By {
    /// Most messages first.
    #[default]
    Depth,
    /// Most bytes first.
    Bytes,
    /// Oldest message first.
    Oldest,
}

/// Which mailboxes: `?by=…&limit=…`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    #[serde(default)]
    by: By,
    /// Mailboxes at most: 20 when absent, 1,000 at most.
    #[param(minimum = 1, maximum = 1_000)]
    limit: Option<usize>,
}

/// How full a mailbox is.
#[derive(Debug, Serialize, ToSchema)]
struct FullMailbox {
    user: String,
    depth: u64,
    bytes: u64,
    oldest_ms: Option<u64>,
}

/// The fullest mailboxes.
#[derive(Debug, Serialize, ToSchema)]
struct FullMailboxes {
    mailboxes: Vec<FullMailbox>,
    /// Always `null`: there is one page.
    next: Option<String>,
}

/// The fullest mailboxes
///
/// Counted at most every ten seconds.
#[utoipa::path(get, path = "/mailboxes/top", tag = "mailboxes", params(Which),
    responses((status = 200, body = FullMailboxes)))]
pub(super) async fn top(state: Shared, request: HttpRequest) -> Answer {
    let which: Which = body::query(&request)?;
    let by = match which.by {
        By::Depth => Fullest::Messages,
        By::Bytes => Fullest::Bytes,
        By::Oldest => Fullest::Oldest,
    };
    let max = which.limit.unwrap_or(20).clamp(1, 1000);
    let found = state.parts.broker.store().fullest(by, max).await?;
    let mailboxes = found.into_iter().map(|one| FullMailbox {
        user: one.user.to_string(),
        depth: one.messages,
        bytes: one.bytes,
        oldest_ms: one.oldest_ms,
    });
    Ok(HttpResponse::Ok().json(FullMailboxes {
        mailboxes: mailboxes.collect(),
        next: None,
    }))
}

/// What the store takes on disk.
#[derive(Debug, Serialize, ToSchema)]
struct Storage {
    journal_bytes: u64,
    segments_count: u64,
    database_bytes: u64,
    /// What may still be written to the disk; absent when the system does not say.
    free_bytes: Option<u64>,
    /// How long the last data sync of the journal took.
    last_sync_ms: f64,
    syncs_total: u64,
    /// Messages held in all mailboxes.
    messages_count: u64,
    /// Messages thrown away by operators since the start.
    purged_total: u64,
    /// Messages that left by their time to live since the start.
    expired_total: u64,
}

/// What the store takes on disk
#[utoipa::path(get, path = "/node/storage", tag = "node",
    responses((status = 200, body = Storage)))]
async fn storage(state: Shared) -> Answer {
    let store = state.parts.broker.store();
    let (figures, stats) = (store.storage(), store.stats());
    Ok(HttpResponse::Ok().json(Storage {
        journal_bytes: figures.journal_bytes,
        segments_count: figures.segments,
        database_bytes: figures.database_bytes,
        free_bytes: figures.free_bytes,
        last_sync_ms: figures.last_sync_micros as f64 / 1000.0,
        syncs_total: figures.syncs_total,
        messages_count: stats.messages,
        purged_total: stats.purged_total,
        expired_total: stats.expired_total,
    }))
}

#[derive(OpenApi)]
#[openapi(
    paths(show, messages, purge, export, import, top, storage),
    components(schemas(By))
)]
pub(super) struct Api;

pub(super) fn operations() -> Vec<Operation> {
    use Role::{Admin, Viewer};
    let of = "/users/{user}/mailbox";
    let list = "/users/{user}/mailbox/messages";
    let out = "/users/{user}/mailbox/export";
    let into = "/users/{user}/mailbox/import";
    vec![
        get(of, Viewer, "mailboxes.show", show),
        get(list, Viewer, "mailboxes.messages", messages),
        post(
            "/users/{user}/mailbox/purge",
            Admin,
            "mailboxes.purge",
            purge,
        ),
        get(out, Admin, "mailboxes.export", export).audited(),
        post(into, Admin, "mailboxes.import", import),
        get("/mailboxes/top", Viewer, "mailboxes.top", top),
        get("/node/storage", Viewer, "node.storage", storage),
    ]
}
