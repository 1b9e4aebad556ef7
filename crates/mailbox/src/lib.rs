//! The durable store of Stonechat: mailboxes, their messages, cursors and
//! receipts, accounts, and small values.
//!
//! | module | holds |
//! |---|---|
//! | `api` | the contract: types and the [`Store`] trait |
//! | `admin` | what operators ask of it: the [`StoreAdmin`] trait |
//! | `config` | settings, clock, injected faults |
//! | `store` | [`JournalStore`]: the trait over everything below |
//! | `lifecycle` | opening and closing |
//! | `committer`, `queue`, `reserve` | the thread that assigns places and owns the journal |
//! | `journal` | segments, frames, records: bytes in files |
//! | `shared`, `mailbox`, `parts`, `receipts`, `quota` | what is in memory |
//! | `reads`, `accounts`, `dead`, `expire`, `purge`, `fullest` | what the traits' calls do |
//! | `housekeeper`, `migrate`, `checkpoint` | memory to database, and the journal forgets |
//! | `recover` | database and journal to memory, at the start |
//! | `sledstore` | all use of sled: trees, keys, values, syncs |
//! | `layout`, `files` | the data directory |
//! | `backup` | one file of everything while serving, and back |
//! | `check`, `compact` | for a stopped node |
//!
//! **Architecture invariant:** this is the only crate that names sled, and the
//! only one that opens files under the data directory. It decides nothing about
//! delivery: what is sent again, to whom and when is `delivery`'s business.
//!
//! **Architecture invariant:** nothing is told of a message before the journal's
//! data sync that covers it has returned. There is one place that calls the
//! sink, and it runs after the sync, on the thread that synced.

mod accounts;
mod admin;
mod api;
mod backup;
mod check;
mod checkpoint;
mod codec;
mod committer;
mod compact;
mod config;
mod dead;
mod error;
mod expire;
mod files;
mod fullest;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
#[cfg(feature = "guard")]
pub mod guard;
mod housekeeper;
mod journal;
mod layout;
mod lifecycle;
mod mailbox;
mod migrate;
mod overlap;
mod parts;
mod purge;
mod queue;
mod quota;
mod reads;
mod receipts;
mod recover;
mod reserve;
mod settled;
mod shared;
mod sledstore;
mod store;
mod telemetry;
mod workers;

pub use admin::{Fullest, Fullness, Purged, StorageFigures, StoreAdmin};
pub use api::*;
pub use backup::{
    BACKUP_PARTIAL_SUFFIX, BackupError, BackupProgress, BackupReport, restore, verify_backup,
};
pub use check::{CheckReport, check};
pub use compact::{CompactReport, compact};
pub use config::{Clock, Faults, StoreConfig, WriteFault};
pub use error::{AppendError, StoreError, Unavailable};
pub use mailbox::Mailbox;
pub use store::JournalStore;
