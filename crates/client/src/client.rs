//! The two halves an application holds: [`Client`] to act, [`Events`] to listen.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use serde::Serialize;
use stonechat_protocol::{Accepted, MessageId, Seq, TraceParent, UserId, Welcome};
use tokio::sync::oneshot;

use crate::builder::ClientBuilder;
use crate::engine::{Engine, Outcome, OutgoingSend, encode_body};
use crate::error::{AckError, ReadError, Refused, SendError, Terminal};
use crate::event::Event;
use crate::resume::ResumeState;
use crate::shared::{Shared, Status};

/// When a message counts as handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckMode {
    /// When the application asks for the event after it: each message is handled at least
    /// once, even over a crash of the application.
    #[default]
    OnNext,
    /// When the application says so with [`Client::ack`]. The server sends at most its
    /// `unacked_max` messages ahead.
    Manual,
}

/// What may be said about a send beyond recipient and body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// Seconds the message may wait for its recipient; the server's limit caps it.
    pub ttl_s: Option<u64>,
    /// Deliver to whoever is connected now, store nothing, send once.
    pub ephemeral: bool,
    /// The id, where the application needs to know it beforehand. Must be above every id
    /// this device has used.
    pub id: Option<MessageId>,
    /// Where in a trace of the application's own the message belongs. After a restart with a
    /// stored state it is sent again without.
    pub traceparent: Option<TraceParent>,
}

/// Ends the client when the application holds neither half any more.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.with_wake(Engine::close);
    }
}

/// Sends, marks as read, acknowledges, closes. Cheap to clone.
///
/// When the last clone and the [`Events`] are dropped the client closes in the background,
/// as by [`Client::close`].
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("status", &*self.shared().status.borrow())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Sets up a client for the server at `url` (`ws://HOST:PORT` or `wss://HOST:PORT`) as
    /// the device of this name.
    pub fn builder(url: impl Into<String>, device: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(url, device)
    }

    pub(crate) fn new(shared: Arc<Shared>, ack_mode: AckMode) -> (Self, Events) {
        let handle = Arc::new(Handle { shared });
        let client = Self {
            handle: Arc::clone(&handle),
        };
        let events = Events {
            handle,
            ack_mode,
            in_hand: None,
        };
        (client, events)
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// Waits until signed in.
    ///
    /// # Errors
    /// [`Terminal`] when the client ended first.
    pub async fn ready(&self) -> Result<Welcome, Terminal> {
        let mut status = self.shared().status.subscribe();
        let reached = status
            .wait_for(|status| !matches!(status, Status::Offline))
            .await;
        match reached.as_deref() {
            Ok(Status::Online(welcome)) => Ok(Welcome::clone(welcome)),
            Ok(Status::Ended(terminal)) => Err(terminal.clone()),
            Ok(Status::Offline) | Err(_) => Err(Terminal::Closed),
        }
    }

    /// Sends a message. Returns once it is queued: when 64 sends are unanswered this waits for
    /// an answer, so a fast application is slowed down to what the server takes. The returned
    /// [`Sent`] is a future of the answer.
    ///
    /// While not connected the message waits; it is sent, and sent again after a broken
    /// connection, until it is answered, and the server takes it once.
    ///
    /// # Errors
    /// [`SendError`]; then nothing was queued.
    pub async fn send(&self, to: &UserId, body: impl Serialize) -> Result<Sent, SendError> {
        self.send_with(to, body, SendOptions::default()).await
    }

    /// [`Client::send`] with options.
    ///
    /// # Errors
    /// [`SendError`]; then nothing was queued.
    pub async fn send_with(
        &self,
        to: &UserId,
        body: impl Serialize,
        options: SendOptions,
    ) -> Result<Sent, SendError> {
        let send = outgoing(to, &body, options)?;
        match self.shared().slots.acquire().await {
            Ok(slot) => slot.forget(),
            Err(_) => return Err(SendError::Ended(self.shared().terminal())),
        }
        self.submit(send, options.id)
    }

    /// [`Client::send_with`], but gives up at once where that would wait.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::Full`] when 64 sends are unanswered.
    pub fn try_send(
        &self,
        to: &UserId,
        body: impl Serialize,
        options: SendOptions,
    ) -> Result<Sent, SendError> {
        let send = outgoing(to, &body, options)?;
        match self.shared().slots.try_acquire() {
            Ok(slot) => slot.forget(),
            Err(tokio::sync::TryAcquireError::NoPermits) => return Err(SendError::Full),
            Err(tokio::sync::TryAcquireError::Closed) => {
                return Err(SendError::Ended(self.shared().terminal()));
            }
        }
        self.submit(send, options.id)
    }

    fn submit(&self, send: OutgoingSend, id: Option<MessageId>) -> Result<Sent, SendError> {
        let (id, answer) = self.shared().submit(send, id)?;
        Ok(Sent { id, answer })
    }

    /// Says that the user has read a message of `from`, and with it all before. Only the latest
    /// mark of a conversation is kept; it is repeated until a sign came that it arrived.
    ///
    /// # Errors
    /// [`ReadError`] when marks of 1,024 conversations wait, or the client has ended.
    pub fn read(&self, from: &UserId, id: MessageId) -> Result<(), ReadError> {
        self.shared()
            .with_wake(|engine, _| engine.read(from.clone(), id))
    }

    /// Acknowledges everything up to `seq`: the server may forget it. It is told a little
    /// later, together with others.
    ///
    /// # Errors
    /// [`AckError`] when `seq` was not handed out by [`Events::next`].
    pub fn ack(&self, seq: Seq) -> Result<(), AckError> {
        self.shared()
            .with_wake(|engine, now_ms| engine.ack(seq, now_ms))
    }

    /// Where this client stands, to be kept for a restart of the application.
    pub fn resume_state(&self) -> ResumeState {
        self.shared().with(|engine, _| engine.resume_state())
    }

    /// Closes: takes no more sends, waits for the answers to those on their way (at most
    /// `Tuning::close_ms_max`, and not at all while disconnected), acknowledges what was
    /// handled, says goodbye. Returns where the client stands then.
    pub async fn close(&self) -> ResumeState {
        self.shared().with_wake(Engine::close);
        let mut finished = self.shared().finished.subscribe();
        // The sender is in `shared`, which outlives this.
        let _ = finished.wait_for(|finished| *finished).await;
        self.resume_state()
    }
}

fn outgoing(
    to: &UserId,
    body: &impl Serialize,
    options: SendOptions,
) -> Result<OutgoingSend, SendError> {
    Ok(OutgoingSend {
        to: to.clone(),
        body: encode_body(body)?,
        ttl_s: options.ttl_s,
        ephemeral: options.ephemeral,
        traceparent: options.traceparent,
    })
}

/// A send on its way; await it for the server's answer.
///
/// Dropping it changes nothing about the send.
#[derive(Debug)]
pub struct Sent {
    id: MessageId,
    answer: oneshot::Receiver<Outcome>,
}

impl Sent {
    /// The id of the message, by which receipts name it.
    pub fn id(&self) -> MessageId {
        self.id
    }
}

impl Future for Sent {
    type Output = Result<Accepted, Refused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(cx).map(|answer| {
            // Every send is answered, at the end of the client at the latest; what is left is
            // the runtime being torn down.
            answer.unwrap_or(Err(Refused::Ended(Terminal::Closed)))
        })
    }
}

/// What happens, in order.
///
/// Dropping it leaves the messages that follow unacknowledged in the mailbox; sending goes on.
pub struct Events {
    handle: Arc<Handle>,
    ack_mode: AckMode,
    /// The last message handed out, handled once the next event is asked for.
    in_hand: Option<Seq>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("ack_mode", &self.ack_mode)
            .finish_non_exhaustive()
    }
}

impl Events {
    /// The next event; `None` after [`Event::Terminal`]. Asking means that the one before is
    /// handled: unless in [`AckMode::Manual`] it is acknowledged. Safe to cancel.
    pub async fn next(&mut self) -> Option<Event> {
        self.handled();
        loop {
            if let Some(event) = self.try_take() {
                return Some(event);
            }
            let shared = &self.handle.shared;
            let over = shared.with(|engine, _| engine.ended().is_some() && !engine.has_event());
            if over {
                return None;
            }
            shared.events.notified().await;
        }
    }

    /// Like [`Events::next`], without waiting.
    pub fn try_next(&mut self) -> Option<Event> {
        self.handled();
        self.try_take()
    }

    fn handled(&mut self) {
        let seq = self
            .in_hand
            .take()
            .filter(|_| self.ack_mode == AckMode::OnNext);
        let is_due = self.handle.shared.with(|engine, now_ms| {
            let confirmed = engine.confirm_receipts(now_ms);
            seq.is_some_and(|seq| engine.ack(seq, now_ms).is_ok()) || confirmed
        });
        if is_due {
            self.handle.shared.wake.notify_one();
        }
    }

    fn try_take(&mut self) -> Option<Event> {
        let event = self.handle.shared.with(|engine, _| engine.take_event())?;
        if let Event::Message(message) = &event
            && message.seq != 0
        {
            self.in_hand = Some(message.seq);
        }
        Some(event)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.handle.shared.with(|engine, _| engine.mute());
    }
}
