//! From the socket to the session.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::value::RawValue;
use stonechat_broker::{Command, Input, InputError};
use stonechat_protocol::{
    ClientFrame, ClientFrameKind, CloseReason, DeviceId, ErrorCode, ErrorFrame, FrameError, Pong,
    ServerFrame, Welcome, write_frame,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tracing::debug;

use super::ending::Ended;
use super::{Connection, Core, Phase, scratch};
use crate::edge::backend::{Backend, Handed, RETRY_AFTER_MS, Refused, SignIn, SignedIn};
use crate::edge::frame::Incoming;
use crate::edge::frame_out::{put_pong, put_text};
use crate::events::What;

/// Reads in a row before writing gets its turn.
const READS_PER_ROUND_MAX: usize = 4;

/// Longest client name that is logged, in bytes.
const CLIENT_NAME_BYTES_MAX: usize = 128;

/// How a turn of reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// Nothing there; the task is woken when there is.
    Blocked,
    /// There may be more.
    More,
}

impl<S, B> Connection<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Backend,
{
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Read {
        for _ in 0..READS_PER_ROUND_MAX {
            if !self.core.wants_read() {
                return Read::More;
            }
            if self.stalled {
                self.feed(&mut [], cx);
                continue;
            }
            let mut buffer = scratch::take_read();
            let mut filled = ReadBuf::new(&mut buffer);
            match Pin::new(&mut self.io).poll_read(cx, &mut filled) {
                Poll::Ready(Ok(())) if filled.filled().is_empty() => self.core.lose(Ended::Lost),
                Poll::Ready(Ok(())) => self.feed(filled.filled_mut(), cx),
                Poll::Ready(Err(error)) => self.core.lose(Ended::Failed(error.kind())),
                Poll::Pending => {
                    scratch::give_back_read(buffer);
                    return Read::Blocked;
                }
            }
            scratch::give_back_read(buffer);
        }
        Read::More
    }

    fn feed(&mut self, bytes: &mut [u8], cx: &mut Context<'_>) {
        let core = &mut self.core;
        core.shared.figures.bytes_in.increment(bytes.len() as u64);
        let mut heard = None;
        let outcome = self.reader.feed(bytes, &mut |incoming| {
            let now = *heard.get_or_insert_with(Instant::now);
            core.on_incoming(incoming, now, cx)
        });
        if let Some(now) = heard {
            core.heard(now);
        }
        match outcome {
            Ok(flow) => self.stalled = flow.is_break() && self.reader.has_pending(),
            Err(violation) => core.close(violation.close_reason(), None),
        }
    }
}

impl<B: Backend> Core<B> {
    fn on_incoming(
        &mut self,
        incoming: Incoming<'_>,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> ControlFlow<()> {
        match incoming {
            Incoming::Text(text) => self.on_text(text, now, cx),
            Incoming::Ping(payload) => {
                self.shared.figures.websocket_ping.increment(1);
                put_pong(self.writer.own(), payload);
            }
            Incoming::Pong => self.shared.figures.websocket_pong.increment(1),
            Incoming::Close(code) => {
                self.shared.figures.close.increment(1);
                self.closed_by_client(code);
            }
        }
        if self.wants_read() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }

    fn on_text(&mut self, text: &str, now: Instant, cx: &mut Context<'_>) {
        match ClientFrame::decode(text, &self.shared.config.limits) {
            Ok(frame) if matches!(self.phase, Phase::Open { .. }) => {
                self.on_frame(frame, now, cx);
            }
            Ok(frame) => self.on_first_frame(frame),
            Err(error) => self.refuse(error),
        }
    }

    /// Before the sign-in: `hello`, or nothing.
    fn on_first_frame(&mut self, frame: ClientFrame<'_>) {
        let Phase::AwaitHello { token: header, .. } = &mut self.phase else {
            return;
        };
        let ClientFrameKind::Hello {
            token,
            device,
            client,
        } = frame.kind
        else {
            self.error(ErrorCode::Unauthorized, "say hello first", None, None);
            return self.close(CloseReason::Unauthorized, None);
        };
        self.shared.figures.hello.increment(1);
        let token = token.map(|token| Box::from(&*token)).or(header.take());
        let Some(token) = token else {
            self.error(
                ErrorCode::Unauthorized,
                "a token is needed, in hello or in the Authorization header",
                None,
                None,
            );
            return self.close(CloseReason::Unauthorized, None);
        };
        let client = client.as_deref().unwrap_or_default();
        let client = &client[..client.floor_char_boundary(CLIENT_NAME_BYTES_MAX)];
        debug!(peer = ?self.about.peer, %device, ?client, "sign-in");
        self.about.device = Some(device.clone());
        let work = self.shared.backend.sign_in(SignIn {
            token,
            device,
            ack: frame.ack,
            rev: frame.rev,
            outlet: self.shared.config.outlet,
        });
        let until = Instant::now() + Duration::from_millis(self.shared.config.auth_deadline_ms);
        self.errors_in_a_row = 0;
        self.phase = Phase::SigningIn { work, until };
    }

    fn on_frame(&mut self, frame: ClientFrame<'_>, now: Instant, cx: &mut Context<'_>) {
        let figures = &self.shared.figures;
        let command = match frame.kind {
            ClientFrameKind::Send(send) => {
                figures.send.increment(1);
                if !send.ephemeral {
                    let read_at = self.shared.latencies.moment(now);
                    self.waiting.sent(send.id, read_at);
                }
                Some(Command::Send {
                    id: send.id,
                    to: send.to,
                    body: Bytes::copy_from_slice(send.body.as_bytes()),
                    ttl_s: send.ttl_s,
                    ephemeral: send.ephemeral,
                })
            }
            ClientFrameKind::Ack => {
                figures.ack.increment(1);
                None
            }
            ClientFrameKind::Read { from, id } => {
                figures.read.increment(1);
                Some(Command::Read { from, id })
            }
            ClientFrameKind::Ping { nonce } => {
                figures.ping.increment(1);
                let nonce = nonce.unwrap_or(RawValue::NULL).to_owned();
                self.say(&ServerFrame::Pong(Pong { nonce }));
                None
            }
            ClientFrameKind::Hello { .. } => {
                figures.hello.increment(1);
                self.error(
                    ErrorCode::UnexpectedFrame,
                    "hello was said before",
                    None,
                    None,
                );
                return self.count_error();
            }
        };
        self.errors_in_a_row = 0;
        if command.is_some() || frame.ack.is_some() || frame.rev.is_some() {
            let input = Input {
                ack: frame.ack,
                rev: frame.rev,
                command,
            };
            self.hand_on(input, cx);
        }
    }

    /// Gives a frame to the session. One that is not taken at once is kept and stops the reading.
    fn hand_on(&mut self, input: Input, cx: &mut Context<'_>) {
        let Phase::Open { link, busy, .. } = &mut self.phase else {
            return;
        };
        match B::input(link, input) {
            Handed::Now(outcome) => self.handed_on(outcome),
            Handed::Later(mut work) => match work.as_mut().poll(cx) {
                Poll::Ready(outcome) => self.handed_on(outcome),
                Poll::Pending => *busy = Some(work),
            },
        }
    }

    fn handed_on(&mut self, outcome: Result<(), InputError>) {
        match outcome {
            Ok(()) => {}
            Err(InputError::Busy) => self.close(CloseReason::Overloaded, Some(RETRY_AFTER_MS)),
            Err(InputError::Gone) => self.close(CloseReason::Internal, Some(RETRY_AFTER_MS)),
        }
    }

    pub(super) fn poll_busy(&mut self, cx: &mut Context<'_>) {
        let Phase::Open { busy, .. } = &mut self.phase else {
            return;
        };
        if let Some(work) = busy
            && let Poll::Ready(outcome) = work.as_mut().poll(cx)
        {
            *busy = None;
            self.handed_on(outcome);
        }
    }

    pub(super) fn poll_sign_in(&mut self, cx: &mut Context<'_>) {
        let Phase::SigningIn { work, .. } = &mut self.phase else {
            return;
        };
        match work.as_mut().poll(cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(signed_in)) => self.signed_in(signed_in),
            Poll::Ready(Err(refused)) => self.not_signed_in(&refused),
        }
    }

    fn signed_in(&mut self, signed_in: SignedIn<B::Link>) {
        let Some(device) = self.about.device.clone() else {
            return;
        };
        self.shared.tell(|| What::Connected {
            user: signed_in.user.clone(),
            device: device.clone(),
            peer: self.about.peer,
        });
        self.welcome(&signed_in, device);
        self.about.user = Some(signed_in.user);
        self.about.counted = None;
        self.heard(Instant::now());
        self.phase = Phase::Open {
            link: Rc::new(signed_in.link),
            drain: signed_in.drain,
            busy: None,
        };
    }

    fn welcome(&mut self, signed_in: &SignedIn<B::Link>, device: DeviceId) {
        debug!(
            user = %signed_in.user,
            %device,
            session = signed_in.session,
            pending = signed_in.pending,
            "signed in"
        );
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let server_time_ms = since_epoch.map_or(0, |time| time.as_millis() as u64);
        self.say(&ServerFrame::Welcome(Welcome {
            user: signed_in.user.clone(),
            device,
            session: signed_in.session.clone(),
            server_time_ms,
            heartbeat_ms: self.shared.config.heartbeat_ms,
            pending: signed_in.pending,
            limits: self.shared.config.limits.clone(),
        }));
    }

    fn not_signed_in(&mut self, refused: &Refused) {
        debug!(peer = ?self.about.peer, device = ?self.about.device, why = refused.why, "sign-in refused");
        if refused.reason == CloseReason::Unauthorized {
            self.shared.tell(|| What::Security {
                what: "sign_in_refused",
                detail: refused.why.clone(),
                peer: self.about.peer,
                suppressed_count: 0,
            });
        }
        if let Some(code) = refused.code {
            self.error(code, code.describe(), None, refused.retry_after_ms);
        }
        self.close(refused.reason, refused.retry_after_ms);
    }

    fn refuse(&mut self, error: FrameError) {
        self.shared.figures.refused.increment(1);
        let counts = matches!(error.code, ErrorCode::BadFrame | ErrorCode::UnknownType);
        self.say(&ServerFrame::Error(ErrorFrame {
            code: error.code,
            message: error.message,
            reference: error.reference,
            retry_after_ms: None,
        }));
        if counts {
            self.count_error();
        }
    }

    fn count_error(&mut self) {
        self.errors_in_a_row += 1;
        if self.errors_in_a_row >= self.shared.config.errors_in_a_row_max {
            self.close(CloseReason::TooManyErrors, None);
        }
    }

    fn error(
        &mut self,
        code: ErrorCode,
        message: &str,
        reference: Option<stonechat_protocol::MessageId>,
        retry_after_ms: Option<u64>,
    ) {
        self.say(&ServerFrame::Error(ErrorFrame {
            code,
            message: message.to_owned(),
            reference,
            retry_after_ms,
        }));
    }

    /// Queues a frame of the connection's own.
    pub(super) fn say(&mut self, frame: &ServerFrame) {
        self.shared.figures.frames_out.increment(1);
        put_text(self.writer.own(), |out| write_frame(out, frame));
    }
}
