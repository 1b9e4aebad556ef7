//! Ends in order, and what happens to those that will not end.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a helper outside a test function is still a test"
)]

mod common;

use std::{sync::mpsc, time::Duration};

use actix_rt::Arbiter;
use common::{Count, Log, Note, Probe, SOON, act, here, soon, spec, tree, until};
use stonechat_actors::{
    ActorRef, Ctx, Event, ExitReason, Handle, Restart, Strategy, Supervised, Supervisor, Tree,
    TreeConfig,
};

async fn start(
    sup: &Supervisor,
    name: &str,
    arbiter: &actix_rt::ArbiterHandle,
    log: &Log,
) -> ActorRef<Probe> {
    let (owned, log) = (name.to_owned(), log.clone());
    let actor = sup
        .start_child(spec(name).shutdown_deadline(SOON), arbiter, move |_| {
            Probe::new(&owned, &log)
        })
        .unwrap();
    actor.ask(Count, SOON).await.unwrap();
    actor
}

#[actix_rt::test]
async fn reverse_start_order_through_the_whole_tree() {
    let tree = tree();
    let log = Log::default();
    let arbiters = [Arbiter::new(), Arbiter::new()];
    let (x, y) = (arbiters[0].handle(), arbiters[1].handle());
    start(&tree.root(), "store", &x, &log).await;
    let inner = tree
        .supervisor(&tree.root(), "inner", Strategy::OneForAll)
        .unwrap();
    start(&inner, "router", &y, &log).await;
    start(&tree.root(), "edge", &x, &log).await;
    start(&inner, "queue", &here(), &log).await;
    log.clear();
    let report = tree.shutdown(SOON).await;
    assert_eq!(
        log.lines(),
        ["stop edge", "stop queue", "stop router", "stop store"]
    );
    assert_eq!((report.stopped, report.abandoned_total), (4, 0));
    assert!(report.is_clean());
    assert!(tree.is_closing());
}

#[actix_rt::test]
async fn a_subtree_can_be_shut_down_on_its_own() {
    let tree = tree();
    let log = Log::default();
    let sup = tree
        .supervisor(&tree.root(), "part", Strategy::Dynamic)
        .unwrap();
    for n in 0..100 {
        start(&sup, &format!("p{n}"), &here(), &log).await;
    }
    let other = start(&tree.root(), "other", &here(), &log).await;
    assert_eq!(sup.shutdown(SOON).await.stopped, 100);
    assert!(tree.find_by_name("part").is_none());
    assert_eq!(other.ask(Count, SOON).await.unwrap(), 2);
    assert!(!tree.is_closing());
    tree.shutdown(SOON).await;
}

/// Does not come back from `stopping`.
struct Clinging(std::sync::Arc<std::sync::Mutex<mpsc::Receiver<()>>>);

impl Supervised for Clinging {
    const KIND: &'static str = "clinging";
    fn stopping(&mut self, _ctx: &mut Ctx<Self>, _why: &ExitReason) {
        let _ = self.0.lock().unwrap().recv();
    }
}

impl Handle<Note> for Clinging {
    fn handle(&mut self, _msg: Note, _ctx: &mut Ctx<Self>) {}
}

#[actix_rt::test]
async fn whoever_ignores_shutdown_is_abandoned_at_the_deadline_and_named() {
    let tree = tree();
    let mut events = tree.events();
    let log = Log::default();
    let arbiters = [Arbiter::new(), Arbiter::new(), Arbiter::new()];
    let good = start(&tree.root(), "good", &arbiters[2].handle(), &log).await;
    // One hangs in a handler ...
    let handler = {
        let log = log.clone();
        let spec = spec("in handler").shutdown_deadline(Duration::from_millis(30));
        tree.root()
            .start_child(spec, &arbiters[0].handle(), move |_| {
                Probe::new("in handler", &log)
            })
            .unwrap()
    };
    let (release, gate) = mpsc::channel::<()>();
    handler.try_tell(act(move |_, _| _ = gate.recv())).unwrap();
    handler.try_tell(Note("never".into())).unwrap();
    until("it hangs", || handler.stats().handled_total == 1).await;
    // ... one in `stopping` ...
    let (release_too, gate) = mpsc::channel::<()>();
    let gate = std::sync::Arc::new(std::sync::Mutex::new(gate));
    let spec_two = spec("in stopping").shutdown_deadline(Duration::from_millis(30));
    let clinging = tree
        .root()
        .start_child(spec_two, &arbiters[1].handle(), move |_| {
            Clinging(gate.clone())
        })
        .unwrap();
    until("it runs", || {
        tree.info(clinging.id())
            .is_some_and(|info| info.phase == "running")
    })
    .await;
    // ... and one waits behind the first on the same arbiter.
    let behind = {
        let log = log.clone();
        let spec = spec("behind").shutdown_deadline(Duration::from_millis(30));
        tree.root()
            .start_child(spec, &arbiters[0].handle(), move |_| {
                Probe::new("behind", &log)
            })
            .unwrap()
    };

    let report = tree.shutdown(SOON).await;
    assert_eq!(report.abandoned, ["behind", "in stopping", "in handler"]);
    assert_eq!((report.stopped, report.abandoned_total), (1, 3));
    assert!(!report.is_clean());
    for actor in [&handler, &behind] {
        assert!(matches!(*soon(actor.ended()).await, ExitReason::Abandoned));
    }
    assert!(matches!(
        *soon(clinging.ended()).await,
        ExitReason::Abandoned
    ));
    assert!(matches!(*soon(good.ended()).await, ExitReason::Shutdown));
    assert_eq!(tree.totals().abandoned, 3);
    let mut abandoned = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let Event::Abandoned {
            name, discarded, ..
        } = event
        {
            abandoned.push((name.to_string(), discarded));
        }
    }
    assert_eq!(
        abandoned,
        [
            ("behind".into(), 0),
            ("in stopping".into(), 0),
            ("in handler".into(), 1)
        ]
    );

    // When they come back after all, they end in silence and handle nothing more.
    drop((release, release_too));
    for arbiter in arbiters {
        arbiter.stop();
        arbiter.join().unwrap();
    }
    assert!(!log.lines().contains(&"never".to_owned()));
    assert!(!log.lines().contains(&"start behind".to_owned()));
    assert_eq!(tree.totals().exited, 4, "nobody ends twice");
}

#[actix_rt::test]
async fn the_overall_deadline_cuts_the_childrens_own_short() {
    let tree = tree();
    let log = Log::default();
    let arbiter = Arbiter::new();
    let mut releases = Vec::new();
    let hour = Duration::from_secs(3600);
    for n in 0..3 {
        let log = log.clone();
        let actor = tree
            .root()
            .start_child(
                spec(&format!("s{n}")).shutdown_deadline(hour),
                &arbiter.handle(),
                move |_| Probe::new("s", &log),
            )
            .unwrap();
        let (release, gate) = mpsc::channel::<()>();
        actor.try_tell(act(move |_, _| _ = gate.recv())).unwrap();
        releases.push(release);
    }
    until("the arbiter is held", || {
        tree.snapshot().iter().any(|node| node.handled_total == 1)
    })
    .await;
    let report = tree.shutdown(Duration::from_millis(50)).await;
    assert_eq!(report.abandoned, ["s2", "s1", "s0"]);
    drop(releases);
}

#[actix_rt::test]
async fn what_waits_at_a_shutdown_is_counted_and_nothing_starts_again() {
    let tree = tree();
    let log = Log::default();
    let arbiter = Arbiter::new();
    let actor = start(&tree.root(), "a", &arbiter.handle(), &log).await;
    let (release, gate) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    actor
        .try_tell(act(move |_, _| {
            entered.send(()).unwrap();
            let _ = gate.recv();
            panic!("while the tree shuts down");
        }))
        .unwrap();
    inside.recv().unwrap();
    for n in 0..5 {
        actor.try_tell(Note(n.to_string())).unwrap();
    }
    let mut events = tree.events();
    let shutdown = {
        let tree = tree.clone();
        actix_rt::spawn(async move { tree.shutdown(SOON).await })
    };
    until("it has begun", || tree.is_closing()).await;
    drop(release);
    assert!(shutdown.await.unwrap().is_clean());
    assert_eq!(actor.stats().restarts, 0);
    assert!(soon(actor.ended()).await.is_panic());
    let Event::Crashed { .. } = events.recv().await.unwrap() else {
        panic!("not its panic")
    };
    let Event::Exited { discarded, .. } = events.recv().await.unwrap() else {
        panic!("not its end")
    };
    assert_eq!(discarded, 5);
}

#[actix_rt::test]
async fn an_actor_can_be_stopped_before_it_ever_ran() {
    let tree = tree();
    let log = Log::default();
    let arbiter = Arbiter::new();
    let (release, gate) = mpsc::channel::<()>();
    arbiter.spawn_fn(move || _ = gate.recv());
    let actor = {
        let log = log.clone();
        tree.root()
            .start_child(
                spec("a").restart(Restart::Transient),
                &arbiter.handle(),
                move |_| Probe::new("a", &log),
            )
            .unwrap()
    };
    actor.try_tell(Note("x".into())).unwrap();
    actor.stop(ExitReason::Normal);
    drop(release);
    assert!(matches!(*soon(actor.ended()).await, ExitReason::Normal));
    assert!(log.lines().is_empty());
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn the_watchdog_reports_a_turn_that_holds_its_arbiter_once() {
    let tree = Tree::new(TreeConfig {
        stall_after: Duration::from_millis(40),
        ..TreeConfig::default()
    });
    let mut events = tree.events();
    let log = Log::default();
    let arbiter = Arbiter::new();
    let actor = start(&tree.root(), "hog", &arbiter.handle(), &log).await;
    let (release, gate) = mpsc::channel::<()>();
    actor.try_tell(act(move |_, _| _ = gate.recv())).unwrap();
    let (id, name, held_ms) = loop {
        if let Event::Stalled { id, name, held_ms } = events.recv().await.unwrap() {
            break (id, name, held_ms);
        }
    };
    assert_eq!((id, &*name), (actor.id(), "hog"));
    assert!(held_ms >= 40);
    drop(release);
    // A neighbour gets a turn only when the hog's is over.
    let neighbour = start(&tree.root(), "neighbour", &arbiter.handle(), &log).await;
    // The next one is a new one.
    let (release, gate) = mpsc::channel::<()>();
    actor.try_tell(act(move |_, _| _ = gate.recv())).unwrap();
    until("a second report", || tree.totals().stalls >= 2).await;
    drop(release);
    neighbour.ask(Count, SOON).await.unwrap();
    // A task that holds its arbiter is reported too.
    let (release, gate) = mpsc::channel::<()>();
    tree.spawn_task_on(
        &arbiter.handle(),
        "conn",
        move || async move { _ = gate.recv() },
    )
    .unwrap();
    until("a third", || tree.totals().stalls >= 3).await;
    drop(release);
    tree.shutdown(SOON).await;
}
