//! A WebSocket client that knows frames as JSON values and nothing of their meaning.

use std::collections::{HashSet, VecDeque};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::http::HeaderMap;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::{Connect, DEADLINE, Node, new_id, schemas};

/// Frames kept for failure messages.
const TRANSCRIPT_LINES_MAX: usize = 40;

/// What came from the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// A text frame.
    Frame(Value),
    /// A WebSocket ping; the library answers it.
    Ping,
    /// A WebSocket pong with its payload.
    Pong(Vec<u8>),
    /// A close frame: code and reason.
    Closed(u16, String),
    /// The connection ended.
    Gone(String),
}

/// A connection.
pub struct WsClient {
    label: String,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Headers of the 101.
    pub headers: HeaderMap,
    backlog: VecDeque<Value>,
    transcript: VecDeque<String>,
    last_text: String,
    seen: HashSet<u64>,
    repeats_allowed: bool,
}

impl WsClient {
    pub(crate) fn new(
        socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
        headers: HeaderMap,
    ) -> Self {
        Self {
            label: "client".to_owned(),
            socket,
            headers,
            backlog: VecDeque::new(),
            transcript: VecDeque::new(),
            last_text: String::new(),
            seen: HashSet::new(),
            repeats_allowed: false,
        }
    }

    pub(crate) fn label(&mut self, welcome: &Value) {
        self.label = format!(
            "{}/{}",
            welcome["user"].as_str().unwrap_or("?"),
            welcome["device"].as_str().unwrap_or("?")
        );
    }

    /// Creates the user when missing, issues a token and signs in.
    pub async fn join(node: &Node, user: &str, device: &str) -> Self {
        let token = node.user(user);
        Connect::to(node).sign_in(&token, device).await.0
    }

    fn note(&mut self, line: String) {
        if self.transcript.len() == TRANSCRIPT_LINES_MAX {
            self.transcript.pop_front();
        }
        let mut line = line;
        if line.len() > 400 {
            line.truncate(line.floor_char_boundary(400));
            line.push('…');
        }
        self.transcript.push_back(line);
    }

    /// Ends the test, showing what was said on this connection.
    ///
    /// # Panics
    /// Always: that is what it is for.
    pub fn fail(&self, what: &str) -> ! {
        let lines: Vec<&str> = self.transcript.iter().map(String::as_str).collect();
        panic!(
            "{}: {what}\n--- last frames ---\n{}\n--- not yet taken: {:?}",
            self.label,
            lines.join("\n"),
            self.backlog
        )
    }

    /// Sends a text frame as it is. `false` when the connection is gone.
    pub async fn try_send_text(&mut self, text: String) -> bool {
        self.note(format!("→ {text}"));
        let sent = tokio::time::timeout(DEADLINE, self.socket.send(Message::text(text))).await;
        matches!(sent, Ok(Ok(())))
    }

    /// Sends any WebSocket message.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn send_message(&mut self, message: Message) {
        self.note(format!("→ {message:?}"));
        match tokio::time::timeout(DEADLINE, self.socket.send(message)).await {
            Ok(Ok(())) => {}
            other => self.fail(&format!("cannot send: {other:?}")),
        }
    }

    /// Sends a frame.
    pub async fn send_json(&mut self, frame: &Value) {
        self.send_text(&frame.to_string()).await;
    }

    /// Sends text.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn send_text(&mut self, text: &str) {
        if !self.try_send_text(text.to_owned()).await {
            self.fail("cannot send: the connection is gone");
        }
    }

    /// Sends many text frames with as few writes as possible.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn send_burst(&mut self, frames: &[Value]) {
        for frame in frames {
            self.note(format!("→ {frame}"));
            let fed = self.socket.feed(Message::text(frame.to_string())).await;
            if let Err(error) = fed {
                self.fail(&format!("cannot send: {error}"));
            }
        }
        if let Err(error) = self.socket.flush().await {
            self.fail(&format!("cannot send: {error}"));
        }
    }

    /// What comes next; waits at most the deadline.
    ///
    /// # Panics
    /// When nothing comes, or something that is no frame of this protocol.
    pub async fn incoming(&mut self) -> Incoming {
        let Ok(next) = tokio::time::timeout(DEADLINE, self.socket.next()).await else {
            self.fail("nothing came within the deadline");
        };
        match next {
            None => Incoming::Gone("end of stream".to_owned()),
            Some(Err(error)) => Incoming::Gone(error.to_string()),
            Some(Ok(Message::Text(text))) => {
                self.note(format!("← {text}"));
                let frame: Value = match serde_json::from_str(&text) {
                    Ok(frame) => frame,
                    Err(error) => self.fail(&format!("not JSON: {error}: {text}")),
                };
                if !frame["type"].is_string() {
                    self.fail("a frame without a type");
                }
                if let Some(fault) = schemas::fault(&frame) {
                    self.fail(&format!("against its schema: {fault}: {frame}"));
                }
                text.as_str().clone_into(&mut self.last_text);
                Incoming::Frame(frame)
            }
            Some(Ok(Message::Ping(_))) => Incoming::Ping,
            Some(Ok(Message::Pong(payload))) => Incoming::Pong(payload.to_vec()),
            Some(Ok(Message::Close(close))) => {
                let (code, reason) = close.map_or((1005, String::new()), |close| {
                    (u16::from(close.code), close.reason.to_string())
                });
                self.note(format!("← close {code} {reason}"));
                Incoming::Closed(code, reason)
            }
            Some(Ok(other)) => self.fail(&format!("unexpected message: {other:?}")),
        }
    }

    /// The next frame, whatever its type.
    ///
    /// # Panics
    /// When the connection closes instead.
    pub async fn frame(&mut self) -> Value {
        match self.backlog.pop_front() {
            Some(frame) => frame,
            None => self.fresh_frame().await,
        }
    }

    async fn fresh_frame(&mut self) -> Value {
        loop {
            match self.incoming().await {
                Incoming::Frame(frame) => return frame,
                Incoming::Ping | Incoming::Pong(_) => {}
                closed => self.fail(&format!("closed while a frame was expected: {closed:?}")),
            }
        }
    }

    /// The next frame that fits; those before it stay for later. An `error` or `bye` that does not
    /// fit fails the test at once.
    ///
    /// # Panics
    /// When none comes.
    pub async fn take_where(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.backlog.iter().position(&fits) {
            return self.backlog.remove(at).expect("it was just found");
        }
        loop {
            let frame = self.fresh_frame().await;
            if fits(&frame) {
                return frame;
            }
            if frame["type"] == "error" || frame["type"] == "bye" {
                self.fail(&format!("waiting for {what}, got {frame}"));
            }
            self.backlog.push_back(frame);
        }
    }

    /// The next frame of a type.
    pub async fn take(&mut self, kind: &str) -> Value {
        self.take_where(kind, |frame| frame["type"] == kind).await
    }

    /// The next frame from the socket, byte for byte.
    ///
    /// # Panics
    /// When the connection closes instead.
    pub async fn incoming_text(&mut self) -> String {
        self.fresh_frame().await;
        self.last_text.clone()
    }

    /// Frames that came and were not taken.
    pub fn untaken(&self) -> impl Iterator<Item = &Value> {
        self.backlog.iter()
    }

    /// Sends a message under a fresh id, without waiting; the id.
    pub async fn send_to(&mut self, user: &str, body: &Value) -> String {
        let id = new_id();
        self.send_json(&send(&id, user, body)).await;
        id
    }

    /// The answer `accepted` to an id.
    pub async fn accepted(&mut self, id: &str) -> Value {
        self.take_where(&format!("accepted {id}"), |frame| {
            frame["type"] == "accepted" && frame["id"] == id
        })
        .await
    }

    /// Sends a message and waits until it is accepted; its id.
    pub async fn say(&mut self, user: &str, body: &Value) -> String {
        let id = self.send_to(user, body).await;
        let accepted = self.accepted(&id).await;
        if accepted.get("duplicate").is_some() {
            self.fail(&format!("a fresh id is no duplicate: {accepted}"));
        }
        id
    }

    /// From here on a message may come again on this same connection, marked as such: a session
    /// that panicked sends what was not acknowledged once more. [`WsClient::message`] drops it.
    pub fn allow_repeats(&mut self) {
        self.repeats_allowed = true;
    }

    /// The next message. Checks what holds for every message of a connection: a place in the
    /// mailbox comes at most once, unless [`WsClient::allow_repeats`].
    pub async fn message(&mut self) -> Value {
        loop {
            let message = self.take("message").await;
            let Some(seq) = message["seq"].as_u64() else {
                self.fail(&format!("no seq: {message}"));
            };
            if seq == 0 || self.seen.insert(seq) {
                return message;
            }
            if !self.repeats_allowed || message["redelivered"] != true {
                self.fail(&format!("seq {seq} came twice on one connection"));
            }
        }
    }

    /// Takes `n` messages.
    pub async fn messages(&mut self, n: usize) -> Vec<Value> {
        let mut messages = Vec::with_capacity(n);
        while messages.len() < n {
            messages.push(self.message().await);
        }
        messages
    }

    /// Acknowledges up to `seq`.
    pub async fn ack(&mut self, seq: u64) {
        self.send_json(&json!({"type": "ack", "seq": seq})).await;
    }

    /// Takes the next message and acknowledges it.
    pub async fn message_acked(&mut self) -> Value {
        let message = self.message().await;
        self.ack(message["seq"].as_u64().unwrap_or_default()).await;
        message
    }

    /// The error that answers `reference` (an id, or null).
    pub async fn error(&mut self, code: &str, reference: &Value) -> Value {
        let error = self
            .take_where(&format!("error {code} {reference}"), |frame| {
                frame["type"] == "error" && frame["code"] == code && frame["ref"] == *reference
            })
            .await;
        if error["message"].as_str().is_none_or(str::is_empty) {
            self.fail(&format!("an error says what is wrong: {error}"));
        }
        error
    }

    /// Ping and pong: what the server had queued for this connection before has arrived then.
    pub async fn fence(&mut self) {
        let nonce = json!(new_id());
        self.send_json(&json!({"type": "ping", "nonce": nonce}))
            .await;
        self.take_where("pong", |frame| {
            frame["type"] == "pong" && frame["nonce"] == nonce
        })
        .await;
    }

    /// Reads to the end of the connection: the `bye` and the close frame must both be there and
    /// say the same. Frames before are left for [`WsClient::untaken`]. The `bye`.
    ///
    /// # Panics
    /// When the connection ends in any other way.
    pub async fn bye(&mut self, reason: &str, code: u16) -> Value {
        let bye = loop {
            let frame = match self.backlog.iter().position(|frame| frame["type"] == "bye") {
                Some(at) => self.backlog.remove(at).expect("it was just found"),
                None => match self.incoming().await {
                    Incoming::Frame(frame) => frame,
                    Incoming::Ping | Incoming::Pong(_) => continue,
                    closed => self.fail(&format!("closed without a bye {reason}: {closed:?}")),
                },
            };
            if frame["type"] == "bye" {
                break frame;
            }
            self.backlog.push_back(frame);
        };
        if bye["reason"] != reason {
            self.fail(&format!("expected a bye of reason {reason}, got {bye}"));
        }
        loop {
            match self.incoming().await {
                Incoming::Closed(got, text) => {
                    if (got, text.as_str()) != (code, reason) {
                        self.fail(&format!("expected close {code} {reason}, got {got} {text}"));
                    }
                    return bye;
                }
                Incoming::Ping | Incoming::Pong(_) => {}
                other => self.fail(&format!("expected the close frame, got {other:?}")),
            }
        }
    }

    /// Reads until the connection is gone; for ends where the way does not matter.
    pub async fn gone(&mut self) {
        loop {
            match self.incoming().await {
                Incoming::Gone(_) => return,
                Incoming::Frame(frame) => self.backlog.push_back(frame),
                Incoming::Ping | Incoming::Pong(_) | Incoming::Closed(..) => {}
            }
        }
    }

    /// Closes politely and waits for the server to agree, so that the device is known to be away
    /// from this connection's point of view.
    pub async fn close(mut self) {
        // The connection may be gone already; then it is closed.
        let _ = self.socket.close(None).await;
        self.gone().await;
    }
}

/// A `send` frame.
pub fn send(id: &str, user: &str, body: &Value) -> Value {
    json!({"type": "send", "id": id, "to": {"user": user}, "body": body})
}
