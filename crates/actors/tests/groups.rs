//! What one child's failure does to the others: strategies and escalation.
#![allow(
    clippy::unwrap_used,
    reason = "a helper outside a test function is still a test"
)]

mod common;

use std::time::Duration;

use actix_rt::Arbiter;
use common::{Count, Crash, Log, Note, Probe, Quit, SOON, act, here, soon, spec, tree, until};
use stonechat_actors::{
    ActorRef, Backoff, ChildSpec, Event, ExitReason, Restart, Strategy, Supervisor, SupervisorSpec,
};

async fn start(
    sup: &Supervisor,
    spec: ChildSpec,
    arbiter: &actix_rt::ArbiterHandle,
    log: &Log,
) -> ActorRef<Probe> {
    let (name, log) = (spec.name.clone(), log.clone());
    let actor = sup
        .start_child(spec, arbiter, move |_| Probe::new(&name, &log))
        .unwrap();
    actor.ask(Count, SOON).await.unwrap();
    actor
}

#[actix_rt::test]
async fn one_for_all_stops_in_reverse_and_starts_in_order_over_arbiters() {
    let tree = tree();
    let log = Log::default();
    let arbiters = [Arbiter::new(), Arbiter::new()];
    let sup = tree
        .supervisor(&tree.root(), "all", Strategy::OneForAll)
        .unwrap();
    let mut actors = Vec::new();
    for (n, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        actors.push(start(&sup, spec(name), &arbiters[n % 2].handle(), &log).await);
    }
    log.clear();
    actors[1].try_tell(Crash).unwrap();
    actors[1].try_tell(Note("waited in b".into())).unwrap();
    until("all are back", || log.len() == 8).await;
    let mut lines = log.lines();
    // On another thread than the start of c and d: before or after them.
    let waited = lines.iter().position(|line| line == "waited in b").unwrap();
    lines.remove(waited);
    assert_eq!(
        lines,
        [
            "stop d", "stop c", "stop a", "start a", "start b", "start c", "start d"
        ],
        "b panicked, so there is no stopping for it"
    );
    assert!(waited >= 5, "its queue is handled when it is back");
    for actor in &actors {
        until("two generations", || actor.stats().generation == 2).await;
    }
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn rest_for_one_touches_only_those_started_later() {
    let tree = tree();
    let log = Log::default();
    let sup = tree
        .supervisor(&tree.root(), "rest", Strategy::RestForOne)
        .unwrap();
    let mut actors = Vec::new();
    for name in ["a", "b", "c", "d"] {
        actors.push(start(&sup, spec(name), &here(), &log).await);
    }
    log.clear();
    actors[1]
        .try_tell(Quit(ExitReason::Failed("had enough".into())))
        .unwrap();
    until("they are back", || log.len() == 6).await;
    assert_eq!(
        log.lines(),
        [
            "stop b", "stop d", "stop c", "start b", "start c", "start d"
        ]
    );
    assert_eq!(actors[0].stats().generation, 1);
    assert_eq!(
        actors[0].ask(Count, SOON).await.unwrap(),
        2,
        "a kept its state"
    );
    assert_eq!(actors[3].ask(Count, SOON).await.unwrap(), 1, "d did not");
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn one_for_one_touches_nobody_and_a_group_ends_its_temporary_members() {
    let tree = tree();
    let log = Log::default();
    let one = start(&tree.root(), spec("one"), &here(), &log).await;
    let two = start(&tree.root(), spec("two"), &here(), &log).await;
    two.try_tell(Crash).unwrap();
    two.ask(Count, SOON).await.unwrap();
    assert_eq!((one.stats().generation, two.stats().generation), (1, 2));

    let sup = tree
        .supervisor(&tree.root(), "all", Strategy::OneForAll)
        .unwrap();
    let a = start(&sup, spec("a"), &here(), &log).await;
    let guest = start(
        &sup,
        spec("guest").restart(Restart::Temporary),
        &here(),
        &log,
    )
    .await;
    a.try_tell(Crash).unwrap();
    assert!(matches!(*soon(guest.ended()).await, ExitReason::Shutdown));
    until("a is back", || a.stats().generation == 2).await;
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn several_failures_at_once_end_in_everyone_running() {
    let tree = tree();
    let log = Log::default();
    let arbiters = [Arbiter::new(), Arbiter::new()];
    let sup = tree
        .supervisor(&tree.root(), "all", Strategy::OneForAll)
        .unwrap();
    let mut actors = Vec::new();
    for n in 0..6 {
        actors.push(
            start(
                &sup,
                spec(&format!("a{n}")),
                &arbiters[n % 2].handle(),
                &log,
            )
            .await,
        );
    }
    for round in 0..20 {
        for actor in &actors {
            // Its inbox may be what it will; the crash just has to get in.
            actor.tell(Crash, SOON).await.unwrap();
        }
        for actor in &actors {
            assert!(actor.ask(Count, SOON).await.is_ok(), "round {round}");
        }
    }
    assert_eq!(tree.totals().panics, 120);
    let phases: Vec<_> = tree.snapshot().into_iter().map(|node| node.phase).collect();
    assert!(phases.iter().all(|phase| *phase == "running"), "{phases:?}");
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn a_group_waits_for_the_back_off_of_the_one_that_failed() {
    let tree = tree();
    let log = Log::default();
    let sup = tree
        .supervisor(&tree.root(), "all", Strategy::OneForAll)
        .unwrap();
    let hour = Duration::from_secs(3600);
    let slow = spec("a").backoff(Backoff {
        initial: hour,
        max: hour,
        reset_after: hour,
    });
    let a = start(&sup, slow, &here(), &log).await;
    let b = start(&sup, spec("b"), &here(), &log).await;
    a.try_tell(Crash).unwrap();
    until("both are back", || {
        b.stats().generation == 2 && log.len() >= 5
    })
    .await;
    a.ask(Count, SOON).await.unwrap();
    a.try_tell(Crash).unwrap();
    until("a waits", || {
        tree.info(a.id()).is_some_and(|info| info.phase == "halted")
    })
    .await;
    assert_eq!(
        b.ask(Count, SOON).await.unwrap(),
        1,
        "the others go on meanwhile"
    );
    assert!(tree.shutdown(SOON).await.is_clean());
}

#[actix_rt::test]
async fn intensity_exceeded_restarts_the_supervisors_children_then_reaches_the_root() {
    let tree = tree();
    let log = Log::default();
    let mut events = tree.events();
    let mut limits = SupervisorSpec::new("inner", Strategy::OneForOne);
    limits.intensity.restarts_max = 1;
    let outer = tree
        .supervisor(&tree.root(), "outer", Strategy::OneForOne)
        .unwrap();
    let mut outer_limits = SupervisorSpec::new("middle", Strategy::RestForOne);
    outer_limits.intensity.restarts_max = 1;
    let middle = outer.start_supervisor(outer_limits).unwrap();
    let inner = middle.start_supervisor(limits).unwrap();
    let sibling = start(&inner, spec("sibling"), &here(), &log).await;
    let bad = start(&inner, spec("bad").intensity(1, SOON), &here(), &log).await;
    let later = start(&middle, spec("later"), &here(), &log).await;
    let elsewhere = start(&outer, spec("elsewhere"), &here(), &log).await;
    log.clear();

    let crash_twice = || async {
        for _ in 0..2 {
            bad.tell(Crash, SOON).await.unwrap();
        }
        bad.ask(Count, SOON).await
    };
    // One too many for the child: its supervisor restarts, and what was started after it in `middle`.
    assert_eq!(
        crash_twice().await.unwrap(),
        1,
        "it is back, in the same place"
    );
    until("later is back", || later.stats().generation == 2).await;
    assert_eq!(
        log.lines(),
        [
            "start bad",
            "stop later",
            "stop sibling",
            "start sibling",
            "start bad",
            "start later"
        ]
    );
    assert_eq!(elsewhere.stats().generation, 1);
    let info = |name: &str| tree.find_by_name(name).unwrap();
    assert_eq!((info("inner").restarts, info("middle").restarts), (1, 0));
    assert!(
        info("inner")
            .last_exit
            .unwrap()
            .contains("more than 1 times")
    );

    // Once more: too many for `inner`, so it is `middle` that restarts.
    assert_eq!(crash_twice().await.unwrap(), 1);
    until("middle restarted", || info("middle").restarts == 1).await;
    assert_eq!(elsewhere.stats().generation, 1, "outer is one-for-one");

    // And so on up to the root, which ends the program's hopes.
    let mut rounds = 0;
    let reason = loop {
        tokio::select! {
            biased;
            reason = tree.failed() => break reason,
            outcome = crash_twice() => { rounds += 1; assert!(rounds < 20, "{outcome:?}"); }
        }
    };
    assert!(
        matches!(*reason, ExitReason::IntensityExceeded { .. }),
        "{reason}"
    );
    assert!(matches!(
        *soon(bad.ended()).await,
        ExitReason::IntensityExceeded { .. }
    ));
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        match event {
            Event::Escalated { name, .. } => seen.push(name.to_string()),
            Event::RootFailed { .. } => seen.push("FAILED".to_owned()),
            _ => {}
        }
    }
    assert_eq!(seen[..3], ["inner", "inner", "middle"]);
    assert_eq!(seen.last().unwrap(), "FAILED");
    assert!(seen.contains(&"outer".to_owned()) && seen.contains(&"root".to_owned()));
    assert!(tree.shutdown(SOON).await.is_clean());
    let _ = sibling;
}

#[actix_rt::test]
async fn a_supervisor_that_does_not_escalate_ends_with_its_children_only() {
    let tree = tree();
    let log = Log::default();
    let mut limits = SupervisorSpec::new("optional", Strategy::OneForOne);
    limits.intensity.restarts_max = 0;
    limits.escalate = false;
    let optional = tree.root().start_supervisor(limits).unwrap();
    let bystander = start(&optional, spec("bystander"), &here(), &log).await;
    let bad = start(&optional, spec("bad").intensity(0, SOON), &here(), &log).await;
    let other = start(&tree.root(), spec("other"), &here(), &log).await;
    bad.try_tell(Crash).unwrap();
    soon(bad.ended()).await;
    assert!(matches!(
        *soon(bystander.ended()).await,
        ExitReason::Shutdown
    ));
    until("it is gone", || tree.find_by_name("optional").is_none()).await;
    assert_eq!(other.stats().generation, 1);
    assert!(
        optional
            .start_child(spec("late"), &here(), move |_| Probe::new("late", &log))
            .is_err()
    );
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn a_member_that_will_not_halt_is_abandoned_and_the_others_come_back() {
    let tree = tree();
    let log = Log::default();
    let stuck_arbiter = Arbiter::new();
    let sup = tree
        .supervisor(&tree.root(), "all", Strategy::OneForAll)
        .unwrap();
    let a = start(&sup, spec("a"), &here(), &log).await;
    let deadline = Duration::from_millis(50);
    let stuck = start(
        &sup,
        spec("stuck").shutdown_deadline(deadline),
        &stuck_arbiter.handle(),
        &log,
    )
    .await;
    let (release, gate) = std::sync::mpsc::channel::<()>();
    stuck.try_tell(act(move |_, _| _ = gate.recv())).unwrap();
    // Otherwise the order to halt overtakes what is to make it stuck.
    until("it is stuck", || stuck.stats().handled_total == 2).await;
    a.try_tell(Crash).unwrap();
    until("it is abandoned", || !stuck.is_alive()).await;
    assert!(matches!(*soon(stuck.ended()).await, ExitReason::Abandoned));
    until("a is back", || a.stats().generation == 2).await;
    assert!(a.ask(Count, SOON).await.is_ok());
    assert_eq!(tree.totals().abandoned, 1);
    drop(release);
    tree.shutdown(SOON).await;
}
