//! What an operator may do to one actor: restart it, or stop it.
//!
//! Both are asked for and take effect after the turn under way; neither waits.
//! Whoever holds a part of the program together cannot be stopped from here.

use std::sync::Arc;

use crate::{
    ActorId, Tree,
    cell::Node,
    reason::ExitReason,
    spec::{Restart, Strategy},
};

/// An actor could not be restarted or stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SteerError {
    /// No live node has this id.
    #[error("no live actor has this id: take a fresh tree snapshot")]
    NotFound,
    /// A supervisor has no state of its own to restart, and stopping it would stop all below.
    #[error("this is a supervisor: restart or stop the actors below it")]
    Supervisor,
    /// Nobody would start it again, and others need it.
    #[error("the program needs this actor: it can be restarted, not stopped")]
    Essential,
    /// It is never started again, so a restart would be an end.
    #[error("this actor is not restarted when it ends: stop it if that is meant")]
    Temporary,
}

impl Tree {
    fn actor(&self, id: ActorId) -> Result<Arc<dyn Node>, SteerError> {
        if self.root().id() == id {
            return Err(SteerError::Supervisor);
        }
        let node = self.root().node.find_id(id).ok_or(SteerError::NotFound)?;
        if node.core().is_none() {
            return Err(SteerError::Supervisor);
        }
        Ok(node)
    }

    /// Ends the current generation of an actor; its supervisor starts the next one.
    ///
    /// It is no failure: it counts neither towards the actor's intensity nor its back-off, however often it
    /// is done. The inbox stays.
    pub fn restart_actor(&self, id: ActorId, why: &str) -> Result<(), SteerError> {
        let node = self.actor(id)?;
        let restart = node.core().map(|core| core.policy.restart);
        if restart == Some(Restart::Temporary) {
            return Err(SteerError::Temporary);
        }
        node.stop(&Arc::new(ExitReason::Restarted(why.to_owned())));
        Ok(())
    }

    /// Ends an actor for good. Only one among many: a child of a [`Strategy::Dynamic`] supervisor.
    pub fn stop_actor(&self, id: ActorId) -> Result<(), SteerError> {
        let node = self.actor(id)?;
        let strategy = node.core().map(|core| core.sup.spec.strategy);
        if strategy != Some(Strategy::Dynamic) {
            return Err(SteerError::Essential);
        }
        node.stop(&Arc::new(ExitReason::Shutdown));
        Ok(())
    }
}
