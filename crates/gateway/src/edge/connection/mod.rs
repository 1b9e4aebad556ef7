//! One WebSocket connection: a task that owns a socket and nothing of the
//! HTTP machinery that opened it.
//!
//! A hand-driven state machine, because at rest it is to cost next to nothing:
//! no buffer, no pending future, one timer. What is rare (sign-in, a session
//! too busy to take a frame) is boxed while it lasts; scratch buffers belong to
//! the thread. It decides nothing about delivery: frames go to the session as
//! [`stonechat_broker::Input`], what comes back is written.
//!
//! Bounds: input is not read while the session is busy, during the sign-in, or
//! while the connection's own answers wait to be written beyond
//! [`UNSENT_BYTES_MAX`]; what the session may queue is bounded by the outlet;
//! a write, the sign-in, silence and the closing each have a deadline.

mod ending;
mod inbound;
mod outbound;
mod scratch;

use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use stonechat_broker::{Drain, InputError};
use stonechat_protocol::{CloseReason, DeviceId, UserId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

use self::ending::{Closing, Ended};
use self::inbound::Read;
use self::outbound::Writer;
use super::backend::{Backend, RETRY_AFTER_MS, Refused, SignedIn};
use super::frame::FrameReader;
use super::frame_out::put_ping;
use super::latency::Waiting;
use super::peers::Counted;
use super::shared::Place;

/// The connection's own answers (errors, pongs) that may wait before reading stops, in bytes.
const UNSENT_BYTES_MAX: usize = 64 * 1024;

/// Rounds of reading and writing before other tasks of the thread get a turn.
const ROUNDS_PER_POLL_MAX: usize = 8;

/// How often a connection that has not said hello looks whether the node is draining. A
/// connected one hears it from its session.
const DRAIN_LOOK: Duration = Duration::from_millis(500);

/// The server closes a silent connection after this many heartbeats.
const HEARTBEATS_MISSED_MAX: u32 = 3;

/// What the upgrade hands over.
pub(crate) struct Opened<S> {
    pub(crate) io: S,
    pub(crate) peer: Option<SocketAddr>,
    /// The response to the upgrade request, to be written first.
    pub(crate) response: Vec<u8>,
    /// What had been read behind the request: the client's first frames.
    pub(crate) already_read: Vec<u8>,
    /// From the `Authorization` header.
    pub(crate) token: Option<Box<str>>,
    /// Counts the connection among its peer's until it has signed in.
    pub(crate) counted: Counted,
}

/// One connection. Awaiting it serves it until it ends; a panic in it says `bye` to the
/// client as well as can be done, and goes on to whoever supervises the task.
pub(crate) struct Connection<S, B: Backend> {
    io: S,
    reader: FrameReader,
    /// The reader holds frames that were not looked at because reading was to stop.
    stalled: bool,
    timer: Pin<Box<Sleep>>,
    timer_at: Instant,
    core: Core<B>,
}

/// Everything but the socket and what is read from it.
struct Core<B: Backend> {
    shared: Place<B>,
    phase: Phase<B::Link>,
    writer: Writer,
    /// Sends that are not answered yet.
    waiting: Waiting,
    /// When the client was last heard of, or pinged: the heartbeat runs from here.
    last_beat: Instant,
    pings_unheard: u32,
    errors_in_a_row: u16,
    about: Box<About>,
}

/// For the log, and what is rarely looked at.
struct About {
    peer: Option<SocketAddr>,
    user: Option<UserId>,
    device: Option<DeviceId>,
    since: Instant,
    ended: Option<Ended>,
    counted: Counted,
}

enum Phase<L> {
    AwaitHello {
        token: Option<Box<str>>,
        until: Instant,
        look: Instant,
    },
    SigningIn {
        work: LocalBoxFuture<'static, Result<SignedIn<L>, Refused>>,
        until: Instant,
    },
    Open {
        link: Rc<L>,
        drain: Drain,
        /// A frame the session has not taken yet.
        busy: Option<LocalBoxFuture<'static, Result<(), InputError>>>,
    },
    Closing {
        step: Closing,
        until: Instant,
    },
    Gone,
}

impl<S, B> Connection<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Backend,
{
    /// A connection that is to be driven on the current thread.
    pub(crate) fn new(opened: Opened<S>, shared: Place<B>) -> Self {
        let now = Instant::now();
        let until = now + Duration::from_millis(shared.config.auth_deadline_ms);
        let look = until.min(now + DRAIN_LOOK);
        let mut reader = FrameReader::new(shared.config.limits.frame_bytes_max);
        let stalled = !opened.already_read.is_empty();
        reader.preload(opened.already_read);
        Self {
            io: opened.io,
            reader,
            stalled,
            timer: Box::pin(sleep_until(look)),
            timer_at: look,
            core: Core {
                phase: Phase::AwaitHello {
                    token: opened.token,
                    until,
                    look,
                },
                writer: Writer::new(
                    opened.response,
                    Duration::from_millis(shared.config.write_deadline_ms),
                ),
                shared,
                waiting: Waiting::default(),
                last_beat: now,
                pings_unheard: 0,
                errors_in_a_row: 0,
                about: Box::new(About {
                    peer: opened.peer,
                    user: None,
                    device: None,
                    since: now,
                    ended: None,
                    counted: opened.counted,
                }),
            },
        }
    }

    /// Buffers held at the moment, in bytes.
    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.reader.heap_bytes() + self.core.writer.heap_bytes()
    }

    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..ROUNDS_PER_POLL_MAX {
            let again = if matches!(self.core.phase, Phase::Closing { .. }) {
                self.poll_closing(cx);
                false
            } else {
                let read = self.poll_read(cx);
                self.core.poll_sign_in(cx);
                self.core.poll_busy(cx);
                self.core.poll_write(&mut self.io, cx);
                if self.core.is_struck() {
                    panic!("injected panic in a connection");
                }
                self.core.is_closing() || (read != Read::Blocked && self.core.wants_read())
            };
            if matches!(self.core.phase, Phase::Gone) {
                self.core.report();
                return Poll::Ready(());
            }
            if !(self.keep_time(cx) || again) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Acts on deadlines and sees to it that the task is woken for the next one. The timer
    /// is set back only when it fires or something is due earlier, not for each frame.
    fn keep_time(&mut self, cx: &mut Context<'_>) -> bool {
        let mut acted = false;
        loop {
            let due = self.core.due();
            if due < self.timer_at {
                self.set_timer(due);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return acted;
            }
            let now = Instant::now();
            if now >= due {
                self.core.on_due(now);
                acted = true;
                if matches!(self.core.phase, Phase::Gone) {
                    return acted;
                }
            }
            self.set_timer(self.core.due());
        }
    }

    fn set_timer(&mut self, at: Instant) {
        self.timer.as_mut().reset(at);
        self.timer_at = at;
    }
}

impl<S, B> Future for Connection<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Backend,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        match catch_unwind(AssertUnwindSafe(|| this.drive(cx))) {
            Ok(progress) => progress,
            Err(panic) => {
                // What the panic left behind is suspect: even this may panic.
                let _ = catch_unwind(AssertUnwindSafe(|| this.give_up(cx)));
                resume_unwind(panic)
            }
        }
    }
}

// Nothing in it is pinned structurally: the timer and the futures are boxed.
impl<S, B: Backend> Unpin for Connection<S, B> {}

impl<B: Backend> Core<B> {
    fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. } | Phase::Gone)
    }

    /// Whether more input can be handled now.
    fn wants_read(&self) -> bool {
        let ready = matches!(
            self.phase,
            Phase::AwaitHello { .. } | Phase::Open { busy: None, .. }
        );
        ready && self.writer.queued_bytes() < UNSENT_BYTES_MAX
    }

    /// Whether the operator asked for a panic here.
    fn is_struck(&self) -> bool {
        self.shared.fault.strikes(self.about.user.as_ref())
    }

    fn heard(&mut self, now: Instant) {
        self.last_beat = now;
        self.pings_unheard = 0;
    }

    fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.shared.config.heartbeat_ms)
    }

    /// When something has to happen.
    fn due(&self) -> Instant {
        let phase = match &self.phase {
            Phase::AwaitHello { look, .. } => *look,
            Phase::SigningIn { until, .. } | Phase::Closing { until, .. } => *until,
            Phase::Open { .. } | Phase::Gone => self.last_beat + self.heartbeat(),
        };
        match self.writer.blocked_until() {
            Some(blocked) if !self.is_closing() => phase.min(blocked),
            _ => phase,
        }
    }

    fn on_due(&mut self, now: Instant) {
        let stuck = self.writer.blocked_until().is_some_and(|at| at <= now);
        let draining = self.shared.is_draining();
        let retry_after_ms = self.shared.config.drain_retry_after_ms;
        let listening = self.wants_read();
        match &mut self.phase {
            Phase::Closing { .. } => self.phase = Phase::Gone,
            Phase::Gone => {}
            _ if stuck => self.close(CloseReason::SlowConsumer, None),
            Phase::AwaitHello { .. } if draining => {
                self.close(CloseReason::Shutdown, Some(retry_after_ms));
            }
            Phase::AwaitHello { until, look, .. } if now < *until => {
                *look = (now + DRAIN_LOOK).min(*until);
            }
            Phase::AwaitHello { .. } => self.close(CloseReason::AuthTimeout, None),
            Phase::SigningIn { .. } => self.close(CloseReason::Overloaded, Some(RETRY_AFTER_MS)),
            Phase::Open { .. } if !listening => {
                // The client may well have spoken; it is us who do not listen.
                self.heard(now);
            }
            Phase::Open { .. } if self.pings_unheard + 1 >= HEARTBEATS_MISSED_MAX => {
                self.close(CloseReason::HeartbeatTimeout, None);
            }
            Phase::Open { .. } => {
                // From now, not from when it was due: a thread that was held up must not
                // take its own delay for the client's silence.
                self.last_beat = now;
                self.pings_unheard += 1;
                put_ping(self.writer.own());
            }
        }
    }
}
