//! Stopping an actix server without a word too many.
//!
//! actix-server tells its accepting thread and its workers to end at the same
//! time. A connection that arrives when the workers have done so and that thread
//! has not got to it is dropped, and logged as the error "No workers". The
//! connection would have been dropped either way; but an error in the log of an
//! orderly end sends somebody looking. So accepting is paused first.

use std::time::Duration;

use actix_server::ServerHandle;

/// Nothing says when the accepting thread has heard: it sleeps until it is told, so this is
/// for a machine that has much else to do.
const HEARD: Duration = Duration::from_millis(100);

/// Ends accepting, then the workers; `gracefully`: they finish what they are at.
pub(crate) async fn stop(server: &ServerHandle, gracefully: bool) {
    server.pause().await;
    tokio::time::sleep(HEARD).await;
    server.stop(gracefully).await;
}
