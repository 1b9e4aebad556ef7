//! Certificates: read, refused when bad, swapped under way.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use super::listening::{Node, node};
use super::pipe::PATIENCE;
use crate::edge::{EdgeConfig, EdgeError, TlsFiles, start};

/// Writes a new self-signed certificate; a client trusts it by what is returned.
fn write_certificate(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

fn files(folder: &Path) -> TlsFiles {
    TlsFiles {
        cert: folder.join("cert.pem"),
        key: folder.join("key.pem"),
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Connects, trusting one certificate and no other.
async fn connect(node: &Node, trusted: &CertificateDer<'static>) -> Result<Socket, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let address = node.edge.local_addr();
    let io = TcpStream::connect(address).await.unwrap();
    let url = format!("wss://localhost:{}/v1/ws", address.port());
    let connector = Some(Connector::Rustls(Arc::new(config)));
    let connecting = client_async_tls_with_config(url, io, None, connector);
    Ok(timeout(PATIENCE, connecting).await.expect("an answer")?.0)
}

async fn talk(socket: &mut Socket, frame: serde_json::Value, answer: &str) {
    socket.send(Message::text(frame.to_string())).await.unwrap();
    let got = timeout(PATIENCE, socket.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(got.to_text().unwrap().contains(answer), "{got}");
}

#[actix_rt::test]
async fn a_certificate_is_swapped_while_connections_stay() {
    let folder = tempfile::tempdir().unwrap();
    let old = write_certificate(folder.path());
    let node = node(|config| config.tls = Some(files(folder.path())));
    let hello = json!({"type": "hello", "token": "alice", "device": "d1"});
    let mut first = connect(&node, &old).await.unwrap();
    talk(&mut first, hello.clone(), "welcome").await;

    let new = write_certificate(folder.path());
    connect(&node, &new)
        .await
        .expect_err("nothing was reloaded yet");
    assert!(node.edge.reload_tls().unwrap());
    connect(&node, &old)
        .await
        .expect_err("the old certificate is gone");
    let mut second = connect(&node, &new).await.unwrap();
    talk(&mut second, hello, "welcome").await;
    // More than TLS's own buffers hold, so that writes are cut and flushed.
    let nonce = "x".repeat(200);
    for _ in 0..50 {
        talk(&mut first, json!({"type": "ping", "nonce": nonce}), "pong").await;
    }

    fs::write(folder.path().join("cert.pem"), "nonsense").unwrap();
    let error = node.edge.reload_tls().unwrap_err();
    assert!(error.to_string().contains("cert.pem"), "{error}");
    connect(&node, &new)
        .await
        .expect("the certificate in use stays");
    node.edge.stop(Duration::from_secs(1)).await;
}

#[actix_rt::test]
async fn a_certificate_that_is_no_good_prevents_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    write_certificate(folder.path());
    write_certificate(other.path());
    let node = node(|_| {});
    assert!(
        !node.edge.reload_tls().unwrap(),
        "there is nothing to reload"
    );
    let mixed = TlsFiles {
        cert: folder.path().join("cert.pem"),
        key: other.path().join("key.pem"),
    };
    let missing = files(&folder.path().join("nowhere"));
    for tls in [mixed, missing] {
        let config = EdgeConfig {
            listen: vec![([127, 0, 0, 1], 0).into()],
            tls: Some(tls.clone()),
            ..EdgeConfig::default()
        };
        let scripted = super::node::Scripted(Arc::default());
        let outcome = start(config, scripted, &node.tree);
        assert!(matches!(outcome, Err(EdgeError::Tls { .. })), "{tls:?}");
    }
    node.edge.stop(Duration::from_secs(1)).await;
}
