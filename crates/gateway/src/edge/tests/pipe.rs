//! One connection at the end of a pipe, and a client that says exactly what a
//! test wants said.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

use super::super::EdgeConfig;
use super::super::connection::{Connection, Opened};
use super::super::shared::Shared;
use super::conformance::frame;
use super::node::{Script, Scripted};

/// Longer than anything here takes, so that a test that hangs fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) const ID: &str = "0190163d-8694-739b-aea5-966c26f8ad91";

/// What a client reads.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Got {
    Json(Value),
    Ping,
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    End,
}

/// A client that frames by hand.
pub(super) struct Client<S> {
    pub(super) io: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(super) async fn write(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.io.write_all(bytes))
            .await
            .unwrap()
            .unwrap();
    }

    /// The head of an HTTP response.
    pub(super) async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.io.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    pub(super) async fn say(&mut self, json: Value) {
        self.write(&frame(0x81, json.to_string().as_bytes())).await;
    }

    pub(super) async fn send(&mut self, to: &str) {
        self.say(json!({"type": "send", "id": ID, "to": {"user": to}, "body": [1]}))
            .await;
    }

    /// The next frame; panics when none comes.
    pub(super) async fn next(&mut self) -> Got {
        timeout(PATIENCE, self.read()).await.expect("nothing came")
    }

    async fn read(&mut self) -> Got {
        let mut head = [0; 2];
        if self.io.read_exact(&mut head).await.is_err() {
            return Got::End;
        }
        let length = match head[1] {
            126 => usize::from(self.io.read_u16().await.unwrap()),
            127 => usize::try_from(self.io.read_u64().await.unwrap()).unwrap(),
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        if self.io.read_exact(&mut payload).await.is_err() {
            return Got::End;
        }
        match head[0] {
            0x81 => Got::Json(serde_json::from_slice(&payload).unwrap()),
            0x89 => Got::Ping,
            0x8a => Got::Pong(payload),
            0x88 if payload.is_empty() => Got::Close(None, String::new()),
            0x88 => {
                let (code, text) = payload.split_at(2);
                let code = u16::from_be_bytes([code[0], code[1]]);
                Got::Close(Some(code), String::from_utf8(text.to_vec()).unwrap())
            }
            other => panic!("the server sent a frame that starts with {other:#x}"),
        }
    }

    /// The next JSON frame; pings are passed over.
    pub(super) async fn json(&mut self) -> Value {
        loop {
            match self.next().await {
                Got::Json(value) => return value,
                Got::Ping => {}
                other => panic!("not JSON: {other:?}"),
            }
        }
    }

    /// Signs in and returns `welcome`.
    pub(super) async fn hello(&mut self, user: &str) -> Value {
        self.say(json!({"type": "hello", "token": user, "device": "d1"}))
            .await;
        let welcome = self.json().await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        welcome
    }

    pub(super) async fn expect_error(&mut self, code: &str) -> Value {
        let error = self.json().await;
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("error"), &json!(code)),
            "{error}"
        );
        error
    }

    /// `bye`, the close frame that goes with it, and then nothing.
    pub(super) async fn expect_bye(&mut self, reason: &str, code: u16) -> Value {
        let bye = self.json().await;
        assert_eq!(
            (&bye["type"], &bye["reason"]),
            (&json!("bye"), &json!(reason)),
            "{bye}"
        );
        assert_eq!(self.next().await, Got::Close(Some(code), reason.to_owned()));
        assert_eq!(self.next().await, Got::End);
        bye
    }
}

/// A connection under test.
pub(super) struct Rig {
    pub(super) client: Client<DuplexStream>,
    pub(super) script: Arc<Script>,
    pub(super) shared: Arc<Shared<Scripted>>,
    pub(super) task: JoinHandle<()>,
}

/// Starts a connection with `change` made to the default settings.
pub(super) fn rig(change: impl FnOnce(&mut EdgeConfig)) -> Rig {
    rig_with(change, 64 * 1024, |_| {})
}

/// The same over a pipe of `pipe_bytes`, with what the upgrade found changed.
pub(super) fn rig_with(
    change: impl FnOnce(&mut EdgeConfig),
    pipe_bytes: usize,
    open: impl FnOnce(&mut Opened<DuplexStream>),
) -> Rig {
    let mut config = EdgeConfig::default();
    change(&mut config);
    let script = Arc::new(Script::default());
    let shared = Arc::new(Shared::new(config, Scripted(Arc::clone(&script)), 10));
    let (near, far) = duplex(pipe_bytes);
    let mut opened = Opened {
        io: near,
        peer: None,
        response: Vec::new(),
        already_read: Vec::new(),
        token: None,
        counted: None,
    };
    open(&mut opened);
    let connection = Connection::new(opened, shared.admit().unwrap());
    Rig {
        client: Client { io: far },
        script,
        shared,
        task: spawn_local(connection),
    }
}

/// Waits until `condition` holds.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come true"));
}
