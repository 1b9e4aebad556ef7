//! The last hour in figures, kept by the node itself, so that whoever has no
//! Prometheus still sees a picture.
//!
//! One task reads every few seconds what is counted anyway and keeps it in
//! memory of a fixed size. Nothing here is on the way of a message, nothing is
//! written to disk, and a restart starts anew. It is no store of metrics: for
//! more than an hour scrape `/metrics`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::web::Query;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};

use super::caller::Role;
use super::exposition::{Histogram, value};
use super::operation::{Operation, get};
use super::{Shared, State, now_ms, process};

/// Seconds between two samples.
const STEP_S: u64 = 5;
/// Samples kept: an hour.
const SAMPLES_MAX: usize = 3_600 / STEP_S as usize;

/// Names of the series, in the order of the figures of a sample.
const SERIES: [&str; 21] = [
    "users_count",
    "devices_count",
    "connections_count",
    "received_per_s",
    "accepted_per_s",
    "delivered_per_s",
    "redelivered_per_s",
    "refused_per_s",
    "backlog_messages",
    "backlog_bytes",
    "dead_letters_count",
    "batch_messages",
    "syncs_per_s",
    "sync_p50_ms",
    "sync_p99_ms",
    "send_accepted_p50_ms",
    "send_accepted_p99_ms",
    "cpu_percent",
    "resident_bytes",
    "descriptors_count",
    "crashes_count",
];

/// Figures of one moment, in the order of [`SERIES`]; not a number: not known. Single precision is
/// enough for a chart, and keeps the whole hour in less than 100 KB.
type Sample = [f32; SERIES.len()];

/// The last hour.
#[derive(Default)]
pub(super) struct History(Mutex<VecDeque<(u64, Sample)>>);

impl History {
    fn push(&self, at_ms: u64, sample: Sample) {
        let mut kept = self.0.lock();
        if kept.len() >= SAMPLES_MAX {
            kept.pop_front();
        }
        kept.push_back((at_ms, sample));
    }

    fn answer(&self, since_ms: u64) -> HistoryAnswer {
        let kept = self.0.lock();
        let wanted = || kept.iter().filter(|(at_ms, _)| *at_ms > since_ms);
        HistoryAnswer {
            step_s: STEP_S,
            at_ms: wanted().map(|(at_ms, _)| *at_ms).collect(),
            series: SERIES
                .iter()
                .enumerate()
                .map(|(place, name)| {
                    let values = wanted().map(|(_, sample)| sample[place]);
                    (*name, values.map(known).collect())
                })
                .collect(),
        }
    }
}

fn known(value: f32) -> Option<f32> {
    value.is_finite().then_some(value)
}

/// What counters stood at, at one moment.
struct Reading {
    at: Instant,
    /// Received, accepted, delivered, redelivered, refused.
    messages: [f64; 5],
    syncs: u64,
    panics: u64,
    cpu_seconds: Option<f64>,
    batches: Histogram,
    sync_seconds: Histogram,
    sends: Histogram,
}

/// Counters behind [`Reading::messages`].
const MESSAGES: [&str; 5] = [
    "stonechat_messages_received_total",
    "stonechat_messages_accepted_total",
    "stonechat_messages_delivered_total",
    "stonechat_messages_redelivered_total",
    "stonechat_messages_refused_total",
];

/// Reads everything, and computes a sample when there is an earlier reading to compare with.
fn read(state: &State, before: Option<&Reading>) -> (Reading, Option<Sample>) {
    let parts = &state.parts;
    let text = parts.metrics.render();
    let (broker, store) = (parts.broker.stats(), parts.broker.store().stats());
    let process = process::read();
    let now = Reading {
        at: Instant::now(),
        messages: MESSAGES.map(|name| value(&text, name).unwrap_or(0.0)),
        syncs: store.syncs_total,
        panics: parts.broker.tree().totals().panics,
        cpu_seconds: process.cpu_seconds,
        batches: Histogram::of(&text, "stonechat_journal_batch_messages"),
        sync_seconds: Histogram::of(&text, "stonechat_journal_sync_seconds"),
        sends: Histogram::of_sends(&parts.edge.send_latencies()),
    };
    let sample = before.map(|before| {
        let passed_s = (now.at - before.at).as_secs_f64().max(0.001);
        let rate = |from: f64, to: f64| (to - from).max(0.0) / passed_s;
        let message = |place: usize| rate(before.messages[place], now.messages[place]);
        let syncs = now.sync_seconds.since(&before.sync_seconds);
        let sends = now.sends.since(&before.sends);
        let unknown = f64::NAN;
        let ms = |seconds: Option<f64>| seconds.map_or(unknown, |s| s * 1e3);
        let cpu = now.cpu_seconds.zip(before.cpu_seconds);
        [
            broker.sessions as f64,
            broker.devices as f64,
            parts.edge.connections() as f64,
            message(0),
            message(1),
            message(2),
            message(3),
            message(4),
            store.messages as f64,
            store.bytes as f64,
            store.dead_letters as f64,
            now.batches.since(&before.batches).mean().unwrap_or(unknown),
            rate(before.syncs as f64, now.syncs as f64),
            ms(syncs.quantile(0.5)),
            ms(syncs.quantile(0.99)),
            ms(sends.quantile(0.5)),
            ms(sends.quantile(0.99)),
            cpu.map_or(unknown, |(now, before)| rate(before, now) * 100.0),
            process.resident_bytes.map_or(unknown, |bytes| bytes as f64),
            process.open_fds.map_or(unknown, |count| count as f64),
            now.panics.saturating_sub(before.panics) as f64,
        ]
        .map(|value| value as f32)
    });
    (now, sample)
}

/// Samples for as long as the node runs. Each reading is made on a thread that may wait: counting
/// descriptors looks at every one of them.
pub(super) async fn keep(state: Shared) {
    let mut step = tokio::time::interval(Duration::from_secs(STEP_S));
    step.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before: Option<Arc<Reading>> = None;
    loop {
        step.tick().await;
        let (shared, last) = (state.clone(), before.clone());
        let reading = tokio::task::spawn_blocking(move || read(&shared, last.as_deref())).await;
        match reading {
            Ok((now, sample)) => {
                before = Some(Arc::new(now));
                if let Some(sample) = sample {
                    state.history.push(now_ms(), sample);
                }
            }
            Err(error) if error.is_panic() => {
                tracing::error!(%error, "the node's figures could not be read; its history ends");
                return;
            }
            // The program ends.
            Err(_) => return,
        }
    }
}

/// Which samples are wanted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Since {
    /// Only samples after this time, milliseconds since 1970.
    #[serde(default)]
    #[param(required = false)]
    since_ms: u64,
}

/// The last hour, or what came since.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HistoryAnswer {
    /// Seconds between two samples.
    step_s: u64,
    /// When each sample was taken, milliseconds since 1970.
    at_ms: Vec<u64>,
    /// The values of each series, one for each time; `null` where there is none.
    #[schema(value_type = BTreeMap<String, Vec<Option<f32>>>)]
    series: BTreeMap<&'static str, Vec<Option<f32>>>,
}

/// The last hour in figures
///
/// One sample every few seconds, kept by the node since its start.
#[utoipa::path(get, path = "/history", tag = "node", params(Since),
    responses((status = 200, body = HistoryAnswer)))]
pub(super) async fn history(state: Shared, since: Query<Since>) -> HttpResponse {
    HttpResponse::Ok().json(state.history.answer(since.since_ms))
}

#[derive(OpenApi)]
#[openapi(paths(history))]
pub(super) struct Api;

pub(super) fn operations() -> Vec<Operation> {
    vec![get("/history", Role::Viewer, "node.history", history)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let history = History::default();
        for at_ms in 1..=1_000 {
            let mut sample = [f32::NAN; SERIES.len()];
            sample[0] = at_ms as f32;
            history.push(at_ms, sample);
        }
        let whole = history.answer(0);
        assert_eq!(whole.at_ms.len(), 720);
        assert_eq!(whole.at_ms.first(), Some(&281));
        assert_eq!(whole.series["users_count"].first(), Some(&Some(281.0)));
        assert_eq!(whole.series["sync_p99_ms"].last(), Some(&None));
        let news = history.answer(998);
        assert_eq!(news.at_ms, [999, 1_000]);
        assert!(news.series.values().all(|values| values.len() == 2));
        assert_eq!(news.series.len(), SERIES.len());
    }
}
