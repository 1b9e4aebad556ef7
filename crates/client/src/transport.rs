//! Getting a WebSocket: address, TLS, handshake. Knows nothing of the protocol above.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Error as WsError};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
};

use crate::error::{BuildError, DisconnectCause};
use crate::tuning::Tuning;

/// The path of the WebSocket endpoint, used when the address has none.
const PATH: &str = "/v1/ws";

/// A frame is written as it comes; small buffers keep ten thousand clients in a process affordable.
const BUFFER_BYTES: usize = 8 * 1024;

/// What may wait to be written. Frames are made only once the last ones are on
/// their way, so this is never reached; it is there to be a bound.
const WRITE_BUFFER_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A connection that did not come about.
pub(crate) type ConnectFailure = (DisconnectCause, Option<u64>);

/// Where to connect, and whom to trust there.
#[derive(Clone)]
pub(crate) struct Target {
    uri: Uri,
    connector: Option<Connector>,
}

impl Target {
    /// Checks the address; `ca_file` replaces the certificates of the system.
    pub(crate) fn new(
        url: &str,
        ca_file: Option<&Path>,
        tls: Option<Arc<rustls::ClientConfig>>,
    ) -> Result<Self, BuildError> {
        let uri = parse_url(url)?;
        let secure = uri.scheme_str() == Some("wss");
        let connector = match (secure, tls, ca_file) {
            (false, ..) => None,
            (true, Some(config), _) => Some(Connector::Rustls(config)),
            (true, None, Some(path)) => Some(Connector::Rustls(trust_only(path)?)),
            (true, None, None) => {
                // The certificates of the system are read by the WebSocket library, which takes
                // the provider of the process. Where several are linked in, there is none.
                if rustls::crypto::CryptoProvider::get_default().is_none() {
                    // Losing a race against another thread leaves one installed as well.
                    let _ = rustls::crypto::ring::default_provider().install_default();
                }
                None
            }
        };
        Ok(Self { uri, connector })
    }

    /// One attempt.
    pub(crate) async fn connect(&self, tuning: &Tuning) -> Result<Socket, ConnectFailure> {
        let mut request = self
            .uri
            .clone()
            .into_client_request()
            .map_err(|e| failure(&e))?;
        request.headers_mut().insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(stonechat_protocol::SUBPROTOCOL),
        );
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(BUFFER_BYTES)
            .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
            .max_message_size(Some(tuning.frame_bytes_max))
            .max_frame_size(Some(tuning.frame_bytes_max));
        // Nagle off: a chat message waits for no company.
        let attempt =
            connect_async_tls_with_config(request, Some(config), true, self.connector.clone());
        let limit = std::time::Duration::from_millis(tuning.connect_ms_max);
        match tokio::time::timeout(limit, attempt).await {
            Ok(Ok((socket, _response))) => Ok(socket),
            Ok(Err(e)) => Err(failure(&e)),
            Err(_) => Err((DisconnectCause::ConnectTimeout, None)),
        }
    }
}

fn failure(error: &WsError) -> ConnectFailure {
    match error {
        WsError::Http(response) => {
            let retry_after_ms = response
                .headers()
                .get(header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
                .map(|seconds| seconds.saturating_mul(1_000));
            let status = response.status().as_u16();
            (DisconnectCause::Http { status }, retry_after_ms)
        }
        WsError::Protocol(e) => (DisconnectCause::Protocol(e.to_string()), None),
        other => (DisconnectCause::Network(other.to_string()), None),
    }
}

/// Why reading or writing failed.
pub(crate) fn io_cause(error: &tungstenite::Error) -> DisconnectCause {
    match error {
        WsError::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            DisconnectCause::Network("reset by the other side".to_owned())
        }
        WsError::Protocol(_) | WsError::Capacity(_) | WsError::Utf8(_) => {
            DisconnectCause::Protocol(error.to_string())
        }
        other => DisconnectCause::Network(other.to_string()),
    }
}

fn parse_url(url: &str) -> Result<Uri, BuildError> {
    let bad = |problem: &str| BuildError::Url {
        url: url.to_owned(),
        problem: problem.to_owned(),
    };
    let uri: Uri = url.parse().map_err(|_| bad("it cannot be read"))?;
    let scheme = match uri.scheme_str() {
        Some("ws" | "http") => "ws",
        Some("wss" | "https") => "wss",
        Some(_) => return Err(bad("the scheme is neither ws nor wss")),
        None => return Err(bad("the scheme is missing")),
    };
    let authority = uri.authority().ok_or_else(|| bad("the host is missing"))?;
    if authority.as_str().contains('@') {
        return Err(bad("credentials do not belong in an address"));
    }
    if uri.query().is_some() {
        return Err(bad("a query is not allowed, tokens are never sent in one"));
    }
    let path = match uri.path() {
        "" | "/" => PATH,
        path => path,
    };
    Uri::builder()
        .scheme(scheme)
        .authority(authority.clone())
        .path_and_query(path)
        .build()
        .map_err(|_| bad("it cannot be read"))
}

fn trust_only(path: &Path) -> Result<Arc<rustls::ClientConfig>, BuildError> {
    let bad = |problem: String| BuildError::CaFile {
        path: path.to_owned(),
        problem,
    };
    let mut roots = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|e| bad(e.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|e| bad(e.to_string()))?;
        roots.add(certificate).map_err(|e| bad(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("it holds no certificate in PEM form".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_completed() {
        for (given, meant) in [
            ("ws://127.0.0.1:8080", "ws://127.0.0.1:8080/v1/ws"),
            ("http://localhost/", "ws://localhost/v1/ws"),
            ("https://chat.example", "wss://chat.example/v1/ws"),
            ("wss://chat.example/other", "wss://chat.example/other"),
        ] {
            assert_eq!(parse_url(given).unwrap().to_string(), meant);
        }
    }

    #[test]
    fn bad_addresses_say_what_is_wrong() {
        for (given, problem) in [
            ("127.0.0.1:8080", "scheme is missing"),
            ("ftp://x", "neither ws nor wss"),
            ("ws://a:b@host", "credentials"),
            ("ws://host/?token=x", "query"),
            ("not an address", "cannot be read"),
        ] {
            let error = parse_url(given).unwrap_err().to_string();
            assert!(error.contains(problem), "{given}: {error}");
        }
    }

    #[test]
    fn a_ca_file_must_hold_certificates() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = trust_only(file.path()).unwrap_err().to_string();
        assert!(error.contains("no certificate"), "{error}");
        let missing = Path::new("/nonexistent/ca.pem");
        assert!(matches!(
            trust_only(missing),
            Err(BuildError::CaFile { .. })
        ));
    }
}
