//! Telling sessions things, and remembering those that could not be told.
//!
//! What sessions are told is a hint: the truth is in the store. One whose inbox
//! was full is told later to look there, and nothing else is kept for it.

use std::collections::HashSet;
use std::sync::Arc;

use stonechat_actors::Handle;
use stonechat_protocol::UserId;

use crate::registry::Anchor;
use crate::session::{Resync, Session};
use crate::shared::Shared;

/// Users whose session has to look into the store.
pub(crate) struct Lagging {
    shared: Arc<Shared>,
    users: HashSet<UserId>,
}

impl Lagging {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            users: HashSet::new(),
        }
    }

    /// Tells a user's session, if there is one.
    pub(crate) fn tell<M: Send + 'static>(&mut self, user: &UserId, message: M)
    where
        Session: Handle<M>,
    {
        self.tell_unless(user, message, |_| false);
    }

    /// Tells a user's session, and leaves it asleep over the message if it `may_wait`.
    pub(crate) fn tell_unless<M: Send + 'static>(
        &mut self,
        user: &UserId,
        message: M,
        may_wait: impl FnOnce(&Anchor) -> bool,
    ) where
        Session: Handle<M>,
    {
        let told = self.shared.registry.with(user, |entry| {
            entry
                .session
                .try_tell_lazily(message, || may_wait(&entry.anchor))
                .map_err(|refused| refused.is_full())
        });
        if told == Some(Err(true)) {
            self.users.insert(user.clone());
        }
    }

    /// All sessions that `concerned` picks missed something.
    pub(crate) fn add_all(&mut self, concerned: impl Fn(&Anchor) -> bool) {
        for entry in self.shared.registry.all() {
            if concerned(&entry.anchor) {
                self.users.insert(entry.anchor.user.clone());
            }
        }
    }

    /// Has the sessions look into the store; those that are still full stay.
    pub(crate) fn resync(&mut self) {
        let shared = &self.shared;
        self.users.retain(|user| {
            let told = shared.registry.with(user, |entry| {
                entry
                    .session
                    .try_tell(Resync)
                    .map_err(|refused| refused.is_full())
            });
            told == Some(Err(true))
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.users.len()
    }
}
