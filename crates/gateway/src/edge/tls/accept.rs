//! From a socket to a TLS stream.
//!
//! Bounds: a socket that says nothing costs no TLS state, a handshake has a
//! deadline, and how many are under way at a time is bounded where sockets are
//! accepted, with the requests that are not connections yet.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::net::TcpStream;
use metrics::{Counter, counter, describe_counter};
use rustls::{HandshakeKind, ServerConfig};
use tokio::time::timeout;
use tracing::debug;

use super::stream::TlsStream;

/// Makes handshakes.
#[derive(Clone)]
pub(crate) struct Acceptor {
    config: Arc<ServerConfig>,
    deadline: Duration,
    full: Counter,
    resumed: Counter,
    failed: Counter,
}

impl Acceptor {
    /// Gives each handshake until `deadline`.
    pub(crate) fn new(config: Arc<ServerConfig>, deadline: Duration) -> Self {
        describe_counter!(
            "stonechat_tls_handshakes_total",
            "TLS handshakes, by kind (full, resumed, failed)"
        );
        let kind = |kind: &'static str| counter!("stonechat_tls_handshakes_total", "kind" => kind);
        Self {
            config,
            deadline,
            full: kind("full"),
            resumed: kind("resumed"),
            failed: kind("failed"),
        }
    }

    /// Makes the handshake.
    ///
    /// # Errors
    /// What the client did wrong, or that it took too long.
    pub(crate) async fn accept(&self, io: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let peer = io.peer_addr().ok();
        let outcome = timeout(self.deadline, self.handshake(io))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match &outcome {
            Ok(stream) if stream.handshake_kind() == Some(HandshakeKind::Resumed) => {
                self.resumed.increment(1);
            }
            Ok(_) => self.full.increment(1),
            Err(error) => {
                self.failed.increment(1);
                debug!(?peer, %error, "no TLS handshake");
            }
        }
        outcome
    }

    async fn handshake(&self, io: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        io.readable().await?;
        let mut stream = TlsStream::new(io, Arc::clone(&self.config))?;
        poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }
}
