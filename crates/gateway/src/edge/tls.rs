//! TLS: a certificate that can be swapped while connections stay, and sessions
//! that are resumed without the server keeping any.
//!
//! A connection keeps the certificate it was made with; new handshakes see the
//! new one. TLS 1.2 and 1.3, server certificate only, HTTP/1.1 by ALPN. What is
//! needed to resume a session travels with the client in a ticket, sealed with
//! keys that are made at the start, replaced every six hours and never written
//! down: no client makes the server remember anything.
//!
//! No early data: a request that can be replayed is no way to say hello.

mod accept;
mod stream;
mod validity;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use metrics::{counter, describe_counter, describe_gauge, gauge};
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tracing::{error, info, warn};

pub(crate) use self::accept::Acceptor;
pub(crate) use self::stream::TlsStream;
pub(crate) use self::watch::watch;
use super::{EdgeError, TlsFiles};

/// A certificate that ends within this is warned of.
const WARN_BEFORE_END: Duration = Duration::from_secs(14 * 24 * 3600);

/// Largest certificate or key file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The listener for clients, as metrics and the log name it.
pub(crate) const CLIENTS: &str = "clients";
/// The admin listener.
pub(crate) const ADMIN: &str = "admin";

/// The certificate of one listener in use, and where it is read from.
#[derive(Debug)]
pub(crate) struct Certificate {
    listener: &'static str,
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<CertifiedKey>,
    /// What the files held when they were last read, whether it was any good or not; nothing
    /// when they could not be read.
    read: Mutex<Content>,
}

/// What the two files hold.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Content {
    chain: Vec<u8>,
    key: Vec<u8>,
}

impl Certificate {
    /// Reads the files.
    pub(crate) fn load(files: TlsFiles, listener: &'static str) -> Result<Arc<Self>, EdgeError> {
        describe();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let content = read(&files)?;
        let current = parse(&files, &content, &provider)?;
        tell_end(&current, listener);
        gauge!("stonechat_tls_certificate_stale", "listener" => listener).set(0);
        Ok(Arc::new(Self {
            listener,
            files,
            provider,
            current: ArcSwap::from_pointee(current),
            read: Mutex::new(content),
        }))
    }

    /// Reads the files again. When they are no good the certificate in use stays; that is
    /// counted, and logging it is the caller's.
    pub(crate) fn reload(&self) -> Result<(), EdgeError> {
        let content = read(&self.files);
        *self.read.lock() = content.as_ref().cloned().unwrap_or_default();
        let outcome = content.and_then(|content| self.take(&content));
        let label = if outcome.is_ok() { "done" } else { "refused" };
        let listener = self.listener;
        counter!("stonechat_tls_reloads_total", "listener" => listener, "outcome" => label)
            .increment(1);
        gauge!("stonechat_tls_certificate_stale", "listener" => listener)
            .set(u8::from(outcome.is_err()));
        outcome
    }

    /// [`Certificate::reload`], told to the log.
    pub(crate) fn reload_and_tell(&self) -> Result<(), EdgeError> {
        let outcome = self.reload();
        let listener = self.listener;
        match &outcome {
            Ok(()) => info!(listener, "certificate read again; new connections get it"),
            Err(error) => error!(listener, %error, "the certificate in use stays"),
        }
        outcome
    }

    /// Says once more when it ends.
    fn tell_end(&self) {
        tell_end(&self.current.load(), self.listener);
    }

    fn take(&self, content: &Content) -> Result<(), EdgeError> {
        let fresh = parse(&self.files, content, &self.provider)?;
        if end(&fresh).is_some_and(|end| end <= SystemTime::now()) {
            return Err(failed(
                &self.files.cert,
                "the certificate has expired".into(),
            ));
        }
        tell_end(&fresh, self.listener);
        self.current.store(Arc::new(fresh));
        Ok(())
    }

    /// A configuration that resolves to whatever certificate is current.
    pub(crate) fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, EdgeError> {
        let unusable = |error: rustls::Error| failed(&self.files.cert, error.to_string());
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(unusable)?;
        // Clients that take no tickets make a full handshake each time; nothing is kept for them.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn failed(file: &Path, problem: String) -> EdgeError {
    EdgeError::Tls {
        file: file.to_owned(),
        problem,
    }
}

fn read(files: &TlsFiles) -> Result<Content, EdgeError> {
    let one = |file: &Path| {
        let length = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        if length > FILE_BYTES_MAX {
            return Err(failed(
                file,
                format!("{length} bytes are too much for PEM of one server"),
            ));
        }
        std::fs::read(file).map_err(|error| failed(file, error.to_string()))
    };
    Ok(Content {
        chain: one(&files.cert)?,
        key: one(&files.key)?,
    })
}

fn parse(
    files: &TlsFiles,
    content: &Content,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, EdgeError> {
    let chain = CertificateDer::pem_slice_iter(&content.chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(&files.cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(failed(&files.cert, "no certificate in the file".into()));
    }
    let key = PrivateKeyDer::from_pem_slice(&content.key)
        .map_err(|error| failed(&files.key, error.to_string()))?;
    CertifiedKey::from_der(chain, key, provider)
        .map_err(|error| failed(&files.key, error.to_string()))
}

/// When the server's own certificate ends.
fn end(certified: &CertifiedKey) -> Option<SystemTime> {
    validity::not_after(certified.end_entity_cert().ok()?)
}

/// Says when the certificate ends: always to the metrics, and to the log when that is soon.
fn tell_end(certified: &CertifiedKey, listener: &'static str) {
    let Some(end) = end(certified) else {
        return warn!(
            listener,
            "the end of the certificate's validity cannot be read; look after it by hand"
        );
    };
    let since_epoch = end.duration_since(UNIX_EPOCH).unwrap_or_default();
    gauge!("stonechat_tls_certificate_expiry_timestamp_seconds", "listener" => listener)
        .set(since_epoch.as_secs_f64());
    match end.duration_since(SystemTime::now()) {
        Ok(left) if left >= WARN_BEFORE_END => {}
        Ok(left) => warn!(
            listener,
            days = left.as_secs() / (24 * 3600),
            "the certificate expires soon; put a new one into its files"
        ),
        Err(_) => {
            error!(
                listener,
                "the certificate has expired: clients refuse it; put a new one into its files"
            );
        }
    }
}

fn describe() {
    describe_gauge!(
        "stonechat_tls_certificate_expiry_timestamp_seconds",
        "When the certificate in use expires, in seconds since 1970"
    );
    describe_gauge!(
        "stonechat_tls_certificate_stale",
        "1 while the certificate's files hold something that cannot be used"
    );
    describe_counter!(
        "stonechat_tls_reloads_total",
        "Certificates read again, by outcome (done, refused)"
    );
}
