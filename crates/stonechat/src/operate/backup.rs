//! `stonechat backup` and `stonechat restore`. A running server is asked over
//! the admin API, a stopped one's data directory is opened here.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use stonechat_mailbox::{
    BackupError, BackupProgress, CommitSink, Committed, JournalStore, Store, StoreAdmin, StoreError,
};
use ureq::http::Method;

use super::args::{BackupArgs, RestoreArgs};
use super::table::date;
use crate::admin_client::AdminClient;
use crate::commands::print;
use crate::config::{LogFormat, Settings};
use crate::exit::{Exit, Failure};
use crate::logging;

/// How often a backup that is being written is asked about.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Nobody is there to hear of commits.
struct Nobody;

impl CommitSink for Nobody {
    fn committed(&mut self, _: Vec<Committed>) {}

    fn failed(&mut self, error: &StoreError) {
        tracing::error!(%error, "the store failed");
    }
}

/// Writes a backup of the running server, or of the data directory of a stopped one.
pub(crate) fn backup(
    settings: &Settings,
    find: impl FnOnce() -> Result<AdminClient, Failure>,
    args: BackupArgs,
) -> Result<(), Failure> {
    let dir = settings.data_dir();
    if !dir.is_dir() {
        let text = format!(
            "there is no data directory {}; --data-dir says which one",
            dir.display()
        );
        return Err(Failure::new(Exit::Unavailable, text));
    }
    let name = format!("{}.backup", stamp());
    let inside = dir.join("backups").join(&name);
    let to = args.to.unwrap_or_else(|| inside.clone());
    if to.exists() {
        return Err(StoreError::from(BackupError::Exists(to)).into());
    }
    logging::start(LogFormat::Human, "warn");
    match JournalStore::open(settings.store(), Box::new(Nobody)) {
        Ok(store) => offline(&store, &to),
        Err(StoreError::InUse(_)) => online(&find()?, &name, &inside, &to),
        Err(error) => Err(error.into()),
    }
}

fn offline(store: &JournalStore, to: &Path) -> Result<(), Failure> {
    if let Some(dir) = to.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(dir).map_err(|error| Failure::io(dir.display(), &error))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Software, error))?;
    let progress = Arc::new(BackupProgress::default());
    let report = runtime.block_on(store.backup(to, progress))?;
    runtime.block_on(store.close())?;
    print(format_args!("{report}\n"))
}

fn online(client: &AdminClient, name: &str, inside: &Path, to: &Path) -> Result<(), Failure> {
    client.request(&Method::POST, "/node/backups", Some(&json!({"name": name})))?;
    let done = loop {
        std::thread::sleep(ASK_EVERY);
        let mut list = client.request(&Method::GET, "/node/backups", None)?;
        let backups = list["backups"].as_array_mut().map(std::mem::take);
        let mut found = backups.into_iter().flatten();
        let Some(one) = found.find(|one| one["name"] == name) else {
            return Err(Failure::general(
                "the server does not know the backup any more",
            ));
        };
        match one["state"].as_str() {
            Some("running") => {}
            Some("done") => break one,
            _ => {
                let why = one["error"].as_str().unwrap_or("it was interrupted");
                return Err(Failure::new(Exit::Io, format!("the backup failed: {why}")));
            }
        }
    };
    if to != inside {
        move_to(inside, to)?;
    }
    let number = |key: &str| done[key].as_u64().unwrap_or_default();
    print(format_args!(
        "{}: {} bytes, {} messages\n",
        to.display(),
        number("bytes"),
        number("messages_count")
    ))
}

/// To its place in one step, over file systems too: copied and synced under another name first.
fn move_to(from: &Path, to: &Path) -> Result<(), Failure> {
    if fs::rename(from, to).is_ok() {
        return Ok(());
    }
    let mut partial = to.as_os_str().to_owned();
    partial.push(stonechat_mailbox::BACKUP_PARTIAL_SUFFIX);
    let partial = PathBuf::from(partial);
    let copied = fs::copy(from, &partial)
        .and_then(|_| fs::File::open(&partial)?.sync_all())
        .and_then(|()| fs::rename(&partial, to))
        .and_then(|()| fs::remove_file(from));
    copied.map_err(|error| {
        let text = format!("{}; the backup is {}", to.display(), from.display());
        Failure::io(text, &error)
    })
}

/// Now, as names of files have it.
fn stamp() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let second = since.map_or(0, |since| since.as_secs());
    let (year, month, day) = date(second / 86_400);
    let of_day = second % 86_400;
    let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}{month:02}{day:02}T{h:02}{m:02}{s:02}Z")
}

/// Restores a backup into the data directory, which must be new or empty.
pub(crate) fn restore(settings: &Settings, args: &RestoreArgs) -> Result<(), Failure> {
    logging::start(LogFormat::Human, "warn");
    let dir = settings.data_dir();
    let report = stonechat_mailbox::restore(&args.from, dir)?;
    let report = serde_json::to_value(&report).unwrap_or(Value::Null);
    print(format_args!(
        "restored {} mailboxes with {} messages into {}; `stonechat serve` starts from there\n",
        report["mailboxes"],
        report["messages"],
        dir.display()
    ))
}
