//! The store's metrics, with handles made once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, describe_counter, describe_gauge, describe_histogram,
};

use crate::shared::Core;

/// Handles of all metrics of the store.
pub(crate) struct Telemetry {
    sync_seconds: Histogram,
    batch_messages: Histogram,
    journal_bytes: Gauge,
    recent_bytes: Gauge,
    messages: Gauge,
    sled_bytes: Gauge,
    expired_total: Counter,
    purged_total: Counter,
    last_sync_micros: AtomicU64,
}

impl Telemetry {
    pub(crate) fn new() -> Self {
        describe();
        Self {
            sync_seconds: metrics::histogram!("stonechat_journal_sync_seconds"),
            batch_messages: metrics::histogram!("stonechat_journal_batch_messages"),
            journal_bytes: metrics::gauge!("stonechat_journal_bytes"),
            recent_bytes: metrics::gauge!("stonechat_store_recent_bytes"),
            messages: metrics::gauge!("stonechat_store_messages"),
            sled_bytes: metrics::gauge!("stonechat_store_sled_bytes"),
            expired_total: metrics::counter!("stonechat_store_expired_total"),
            purged_total: metrics::counter!("stonechat_store_purged_total"),
            last_sync_micros: AtomicU64::new(0),
        }
    }

    /// The journal was synced.
    pub(crate) fn synced(&self, took: Duration) {
        self.sync_seconds.record(took.as_secs_f64());
        self.last_sync_micros
            .store(took.as_micros() as u64, Ordering::Relaxed);
    }

    /// How long the last data sync of the journal took.
    pub(crate) fn last_sync(&self) -> Duration {
        Duration::from_micros(self.last_sync_micros.load(Ordering::Relaxed))
    }

    /// A batch was committed.
    pub(crate) fn batch(&self, messages: usize) {
        if messages > 0 {
            self.batch_messages.record(messages as f64);
        }
    }

    /// Messages expired.
    pub(crate) fn expired(&self, messages: u64) {
        self.expired_total.increment(messages);
    }

    /// Messages were thrown away by an operator.
    pub(crate) fn purged(&self, messages: u64) {
        self.purged_total.increment(messages);
    }

    /// What is kept, not counted as it happens.
    pub(crate) fn gauges(&self, core: &Core) {
        let totals = &core.totals;
        self.journal_bytes.set(core.table.totals().1 as f64);
        self.recent_bytes
            .set(totals.recent_bytes.load(Ordering::Relaxed) as f64);
        self.messages
            .set(totals.messages.load(Ordering::Relaxed) as f64);
        if let Ok(database) = core.database() {
            self.sled_bytes.set(database.bytes() as f64);
        }
    }
}

fn describe() {
    describe_histogram!(
        "stonechat_journal_sync_seconds",
        Unit::Seconds,
        "How long a data sync of the journal took"
    );
    describe_histogram!("stonechat_journal_batch_messages", "Messages in one commit");
    describe_gauge!(
        "stonechat_journal_bytes",
        Unit::Bytes,
        "Bytes of the journal on disk"
    );
    describe_gauge!(
        "stonechat_store_recent_bytes",
        Unit::Bytes,
        "Bytes of recent messages held in memory"
    );
    describe_gauge!("stonechat_store_messages", "Messages held in all mailboxes");
    describe_gauge!(
        "stonechat_store_sled_bytes",
        Unit::Bytes,
        "Bytes the database takes on disk"
    );
    describe_counter!(
        "stonechat_store_expired_total",
        "Messages that left by their time to live"
    );
    describe_counter!(
        "stonechat_store_purged_total",
        "Messages thrown away by operators"
    );
}
