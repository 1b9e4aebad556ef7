//! TLS: a certificate that can be swapped while connections stay.
//!
//! A connection keeps the certificate it was made with; new handshakes see the
//! new one. TLS 1.2 and 1.3, server certificate only, HTTP/1.1 by ALPN. Session
//! resumption is rustls's default: an in-memory cache of 256 sessions.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{EdgeError, TlsFiles};

/// The certificate in use, and where it is read from.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<CertifiedKey>,
}

impl Certificate {
    /// Reads the files.
    pub(crate) fn load(files: TlsFiles) -> Result<Arc<Self>, EdgeError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let current = ArcSwap::from_pointee(read(&files, &provider)?);
        Ok(Arc::new(Self {
            files,
            provider,
            current,
        }))
    }

    /// Reads the files again. When they are no good the certificate in use stays.
    pub(crate) fn reload(&self) -> Result<(), EdgeError> {
        let fresh = read(&self.files, &self.provider)?;
        self.current.store(Arc::new(fresh));
        Ok(())
    }

    /// A configuration that resolves to whatever certificate is current.
    pub(crate) fn server_config(self: &Arc<Self>) -> Result<ServerConfig, EdgeError> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Self::failed(&self.files.cert, error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn failed(file: &Path, problem: String) -> EdgeError {
        EdgeError::Tls {
            file: file.to_owned(),
            problem,
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn read(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, EdgeError> {
    let failed = |file: &Path, problem: String| EdgeError::Tls {
        file: file.to_owned(),
        problem,
    };
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(&files.cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(failed(&files.cert, "no certificate in the file".into()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| failed(&files.key, error.to_string()))?;
    CertifiedKey::from_der(chain, key, provider)
        .map_err(|error| failed(&files.key, error.to_string()))
}
