//! A WebSocket client over raw TCP, for what a well-behaved library refuses to send.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::{DEADLINE, Node};

/// How long something that need not come is waited for.
const A_MOMENT: Duration = Duration::from_millis(100);

/// Opcodes of RFC 6455.
pub mod opcode {
    /// Continuation of a fragmented message.
    pub const CONTINUATION: u8 = 0;
    /// Text.
    pub const TEXT: u8 = 1;
    /// Binary.
    pub const BINARY: u8 = 2;
    /// Close.
    pub const CLOSE: u8 = 8;
    /// Ping.
    pub const PING: u8 = 9;
    /// Pong.
    pub const PONG: u8 = 10;
}

/// One frame to be sent, right or wrong.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Last of its message.
    pub fin: bool,
    /// The three reserved bits.
    pub rsv: u8,
    /// The opcode.
    pub opcode: u8,
    /// Whether it is masked, as a client's frames must be.
    pub masked: bool,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Shape {
    /// A correct frame.
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            fin: true,
            rsv: 0,
            opcode,
            masked: true,
            payload: payload.into(),
        }
    }

    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
        let mask_bit = u8::from(self.masked) << 7;
        let mut out = vec![u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode];
        match self.payload.len() {
            short @ 0..=125 => {
                out.push(mask_bit | u8::try_from(short).expect("at most 125"));
            }
            medium @ 126..=0xffff => {
                out.push(mask_bit | 126);
                out.extend(u16::try_from(medium).expect("at most 65535").to_be_bytes());
            }
            long => {
                out.push(mask_bit | 127);
                out.extend((long as u64).to_be_bytes());
            }
        }
        if self.masked {
            out.extend(MASK);
            let masked = self.payload.iter().zip(MASK.iter().cycle());
            out.extend(masked.map(|(byte, mask)| byte ^ mask));
        } else {
            out.extend(&self.payload);
        }
        out
    }
}

/// A frame received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The opcode.
    pub opcode: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

/// A raw connection.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// A correct upgrade request.
pub fn upgrade_request(address: &str) -> String {
    format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: stonechat.v1.json\r\n\r\n"
    )
}

impl RawClient {
    /// A TCP connection; nothing is said yet.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn connect(node: &Node) -> Self {
        let connected = TcpStream::connect(node.endpoint().listen).await;
        let stream = connected.expect("the node accepts connections");
        stream.set_nodelay(true).expect("a TCP socket");
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// Connected and upgraded.
    pub async fn open(node: &Node) -> Self {
        let mut client = Self::connect(node).await;
        let request = upgrade_request(&node.endpoint().listen);
        client.write(request.as_bytes()).await;
        let head = client.response_head().await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        client
    }

    /// A TCP connection from a certain address of this machine.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn connect_from(node: &Node, from: Ipv4Addr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        let bound = socket.bind((from, 0).into());
        bound.expect("the address is of this machine");
        let to = node.endpoint().listen.parse().expect("an address");
        let stream = socket.connect(to).await;
        Self {
            stream: stream.expect("the node accepts connections"),
            unread: Vec::new(),
        }
    }

    /// Asks for the upgrade; the head of the answer, none when the connection is gone.
    pub async fn upgrade(&mut self, node: &Node) -> Option<String> {
        let request = upgrade_request(&node.endpoint().listen);
        self.try_write(request.as_bytes()).await;
        loop {
            if let Some(head) = self.take_head() {
                return Some(head);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Says hello on an upgraded connection.
    ///
    /// # Panics
    /// When it is not welcome.
    pub async fn sign_in(&mut self, token: &str) {
        let hello = json!({"type": "hello", "token": token, "device": "phone"});
        self.text(&hello.to_string()).await;
        let welcome = self.json().await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
    }

    /// Upgrades and says hello, if the server lets it.
    pub async fn try_sign_in(&mut self, node: &Node, token: &str) -> bool {
        match self.upgrade(node).await {
            Some(head) if head.starts_with("HTTP/1.1 101") => {
                self.sign_in(token).await;
                true
            }
            _ => false,
        }
    }

    /// Upgrades and says hello.
    ///
    /// # Panics
    /// When the server does not let it.
    pub async fn upgrade_and_sign_in(&mut self, node: &Node, token: &str) {
        assert!(self.try_sign_in(node, token).await, "not upgraded");
    }

    /// Head of an answer that comes by itself, if one comes within a moment.
    pub async fn response_head_if_any(&mut self) -> Option<String> {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout(A_MOMENT, self.stream.read(&mut buffer)).await;
        if let Ok(Ok(n)) = read {
            self.unread.extend(&buffer[..n]);
        }
        self.take_head()
    }

    /// Whether the server hangs up within this time; what it says before is read.
    pub async fn is_closed_within(&mut self, time: Duration) -> bool {
        let mut buffer = [0; 4096];
        match tokio::time::timeout(time, self.stream.read(&mut buffer)).await {
            Err(_) => false,
            Ok(read) => !matches!(read, Ok(n) if n > 0),
        }
    }

    /// Connected, upgraded and signed in.
    pub async fn join(node: &Node, user: &str, device: &str) -> Self {
        let token = node.user(user);
        let mut client = Self::open(node).await;
        client
            .text(&json!({"type": "hello", "token": token, "device": device}).to_string())
            .await;
        let welcome = client.json().await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        client
    }

    /// Writes bytes.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn write(&mut self, bytes: &[u8]) {
        assert!(self.try_write(bytes).await, "cannot write to the server");
    }

    /// Writes bytes; `false` when the connection is gone, as it may be after a breach.
    pub async fn try_write(&mut self, bytes: &[u8]) -> bool {
        let written = tokio::time::timeout(DEADLINE, self.stream.write_all(bytes)).await;
        matches!(written, Ok(Ok(())))
    }

    /// Closes the sending side; the server sees the end of the stream.
    pub async fn half_close(&mut self) {
        // It may be closed already.
        let _ = self.stream.shutdown().await;
    }

    /// Writes a correct text frame.
    pub async fn text(&mut self, text: &str) {
        self.write(&Shape::new(opcode::TEXT, text).encode()).await;
    }

    async fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout(DEADLINE, self.stream.read(&mut buffer)).await;
        match read.expect("the server answers within the deadline") {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                self.unread.extend(&buffer[..n]);
                true
            }
        }
    }

    /// Head of an HTTP response.
    ///
    /// # Panics
    /// When the connection ends before.
    pub async fn response_head(&mut self) -> String {
        loop {
            if let Some(head) = self.take_head() {
                return head;
            }
            let more = self.more().await;
            assert!(more, "closed within the response head: {:?}", self.unread);
        }
    }

    fn take_head(&mut self) -> Option<String> {
        let end = self
            .unread
            .windows(4)
            .position(|four| four == b"\r\n\r\n")?;
        let head: Vec<u8> = self.unread.drain(..end + 4).collect();
        Some(String::from_utf8_lossy(&head).into_owned())
    }

    /// Everything until the server closes.
    pub async fn rest(&mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }

    /// The next frame; `None` at the end.
    ///
    /// # Panics
    /// When the server breaks the framing rules: masks, reserved bits, fragments.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, length)) = parse(&self.unread) {
                self.unread.drain(..length);
                return Some(frame);
            }
            if !self.more().await {
                assert!(
                    self.unread.is_empty(),
                    "closed within a frame: {:?}",
                    self.unread
                );
                return None;
            }
        }
    }

    /// The next text frame as JSON; pings are passed over.
    ///
    /// # Panics
    /// When there is none.
    pub async fn json(&mut self) -> Value {
        loop {
            let frame = self.frame().await.expect("a text frame, not the end");
            match frame.opcode {
                opcode::PING | opcode::PONG => {}
                opcode::TEXT => return serde_json::from_slice(&frame.payload).expect("JSON"),
                other => panic!("expected text, got opcode {other}: {:?}", frame.payload),
            }
        }
    }

    /// Reads to the end: a `bye`, then a close frame with the same reason. The `bye`.
    ///
    /// # Panics
    /// When the connection ends in any other way.
    pub async fn bye(&mut self, reason: &str, code: u16) -> Value {
        let bye = loop {
            let frame = self.json().await;
            if frame["type"] == "bye" {
                break frame;
            }
        };
        assert_eq!(bye["reason"], reason, "{bye}");
        let close = loop {
            let frame = self.frame().await.expect("a close frame, not the end");
            if frame.opcode == opcode::CLOSE {
                break frame;
            }
            assert_eq!(frame.opcode, opcode::PING, "after bye: {frame:?}");
        };
        let mut expected = code.to_be_bytes().to_vec();
        expected.extend(reason.as_bytes());
        assert_eq!(
            close.payload,
            expected,
            "close frame {:?}",
            String::from_utf8_lossy(&close.payload)
        );
        bye
    }
}

/// One frame at the start of `bytes`, with its length.
fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert_eq!(first & 0x70, 0, "the server set a reserved bit");
    assert_eq!(first & 0x80, 0x80, "the server fragmented");
    assert_eq!(second & 0x80, 0, "the server masked");
    let (length, head) = match second & 0x7f {
        126 => {
            let raw = bytes.get(2..4)?.try_into().expect("two bytes");
            (u64::from(u16::from_be_bytes(raw)), 4)
        }
        127 => {
            let raw = bytes.get(2..10)?.try_into().expect("eight bytes");
            (u64::from_be_bytes(raw), 10)
        }
        short => (u64::from(short), 2),
    };
    let end = head + usize::try_from(length).expect("a frame fits in memory");
    let payload = bytes.get(head..end)?.to_vec();
    Some((
        Frame {
            opcode: first & 0x0f,
            payload,
        },
        end,
    ))
}
