//! Panics in the worst of places: while stopping, while dropping, in a payload. None may abort the process.
#![allow(
    clippy::unwrap_used,
    reason = "a helper outside a test function is still a test"
)]

mod common;

use actix_rt::Arbiter;
use common::{Count, Log, Probe, SOON, act, here, soon, spec, tree, until};
use stonechat_actors::{ActorRef, Ctx, ExitReason, Handle, Restart, StartError, Supervised};

fn probe(tree: &stonechat_actors::Tree, name: &str, log: &Log) -> ActorRef<Probe> {
    let (owned, log) = (name.to_owned(), log.clone());
    tree.root()
        .start_child(spec(name), &here(), move |_| Probe::new(&owned, &log))
        .unwrap()
}

struct Explosive;

impl Supervised for Explosive {
    const KIND: &'static str = "explosive";
    fn stopping(&mut self, _ctx: &mut Ctx<Self>, _why: &ExitReason) {
        panic!("while stopping");
    }
}

impl Drop for Explosive {
    fn drop(&mut self) {
        panic!("while dropping");
    }
}

impl Handle<Bomb> for Explosive {
    fn handle(&mut self, _msg: Bomb, ctx: &mut Ctx<Self>) {
        ctx.stop(ExitReason::Normal);
    }
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a message's destructor");
        }
    }
}

struct PanickyPayload;

impl Drop for PanickyPayload {
    fn drop(&mut self) {
        std::panic::panic_any("a payload's destructor");
    }
}

#[actix_rt::test]
async fn panics_while_stopping_and_dropping_do_not_abort() {
    let tree = tree();
    // Stopped by a supervisor.
    let actor = tree
        .root()
        .start_child(spec("one"), &here(), |_| Explosive)
        .unwrap();
    until("it runs", || {
        tree.info(actor.id())
            .is_some_and(|info| info.phase == "running")
    })
    .await;
    actor.stop(ExitReason::Shutdown);
    assert!(matches!(*soon(actor.ended()).await, ExitReason::Shutdown));
    assert_eq!(
        tree.totals().panics,
        2,
        "stopping and drop, each caught and counted"
    );

    // With queued messages whose destructors panic as well.
    let actor = tree
        .root()
        .start_child(spec("two").restart(Restart::Temporary), &here(), |_| {
            Explosive
        })
        .unwrap();
    for _ in 0..10 {
        actor.try_tell(Bomb).map_err(|_| "full").unwrap();
    }
    soon(actor.ended()).await;
    assert!(
        tree.totals().panics >= 2 + 9,
        "each message's destructor was caught on its own"
    );

    // On an arbiter that ends under it.
    let arbiter = Arbiter::new();
    let actor = tree
        .root()
        .start_child(spec("three"), &arbiter.handle(), |_| Explosive)
        .unwrap();
    until("it runs", || {
        tree.info(actor.id())
            .is_some_and(|info| info.phase == "running")
    })
    .await;
    arbiter.stop();
    arbiter.join().expect("the arbiter's thread ends in order");
    assert!(matches!(
        *soon(actor.ended()).await,
        ExitReason::ArbiterGone
    ));
    assert!(matches!(
        tree.root()
            .start_child(spec("four"), &arbiter_handle_of_a_dead_one(), |_| Explosive),
        Err(StartError::ArbiterGone)
    ));

    // A panic whose payload panics when it is dropped.
    let log = Log::default();
    let actor = probe(&tree, "five", &log);
    actor
        .try_tell(act(|_, _| std::panic::panic_any(PanickyPayload)))
        .unwrap();
    assert_eq!(actor.ask(Count, SOON).await.unwrap(), 1);
    tree.shutdown(SOON).await;
}

fn arbiter_handle_of_a_dead_one() -> actix_rt::ArbiterHandle {
    let arbiter = Arbiter::new();
    let handle = arbiter.handle();
    arbiter.stop();
    arbiter.join().unwrap();
    handle
}
