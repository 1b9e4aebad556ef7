//! The task that owns the socket. It carries out what the engine says, and
//! decides only one thing itself: that a network which takes nothing is dead.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Sink, Stream};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use crate::builder::TokenSource;
use crate::engine::{Engine, Step, Transmit};
use crate::error::DisconnectCause;
use crate::shared::{Shared, Status};
use crate::transport::{ConnectFailure, Socket, Target, io_cause};
use crate::tuning::Tuning;

/// Time for the closing handshake; after it the socket is dropped.
const FAREWELL_MS_MAX: u64 = 500;

pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) target: Target,
    pub(crate) tokens: TokenSource,
    pub(crate) tuning: Tuning,
}

impl Driver {
    /// Runs until the engine has ended.
    pub(crate) async fn run(self) {
        self.drive().await;
        self.shared.finished.send_replace(true);
    }

    async fn drive(&self) {
        loop {
            match self.shared.with(Engine::step) {
                Step::Ended => return,
                Step::Wait { until_ms } => {
                    tokio::select! {
                        () = sleep_until(self.shared.instant(until_ms)) => {}
                        () = self.shared.wake.notified() => {}
                    }
                }
                Step::Connect => {
                    let attempt = tokio::select! {
                        attempt = self.attempt() => attempt,
                        () = self.ended() => return,
                    };
                    match attempt {
                        Ok((socket, token)) => {
                            self.shared
                                .with(|engine, now_ms| engine.connected(&token, now_ms));
                            self.serve(socket).await;
                        }
                        Err((cause, retry_after_ms)) => self
                            .shared
                            .with(|engine, now_ms| engine.lost(cause, retry_after_ms, now_ms)),
                    }
                }
            }
        }
    }

    async fn ended(&self) {
        let mut status = self.shared.status.subscribe();
        // The sender is in `shared`, which outlives this.
        let _ = status
            .wait_for(|status| matches!(status, Status::Ended(_)))
            .await;
    }

    async fn attempt(&self) -> Result<(Socket, String), ConnectFailure> {
        let limit = Duration::from_millis(self.tuning.connect_ms_max);
        let token = match timeout(limit, (self.tokens)()).await {
            Ok(Ok(token)) => token,
            Ok(Err(e)) => return Err((DisconnectCause::Token(e.to_string()), None)),
            Err(_) => {
                let slow = "the source took too long".to_owned();
                return Err((DisconnectCause::Token(slow), None));
            }
        };
        let socket = self.target.connect(&self.tuning).await?;
        Ok((socket, token))
    }

    /// One connection, from `hello` to its end.
    async fn serve(&self, socket: Socket) {
        let write_limit = Duration::from_millis(self.tuning.write_ms_max);
        let mut line = Line {
            socket,
            unflushed_since: None,
            blocked: false,
            closing: false,
        };
        while self.shared.with(|engine, _| engine.is_connected()) {
            let now = Instant::now();
            let write_deadline = line.unflushed_since.unwrap_or(now) + write_limit;
            // While the network takes nothing, only the write deadline matters: what the
            // engine has due cannot be written anyway.
            let deadline = self
                .shared
                .with(|engine, _| engine.timeout_ms())
                .filter(|_| !line.blocked)
                .map_or(write_deadline, |ms| {
                    self.shared.instant(ms).min(write_deadline)
                });
            tokio::select! {
                io = poll_fn(|cx| line.poll(cx, &self.shared)) => match io {
                    Io::Read(read) => self.handle(read),
                    Io::Closing => {}
                },
                () = self.shared.wake.notified() => {}
                () = sleep_until(deadline) => self.time_passed(&line, write_limit),
            }
        }
        self.farewell(line).await;
    }

    fn handle(&self, read: Option<Result<Message, WsError>>) {
        self.shared.with(|engine, now_ms| match read {
            Some(Ok(Message::Text(text))) => engine.received(text.as_str(), now_ms),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                engine.heard(now_ms);
            }
            Some(Ok(Message::Binary(_))) => {
                let cause = DisconnectCause::Protocol("a binary frame".to_owned());
                engine.lost(cause, None, now_ms);
            }
            Some(Ok(Message::Close(frame))) => {
                engine.closed(frame.map(|frame| frame.code.into()), now_ms);
            }
            Some(Err(e)) => engine.lost(io_cause(&e), None, now_ms),
            None => engine.closed(None, now_ms),
        });
    }

    fn time_passed(&self, line: &Line, write_limit: Duration) {
        let stuck = line
            .unflushed_since
            .is_some_and(|since| since.elapsed() >= write_limit);
        self.shared.with(|engine, now_ms| {
            if stuck {
                engine.lost(DisconnectCause::WriteTimeout, None, now_ms);
            } else {
                engine.timeout(now_ms);
            }
        });
    }

    /// Says goodbye on the WebSocket, if the other side still listens.
    async fn farewell(&self, mut line: Line) {
        let goodbye = async {
            if !line.closing {
                line.socket.close(None).await?;
            }
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut line.socket).poll_next(cx)).await {
                frame?;
            }
            Ok::<(), WsError>(())
        };
        // The connection is over either way.
        let _ = timeout(Duration::from_millis(FAREWELL_MS_MAX), goodbye).await;
    }
}

/// What a [`Line`] reports.
enum Io {
    Read(Option<Result<Message, WsError>>),
    /// The close frame is handed over; nothing more is wanted from this connection.
    Closing,
}

/// A socket, and what is known of its writing side.
struct Line {
    socket: Socket,
    unflushed_since: Option<Instant>,
    blocked: bool,
    closing: bool,
}

impl Line {
    /// Writes what there is to write, as far as the network takes it, and reads a frame.
    fn poll(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<Io> {
        if let Err(e) = self.poll_write(cx, shared) {
            return Poll::Ready(Io::Read(Some(Err(e))));
        }
        if self.closing {
            return Poll::Ready(Io::Closing);
        }
        Pin::new(&mut self.socket).poll_next(cx).map(Io::Read)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Result<(), WsError> {
        self.blocked = false;
        // What is on its way first: nothing piles up behind a network that takes nothing.
        if self.poll_flush(cx)?.is_pending() {
            return Ok(());
        }
        while !self.closing {
            let mut socket = Pin::new(&mut self.socket);
            match socket.as_mut().poll_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => {
                    self.blocked = true;
                    return Ok(());
                }
            }
            let message = match shared.with(Engine::transmit) {
                Some(Transmit::Text(text)) => Message::text(text),
                Some(Transmit::Close) => {
                    self.closing = true;
                    Message::Close(Some(CloseFrame {
                        code: CloseCode::Normal,
                        reason: "".into(),
                    }))
                }
                None => break,
            };
            socket.start_send(message)?;
            self.unflushed_since.get_or_insert_with(Instant::now);
        }
        self.poll_flush(cx).map(|_| ())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, WsError> {
        if self.unflushed_since.is_none() {
            return Ok(Poll::Ready(()));
        }
        match Pin::new(&mut self.socket).poll_flush(cx) {
            Poll::Ready(flushed) => {
                flushed?;
                self.unflushed_since = None;
                Ok(Poll::Ready(()))
            }
            Poll::Pending => {
                self.blocked = true;
                Ok(Poll::Pending)
            }
        }
    }
}
