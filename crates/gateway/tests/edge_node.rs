//! The edge on a real node: broker, store and tokens, over a socket.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::Arbiter;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use stonechat_actors::{Tree, TreeConfig};
use stonechat_broker::{Broker, BrokerConfig, commit_sink};
use stonechat_gateway::auth::{AuthConfig, Authenticator};
use stonechat_gateway::edge::{Edge, EdgeConfig, RunningEdge};
use stonechat_mailbox::{JournalStore, Store, StoreConfig};
use stonechat_protocol::{CloseReason, UserId};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use uuid::Uuid;

/// Longer than anything here takes, so that a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(20);

struct Node {
    edge: RunningEdge,
    broker: Broker,
    auth: Authenticator,
    tree: Tree,
    _folder: tempfile::TempDir,
}

async fn node() -> Node {
    let folder = tempfile::tempdir().unwrap();
    let (sink, handle) = commit_sink();
    let store = JournalStore::open(StoreConfig::new(folder.path()), sink).unwrap();
    let store: Arc<dyn Store> = store;
    let tree = Tree::new(TreeConfig::default());
    let arbiters = [Arbiter::current()];
    let config = BrokerConfig::default();
    let broker =
        Broker::start(config, Arc::clone(&store), &handle, tree.clone(), &arbiters).unwrap();
    let auth = Authenticator::open(store, AuthConfig::default())
        .await
        .unwrap();
    let config = EdgeConfig {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        workers: Some(2),
        ..EdgeConfig::default()
    };
    let edge = Edge::start(config, broker.clone(), auth.clone(), &tree).unwrap();
    Node {
        edge,
        broker,
        auth,
        tree,
        _folder: folder,
    }
}

struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    async fn say(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// The next text frame; `None` when the server closed.
    async fn next(&mut self) -> Option<Value> {
        loop {
            match timeout(PATIENCE, self.0.next())
                .await
                .expect("nothing came")?
            {
                Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next frame of a type; others are passed over.
    async fn expect(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await.expect("the connection is open");
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    async fn send(&mut self, to: &str, body: &str) -> String {
        let id = Uuid::now_v7().to_string();
        self.say(json!({"type": "send", "id": id, "to": {"user": to}, "body": body}))
            .await;
        id
    }
}

impl Node {
    async fn token(&self, user: &str) -> String {
        let user = UserId::new(user).unwrap();
        self.auth.create_user(&user).await.unwrap();
        self.auth.issue(&user, None, None).await.unwrap().token
    }

    async fn connect(&self) -> Client {
        let url = format!("ws://{}/v1/ws", self.edge.local_addr());
        let request = url.into_client_request().unwrap();
        let connecting = tokio_tungstenite::connect_async(request);
        Client(timeout(PATIENCE, connecting).await.unwrap().unwrap().0)
    }

    async fn sign_in(&self, user: &str, device: &str) -> Client {
        let token = self.token(user).await;
        let mut client = self.connect().await;
        client
            .say(json!({"type": "hello", "token": token, "device": device}))
            .await;
        assert_eq!(client.expect("welcome").await["user"], user);
        client
    }

    async fn stop(self) {
        self.edge.stop_accepting().await;
        let reason = CloseReason::Shutdown;
        let left = self.broker.drain(reason, 100, Duration::from_secs(5)).await;
        assert_eq!(left, 0);
        self.tree.shutdown(Duration::from_secs(5)).await;
        self.edge.stop(Duration::from_secs(1)).await;
    }
}

#[actix_rt::test]
async fn two_users_talk_and_the_drain_says_goodbye() {
    let node = node().await;
    let mut alice = node.sign_in("alice", "phone").await;
    let mut bob = node.sign_in("bob", "desk").await;
    let id = alice.send("bob", "hi").await;
    assert_eq!(alice.expect("accepted").await["id"], id);
    let message = bob.expect("message").await;
    assert_eq!(
        (&message["id"], &message["body"]),
        (&json!(id), &json!("hi"))
    );
    assert_eq!(message["from"], json!({"user": "alice", "device": "phone"}));
    bob.say(json!({"type": "ack", "seq": message["seq"]})).await;
    assert_eq!(alice.expect("receipt").await["delivered"], id);

    let stopping = node.stop();
    let goodbye = async {
        let bye = alice.expect("bye").await;
        assert_eq!(
            (&bye["reason"], &bye["retry_after_ms"]),
            (&json!("shutdown"), &json!(100))
        );
        drop(alice);
        assert_eq!(bob.expect("bye").await["reason"], "shutdown");
        drop(bob);
    };
    let ((), ()) = timeout(PATIENCE, async { tokio::join!(stopping, goodbye) })
        .await
        .unwrap();
}

#[actix_rt::test]
async fn tokens_are_checked_and_a_device_has_one_connection() {
    let node = node().await;
    let mut first = node.sign_in("alice", "phone").await;
    let mut second = node.sign_in("alice", "phone").await;
    assert_eq!(first.expect("bye").await["reason"], "replaced");
    assert_eq!(first.next().await, None);
    second.say(json!({"type": "ping", "nonce": 1})).await;
    assert_eq!(second.expect("pong").await["nonce"], 1);

    let mut forger = node.connect().await;
    forger
        .say(json!({"type": "hello", "token": "st1.a.b.c", "device": "phone"}))
        .await;
    assert_eq!(forger.expect("error").await["code"], "unauthorized");
    assert_eq!(forger.expect("bye").await["reason"], "unauthorized");
    drop((first, second, forger));
    node.stop().await;
}

#[actix_rt::test]
async fn an_injected_panic_detaches_one_device_and_it_may_come_back() {
    let node = node().await;
    let mut alice = node.sign_in("alice", "phone").await;
    let mut bob = node.sign_in("bob", "desk").await;
    let user = UserId::new("alice").unwrap();
    assert_eq!(node.edge.inject_connection_panic(Some(user)), 1);
    alice.say(json!({"type": "ping"})).await;
    assert_eq!(alice.expect("bye").await["reason"], "internal");
    // What comes while she is away waits.
    let id = bob.send("alice", "are you there?").await;
    assert_eq!(bob.expect("accepted").await["id"], id);
    let mut alice = node.sign_in("alice", "phone").await;
    assert_eq!(alice.expect("message").await["id"], id);
    drop((alice, bob));
    node.stop().await;
}
