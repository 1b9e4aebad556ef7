//! Stopping: nothing new is accepted, clients are told, actors end, the store
//! commits and closes; all within one deadline. A second signal cuts it short.

use std::future::Future;
use std::time::Duration;

use stonechat_protocol::CloseReason;
use tokio::time::Instant;

use super::End;
use super::signals::Signals;
use super::start::Node;
use crate::config::Settings;
use crate::exit::Failure;
use crate::node_file::NodeFile;

/// After the store failed nothing can be made durable any more: be quick.
const DEADLINE_FAILED: Duration = Duration::from_secs(2);

/// Stops all parts. `Err`: the store did not close in order.
pub(super) async fn drain(
    settings: &Settings,
    node: &Node,
    end: &End,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let deadline = match end {
        End::Asked => settings.drain_deadline(),
        End::Store(_) | End::Tree(_) => settings.drain_deadline().min(DEADLINE_FAILED),
    };
    let result = tokio::select! {
        result = stop(settings, node, deadline) => result,
        number = signals.next_end() => {
            // What was accepted is in the journal; only the farewell is cut short.
            tracing::warn!("second signal: ending at once");
            NodeFile::remove(settings.data_dir());
            std::process::exit(128 + number);
        }
    };
    tracing::info!(complete = result.is_ok(), "stopped");
    result
}

async fn stop(settings: &Settings, node: &Node, deadline: Duration) -> Result<(), Failure> {
    let until = Instant::now() + deadline;
    // Each stage may take most of what is left, so that the later ones get their turn.
    let most = || (until - Instant::now().min(until)) * 3 / 5;

    node.edge.stop_accepting().await;
    let retry_after_ms = settings.server.drain_retry_after_ms;
    let left = node
        .broker
        .drain(CloseReason::Shutdown, retry_after_ms, most())
        .await;
    if left > 0 {
        tracing::warn!(left, "connections were cut off at the deadline");
    }
    let report = node.tree.shutdown(most()).await;
    if !report.is_clean() {
        tracing::warn!(?report, "actors were abandoned at the deadline");
    }
    // A peer that does not read holds its connection up to the deadline. That is its own
    // affair: what was accepted is safe, so it does not make the stop a failure.
    let patience = most() / 2;
    within(most(), "the listener for clients", node.edge.stop(patience)).await;
    within(most(), "the admin listener", node.admin.stop()).await;
    for arbiter in &node.arbiters {
        arbiter.stop();
    }
    let left = until - Instant::now().min(until);
    let closed = within(left, "the store", node.store.close()).await;
    if let Some(traces) = &node.traces {
        let left = until - Instant::now().min(until);
        within(left, "the export of traces", traces.stop()).await;
    }
    match closed {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => {
            tracing::error!(%error, "the store did not close in order; the next start repairs it");
            Err(error.into())
        }
        None => Err(Failure::general(
            "the store did not close within server.drain_deadline_ms; nothing accepted is lost, \
             the next start reads more of the journal",
        )),
    }
}

/// Waits for a stage; `None`: it was cut off.
async fn within<T>(
    limit: Duration,
    stage: &'static str,
    work: impl Future<Output = T>,
) -> Option<T> {
    let result = tokio::time::timeout(limit, work).await.ok();
    if result.is_none() {
        tracing::warn!(stage, "cut off at the deadline");
    }
    result
}
