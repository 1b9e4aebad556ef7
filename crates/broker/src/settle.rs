//! Futures that are usually ready: carry on at once if so, later if not.
//!
//! The store answers most calls from memory. Going through the executor for
//! those would cost a task each and reorder what belongs together.

use std::future::Future;

use futures_util::FutureExt;
use stonechat_actors::{Ctx, Supervised};

/// Polls `work` once; runs `then` now when it is ready, and when it becomes ready otherwise.
pub(crate) fn settle<A: Supervised, T: 'static>(
    actor: &mut A,
    ctx: &mut Ctx<A>,
    work: impl Future<Output = T> + Unpin + 'static,
    then: impl FnOnce(&mut A, T, &mut Ctx<A>) + 'static,
) {
    let mut work = work;
    match (&mut work).now_or_never() {
        Some(done) => then(actor, done, ctx),
        None => ctx.spawn_then(work, then),
    }
}
