//! What can be set, with units, bounds and defaults, and the two seams tests
//! need: the clock and injected disk faults.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Settings of a [`JournalStore`](crate::JournalStore). Durations are given as
/// milliseconds in configuration files.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// The data directory. One process at a time may have it open.
    pub dir: PathBuf,
    /// A journal segment is closed when it would grow beyond this, bytes. 64 KiB to 1 GiB.
    pub segment_bytes_max: u64,
    /// A journal segment is closed when its first batch is older than this, milliseconds.
    #[serde(rename = "segment_age_ms_max", with = "millis")]
    pub segment_age_max: Duration,
    /// Once a segment holds this, the file of the next one is filled with zeros beforehand, which
    /// halves what a sync costs on ext4 and XFS; 0: never, as is right on file systems that
    /// write nothing in place (btrfs, ZFS), bytes.
    pub prepare_from_bytes: u64,
    /// Senders wait while the journal takes more than this on disk, bytes.
    /// At least four times `segment_bytes_max`.
    pub journal_bytes_max: u64,
    /// Recent messages held in memory before they are moved to the database early, bytes.
    /// Senders wait at twice this.
    pub recent_bytes_max: u64,
    /// Messages not acknowledged after this are moved from memory to the database, milliseconds.
    #[serde(rename = "migrate_after_ms", with = "millis")]
    pub migrate_after: Duration,
    /// Bytes of messages in one commit; what is beyond waits for the next. 64 KiB to 64 MiB.
    pub batch_bytes_max: usize,
    /// Bytes of messages waiting for the committer before senders wait.
    pub queue_bytes_max: u64,
    /// Shortest time from one commit to the next while messages come by the thousand a second,
    /// milliseconds; 0: none. Otherwise a commit starts when there is something to commit.
    #[serde(rename = "commit_interval_ms", with = "millis")]
    pub commit_interval: Duration,
    /// Messages one mailbox holds; the sender is told `mailbox_full` beyond.
    pub quota_messages: u64,
    /// Bytes of bodies one mailbox holds.
    pub quota_bytes: u64,
    /// Devices of one user. 1 to 64.
    pub devices_max: usize,
    /// Conversations of one user whose watermarks are kept; the longest unmoved goes first.
    pub receipts_max: usize,
    /// Memory for the database's page cache, bytes.
    pub sled_cache_bytes: u64,
    /// Acknowledgements and the like are written at the latest after this, milliseconds.
    #[serde(rename = "lazy_flush_ms", with = "millis")]
    pub lazy_flush: Duration,
    /// A segment and messages that left stay on disk for this long, so that receipts that
    /// follow from an acknowledgement are stored before it is forgotten, milliseconds.
    #[serde(rename = "receipt_grace_ms", with = "millis")]
    pub receipt_grace: Duration,
    /// Mailboxes kept in memory; idle ones beyond are dropped from it.
    pub resident_max: usize,
    /// Accounts kept in memory.
    pub accounts_cached_max: usize,
    /// Bytes set aside on disk, given up when the disk is full so that what is under way
    /// can end in order.
    pub reserve_bytes: u64,
    /// Free disk space below which nothing more is accepted, so that the database, which does
    /// not survive a full disk, never meets one, bytes; 0: not looked at.
    pub headroom_bytes: u64,
    /// How often a full disk is looked at, milliseconds.
    #[serde(rename = "disk_probe_ms", with = "millis")]
    pub disk_probe: Duration,
    /// Threads that read the database.
    pub reader_threads: usize,
    /// Where the time comes from.
    #[serde(skip)]
    pub clock: Clock,
    /// Injected disk faults; tests only.
    #[serde(skip)]
    pub faults: Option<Arc<dyn Faults>>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("stonechat-data"),
            segment_bytes_max: 64 << 20,
            segment_age_max: Duration::from_secs(60),
            prepare_from_bytes: 1 << 20,
            journal_bytes_max: 2 << 30,
            recent_bytes_max: 128 << 20,
            migrate_after: Duration::from_secs(5),
            batch_bytes_max: 4 << 20,
            queue_bytes_max: 32 << 20,
            commit_interval: Duration::from_millis(1),
            quota_messages: 100_000,
            quota_bytes: 256 << 20,
            devices_max: 16,
            receipts_max: 10_000,
            sled_cache_bytes: 64 << 20,
            lazy_flush: Duration::from_millis(100),
            receipt_grace: Duration::from_secs(2),
            resident_max: 100_000,
            accounts_cached_max: 1_000_000,
            reserve_bytes: 8 << 20,
            headroom_bytes: 64 << 20,
            disk_probe: Duration::from_millis(500),
            reader_threads: 2,
            clock: Clock::default(),
            faults: None,
        }
    }
}

impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConfig")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl StoreConfig {
    /// The defaults with this data directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            ..Self::default()
        }
    }

    /// Checks bounds.
    ///
    /// # Errors
    /// A sentence that names the key and what it may be.
    pub fn validate(&self) -> Result<(), String> {
        let checks = [
            (
                (64 << 10..=1 << 30).contains(&self.segment_bytes_max),
                "segment_bytes_max must be between 65536 and 1073741824",
            ),
            (
                self.journal_bytes_max >= self.segment_bytes_max.saturating_mul(4),
                "journal_bytes_max must be at least four times segment_bytes_max",
            ),
            (
                (64 << 10..=64 << 20).contains(&self.batch_bytes_max),
                "batch_bytes_max must be between 65536 and 67108864",
            ),
            (
                self.recent_bytes_max >= 1 << 20,
                "recent_bytes_max must be at least 1048576",
            ),
            (
                self.queue_bytes_max >= 256 << 10,
                "queue_bytes_max must be at least 262144",
            ),
            (
                (1..=64).contains(&self.devices_max),
                "devices_max must be between 1 and 64",
            ),
            (self.receipts_max >= 1, "receipts_max must be at least 1"),
            (
                (1..=64).contains(&self.reader_threads),
                "reader_threads must be between 1 and 64",
            ),
            (
                !self.lazy_flush.is_zero() && self.lazy_flush <= Duration::from_secs(10),
                "lazy_flush_ms must be between 1 and 10000",
            ),
            (
                self.commit_interval <= Duration::from_secs(1),
                "commit_interval_ms must be at most 1000",
            ),
        ];
        match checks.iter().find(|(good, _)| !good) {
            Some((_, message)) => Err((*message).to_owned()),
            None => Ok(()),
        }
    }
}

/// Tells the time in milliseconds since the Unix epoch; replaceable in tests.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// A clock that asks `now_ms`.
    pub fn new(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |elapsed| elapsed.as_millis() as u64)
        })
    }
}

/// What happens to one write.
#[derive(Debug)]
pub enum WriteFault {
    /// It is carried out.
    None,
    /// It fails, nothing is written.
    Fail(io::Error),
    /// It fails after this many bytes were written.
    Short(usize, io::Error),
}

/// Decides which disk operations of the journal fail, and how long those of the database take. For tests.
pub trait Faults: Send + Sync + 'static {
    /// Asked before `bytes` are written.
    fn write(&self, bytes: usize) -> WriteFault;
    /// Asked before a data sync; `Some`: the sync fails with it.
    fn sync(&self) -> Option<io::Error>;
    /// Called before a job of the threads that read the database; takes as long as that is to take.
    fn lookup(&self) {}
}

/// Durations as whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
