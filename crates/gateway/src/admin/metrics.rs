//! `/metrics`, in Prometheus text format: what is counted where it happens
//! (through the `metrics` crate), and figures read at the moment from those who
//! keep them anyway.

use std::fmt::{Display, Write};
use std::time::SystemTime;

use actix_web::HttpResponse;

use super::{Shared, State, process};
use crate::edge::SendLatencies;

/// Writes families in the text format.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        // A family told twice makes the whole page invalid.
        if self.0.contains(&format!("# TYPE {name} ")) {
            return;
        }
        write!(
            self.0,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
        )
        .expect("writing to a string cannot fail");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help, value);
    }
}

/// The histogram of how long sends waited. It is counted by the edge itself, because a recorder
/// would keep every single value until the next scrape.
fn send_latencies(text: &mut Text, latencies: &SendLatencies) {
    let name = "stonechat_send_accepted_seconds";
    let mut told = format!(
        "# HELP {name} From the read of a send to the write of its accepted.\n# TYPE {name} histogram\n"
    );
    let mut sum = 0;
    for (bound, count) in &latencies.buckets {
        sum += count;
        let bound = if bound.is_infinite() {
            "+Inf".to_owned()
        } else {
            bound.to_string()
        };
        told += &format!("{name}_bucket{{le=\"{bound}\"}} {sum}\n");
    }
    told += &format!("{name}_sum {}\n{name}_count {sum}\n", latencies.sum_s);
    text.0.push_str(&told);
}

pub(super) async fn metrics(state: Shared) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(render(&state))
}

fn render(state: &State) -> String {
    let parts = &state.parts;
    let mut text = Text(parts.metrics.render());
    text.0.push_str(&format!(
        "# HELP stonechat_build_info Version of the program.\n\
         # TYPE stonechat_build_info gauge\n\
         stonechat_build_info{{version=\"{}\"}} 1\n",
        parts.version
    ));
    if let Ok(since_epoch) = state.started_at.duration_since(SystemTime::UNIX_EPOCH) {
        text.gauge(
            "process_start_time_seconds",
            "When the node started, in seconds since 1970.",
            since_epoch.as_secs_f64(),
        );
    }

    let broker = parts.broker.stats();
    text.gauge(
        "stonechat_sessions",
        "Users connected, or gone only a moment ago.",
        broker.sessions,
    );
    text.gauge(
        "stonechat_devices_connected",
        "Devices connected.",
        broker.devices,
    );
    let draining = u8::from(parts.broker.is_draining());
    text.gauge(
        "stonechat_draining",
        "1 while the node takes no new sessions.",
        draining,
    );

    send_latencies(&mut text, &parts.edge.send_latencies());

    let totals = parts.broker.tree().totals();
    text.counter(
        "stonechat_actor_panics_total",
        "Panics caught, of actors and tasks.",
        totals.panics,
    );
    text.counter(
        "stonechat_actor_restarts_total",
        "Restarts of actors.",
        totals.restarts,
    );
    text.counter(
        "stonechat_actors_started_total",
        "Actors started.",
        totals.started,
    );
    text.counter(
        "stonechat_actors_exited_total",
        "Actors ended.",
        totals.exited,
    );
    text.counter(
        "stonechat_actors_abandoned_total",
        "Actors that ignored their shutdown.",
        totals.abandoned,
    );
    text.counter(
        "stonechat_actor_intensity_exceeded_total",
        "Actors given up after too many restarts.",
        totals.intensity_exceeded,
    );
    text.counter(
        "stonechat_actor_stalls_total",
        "Times a handler blocked its thread for too long.",
        totals.stalls,
    );
    text.gauge(
        "stonechat_tasks",
        "Supervised tasks alive.",
        totals.tasks_live,
    );

    let store = parts.broker.store();
    let up = u8::from(store.unavailable().is_none());
    text.gauge(
        "stonechat_store_accepting",
        "1 while the store accepts messages.",
        up,
    );
    let stats = store.stats();
    text.gauge(
        "stonechat_store_bytes",
        "Bytes of the bodies held in all mailboxes.",
        stats.bytes,
    );
    text.gauge(
        "stonechat_store_queued_appends",
        "Appends waiting for the next commit.",
        stats.queued,
    );
    text.gauge(
        "stonechat_store_dead_letters",
        "Dead letters held.",
        stats.dead_letters,
    );
    text.gauge(
        "stonechat_store_resident_mailboxes",
        "Mailboxes in memory.",
        stats.resident,
    );
    text.gauge(
        "stonechat_journal_segments",
        "Segments of the journal on disk.",
        stats.segments,
    );
    text.counter(
        "stonechat_journal_syncs_total",
        "Data syncs of the journal.",
        stats.syncs_total,
    );

    let process = process::read();
    if let Some(bytes) = process.resident_bytes {
        text.gauge("process_resident_memory_bytes", "Resident memory.", bytes);
    }
    if let Some(seconds) = process.cpu_seconds {
        text.counter(
            "process_cpu_seconds_total",
            "Processor time, user and system.",
            seconds,
        );
    }
    if let Some(count) = process.open_fds {
        text.gauge("process_open_fds", "Open file descriptors.", count);
    }
    if let Some(count) = process.fds_max {
        text.gauge("process_max_fds", "Limit of open file descriptors.", count);
    }
    text.0
}
