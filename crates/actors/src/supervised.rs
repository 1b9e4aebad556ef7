//! The traits an actor implements. No machinery.

use std::sync::Arc;

use crate::{ActorId, ctx::Ctx, reason::ExitReason};

/// A supervised actor.
///
/// `Self` is built by its factory at every start and restart: state from before a panic is suspect, so a
/// new generation takes what it needs from the durable truth, in the factory or in [`Supervised::started`].
pub trait Supervised: Sized + Unpin + 'static {
    /// What sort of actor this is, the same for all of them: `"session"`, `"router"`.
    const KIND: &'static str;

    /// Called once for each generation, before its first message.
    fn started(&mut self, ctx: &mut Ctx<Self>) {
        let _ = ctx;
    }

    /// Called before the value is dropped, unless the generation ended by a panic. A panic in here is
    /// caught and reported; it does not stop the stopping.
    fn stopping(&mut self, ctx: &mut Ctx<Self>, why: &ExitReason) {
        let _ = (ctx, why);
    }

    /// The state, for an admin's eyes. Runs on the actor's arbiter between two messages: keep it short, and
    /// leave out message bodies and tokens.
    fn snapshot(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

/// Handles messages of type `M`, sent by `tell` and `try_tell`.
pub trait Handle<M: Send + 'static>: Supervised {
    /// Handles one message.
    fn handle(&mut self, msg: M, ctx: &mut Ctx<Self>);
}

/// Answers questions of type `M`, sent by `ask`.
pub trait Ask<M: Send + 'static>: Supervised {
    /// The answer.
    type Reply: Send + 'static;

    /// Answers one question. For answers that take time, use a message with a channel of its own.
    fn ask(&mut self, msg: M, ctx: &mut Ctx<Self>) -> Self::Reply;
}

/// What a factory is told about the generation it builds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StartInfo {
    /// The actor's id, the same for every generation.
    pub id: ActorId,
    /// 1 for the first start.
    pub generation: u32,
    /// Restarts so far.
    pub restarts: u32,
    /// Why the previous generation ended.
    pub last_exit: Option<Arc<ExitReason>>,
}

/// Builds the value of each generation, on the actor's own arbiter.
pub(crate) type Factory<A> = Box<dyn FnMut(&StartInfo) -> A + Send>;
