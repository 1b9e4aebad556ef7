//! A server that does what a test tells it, on a port of its own.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

/// No test waits longer for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Fails the test when `future` takes too long.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited too long for {what}"),
    }
}

pub(crate) struct Server {
    listener: TcpListener,
    pub(crate) url: String,
}

pub(crate) struct Peer {
    pub(crate) socket: WebSocketStream<TcpStream>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener)
    }

    /// Its connections take next to nothing that is not read.
    pub(crate) fn start_narrow() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self::on(socket.listen(8).unwrap())
    }

    fn on(listener: TcpListener) -> Self {
        let url = format!("ws://{}", listener.local_addr().unwrap());
        Self { listener, url }
    }

    /// The next TCP connection, before anything was said on it.
    pub(crate) async fn tcp(&self) -> TcpStream {
        soon("a connection", self.listener.accept())
            .await
            .unwrap()
            .0
    }

    /// The next WebSocket.
    #[expect(clippy::result_large_err, reason = "the callback's type is not ours")]
    pub(crate) async fn accept(&self) -> Peer {
        let check = |request: &Request, mut response: Response| {
            assert_eq!(request.uri().path(), "/v1/ws");
            assert!(request.uri().query().is_none());
            let protocol = request.headers().get("sec-websocket-protocol").unwrap();
            assert_eq!(protocol, stonechat_client::protocol::SUBPROTOCOL);
            response.headers_mut().insert(
                "sec-websocket-protocol",
                HeaderValue::from_static(stonechat_client::protocol::SUBPROTOCOL),
            );
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(self.tcp().await, check)
            .await
            .unwrap();
        Peer { socket }
    }

    /// The next WebSocket, signed in; gives the `hello` too.
    pub(crate) async fn sign_in(&self) -> (Peer, Value) {
        self.sign_in_with(30_000).await
    }

    pub(crate) async fn sign_in_with(&self, heartbeat_ms: u64) -> (Peer, Value) {
        let mut peer = self.accept().await;
        let hello = peer.frame().await;
        assert_eq!(hello["type"], "hello");
        peer.say(json!({
            "type": "welcome", "user": "alice", "device": "phone",
            "session": format!("{:p}", &raw const peer), "server_time_ms": 1, "heartbeat_ms": heartbeat_ms,
            "pending": 0, "limits": {
                "unaccepted_max": 64, "unacked_max": 256, "body_bytes_max": 65536,
                "frame_bytes_max": 73728, "ttl_s_max": 1000, "devices_max": 4
            }
        }))
        .await;
        (peer, hello)
    }
}

impl Peer {
    pub(crate) async fn say(&mut self, frame: Value) {
        self.socket
            .send(Message::text(frame.to_string()))
            .await
            .unwrap();
    }

    pub(crate) async fn message(&mut self, seq: u64) {
        self.say(json!({
            "type": "message", "seq": seq, "id": "0190163d-8694-739b-aea5-966c26f8ad91",
            "from": {"user": "bob", "device": "d"}, "ts_ms": 1, "body": {"n": seq}
        }))
        .await;
    }

    pub(crate) async fn accept_send(&mut self, send: &Value) {
        self.say(json!({"type": "accepted", "id": send["id"], "ts_ms": 5}))
            .await;
    }

    /// The next text frame.
    pub(crate) async fn frame(&mut self) -> Value {
        loop {
            match soon("a frame", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("not a frame: {other:?}"),
            }
        }
    }

    /// Reads until the client closes; gives the text frames that came before.
    pub(crate) async fn until_closed(&mut self) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            match soon("the end", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    frames.push(serde_json::from_str(&text).unwrap());
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return frames,
                Some(Ok(_)) => {}
            }
        }
    }
}
