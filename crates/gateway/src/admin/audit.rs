//! The audit log: who did what, from where, and what came of it.
//!
//! Each request that changes something, or shows what is nobody else's business,
//! is one entry in `<data-dir>/audit.ndjson`, also when it was refused or cut
//! off. An entry is on the disk before the request is answered; one that cannot
//! be written there does not undo what was done (whoever mends a full disk has to
//! be able to act), but is told as an error, with all that is in it, as an event
//! and as a metric. Never in it: bodies, tokens, secrets. Requests without a credential are
//! not in it, or a stranger could push everything else out: they are counted and
//! logged by the guard.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};

use super::Shared;
use super::body::Page;
use super::caller::{Caller, Role};
use super::ledger::{Bounds, Ledger, Numbered};
use super::operation::{Operation, get};
use super::problem::Problem;
use crate::events::{Events, What};

/// Name of the file within the data directory.
pub(super) const FILE: &str = "audit.ndjson";
/// Entries in memory, which is what the API shows; the files hold more.
const BOUNDS: Bounds = Bounds {
    entries_max: 4_096,
    file_bytes_max: 4 * 1024 * 1024,
    synced: true,
};
/// Characters of a target or reason that are kept.
const TEXT_CHARS_MAX: usize = 256;

/// One entry of the audit log.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(super) struct AuditEntry {
    /// Rises by one with each entry, also over restarts.
    pub(super) number: u64,
    /// When it was done, milliseconds since the Unix epoch.
    pub(super) at_ms: u64,
    /// Who, by the name of the credential.
    pub(super) who: String,
    /// The role they had.
    pub(super) role: Role,
    /// Address and port the request came from.
    #[schema(value_type = Option<String>)]
    pub(super) from: Option<SocketAddr>,
    /// What: the group and the deed.
    #[schema(example = "users.create")]
    pub(super) action: String,
    /// To whom or what.
    pub(super) target: String,
    /// `ok`, or the code of the problem; `cut_off` when the client did not wait for the answer,
    /// so that it may have been done or not.
    pub(super) outcome: String,
    /// Why, when the request said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

impl Numbered for AuditEntry {
    fn number(&self) -> u64 {
        self.number
    }
}

/// The audit log of a node. Cheap to clone.
#[derive(Clone)]
pub(super) struct Audit(Arc<Inner>);

struct Inner {
    ledger: Ledger<AuditEntry>,
    /// Who is told when an entry cannot be written.
    events: Events,
}

impl Audit {
    pub(super) fn open(data_dir: &Path, events: Events) -> Self {
        Self(Arc::new(Inner {
            ledger: Ledger::open(data_dir, FILE, BOUNDS),
            events,
        }))
    }

    /// Writes an entry. Waits for the disk.
    fn write(&self, make: impl FnOnce(u64) -> AuditEntry) {
        let (entry, written) = self.0.ledger.append(make);
        let Err(error) = written else {
            return;
        };
        tracing::error!(
            number = entry.number,
            who = entry.who,
            role = entry.role.name(),
            from = entry.from.map(tracing::field::display),
            action = entry.action,
            // Not `target`: in JSON that is the module that logs.
            subject = entry.target,
            outcome = entry.outcome,
            reason = entry.reason,
            %error,
            "an entry of the audit log is not on the disk but only here; make space or mend permissions"
        );
        self.0.events.tell(What::Node {
            state: "audit_failed",
            detail: format!(
                "entry {} ({} by {}) is not on the disk: {error}",
                entry.number, entry.action, entry.who
            ),
        });
    }

    /// Begins an entry; it is written when the deed is done or given up.
    pub(super) fn begin(&self, caller: &Caller, action: &'static str, target: String) -> Pending {
        Pending {
            audit: self.clone(),
            caller: caller.clone(),
            action,
            target,
            outcome: None,
        }
    }
}

/// An entry whose outcome is not known yet.
///
/// Written when dropped: a client that hangs up ends its request's handler wherever it is, and
/// must not keep what it did out of the log by that.
pub(super) struct Pending {
    audit: Audit,
    caller: Caller,
    action: &'static str,
    target: String,
    outcome: Option<&'static str>,
}

impl Pending {
    /// What came of it: a problem's code, or `None` when all went well. Returns when the entry is
    /// written; a client that does not wait for that changes nothing.
    pub(super) async fn done(mut self, problem: Option<&'static str>) {
        self.outcome = Some(problem.unwrap_or("ok"));
        // On a thread that may wait for the disk. When the program ends there is none, and it is
        // dropped, and so written, here.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let note = self.caller.take_note();
        let cut = |text: String| text.chars().take(TEXT_CHARS_MAX).collect::<String>();
        let target = note
            .target
            .unwrap_or_else(|| std::mem::take(&mut self.target));
        self.audit.write(|number| AuditEntry {
            number,
            at_ms: super::now_ms(),
            who: self.caller.name.to_string(),
            role: self.caller.role,
            from: self.caller.peer,
            action: self.action.to_owned(),
            target: cut(target),
            outcome: self.outcome.unwrap_or("cut_off").to_owned(),
            reason: note.reason.map(cut),
        });
    }
}

/// A page of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditPage {
    /// Newest first.
    entries: Vec<AuditEntry>,
    /// Where the next page begins; `null` on the last one.
    next: Option<String>,
}

/// What was done by whom
///
/// Newest first. The latest 4,096 entries; `<data-dir>/audit.ndjson` has more.
#[utoipa::path(get, path = "/audit", tag = "access", params(Page),
    responses((status = 200, body = AuditPage)))]
pub(super) async fn list(state: Shared, page: Page) -> Result<HttpResponse, Problem> {
    let (entries, more) = state.audit.0.ledger.newest(page.after()?, page.limit());
    let next = entries
        .last()
        .filter(|_| more)
        .map(|last| last.number.to_string());
    let entries = entries.iter().map(|entry| (**entry).clone()).collect();
    Ok(HttpResponse::Ok().json(AuditPage { entries, next }))
}

/// What a request's path names, as the target of an entry.
pub(super) fn target_of(request: &HttpRequest) -> String {
    let named: Vec<&str> = request
        .match_info()
        .iter()
        .map(|(_, value)| value)
        .collect();
    named.join("/")
}

#[derive(OpenApi)]
#[openapi(paths(list))]
pub(super) struct Api;

pub(super) fn operations() -> Vec<Operation> {
    vec![get("/audit", Role::Viewer, "audit.list", list)]
}
