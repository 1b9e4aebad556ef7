//! A crash, and what is left of an actor after it.
#![allow(
    clippy::unwrap_used,
    reason = "a helper outside a test function is still a test"
)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use actix_rt::Arbiter;
use common::{Count, Crash, Log, Note, Probe, Quit, SOON, act, here, soon, spec, tree, until};
use stonechat_actors::{
    ActorRef, AskError, Backoff, Ctx, ExitReason, Handle, Restart, StartError, Strategy,
    Supervised, SupervisorSpec, panics_unwind,
};

fn probe(tree: &stonechat_actors::Tree, name: &str, log: &Log) -> ActorRef<Probe> {
    let (owned, log) = (name.to_owned(), log.clone());
    tree.root()
        .start_child(spec(name), &here(), move |_| Probe::new(&owned, &log))
        .unwrap()
}

#[test]
fn this_build_unwinds() {
    assert!(panics_unwind(), "everything here needs panic = \"unwind\"");
}

#[actix_rt::test]
async fn a_panic_leaves_ten_thousand_others_untouched_and_its_own_queue_is_handled() {
    let tree = tree();
    let arbiters = [Arbiter::new(), Arbiter::new()];
    let log = Log::default();
    let sessions = tree
        .supervisor(&tree.root(), "sessions", Strategy::Dynamic)
        .unwrap();
    let others: Vec<_> = (0..10_000)
        .map(|n| {
            let log = log.clone();
            let arbiter = arbiters[n % 2].handle();
            sessions
                .start_child(spec(&format!("u{n}")), &arbiter, move |_| {
                    Probe::new("other", &log)
                })
                .unwrap()
        })
        .collect();
    let own = Log::default();
    let victim = {
        let own = own.clone();
        sessions
            .start_child(spec("victim"), &arbiters[0].handle(), move |_| {
                Probe::new("victim", &own)
            })
            .unwrap()
    };
    for other in &others {
        assert_eq!(other.ask(Count, SOON).await.unwrap(), 1);
    }
    // Everything the victim is sent waits behind this, so that it is all queued when the crash comes.
    let (go, gate) = std::sync::mpsc::channel::<()>();
    victim
        .try_tell(act(move |_, _| gate.recv().unwrap()))
        .unwrap();
    for round in 0..20 {
        victim.try_tell(Crash).unwrap();
        victim.try_tell(Note(format!("note {round}"))).unwrap();
    }
    go.send(()).unwrap();
    until("the queue is handled", || {
        own.lines()
            .iter()
            .filter(|line| line.starts_with("note"))
            .count()
            == 20
    })
    .await;

    let notes: Vec<_> = own
        .lines()
        .into_iter()
        .filter(|line| line.starts_with("note"))
        .collect();
    assert_eq!(
        notes,
        (0..20).map(|n| format!("note {n}")).collect::<Vec<_>>()
    );
    assert_eq!(
        own.lines()
            .iter()
            .filter(|line| *line == "start victim")
            .count(),
        21
    );
    assert_eq!(victim.stats().restarts, 20);
    for other in &others {
        assert_eq!(other.ask(Count, SOON).await.unwrap(), 2, "state kept");
        assert_eq!(other.stats().generation, 1);
    }
    assert_eq!(tree.totals().panics, 20);
    assert_eq!(tree.totals().restarts, 20);
    let report = tree.shutdown(SOON).await;
    assert_eq!((report.stopped, report.abandoned_total), (10_001, 0));
}

#[actix_rt::test]
async fn the_asker_learns_the_typed_reason() {
    let tree = tree();
    let actor = probe(&tree, "a", &Log::default());
    let before = actor.ask(Count, SOON).await.unwrap();
    let Err(AskError::Panicked(reason)) = actor.ask(Crash, SOON).await else {
        panic!("not the typed reason")
    };
    let ExitReason::Panicked {
        message_type,
        payload,
        location,
        backtrace,
    } = &*reason
    else {
        panic!("not a panic: {reason}");
    };
    assert!(message_type.ends_with("common::Crash"), "{message_type}");
    assert_eq!(payload, "crash on purpose");
    assert!(location.contains("tests/common/mod.rs:"), "{location}");
    assert!(
        backtrace.to_string().contains("Probe"),
        "the backtrace names the actor"
    );
    assert_eq!(
        actor.ask(Count, SOON).await.unwrap(),
        before,
        "a fresh value answers"
    );
    let crashes = tree.recent_crashes();
    assert_eq!(crashes.len(), 1);
    assert_eq!(
        (&*crashes[0].name, crashes[0].kind, crashes[0].generation),
        ("a", "probe", 1)
    );
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn the_factory_is_told_what_happened() {
    let tree = tree();
    let log = Log::default();
    let actor = {
        let log = log.clone();
        tree.root()
            .start_child(spec("a"), &here(), move |info| {
                let last = info.last_exit.as_ref().map(|reason| reason.code());
                log.add(format!("{} {} {last:?}", info.generation, info.restarts));
                Probe::new("a", &log)
            })
            .unwrap()
    };
    actor.try_tell(Crash).unwrap();
    actor.ask(Count, SOON).await.unwrap();
    let lines: Vec<_> = log
        .lines()
        .into_iter()
        .filter(|line| !line.starts_with("start"))
        .collect();
    assert_eq!(lines, ["1 0 None", "2 1 Some(\"panicked\")"]);
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn a_factory_or_a_start_that_panics_is_a_failed_restart() {
    struct Fragile {
        starts: Arc<AtomicU32>,
    }
    impl Supervised for Fragile {
        const KIND: &'static str = "fragile";
        fn started(&mut self, _ctx: &mut Ctx<Self>) {
            assert!(self.starts.fetch_add(1, Ordering::SeqCst) >= 2, "not yet");
        }
    }
    impl Handle<()> for Fragile {
        fn handle(&mut self, (): (), ctx: &mut Ctx<Self>) {
            ctx.stop(ExitReason::Shutdown);
        }
    }
    let tree = tree();
    let (built, starts) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let actor = {
        let (built, starts) = (built.clone(), starts.clone());
        tree.root()
            .start_child(spec("fragile"), &here(), move |_| {
                assert!(
                    built.fetch_add(1, Ordering::SeqCst) >= 3,
                    "cannot be built yet"
                );
                Fragile {
                    starts: starts.clone(),
                }
            })
            .unwrap()
    };
    actor.tell((), SOON).await.unwrap();
    soon(actor.ended()).await;
    assert_eq!(
        built.load(Ordering::SeqCst),
        6,
        "three refused, two whose start failed, one that ran"
    );
    assert_eq!(starts.load(Ordering::SeqCst), 3);
    let labels: Vec<_> = tree
        .recent_crashes()
        .iter()
        .map(|crash| match &*crash.reason {
            ExitReason::Panicked { message_type, .. } => *message_type,
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(
        labels,
        ["factory", "factory", "factory", "started", "started"]
    );
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn too_many_failures_end_only_the_child_that_does_not_escalate() {
    let tree = tree();
    let log = Log::default();
    let sessions = tree
        .supervisor(&tree.root(), "sessions", Strategy::Dynamic)
        .unwrap();
    let start = |name: &'static str| {
        let log = log.clone();
        let spec = spec(name)
            .intensity(3, Duration::from_secs(3600))
            .escalate(false);
        sessions
            .start_child(spec, &here(), move |_| Probe::new(name, &log))
            .unwrap()
    };
    let (bad, good) = (start("bad"), start("good"));
    for _ in 0..4 {
        bad.try_tell(Crash).unwrap();
    }
    bad.try_tell(Note("never".into())).unwrap();
    let reason = soon(bad.ended()).await;
    let ExitReason::IntensityExceeded {
        restarts_max: 3,
        last,
        ..
    } = &*reason
    else {
        panic!("{reason}")
    };
    assert!(last.is_panic());
    assert_eq!(bad.stats().restarts, 3);
    assert!(!log.lines().contains(&"never".to_owned()));
    assert!(bad.try_tell(Crash).is_err_and(|refused| !refused.is_full()));
    assert!(matches!(bad.ask(Count, SOON).await, Err(AskError::Closed)));
    assert_eq!(good.ask(Count, SOON).await.unwrap(), 1);
    assert_eq!(good.stats().generation, 1);
    assert_eq!(tree.totals().intensity_exceeded, 1);
    assert_eq!(sessions.child_count(), 1);
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn restart_policies_are_kept() {
    let tree = tree();
    for (restart, why, again) in [
        (Restart::Permanent, ExitReason::Normal, true),
        (Restart::Permanent, ExitReason::Failed("x".into()), true),
        (Restart::Permanent, ExitReason::Shutdown, false),
        (Restart::Transient, ExitReason::Normal, false),
        (Restart::Transient, ExitReason::Failed("x".into()), true),
        (Restart::Temporary, ExitReason::Failed("x".into()), false),
    ] {
        let log = Log::default();
        let actor = {
            let log = log.clone();
            tree.root()
                .start_child(spec("a").restart(restart), &here(), move |_| {
                    Probe::new("a", &log)
                })
                .unwrap()
        };
        actor.try_tell(Quit(why.clone())).unwrap();
        if again {
            assert_eq!(actor.ask(Count, SOON).await.unwrap(), 1);
            assert_eq!(
                log.lines(),
                ["start a", "stop a", "start a"],
                "{restart:?} {why}"
            );
        } else {
            assert_eq!(soon(actor.ended()).await.code(), why.code());
            assert_eq!(log.lines(), ["start a", "stop a"], "{restart:?} {why}");
        }
    }
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn the_first_restart_is_immediate_and_the_next_one_waits() {
    let tree = tree();
    let log = Log::default();
    let hour = Duration::from_secs(3600);
    let spec = spec("a").backoff(Backoff {
        initial: hour,
        max: hour,
        reset_after: hour,
    });
    let actor = {
        let log = log.clone();
        tree.root()
            .start_child(spec, &here(), move |_| Probe::new("a", &log))
            .unwrap()
    };
    actor.try_tell(Crash).unwrap();
    actor.ask(Count, SOON).await.expect("restarted at once");
    actor.try_tell(Crash).unwrap();
    actor.try_tell(Note("kept".into())).unwrap();
    until("it waits", || {
        tree.info(actor.id())
            .is_some_and(|info| info.phase == "backoff")
    })
    .await;
    assert!(actor.is_alive());
    assert_eq!(actor.stats().generation, 2);
    // Back-off does not get into the way of an end.
    actor.stop(ExitReason::Shutdown);
    assert!(matches!(*soon(actor.ended()).await, ExitReason::Shutdown));
    assert!(!log.lines().contains(&"kept".to_owned()));
    tree.shutdown(SOON).await;
}

struct Nothing;

impl Supervised for Nothing {
    const KIND: &'static str = "nothing";
}

#[actix_rt::test]
async fn a_supervisor_takes_no_more_children_than_it_may() {
    let tree = tree();
    let sup = tree
        .root()
        .start_supervisor(SupervisorSpec {
            children_max: 1,
            ..SupervisorSpec::new("s", Strategy::OneForOne)
        })
        .unwrap();
    let log = Log::default();
    let one = {
        let log = log.clone();
        sup.start_child(spec("one"), &here(), move |_| Probe::new("one", &log))
            .unwrap()
    };
    let refused = sup.start_child(spec("two"), &here(), |_| Nothing);
    assert!(matches!(
        refused,
        Err(StartError::TooManyChildren { children_max: 1 })
    ));
    one.stop(ExitReason::Shutdown);
    soon(one.ended()).await;
    assert_eq!(sup.child_count(), 0);
    tree.shutdown(SOON).await;
    let late = sup.start_child(spec("late"), &here(), |_| Nothing);
    assert!(matches!(late, Err(StartError::ShuttingDown)));
}

#[actix_rt::test]
async fn a_restart_from_outside_is_no_failure() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll] {
        let tree = tree();
        let log = Log::default();
        let sup = tree.supervisor(&tree.root(), "sup", strategy).unwrap();
        let child = {
            let log = log.clone();
            // One failure is the last; a back-off would outlast this test.
            let spec = spec("one")
                .intensity(1, Duration::from_secs(3_600))
                .backoff(Backoff {
                    initial: Duration::from_secs(3_600),
                    max: Duration::from_secs(3_600),
                    ..Backoff::default()
                })
                .escalate(false);
            sup.start_child(spec, &here(), move |_| Probe::new("one", &log))
                .unwrap()
        };
        child.ask(Count, SOON).await.unwrap();
        for generation in 2..=12 {
            tree.restart_actor(child.id(), "restarted by somebody")
                .unwrap();
            until("it is back", || child.stats().generation == generation).await;
            assert!(child.ask(Count, SOON).await.is_ok());
        }
        let last_exit = tree.info(child.id()).unwrap().last_exit.unwrap();
        assert!(last_exit.contains("restarted by somebody"), "{last_exit}");
        let totals = tree.totals();
        assert_eq!((totals.panics, totals.intensity_exceeded), (0, 0));
        assert!(totals.restarts >= 11, "{totals:?}");
        // The failures that were allowed before are still allowed, and no more.
        child.try_tell(Crash).unwrap();
        until("it is back", || child.stats().generation == 13).await;
        child.try_tell(Crash).unwrap();
        until("it is given up", || !child.is_alive()).await;
        tree.shutdown(SOON).await;
    }
}
