//! Backups of the running node: begun, listed, and where they are. They are
//! written by the store; restoring one takes a stopped node and another
//! directory (`stonechat restore`).

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use stonechat_mailbox::{BACKUP_PARTIAL_SUFFIX, BackupError, BackupProgress, StoreError};
use utoipa::{OpenApi, ToSchema};

use super::body::Json;
use super::caller::{Caller, Role};
use super::operation::{Operation, get, post};
use super::problem::Problem;
use super::{Shared, now_ms};

type Answer = Result<HttpResponse, Problem>;

/// Where backups are, in the data directory.
const DIR: &str = "backups";
/// Backups of this process that are remembered with their figures.
const REMEMBERED_MAX: usize = 100;

/// How a backup stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum BackupState {
    /// It is being written.
    Running,
    /// The file is complete and synced.
    Done,
    /// It could not be written; nothing is left of it.
    Failed,
    /// The server ended while it was being written; the rest can be removed.
    Interrupted,
}

/// A backup.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct Backup {
    name: String,
    state: BackupState,
    /// Written so far, or the length of the file.
    bytes: u64,
    /// Messages in it; `null` for one of an earlier process.
    messages_count: Option<u64>,
    started_ms: Option<u64>,
    finished_ms: Option<u64>,
    error: Option<String>,
}

/// The backups.
#[derive(Debug, Serialize, ToSchema)]
struct BackupList {
    /// By name.
    backups: Vec<Backup>,
    /// Always `null`: there is one page.
    next: Option<String>,
}

/// A backup of this process.
struct Job {
    progress: Arc<BackupProgress>,
    state: BackupState,
    started_ms: u64,
    finished_ms: Option<u64>,
    error: Option<String>,
}

impl Job {
    fn shown(&self, name: &str) -> Backup {
        Backup {
            name: name.to_owned(),
            state: self.state,
            bytes: self.progress.bytes(),
            messages_count: Some(self.progress.messages()),
            started_ms: Some(self.started_ms),
            finished_ms: self.finished_ms,
            error: self.error.clone(),
        }
    }
}

/// What is known of backups made since the start.
#[derive(Default)]
pub(super) struct Jobs(Mutex<BTreeMap<String, Job>>);

fn dir(state: &Shared) -> PathBuf {
    state.parts.data_dir.join(DIR)
}

/// Names of files, without surprises: no path, nothing hidden, not that of an unfinished one.
fn check_name(name: &str) -> Result<(), Problem> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let good = !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(plain)
        && !name.starts_with('.')
        && !name.ends_with(BACKUP_PARTIAL_SUFFIX);
    if good {
        return Ok(());
    }
    let detail = "a backup's name has 1 to 64 letters, digits, '.', '_' and '-', does not begin with '.' and does not end with .partial";
    Err(Problem::bad_request("bad_name", detail))
}

/// A backup to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewBackup {
    /// Name of its file in `<data-dir>/backups`.
    #[schema(example = "monday.backup")]
    name: String,
}

/// Back up the node
///
/// While it serves. Everything accepted before this is in it when its state is `done`. One
/// that is there or being written under this name is left as it is.
#[utoipa::path(post, path = "/node/backups", tag = "node", request_body = NewBackup,
    responses((status = 202, body = Backup, description = "It is being written"),
        (status = 200, body = Backup, description = "It was there already")))]
async fn begin(state: Shared, caller: Caller, Json(new): Json<NewBackup>) -> Answer {
    caller.target(&new.name);
    check_name(&new.name)?;
    let dir = dir(&state);
    make_dir(&dir).map_err(|error| {
        tracing::error!(dir = %dir.display(), %error, "the directory for backups cannot be made");
        Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR)
    })?;
    let file = dir.join(&new.name);
    let progress = Arc::new(BackupProgress::default());
    {
        let mut jobs = state.backups.0.lock();
        if let Some(job) = jobs.get(&new.name)
            && matches!(job.state, BackupState::Running)
        {
            return Ok(HttpResponse::Accepted().json(job.shown(&new.name)));
        }
        if let Ok(found) = file.metadata() {
            return Ok(HttpResponse::Ok().json(match jobs.get(&new.name) {
                Some(job) => job.shown(&new.name),
                None => found_on_disk(&new.name, BackupState::Done, &found),
            }));
        }
        if jobs.values().any(|job| job.state == BackupState::Running) {
            return Err(StoreError::from(BackupError::Busy).into());
        }
        while jobs.len() >= REMEMBERED_MAX {
            jobs.pop_first();
        }
        let job = Job {
            progress: Arc::clone(&progress),
            state: BackupState::Running,
            started_ms: now_ms(),
            finished_ms: None,
            error: None,
        };
        jobs.insert(new.name.clone(), job);
    }
    let writing = state.parts.broker.store().backup(&file, progress);
    let (shared, name) = (state.clone(), new.name.clone());
    state.parts.broker.tree().spawn_task("backup", async move {
        let result = writing.await;
        let mut jobs = shared.backups.0.lock();
        let Some(job) = jobs.get_mut(&name) else {
            return;
        };
        job.finished_ms = Some(now_ms());
        match result {
            Ok(report) => {
                job.state = BackupState::Done;
                tracing::info!(
                    name,
                    bytes = report.bytes,
                    messages = report.messages,
                    "backup written"
                );
            }
            Err(error) => {
                job.state = BackupState::Failed;
                job.error = Some(error.to_string());
                tracing::warn!(name, %error, "backup failed; the node is not affected");
            }
        }
    });
    let jobs = state.backups.0.lock();
    let shown = jobs.get(&new.name).map(|job| job.shown(&new.name));
    Ok(HttpResponse::Accepted().json(shown))
}

fn make_dir(dir: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

fn found_on_disk(name: &str, state: BackupState, found: &std::fs::Metadata) -> Backup {
    let changed = found.modified().ok();
    let changed = changed.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let changed_ms = changed.and_then(|since| u64::try_from(since.as_millis()).ok());
    Backup {
        name: name.to_owned(),
        state,
        bytes: found.len(),
        messages_count: None,
        started_ms: None,
        finished_ms: changed_ms.filter(|_| state == BackupState::Done),
        error: None,
    }
}

/// The backups
#[utoipa::path(get, path = "/node/backups", tag = "node",
    responses((status = 200, body = BackupList)))]
async fn list(state: Shared) -> Answer {
    let mut backups: BTreeMap<String, Backup> = BTreeMap::new();
    // A directory that is not there has none.
    for entry in std::fs::read_dir(dir(&state))
        .into_iter()
        .flatten()
        .flatten()
    {
        let (Ok(name), Ok(found)) = (entry.file_name().into_string(), entry.metadata()) else {
            continue;
        };
        let (name, kind) = match name.strip_suffix(BACKUP_PARTIAL_SUFFIX) {
            Some(name) => (name.to_owned(), BackupState::Interrupted),
            None => (name, BackupState::Done),
        };
        if found.is_file() {
            backups.insert(name.clone(), found_on_disk(&name, kind, &found));
        }
    }
    for (name, job) in &*state.backups.0.lock() {
        // A file that was removed is not there any more, whoever wrote it.
        if job.state != BackupState::Done || backups.contains_key(name) {
            backups.insert(name.clone(), job.shown(name));
        }
    }
    Ok(HttpResponse::Ok().json(BackupList {
        backups: backups.into_values().collect(),
        next: None,
    }))
}

#[derive(OpenApi)]
#[openapi(paths(begin, list))]
pub(super) struct Api;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        post("/node/backups", Role::Admin, "backups.begin", begin),
        get("/node/backups", Role::Viewer, "backups.list", list),
    ]
}
