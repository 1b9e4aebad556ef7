//! Certificates: read, refused when bad, swapped under way.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
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

/// A client that trusts these certificates and no others.
fn trusting(
    trusted: &[&CertificateDer<'static>],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add((*certificate).clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// Connects, trusting one certificate and no other.
async fn connect(node: &Node, trusted: &CertificateDer<'static>) -> Result<Socket, Error> {
    connect_as(node, trusting(&[trusted], rustls::DEFAULT_VERSIONS)).await
}

async fn connect_as(node: &Node, config: Arc<ClientConfig>) -> Result<Socket, Error> {
    let address = node.edge.local_addr();
    let io = TcpStream::connect(address).await.unwrap();
    let url = format!("wss://localhost:{}/v1/ws", address.port());
    let connector = Some(Connector::Rustls(config));
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

fn kind(socket: &Socket) -> HandshakeKind {
    let MaybeTlsStream::Rustls(tls) = socket.get_ref() else {
        panic!("not encrypted");
    };
    tls.get_ref().1.handshake_kind().expect("a handshake")
}

#[actix_rt::test]
async fn sessions_are_resumed_also_after_the_certificate_was_swapped() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let folder = tempfile::tempdir().unwrap();
        let old = write_certificate(folder.path());
        let node = node(|config| config.tls = Some(files(folder.path())));
        let hello = json!({"type": "hello", "token": "alice", "device": "d1"});
        let client = trusting(&[&old], &[version]);
        let mut first = connect_as(&node, Arc::clone(&client)).await.unwrap();
        assert_eq!(kind(&first), HandshakeKind::Full);
        // Tickets of TLS 1.3 come behind the handshake, before whatever is read here.
        talk(&mut first, hello.clone(), "welcome").await;
        let mut second = connect_as(&node, Arc::clone(&client)).await.unwrap();
        assert_eq!(kind(&second), HandshakeKind::Resumed);
        talk(&mut second, hello.clone(), "welcome").await;

        let new = write_certificate(folder.path());
        assert!(node.edge.reload_tls().unwrap());
        let mut third = connect_as(&node, client).await.unwrap();
        assert_eq!(kind(&third), HandshakeKind::Resumed);
        for socket in [&mut first, &mut second] {
            talk(socket, json!({"type": "ping", "nonce": 1}), "pong").await;
        }
        talk(&mut third, hello, "welcome").await;
        let fresh = trusting(&[&new], &[version]);
        let fourth = connect_as(&node, fresh).await.unwrap();
        assert_eq!(kind(&fourth), HandshakeKind::Full);
        node.edge.stop(Duration::from_secs(1)).await;
    }
}

#[actix_rt::test]
async fn a_session_of_another_node_means_a_full_handshake() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = write_certificate(folder.path());
    let client = trusting(&[&certificate], rustls::DEFAULT_VERSIONS);
    for _ in 0..2 {
        let node = node(|config| config.tls = Some(files(folder.path())));
        let mut socket = connect_as(&node, Arc::clone(&client)).await.unwrap();
        assert_eq!(kind(&socket), HandshakeKind::Full);
        let hello = json!({"type": "hello", "token": "alice", "device": "d1"});
        talk(&mut socket, hello, "welcome").await;
        node.edge.stop(Duration::from_secs(1)).await;
    }
}

#[actix_rt::test]
async fn a_certificate_that_is_replaced_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    write_certificate(folder.path());
    let node = node(|config| {
        config.tls = Some(files(folder.path()));
        config.tls_watch_ms = 5;
    });
    let new = write_certificate(folder.path());
    let served = async {
        while connect(&node, &new).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, served).await.expect("it is served");
    node.edge.stop(Duration::from_secs(1)).await;
}

#[actix_rt::test]
async fn a_certificate_that_has_expired_replaces_none() {
    let folder = tempfile::tempdir().unwrap();
    let good = write_certificate(folder.path());
    let node = node(|config| config.tls = Some(files(folder.path())));
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let expired = params.self_signed(&key).unwrap();
    fs::write(folder.path().join("cert.pem"), expired.pem()).unwrap();
    fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
    let error = node.edge.reload_tls().unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    connect(&node, &good).await.expect("the good one stays");
    node.edge.stop(Duration::from_secs(1)).await;
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
