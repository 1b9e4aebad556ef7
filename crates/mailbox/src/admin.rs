//! What operators ask of a store, beside what serving needs: figures, purges
//! and backups. Nothing here is on a message's way.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::BoxFuture;
use serde::Serialize;
use stonechat_protocol::{Seq, UserId};
use tokio::sync::oneshot;

use crate::api::MailboxRef;
use crate::backup::{self, BackupProgress, BackupReport};
use crate::error::{StoreError, Unavailable};
use crate::files::free_bytes;
use crate::store::JournalStore;
use crate::workers::spawn;
use crate::{fullest, purge};

/// What a purge came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Purged {
    /// Messages thrown away.
    pub messages: u64,
    /// Everything up to here has left.
    pub upto: Seq,
}

/// In which order mailboxes are full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fullest {
    /// Most messages first.
    Messages,
    /// Most bytes first.
    Bytes,
    /// Oldest message first.
    Oldest,
}

/// How full a mailbox is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fullness {
    /// Whose it is.
    pub user: UserId,
    /// Messages held.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// When the oldest was accepted, milliseconds since the Unix epoch.
    pub oldest_ms: Option<u64>,
}

/// What the store takes on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StorageFigures {
    /// Segments of the journal.
    pub segments: u64,
    /// Their bytes.
    pub journal_bytes: u64,
    /// Bytes of the database.
    pub database_bytes: u64,
    /// Bytes this process may still write to the disk; absent when the system does not say.
    pub free_bytes: Option<u64>,
    /// How long the last data sync of the journal took, microseconds.
    pub last_sync_micros: u64,
    /// Data syncs of the journal since the start.
    pub syncs_total: u64,
}

/// A store as its operator sees it.
pub trait StoreAdmin {
    /// Writes everything the store holds to a new file while it serves. The backup stands for
    /// the moment at which it is ready: all that was accepted before the call is in it. It
    /// takes its time (64 MiB a second at the most) and goes on if the future is dropped.
    fn backup(
        &self,
        to: &Path,
        progress: Arc<BackupProgress>,
    ) -> BoxFuture<'static, Result<BackupReport, StoreError>>;

    /// Throws away what a mailbox holds up to `upto`, or all of it. Durable when ready.
    fn purge(
        &self,
        mailbox: &MailboxRef,
        upto: Option<Seq>,
    ) -> BoxFuture<'static, Result<Purged, StoreError>>;

    /// The fullest mailboxes, at most `max` (and never more than 1,000). Counted at most
    /// every ten seconds, so the figures may be that old.
    fn fullest(
        &self,
        by: Fullest,
        max: usize,
    ) -> BoxFuture<'static, Result<Vec<Fullness>, StoreError>>;

    /// What the store takes on disk.
    fn storage(&self) -> StorageFigures;
}

impl StoreAdmin for JournalStore {
    fn backup(
        &self,
        to: &Path,
        progress: Arc<BackupProgress>,
    ) -> BoxFuture<'static, Result<BackupReport, StoreError>> {
        let (done, answer) = oneshot::channel();
        let core = Arc::clone(&self.core);
        let to: PathBuf = to.to_owned();
        // A thread of its own: it may take minutes, and readers must not wait for it.
        let started = spawn("store-backup", move || {
            let result = backup::run(&core, &to, &progress);
            if let Err(error @ StoreError::Database(_)) = &result {
                core.database_failed(StoreError::Database(error.to_string()));
            }
            // The caller may have given up waiting; the file is there either way.
            let _ = done.send(result);
        });
        Box::pin(async move {
            started?;
            answer
                .await
                .unwrap_or(Err(StoreError::Unavailable(Unavailable::Failed)))
        })
    }

    fn purge(
        &self,
        mailbox: &MailboxRef,
        upto: Option<Seq>,
    ) -> BoxFuture<'static, Result<Purged, StoreError>> {
        if let Some(why) = self.core.unavailable() {
            return Box::pin(std::future::ready(Err(why.into())));
        }
        let mailbox = Arc::clone(mailbox);
        self.workers
            .run(move |core| purge::run(core, &mailbox, upto))
    }

    fn fullest(
        &self,
        by: Fullest,
        max: usize,
    ) -> BoxFuture<'static, Result<Vec<Fullness>, StoreError>> {
        let max = max.min(fullest::KEPT);
        self.workers.run(move |core| fullest::list(core, by, max))
    }

    fn storage(&self) -> StorageFigures {
        let (segments, journal_bytes) = self.core.table.totals();
        StorageFigures {
            segments,
            journal_bytes,
            database_bytes: self.core.database().map_or(0, |database| database.bytes()),
            free_bytes: free_bytes(&self.core.config.dir).ok(),
            last_sync_micros: self.core.telemetry.last_sync().as_micros() as u64,
            syncs_total: self.core.totals.syncs.load(Ordering::Relaxed),
        }
    }
}
