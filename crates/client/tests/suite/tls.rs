//! `wss://` with certificates of one's own.

use std::net::TcpListener;
use std::sync::Arc;

use crate::server::soon;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use stonechat_client::{Client, Terminal};
use tokio_tungstenite::tungstenite;

const PROTOCOL: &str = stonechat_client::protocol::SUBPROTOCOL;

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    fn server_config(&self) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}

/// Answers one connection after the other; ends with the test.
fn serve(config: Arc<ServerConfig>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let stream = StreamOwned::new(tls, tcp.unwrap());
            #[expect(clippy::result_large_err, reason = "the callback's type is not ours")]
            let echo =
                |_: &tungstenite::handshake::server::Request,
                 mut response: tungstenite::handshake::server::Response| {
                    let protocol = tungstenite::http::HeaderValue::from_static(PROTOCOL);
                    response
                        .headers_mut()
                        .insert("sec-websocket-protocol", protocol);
                    Ok(response)
                };
            let Ok(mut socket) = tungstenite::accept_hdr(stream, echo) else {
                continue;
            };
            let hello = socket.read().unwrap();
            assert!(hello.to_text().unwrap().contains("secret"));
            socket
                .send(tungstenite::Message::text(
                    r#"{"type":"bye","reason":"revoked"}"#,
                ))
                .unwrap();
        }
    });
    port
}

async fn end_with(trusted: &Authority, port: u16) -> Terminal {
    let ca_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca_file.path(), trusted.issuer.pem()).unwrap();
    let (client, _events) = Client::builder(format!("wss://localhost:{port}"), "phone")
        .token("secret")
        .ca_file(ca_file.path())
        .tune(|tuning| {
            tuning.backoff_ms_base = 1;
            tuning.attempts_max = Some(2);
        })
        .connect()
        .unwrap();
    soon("the end", client.ready()).await.unwrap_err()
}

#[tokio::test]
async fn the_ca_file_decides_whom_to_trust() {
    let ours = Authority::new();
    let port = serve(ours.server_config());
    let talked = end_with(&ours, port).await;
    assert!(matches!(talked, Terminal::Refused(_)), "{talked}");
    let stranger = end_with(&Authority::new(), port).await;
    assert!(matches!(stranger, Terminal::GaveUp { .. }), "{stranger}");
}
