//! How a connection ends, and that it is told once: to the client, to the log
//! and to the counters.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use stonechat_protocol::{Bye, CloseReason, ServerFrame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tracing::{debug, info};

use super::{Connection, Core, Phase, scratch};
use crate::edge::backend::{Backend, RETRY_AFTER_MS};
use crate::edge::figures::Figures;
use crate::edge::frame_out::put_close;
use crate::events::What;

/// Longest time for saying goodbye, in milliseconds: flushing, and waiting for the client
/// to close its side, so that it gets to read the reason.
const CLOSING_MS_MAX: u64 = 3_000;

/// Bytes a client may still send after the goodbye; they are thrown away.
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The server closed it.
    Server(CloseReason),
    /// The client closed it, perhaps with a code.
    Client(Option<u16>),
    /// The socket was closed without a word.
    Lost,
    /// The socket failed.
    Failed(io::ErrorKind),
}

impl Ended {
    fn label(self) -> &'static str {
        match self {
            Self::Server(reason) => reason.as_str(),
            Self::Client(_) => "client_closed",
            Self::Lost => "connection_lost",
            Self::Failed(_) => "connection_failed",
        }
    }
}

/// What is left to do after the last frame was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    /// Write what is queued.
    Flush,
    /// Close our side.
    Shutdown,
    /// Read until the client closes its side: closing with unread input would reset the
    /// connection and could take the goodbye with it.
    Linger {
        /// What it may still send, in bytes.
        bytes_left: usize,
    },
}

impl<S, B> Connection<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Backend,
{
    pub(super) fn poll_closing(&mut self, cx: &mut Context<'_>) {
        if self.try_closing(cx).is_ready() {
            self.core.phase = Phase::Gone;
        }
    }

    /// Ready when there is nothing left to do, for good or ill.
    fn try_closing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let client_closed = matches!(self.core.about.ended, Some(Ended::Client(_)));
        let Phase::Closing { step, .. } = &mut self.core.phase else {
            return Poll::Ready(());
        };
        if *step == Closing::Flush {
            match self.core.writer.poll_empty(&mut self.io, cx) {
                Poll::Ready(Ok(())) => *step = Closing::Shutdown,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        if *step == Closing::Shutdown {
            match Pin::new(&mut self.io).poll_shutdown(cx) {
                Poll::Ready(Ok(())) if !client_closed => {
                    *step = Closing::Linger {
                        bytes_left: LINGER_BYTES_MAX,
                    };
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        let Closing::Linger { bytes_left } = step else {
            return Poll::Ready(());
        };
        let mut buffer = scratch::take_read();
        let outcome = loop {
            let mut filled = ReadBuf::new(&mut buffer);
            match Pin::new(&mut self.io).poll_read(cx, &mut filled) {
                Poll::Pending => break Poll::Pending,
                Poll::Ready(Ok(())) if !filled.filled().is_empty() => {
                    *bytes_left = bytes_left.saturating_sub(filled.filled().len());
                    if *bytes_left == 0 {
                        break Poll::Ready(());
                    }
                }
                Poll::Ready(_) => break Poll::Ready(()),
            }
        };
        scratch::give_back_read(buffer);
        outcome
    }

    /// After a panic: says so if the socket takes it at once, and leaves.
    pub(super) fn give_up(&mut self, cx: &mut Context<'_>) {
        if !self.core.is_closing() {
            self.core.close(CloseReason::Internal, Some(RETRY_AFTER_MS));
        }
        self.core.report();
        let _ = self.try_closing(cx);
    }
}

impl<B: Backend> Core<B> {
    /// Says `bye` and closes. Detaches the device at once; the first reason stays.
    pub(super) fn close(&mut self, reason: CloseReason, retry_after_ms: Option<u64>) {
        if self.is_closing() {
            return;
        }
        self.say(&ServerFrame::Bye(Bye {
            reason,
            retry_after_ms,
        }));
        put_close(
            self.writer.own(),
            Some(reason.websocket_code()),
            reason.as_str(),
        );
        self.start_closing(Ended::Server(reason));
    }

    /// The client closes: it gets its code back.
    pub(super) fn closed_by_client(&mut self, code: Option<u16>) {
        if self.is_closing() {
            return;
        }
        put_close(self.writer.own(), code, "");
        self.start_closing(Ended::Client(code));
    }

    /// The socket is no more.
    pub(super) fn lose(&mut self, ended: Ended) {
        self.about.ended.get_or_insert(ended);
        self.phase = Phase::Gone;
    }

    fn start_closing(&mut self, ended: Ended) {
        self.about.ended = Some(ended);
        let closing_ms = self.shared.config.write_deadline_ms.min(CLOSING_MS_MAX);
        self.phase = Phase::Closing {
            step: Closing::Flush,
            until: Instant::now() + Duration::from_millis(closing_ms),
        };
    }

    /// Logs and counts the end, once.
    pub(super) fn report(&mut self) {
        let Some(ended) = self.about.ended.take() else {
            return;
        };
        Figures::disconnected(ended.label());
        let about = &self.about;
        let lasted_ms = about.since.elapsed().as_millis() as u64;
        let (user, device) = (about.user.as_ref(), about.device.as_ref());
        if let (Some(user), Some(device)) = (user, device) {
            self.shared.tell(|| What::Disconnected {
                user: user.clone(),
                device: device.clone(),
                peer: self.traffic.peer(),
                reason: ended.label(),
                lasted_ms,
            });
        }
        // A reason that a client's developer or the operator may want to look into.
        let is_notable = matches!(
            ended,
            Ended::Server(
                CloseReason::ProtocolError
                    | CloseReason::InvalidUtf8
                    | CloseReason::UnsupportedData
                    | CloseReason::TooLarge
                    | CloseReason::TooManyErrors
                    | CloseReason::SlowConsumer
                    | CloseReason::Overloaded
                    | CloseReason::Internal
            )
        );
        if is_notable {
            info!(peer = ?self.traffic.peer(), ?user, ?device, session = %about.session, reason = ended.label(), lasted_ms, "connection closed");
        } else {
            debug!(peer = ?self.traffic.peer(), ?user, ?device, session = %about.session, reason = ended.label(), detail = ?ended, lasted_ms, "connection closed");
        }
    }
}
