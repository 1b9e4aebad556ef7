//! The whole edge over sockets: plain HTTP, upgrades, limits, draining.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use stonechat_actors::{Tree, TreeConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::conformance::frame;
use super::node::{Script, Scripted};
use super::pipe::{Client, Got, PATIENCE, until};
use crate::edge::{EdgeConfig, EdgeError, RunningEdge, start};

pub(super) struct Node {
    pub(super) edge: RunningEdge,
    pub(super) script: Arc<Script>,
    pub(super) tree: Tree,
}

pub(super) fn node(change: impl FnOnce(&mut EdgeConfig)) -> Node {
    let mut config = EdgeConfig {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        workers: Some(1),
        ..EdgeConfig::default()
    };
    change(&mut config);
    let script = Arc::new(Script::default());
    let tree = Tree::new(TreeConfig::default());
    let edge = start(config, Scripted(Arc::clone(&script)), &tree).unwrap();
    Node { edge, script, tree }
}

pub(super) fn request(headers: &str) -> String {
    format!(
        "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

impl Node {
    /// Sends bytes and reads until the server closes.
    async fn ask(&self, request: &str) -> String {
        let mut io = TcpStream::connect(self.edge.local_addr()).await.unwrap();
        io.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = timeout(PATIENCE, io.read_to_string(&mut answer));
        read.await.expect("the server closes").unwrap();
        answer
    }

    /// Upgrades a socket; `more` follows the request in the same write.
    async fn upgrade(&self, headers: &str, more: &[u8]) -> (String, Client<TcpStream>) {
        let mut io = TcpStream::connect(self.edge.local_addr()).await.unwrap();
        io.write_all(&[request(headers).as_bytes(), more].concat())
            .await
            .unwrap();
        let mut client = Client { io };
        let head = timeout(PATIENCE, client.head()).await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        (head, client)
    }

    pub(super) async fn sign_in(&self, user: &str) -> Client<TcpStream> {
        let (_, mut client) = self.upgrade("", b"").await;
        client.hello(user).await;
        client
    }
}

#[actix_rt::test]
async fn requests_that_are_no_upgrades() {
    let node = node(|_| {});
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let root = node.ask(&get("/")).await;
    assert!(root.starts_with("HTTP/1.1 200 "), "{root}");
    assert!(root.contains("/v1/ws"), "{root}");
    let missing = node.ask(&get("/admin")).await;
    assert!(missing.starts_with("HTTP/1.1 404 "), "{missing}");
    let upgrade = node.ask(&get("/v1/ws")).await;
    assert!(upgrade.starts_with("HTTP/1.1 426 "), "{upgrade}");
    assert!(
        upgrade
            .to_ascii_lowercase()
            .contains("sec-websocket-version: 13"),
        "{upgrade}"
    );
    let post = node
        .ask("POST /v1/ws HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
    node.edge.stop(Duration::from_secs(1)).await;
}

#[actix_rt::test]
async fn upgrades_that_are_refused() {
    let node = node(|config| config.origins_allowed = vec!["https://app.example".into()]);
    for (headers, status) in [
        ("Origin: https://evil.example\r\n", "403"),
        ("Authorization: Basic YTpi\r\n", "401"),
        ("Sec-WebSocket-Protocol: mqtt\r\n", "400"),
    ] {
        let answer = node.ask(&request(headers)).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let length = format!("content-length: {}", body.len());
        assert!(head.to_ascii_lowercase().contains(&length), "{answer}");
    }
    let elsewhere = node.ask(&request("").replace("/v1/ws", "/v2/ws")).await;
    assert!(elsewhere.starts_with("HTTP/1.1 404 "), "{elsewhere}");
    let (_, mut client) = node.upgrade("Origin: https://app.example\r\n", b"").await;
    client.hello("alice").await;
    assert_eq!(node.edge.connections(), 1);
    node.edge.stop(Duration::from_secs(1)).await;
}

#[actix_rt::test]
async fn an_independent_client_gets_its_subprotocol_and_its_welcome() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    let node = node(|_| {});
    let url = format!("ws://{}/v1/ws", node.edge.local_addr());
    let mut request = url.into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert(
        "sec-websocket-protocol",
        "stonechat.v1.json".parse().unwrap(),
    );
    headers.insert("authorization", "Bearer alice".parse().unwrap());
    let (mut socket, response) = tokio_tungstenite::connect_async(request).await.unwrap();
    assert_eq!(
        response.headers()["sec-websocket-protocol"],
        "stonechat.v1.json"
    );
    let hello = json!({"type": "hello", "device": "d1"}).to_string();
    socket.send(Message::text(hello)).await.unwrap();
    let welcome = timeout(PATIENCE, socket.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(
        welcome.to_text().unwrap().contains(r#""user":"alice""#),
        "{welcome}"
    );
    socket.close(None).await.unwrap();
    until("the connection to be gone", || node.edge.connections() == 0).await;
    node.edge.stop(Duration::from_secs(1)).await;
}

#[actix_rt::test]
async fn frames_in_the_packet_of_the_request_are_not_lost() {
    let node = node(|_| {});
    let hello = json!({"type": "hello", "token": "alice", "device": "d1"}).to_string();
    let (_, mut client) = node.upgrade("", &frame(0x81, hello.as_bytes())).await;
    assert_eq!(client.json().await["type"], "welcome");
    node.edge.stop(Duration::from_secs(1)).await;
}

#[actix_rt::test]
async fn beyond_the_limit_clients_are_turned_away_until_there_is_room() {
    let node = node(|config| config.connections_max = Some(2));
    let first = node.sign_in("alice").await;
    let mut second = node.sign_in("bob").await;
    for _ in 0..3 {
        let refused = node.ask(&request("")).await;
        assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
        assert!(
            refused.to_ascii_lowercase().contains("retry-after: 1"),
            "{refused}"
        );
    }
    second.send("alice").await;
    assert_eq!(second.json().await["type"], "accepted");
    drop(first);
    until("room", || node.edge.connections() == 1).await;
    let mut third = node.sign_in("carol").await;
    third.send("alice").await;
    assert_eq!(third.json().await["type"], "accepted");
    node.edge.stop(Duration::from_secs(1)).await;
}

#[actix_rt::test]
async fn while_draining_nobody_new_is_taken_and_nobody_is_thrown_out() {
    let node = node(|config| config.drain_retry_after_ms = 4_200);
    let mut client = node.sign_in("alice").await;
    node.edge.stop_accepting().await;
    let refused = node.ask(&request("")).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(
        refused.to_ascii_lowercase().contains("retry-after: 5"),
        "{refused}"
    );
    client.send("bob").await;
    assert_eq!(client.json().await["type"], "accepted");
    node.edge.stop(Duration::from_secs(1)).await;
    assert_eq!(client.next().await, Got::End);
    assert!(TcpStream::connect(node.edge.local_addr()).await.is_err());
}

#[actix_rt::test]
async fn the_node_draining_is_enough() {
    let node = node(|_| {});
    node.script.draining.store(true, Ordering::SeqCst);
    let refused = node.ask(&request("")).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    node.edge.stop(Duration::from_secs(1)).await;
}

#[actix_rt::test]
async fn a_head_that_never_ends_is_given_up() {
    let node = node(|config| config.request_deadline_ms = 150);
    let mut io = TcpStream::connect(node.edge.local_addr()).await.unwrap();
    io.write_all(b"GET /v1/ws HTTP/1.1\r\nHost: loc")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, io.read_to_end(&mut answer));
    read.await.expect("the server closes").unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 1"));
    node.edge.stop(Duration::from_secs(1)).await;
}

#[actix_rt::test]
async fn an_injected_panic_ends_one_connection_only() {
    let node = node(|_| {});
    let mut alice = node.sign_in("alice").await;
    let mut others = Vec::new();
    for n in 0..20 {
        others.push(node.sign_in(&format!("user{n}")).await);
    }
    let alice_id = stonechat_protocol::UserId::new("alice").unwrap();
    let nobody = stonechat_protocol::UserId::new("nobody").unwrap();
    assert_eq!(node.edge.inject_connection_panic(Some(nobody)), 0);
    assert_eq!(node.edge.inject_connection_panic(Some(alice_id)), 1);
    for other in &mut others {
        other.say(json!({"type": "ping"})).await;
        assert_eq!(other.json().await["type"], "pong");
    }
    alice.say(json!({"type": "ping"})).await;
    assert_eq!(alice.json().await["type"], "pong");
    alice.expect_bye("internal", 1011).await;
    for other in &mut others {
        other.send("bob").await;
        assert_eq!(other.json().await["type"], "accepted");
    }
    until("the panic to be counted", || node.tree.totals().panics == 1).await;
    assert_eq!(node.edge.connections(), 20);
    node.edge.stop(Duration::from_secs(1)).await;
}

#[actix_rt::test]
async fn an_address_in_use_is_named() {
    let node = node(|_| {});
    let address = node.edge.local_addr();
    let config = EdgeConfig {
        listen: vec![address],
        ..EdgeConfig::default()
    };
    let second = start(config, Scripted(Arc::default()), &node.tree);
    assert!(matches!(second, Err(EdgeError::AddressInUse(named)) if named == address));
    node.edge.stop(Duration::from_secs(1)).await;
}

#[actix_rt::test]
async fn stopping_is_noticed() {
    let node = node(|_| {});
    assert!(
        timeout(Duration::from_millis(20), node.edge.stopped())
            .await
            .is_err()
    );
    node.edge.stop(Duration::from_secs(1)).await;
    timeout(PATIENCE, node.edge.stopped()).await.unwrap();
}
