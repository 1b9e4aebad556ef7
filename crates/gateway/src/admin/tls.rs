//! TLS of the admin listener: the public listener's certificates, which reload
//! the same way, under actix-web's own TLS stream.
//!
//! That stream keeps buffers for as long as a connection lives, which does not
//! matter for a few dozen of them. No client certificates: who asks is told by
//! what they bring in each request.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::net::TcpStream;
use actix_tls::accept::rustls_0_23::TlsStream;
use stonechat_actors::Tree;

use super::AdminConfig;
use crate::edge::EdgeError;
use crate::edge::tls::{self, Certificate};

/// The certificate, if one is configured.
pub(super) fn load(config: &AdminConfig) -> Result<Option<Arc<Certificate>>, EdgeError> {
    let load = |files| Certificate::load(files, tls::ADMIN);
    config.tls.clone().map(load).transpose()
}

/// Looks after the certificate's files for as long as the node runs.
pub(super) fn watch(certificate: &Arc<Certificate>, config: &AdminConfig, tree: &Tree) {
    let every = (config.tls_watch_ms > 0).then(|| Duration::from_millis(config.tls_watch_ms));
    tree.spawn_task(
        "admin certificate watch",
        tls::watch(Arc::clone(certificate), every),
    );
}

/// The socket below a TLS stream.
pub(super) fn socket(stream: &dyn Any) -> Option<&TcpStream> {
    let stream = stream.downcast_ref::<TlsStream<TcpStream>>()?;
    Some(stream.get_ref().0)
}
