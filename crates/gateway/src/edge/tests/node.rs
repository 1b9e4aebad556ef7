//! A node that follows a script: the token is the user's name, and what is
//! sent to some users has its own effect.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;
use stonechat_broker::{Command, Event, Input, InputError, Outlet, outlet};
use stonechat_protocol::{Accepted, CloseReason, ErrorCode, UserId};
use tokio::sync::Notify;

use super::super::backend::{Backend, Handed, Refused, SignIn, SignedIn};

/// What the script has seen, and the switches it obeys.
#[derive(Default)]
pub(super) struct Script {
    pub(super) inputs: Mutex<Vec<Input>>,
    pub(super) sign_ins: Mutex<Vec<(Option<u64>, Option<u64>)>>,
    pub(super) outlets: Mutex<Vec<(UserId, Outlet)>>,
    pub(super) detached: AtomicUsize,
    pub(super) release: Notify,
    pub(super) draining: AtomicBool,
}

impl Script {
    pub(super) fn outlet(&self, user: &str) -> Outlet {
        let outlets = self.outlets.lock();
        let mut of_user = outlets.iter().filter(|(name, _)| name.as_str() == user);
        of_user
            .next_back()
            .expect("the user is signed in")
            .1
            .clone()
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs.lock().len()
    }
}

/// The scripted backend.
pub(super) struct Scripted(pub(super) Arc<Script>);

pub(super) struct Link {
    script: Arc<Script>,
    outlet: Outlet,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.script.detached.fetch_add(1, Ordering::SeqCst);
    }
}

fn refused(code: ErrorCode, reason: CloseReason) -> Refused {
    Refused {
        code: Some(code),
        reason,
        retry_after_ms: None,
        why: "says the script".into(),
    }
}

impl Backend for Scripted {
    type Link = Link;

    fn sign_in(&self, request: SignIn) -> LocalBoxFuture<'static, Result<SignedIn<Link>, Refused>> {
        let script = Arc::clone(&self.0);
        Box::pin(async move {
            match &*request.token {
                "wrong!" => {
                    return Err(refused(ErrorCode::Unauthorized, CloseReason::Unauthorized));
                }
                "crowd!" => {
                    return Err(refused(
                        ErrorCode::TooManyDevices,
                        CloseReason::TooManyDevices,
                    ));
                }
                "hang!" => std::future::pending().await,
                _ => {}
            }
            let user = UserId::new(&*request.token).expect("the script's tokens are names");
            let (outlet, drain) = outlet(request.outlet);
            script.sign_ins.lock().push((request.ack, request.rev));
            script.outlets.lock().push((user.clone(), outlet.clone()));
            Ok(SignedIn {
                user,
                link: Link { script, outlet },
                drain,
                session: "s1".into(),
                pending: 3,
            })
        })
    }

    fn input(link: &Rc<Link>, input: Input) -> Handed {
        let link = Rc::clone(link);
        Handed::Later(Box::pin(async move {
            let mut answer = Ok(());
            if let Some(Command::Send { id, to, .. }) = &input.command {
                match to.as_str() {
                    "wait" => link.script.release.notified().await,
                    "busy" => answer = Err(InputError::Busy),
                    "gone" => answer = Err(InputError::Gone),
                    _ => {}
                }
                let accepted = Accepted {
                    id: *id,
                    ts_ms: 1,
                    duplicate: false,
                    ephemeral: false,
                };
                let _ = link.outlet.push(Event::Accepted(accepted));
            }
            link.script.inputs.lock().push(input);
            answer
        }))
    }

    fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }

    fn connections_of(&self, user: &UserId) -> usize {
        let outlets = self.0.outlets.lock();
        outlets
            .iter()
            .filter(|(name, outlet)| name == user && outlet.is_open())
            .count()
    }
}
