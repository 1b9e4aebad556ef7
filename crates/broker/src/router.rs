//! The router: decides where a device's session is, starts and ends sessions.
//!
//! It owns the registry; others read it. Messages do not pass through here.
//!
//! A session that has been empty for a while asks to end. A connect may be on
//! its way to it at that moment, so the request carries how many connects the
//! session has seen, and the router, through which all connects go, ends it
//! only when that is all of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_rt::ArbiterHandle;
use stonechat_actors::{
    ActorRef, Ask, ChildSpec, Ctx, Down, ExitReason, Handle, Restart, Supervised,
};
use stonechat_mailbox::MailboxRef;
use stonechat_protocol::{CloseReason, UserId};

use crate::AttachError;
use crate::figures::FIGURES;
use crate::registry::{Anchor, Entry};
use crate::session::{Connect, Session};
use crate::shared::{Shared, now_ms};

/// Told to clients that could not be taken, milliseconds.
pub(crate) const RETRY_AFTER_MS: u64 = 1_000;

/// Panics of one session's handlers tolerated in [`SESSION_CRASHES_WITHIN`]. More than a
/// poisonous message needs to be put away, and for some of them in a row.
const SESSION_CRASHES_MAX: u32 = 20;
const SESSION_CRASHES_WITHIN: Duration = Duration::from_secs(60);
/// Messages that may wait for a session.
const SESSION_INBOX: u32 = 1024;

/// The router.
pub(crate) struct Router {
    shared: Arc<Shared>,
}

impl Router {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn start_session(
        &mut self,
        user: &UserId,
        mailbox: MailboxRef,
        home: &ArbiterHandle,
        ctx: &mut Ctx<Self>,
    ) -> Result<Entry, AttachError> {
        if self.shared.draining.load(Ordering::Acquire)
            || self.shared.registry.len() >= self.shared.config.sessions_max
        {
            return Err(AttachError::Overloaded {
                retry_after_ms: RETRY_AFTER_MS,
            });
        }
        let anchor = Arc::new(Anchor::new(user.clone(), mailbox));
        let spec = ChildSpec::new(user.as_str())
            .restart(Restart::Transient)
            .intensity(SESSION_CRASHES_MAX, SESSION_CRASHES_WITHIN)
            .inbox_capacity(SESSION_INBOX)
            .escalate(false);
        let (shared, held) = (Arc::clone(&self.shared), Arc::clone(&anchor));
        let session = self
            .shared
            .sessions
            .start_child(spec, home, move |_| {
                Session::new(Arc::clone(&shared), Arc::clone(&held))
            })
            .map_err(|error| {
                tracing::warn!(%user, %error, "a session could not be started");
                AttachError::Overloaded {
                    retry_after_ms: RETRY_AFTER_MS,
                }
            })?;
        session
            .monitor(ctx.myself().recipient::<Down>())
            .map_err(|error| {
                tracing::error!(%user, %error, "a session could not be watched");
                session.stop(ExitReason::Shutdown);
                AttachError::Internal
            })?;
        FIGURES.sessions_started.increment(1);
        let entry = Entry { session, anchor };
        self.shared.registry.insert(user.clone(), entry.clone());
        Ok(entry)
    }
}

impl Supervised for Router {
    const KIND: &'static str = "router";

    fn started(&mut self, ctx: &mut Ctx<Self>) {
        if ctx.generation() > 1 {
            // Monitors and what waits in the inbox survive a restart; the `Down` that was
            // being handled does not.
            for entry in self.shared.registry.all() {
                if !entry.session.is_alive() {
                    self.bury(&entry.anchor.user, &entry.session);
                }
            }
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({
            "sessions": self.shared.registry.len(),
            "draining": self.shared.draining.load(Ordering::Relaxed),
        })
    }
}

impl Router {
    fn bury(&self, user: &UserId, session: &ActorRef<Session>) {
        if let Some(entry) = self.shared.registry.remove(user, session) {
            // Whoever is still connected would wait for a session that is gone.
            let closed = entry
                .anchor
                .close(None, CloseReason::Internal, Some(RETRY_AFTER_MS));
            let slots = std::mem::take(&mut *entry.anchor.slots.lock());
            self.shared
                .devices
                .fetch_sub(slots.len() as u64, Ordering::SeqCst);
            for slot in slots {
                // Or what they were sent could not be acknowledged when they are back.
                let sent = slot.sent.load(Ordering::Acquire);
                let mailbox = &entry.anchor.mailbox;
                self.shared
                    .store
                    .detach(mailbox, &slot.device, sent, now_ms());
            }
            if closed > 0 {
                tracing::warn!(%user, connections = closed, "connections closed after their session ended");
            }
        }
    }
}

/// Passes a connect on to the user's session, starting it if need be.
pub(crate) struct Route {
    pub(crate) mailbox: MailboxRef,
    /// Where a new session will live.
    pub(crate) arbiter: ArbiterHandle,
    /// The number of the dispatcher there.
    pub(crate) home: u32,
    pub(crate) connect: Connect,
}

impl Ask<Route> for Router {
    type Reply = Result<(), AttachError>;

    fn ask(&mut self, route: Route, ctx: &mut Ctx<Self>) -> Self::Reply {
        let Route {
            mailbox,
            arbiter,
            home,
            mut connect,
        } = route;
        let user = mailbox.user().clone();
        // Twice: the session found may be ending at this moment.
        for _ in 0..2 {
            let entry = match self.shared.registry.get(&user) {
                Some(entry) => entry,
                None => {
                    // Before the session can look at the mailbox: see `sink`.
                    mailbox.set_home(home);
                    self.start_session(&user, Arc::clone(&mailbox), &arbiter, ctx)?
                }
            };
            match entry.session.try_tell(connect) {
                Ok(()) => {
                    entry.anchor.connects.fetch_add(1, Ordering::AcqRel);
                    return Ok(());
                }
                Err(refused) if refused.is_full() => {
                    return Err(AttachError::Overloaded {
                        retry_after_ms: RETRY_AFTER_MS,
                    });
                }
                Err(gone) => {
                    connect = gone.into_inner();
                    self.bury(&user, &entry.session);
                }
            }
        }
        Err(AttachError::Internal)
    }
}

/// A session has been without devices for its linger time.
pub(crate) struct Idle {
    pub(crate) user: UserId,
    pub(crate) session: ActorRef<Session>,
    /// Connects the session has handled.
    pub(crate) connects: u32,
}

impl Handle<Idle> for Router {
    fn handle(&mut self, idle: Idle, _ctx: &mut Ctx<Self>) {
        let all_seen = self.shared.registry.with(&idle.user, |entry| {
            entry.session.id() == idle.session.id()
                && entry.anchor.connects.load(Ordering::Acquire) == idle.connects
        });
        if all_seen == Some(true) {
            self.shared.registry.remove(&idle.user, &idle.session);
            idle.session.stop(ExitReason::Normal);
        }
    }
}

impl Handle<Down> for Router {
    fn handle(&mut self, down: Down, _ctx: &mut Ctx<Self>) {
        let Ok(user) = UserId::new(&down.name) else {
            return;
        };
        let gone = self
            .shared
            .registry
            .get(&user)
            .filter(|entry| entry.session.id() == down.id);
        if let Some(entry) = gone {
            self.bury(&user, &entry.session);
        }
    }
}

/// Fault injection.
pub(crate) struct Panic;

impl Handle<Panic> for Router {
    fn handle(&mut self, _: Panic, _: &mut Ctx<Self>) {
        panic!("injected into the router");
    }
}
