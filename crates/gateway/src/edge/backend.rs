//! What a connection needs of the node behind it: sign-in and a way to hand
//! frames on.
//!
//! The trait exists so that connections can be tested against a script; the
//! node's own backend is the broker with the authenticator. Nothing is decided
//! here.

use std::rc::Rc;
use std::sync::Arc;

use actix_rt::Arbiter;
use futures_util::future::LocalBoxFuture;
use stonechat_broker::{
    Attach, AttachError, Broker, Drain, Input, InputError, Offered, OutletLimits, SessionLink,
    Traffic, outlet,
};
use stonechat_protocol::{CloseReason, DeviceId, ErrorCode, Seq, UserId};

use crate::auth::{AuthError, Authenticator};

/// A client that never got a place may try again after this, in milliseconds.
pub(crate) const RETRY_AFTER_MS: u64 = 1_000;

/// What `hello` said.
pub(crate) struct SignIn {
    pub(crate) token: Box<str>,
    pub(crate) device: DeviceId,
    pub(crate) ack: Option<Seq>,
    pub(crate) rev: Option<u64>,
    pub(crate) outlet: OutletLimits,
    pub(crate) traffic: Arc<Traffic>,
}

/// A device is connected.
pub(crate) struct SignedIn<L> {
    pub(crate) user: UserId,
    pub(crate) link: L,
    pub(crate) drain: Drain,
    pub(crate) session: String,
    pub(crate) pending: u64,
}

/// A sign-in did not work out: what to say before closing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// For an `error` frame; none when `bye` says it all.
    pub(crate) code: Option<ErrorCode>,
    pub(crate) reason: CloseReason,
    pub(crate) retry_after_ms: Option<u64>,
    /// For the log, never for the client.
    pub(crate) why: String,
}

/// What became of a frame that was handed on.
pub(crate) enum Handed {
    /// It was taken, or the session is gone.
    Now(Result<(), InputError>),
    /// The session is busy: nothing more is read until this is done.
    Later(LocalBoxFuture<'static, Result<(), InputError>>),
}

/// The node, seen from a connection.
pub(crate) trait Backend: Send + Sync + 'static {
    /// Dropping it detaches the device.
    type Link: 'static;

    /// Checks the token and connects the device.
    fn sign_in(
        &self,
        request: SignIn,
    ) -> LocalBoxFuture<'static, Result<SignedIn<Self::Link>, Refused>>;

    /// Hands a frame on.
    fn input(link: &Rc<Self::Link>, input: Input) -> Handed;

    /// Whether the node takes no new sessions.
    fn is_draining(&self) -> bool;

    /// Connections a user has.
    fn connections_of(&self, user: &UserId) -> usize;
}

/// The broker and the authenticator.
pub(crate) struct Node {
    pub(crate) broker: Broker,
    pub(crate) auth: Authenticator,
}

impl Backend for Node {
    type Link = SessionLink;

    fn sign_in(
        &self,
        request: SignIn,
    ) -> LocalBoxFuture<'static, Result<SignedIn<SessionLink>, Refused>> {
        let (broker, auth) = (self.broker.clone(), self.auth.clone());
        Box::pin(async move {
            let SignIn { token, device, .. } = request;
            let user = auth
                .authenticate(&token, &device)
                .await
                .map_err(|error| not_authenticated(&error))?;
            let (outlet, drain) = outlet(request.outlet);
            let attach = Attach {
                user: user.clone(),
                device: device.clone(),
                outlet,
                home: Arbiter::current(),
                ack: request.ack,
                rev: request.rev,
                traffic: request.traffic,
            };
            let attached = broker.attach(attach).await;
            let attached = attached.map_err(|error| not_attached(&error, broker.is_draining()))?;
            // Whoever revoked the token in between found no connection to close.
            auth.authenticate(&token, &device)
                .await
                .map_err(|error| not_authenticated(&error))?;
            Ok(SignedIn {
                user,
                link: attached.link,
                drain,
                session: attached.session_id,
                pending: attached.pending,
            })
        })
    }

    fn input(link: &Rc<SessionLink>, input: Input) -> Handed {
        match link.offer(input) {
            Ok(()) => Handed::Now(Ok(())),
            Err(Offered::Gone) => Handed::Now(Err(InputError::Gone)),
            Err(Offered::Full(untaken)) => {
                let link = Rc::clone(link);
                Handed::Later(Box::pin(async move { link.wait(untaken).await }))
            }
        }
    }

    fn is_draining(&self) -> bool {
        self.broker.is_draining()
    }

    fn connections_of(&self, user: &UserId) -> usize {
        self.broker.connected_devices(user).len()
    }
}

fn not_authenticated(error: &AuthError) -> Refused {
    let why = error.to_string();
    match error {
        AuthError::Unauthorized(_) => Refused {
            code: Some(ErrorCode::Unauthorized),
            reason: CloseReason::Unauthorized,
            retry_after_ms: None,
            why,
        },
        AuthError::Unavailable => Refused {
            code: Some(ErrorCode::StorageUnavailable),
            reason: CloseReason::Overloaded,
            retry_after_ms: Some(RETRY_AFTER_MS),
            why,
        },
    }
}

fn not_attached(error: &AttachError, draining: bool) -> Refused {
    let why = error.to_string();
    let (code, reason, retry_after_ms) = match error {
        // The token was good and the account is gone: to the client it is all one.
        AttachError::UnknownUser => (
            Some(ErrorCode::Unauthorized),
            CloseReason::Unauthorized,
            None,
        ),
        AttachError::TooManyDevices(_) => (
            Some(ErrorCode::TooManyDevices),
            CloseReason::TooManyDevices,
            None,
        ),
        AttachError::Overloaded { retry_after_ms } if draining => {
            (None, CloseReason::Shutdown, Some(*retry_after_ms))
        }
        AttachError::Overloaded { retry_after_ms } => {
            (None, CloseReason::Overloaded, Some(*retry_after_ms))
        }
        AttachError::Internal => (
            Some(ErrorCode::Internal),
            CloseReason::Internal,
            Some(RETRY_AFTER_MS),
        ),
    };
    Refused {
        code,
        reason,
        retry_after_ms,
        why,
    }
}
