//! The stream against rustls's own client, over pipes narrow and wide.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, client};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate: CertificateDer<'static> = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], PrivateKeyDer::from(key))
        .unwrap();
    server.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

type Server = TlsStream<DuplexStream>;
type Client = client::TlsStream<DuplexStream>;

/// Both ends after the handshake, over a pipe of so many bytes.
async fn pair(version: &'static SupportedProtocolVersion, pipe_bytes: usize) -> (Server, Client) {
    let (server, client) = configs(version);
    let (near, far) = duplex(pipe_bytes);
    let mut stream = TlsStream::new(near, server).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connect = TlsConnector::from(client).connect(name, far);
    let accept = poll_fn(|cx| stream.poll_handshake(cx));
    let (accepted, connected) = timeout(PATIENCE, async { tokio::join!(accept, connect) })
        .await
        .expect("the handshake ends");
    accepted.unwrap();
    (stream, connected.unwrap())
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n * 7 % 251) as u8).collect()
}

#[actix_rt::test]
async fn both_ways_in_any_amount_over_any_pipe() {
    for version in VERSIONS {
        for pipe_bytes in [1, 300, 1 << 20] {
            let (mut server, mut client) = pair(version, pipe_bytes).await;
            let most = if pipe_bytes == 1 { 20_000 } else { 300_000 };
            for count in [1, 16_383, 16_385, most] {
                let data = bytes(count);
                let talk = async {
                    let mut got = vec![0; count];
                    client.write_all(&data).await.unwrap();
                    client.flush().await.unwrap();
                    client.read_exact(&mut got).await.unwrap();
                    assert!(got == data, "{count} bytes back");
                };
                let echo = async {
                    let mut got = vec![0; count];
                    server.read_exact(&mut got).await.unwrap();
                    assert!(got == data, "{count} bytes there");
                    server.write_all(&got).await.unwrap();
                    server.flush().await.unwrap();
                };
                timeout(PATIENCE, async { tokio::join!(talk, echo) })
                    .await
                    .unwrap_or_else(|_| panic!("{count} bytes over a pipe of {pipe_bytes}"));
            }
            assert_eq!(server.heap_bytes(), 0, "at rest it holds nothing");
        }
    }
}

#[actix_rt::test]
async fn a_reader_without_room_gets_everything_in_turn() {
    let (mut server, mut client) = pair(&rustls::version::TLS13, 1 << 20).await;
    let data = bytes(50_000);
    client.write_all(&data).await.unwrap();
    client.flush().await.unwrap();
    let mut got = Vec::new();
    while got.len() < data.len() {
        let mut room = [0; 7];
        let count = server.read(&mut room).await.unwrap();
        assert!(count > 0);
        got.extend_from_slice(&room[..count]);
    }
    assert!(got == data);
    assert_eq!(server.heap_bytes(), 0);
}

#[actix_rt::test]
async fn farewells_are_told_from_a_cut() {
    for version in VERSIONS {
        let (mut server, mut client) = pair(version, 1 << 16).await;
        client.write_all(b"last").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.expect("it was said");
        assert_eq!(got, b"last");
        // The other way is still open, and is closed with a word.
        server.write_all(b"words").await.unwrap();
        server.shutdown().await.unwrap();
        server.shutdown().await.expect("twice does no harm");
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.expect("it was said");
        assert_eq!(got, b"words");

        let (mut server, client) = pair(version, 1 << 16).await;
        drop(client.into_inner().0);
        let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[actix_rt::test]
async fn new_keys_are_taken_and_given() {
    let (mut server, mut client) = pair(&rustls::version::TLS13, 1 << 20).await;
    for round in 0..50_u8 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.write_all(&[round]).await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(
            timeout(PATIENCE, server.read_u8()).await.unwrap().unwrap(),
            round
        );
        server.write_all(&[round]).await.unwrap();
        server.flush().await.unwrap();
        assert_eq!(
            timeout(PATIENCE, client.read_u8()).await.unwrap().unwrap(),
            round
        );
    }
    assert_eq!(server.heap_bytes(), 0);
}

#[actix_rt::test]
async fn what_is_not_tls_is_told_so_and_given_up() {
    let (config, _) = configs(&rustls::version::TLS13);
    for (sent, alert) in [
        // HTTP, a record that is too long, a message that is no greeting.
        (&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], true),
        (b"\x16\x03\x01\xff\xff\x00", true),
        (b"\x16\x03\x01\x00\x04\x0e\x00\x00\x00", true),
        (b"\x16\x03\x01", false),
    ] {
        let (near, mut far) = duplex(1 << 16);
        let mut stream = TlsStream::new(near, Arc::clone(&config)).unwrap();
        far.write_all(sent).await.unwrap();
        far.shutdown().await.unwrap();
        let outcome = timeout(PATIENCE, poll_fn(|cx| stream.poll_handshake(cx))).await;
        outcome.expect("it ends").unwrap_err();
        drop(stream);
        let mut said = Vec::new();
        far.read_to_end(&mut said).await.unwrap();
        // An alert record, fatal.
        assert_eq!(said.starts_with(&[0x15, 3, 3, 0, 2, 2]), alert, "{said:?}");
    }
}

#[actix_rt::test]
async fn a_greeting_without_end_is_bounded() {
    let (config, _) = configs(&rustls::version::TLS13);
    let (near, mut far) = duplex(1 << 16);
    let mut stream = TlsStream::new(near, config).unwrap();
    // A greeting that announces 60,000 bytes, in records of 16,000.
    let mut greeting = vec![0x01, 0, 0xea, 0x60];
    greeting.resize(60_004, 0);
    let send = async {
        for part in greeting.chunks(16_000) {
            let length = u16::try_from(part.len()).unwrap().to_be_bytes();
            far.write_all(&[0x16, 3, 1, length[0], length[1]])
                .await
                .unwrap();
            if far.write_all(part).await.is_err() {
                return;
            }
        }
    };
    let handshake = poll_fn(|cx| {
        let outcome = stream.poll_handshake(cx);
        assert!(stream.heap_bytes() <= READ_BYTES + WRITE_SLACK_BYTES);
        outcome
    });
    let (outcome, ()) = timeout(PATIENCE, async { tokio::join!(handshake, send) })
        .await
        .expect("it ends");
    outcome.unwrap_err();
}

#[actix_rt::test]
async fn a_client_that_does_not_read_stops_the_writer() {
    let (mut server, mut client) = pair(&rustls::version::TLS13, 1024).await;
    let data = bytes(WRITE_BYTES);
    let mut taken = 0;
    // The first write is taken, for the most part into memory; the next has to wait for it.
    poll_fn(|cx| {
        while let Poll::Ready(count) = Pin::new(&mut server).poll_write(cx, &data) {
            taken += count.unwrap();
        }
        Poll::Ready(())
    })
    .await;
    assert_eq!(taken, WRITE_BYTES);
    assert!(server.heap_bytes() <= WRITE_BYTES + WRITE_SLACK_BYTES);
    let mut got = vec![0; taken];
    let (read, flushed) = timeout(PATIENCE, async {
        tokio::join!(client.read_exact(&mut got), server.flush())
    })
    .await
    .expect("both end");
    read.unwrap();
    flushed.unwrap();
    assert!(got == data);
    assert_eq!(server.heap_bytes(), 0);
}
