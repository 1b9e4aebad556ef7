//! What can be seen from outside: monitors, links, the tree, state, events, alarms, tasks.
#![allow(
    clippy::unwrap_used,
    reason = "a helper outside a test function is still a test"
)]

mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix_rt::Arbiter;
use common::{Count, Crash, Log, Probe, Quit, SOON, act, here, soon, spec, tree, until};
use serde_json::json;
use stonechat_actors::{
    ActorId, ActorRef, AskError, CRASHES_KEPT, Ctx, Down, Event, ExitReason, Handle, InspectError,
    Restart, Strategy, Supervised, TellTo, Tree, TreeConfig, TrySendError, WATCHERS_MAX,
};

fn start(tree: &Tree, name: &str, log: &Log) -> ActorRef<Probe> {
    let (owned, log) = (name.to_owned(), log.clone());
    tree.root()
        .start_child(spec(name), &here(), move |_| Probe::new(&owned, &log))
        .unwrap()
}

/// An actor that keeps the notices it gets.
struct Watcher(Arc<Mutex<Vec<Down>>>);

impl Supervised for Watcher {
    const KIND: &'static str = "watcher";
}

impl Handle<Down> for Watcher {
    fn handle(&mut self, down: Down, _ctx: &mut Ctx<Self>) {
        self.0.lock().unwrap().push(down);
    }
}

#[actix_rt::test]
async fn a_monitor_is_told_of_the_end_and_not_of_a_restart_even_if_its_inbox_is_full() {
    let tree = tree();
    let log = Log::default();
    let downs = Arc::new(Mutex::new(Vec::new()));
    let watcher = {
        let downs = downs.clone();
        tree.root()
            .start_child(spec("watcher").inbox_capacity(1), &here(), move |_| {
                Watcher(downs.clone())
            })
            .unwrap()
    };
    let actors: Vec<_> = (0..5)
        .map(|n| start(&tree, &format!("a{n}"), &log))
        .collect();
    for actor in &actors {
        actor.monitor(watcher.recipient()).unwrap();
    }
    actors[1].monitor(watcher.recipient()).unwrap().cancel();
    actors[0].try_tell(Crash).unwrap();
    actors[0].ask(Count, SOON).await.unwrap();
    assert!(downs.lock().unwrap().is_empty());
    for actor in &actors {
        actor.try_tell(Quit(ExitReason::Shutdown)).unwrap();
    }
    until("five notices", || downs.lock().unwrap().len() == 5).await;
    let ids: Vec<_> = downs.lock().unwrap().iter().map(|down| down.id).collect();
    assert_eq!(ids, actors.iter().map(ActorRef::id).collect::<Vec<_>>());
    assert_eq!(&*downs.lock().unwrap()[3].name, "a3");
    // Too late is told at once.
    actors[4].monitor(watcher.recipient()).unwrap();
    until("another", || downs.lock().unwrap().len() == 6).await;
    assert!(matches!(
        *downs.lock().unwrap()[5].reason,
        ExitReason::Shutdown
    ));
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn monitors_and_links_have_a_limit_and_functions_can_watch() {
    let tree = tree();
    let log = Log::default();
    let actor = start(&tree, "a", &log);
    let told = Arc::new(AtomicU64::new(0));
    let counter = {
        let told = told.clone();
        TellTo::from_fn(move |_down: Down| {
            told.fetch_add(1, Ordering::SeqCst);
            Ok::<(), TrySendError<Down>>(())
        })
    };
    for _ in 0..WATCHERS_MAX {
        actor.monitor(counter.clone()).unwrap();
    }
    assert_eq!(
        actor.monitor(counter.clone()).unwrap_err().watchers_max,
        WATCHERS_MAX
    );
    for n in 0..WATCHERS_MAX {
        actor.link(&start(&tree, &format!("l{n}"), &log)).unwrap();
    }
    let one_more = start(&tree, "one more", &log);
    assert!(actor.link(&one_more).is_err());
    assert!(one_more.link(&actor).is_err(), "from the other end too");
    actor.stop(ExitReason::Shutdown);
    soon(actor.ended()).await;
    until("all are told", || {
        told.load(Ordering::SeqCst) == WATCHERS_MAX as u64
    })
    .await;
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn links_carry_abnormal_ends_both_ways_once() {
    let tree = tree();
    let log = Log::default();
    let temporary = |name: &'static str| {
        let log = log.clone();
        tree.root()
            .start_child(spec(name).restart(Restart::Temporary), &here(), move |_| {
                Probe::new(name, &log)
            })
            .unwrap()
    };
    // An orderly end does not travel.
    for why in [ExitReason::Normal, ExitReason::Shutdown] {
        let (a, b) = (temporary("a"), temporary("b"));
        a.link(&b).unwrap();
        a.try_tell(Quit(why)).unwrap();
        soon(a.ended()).await;
        assert_eq!(b.ask(Count, SOON).await.unwrap(), 1);
        // And the link is gone: b's end does not reach for a.
        b.try_tell(Crash).unwrap();
        soon(b.ended()).await;
    }
    // A crash does, in either direction, down a chain.
    let (a, b, c) = (temporary("a"), temporary("b"), temporary("c"));
    a.link(&b).unwrap();
    c.link(&b).unwrap();
    c.try_tell(Crash).unwrap();
    let reason = soon(a.ended()).await;
    let ExitReason::Linked { name, reason, .. } = &*reason else {
        panic!("{reason}")
    };
    assert_eq!(&**name, "b");
    assert!(
        matches!(&**reason, ExitReason::Linked { name, reason, .. } if &**name == "c" && reason.is_panic())
    );
    // Linking to one that has crashed fires at once.
    let late = temporary("late");
    late.link(&c).unwrap();
    assert!(matches!(
        *soon(late.ended()).await,
        ExitReason::Linked { .. }
    ));
    // Unlinked is unlinked.
    let (a, b) = (temporary("a"), temporary("b"));
    a.link(&b).unwrap();
    b.unlink(&a);
    a.try_tell(Crash).unwrap();
    soon(a.ended()).await;
    assert_eq!(b.ask(Count, SOON).await.unwrap(), 1);
    // Two permanent ones restart together, once: a link fires once.
    let (a, b) = (start(&tree, "pa", &log), start(&tree, "pb", &log));
    for actor in [&a, &b] {
        actor.ask(Count, SOON).await.unwrap();
    }
    a.link(&b).unwrap();
    a.try_tell(Crash).unwrap();
    until("both restarted", || {
        a.stats().restarts == 1 && b.stats().restarts == 1
    })
    .await;
    b.try_tell(Crash).unwrap();
    until("only b restarted", || b.stats().restarts == 2).await;
    a.ask(Count, SOON).await.unwrap();
    assert_eq!(a.stats().restarts, 1);
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn the_tree_shows_everyone_and_their_state() {
    let tree = tree();
    let log = Log::default();
    let sup = tree
        .supervisor(&tree.root(), "sup", Strategy::RestForOne)
        .unwrap();
    let deep = {
        let log = log.clone();
        sup.start_child(spec("deep").inbox_capacity(9), &here(), move |_| {
            Probe::new("deep", &log)
        })
        .unwrap()
    };
    deep.ask(Count, SOON).await.unwrap();
    deep.try_tell(Crash).unwrap();
    for _ in 0..3 {
        deep.ask(Count, SOON).await.unwrap();
    }
    let nodes = serde_json::to_value(tree.snapshot()).unwrap();
    let names: Vec<_> = nodes
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["root", "sup", "deep"]);
    assert_eq!(nodes[0]["parent"], json!(null));
    assert_eq!(nodes[0]["children"], 1);
    assert_eq!(nodes[1]["strategy"], "rest_for_one");
    let node = &nodes[2];
    assert_eq!(node["parent"], nodes[1]["id"]);
    assert_eq!(
        (&node["kind"], &node["phase"]),
        (&json!("probe"), &json!("running"))
    );
    assert_eq!(
        (&node["generation"], &node["restarts"], &node["capacity"]),
        (&json!(2), &json!(1), &json!(9))
    );
    assert_eq!(
        (&node["handled_total"], &node["depth"]),
        (&json!(5), &json!(0))
    );
    assert!(
        node["last_exit"]
            .as_str()
            .unwrap()
            .contains("crash on purpose")
    );
    assert!(node["started_ms"].as_u64().unwrap() > 1_600_000_000_000);

    let found = tree.find_by_name("deep").unwrap();
    assert_eq!(found.id, deep.id());
    assert_eq!(
        tree.inspect(found.id, SOON).await.unwrap(),
        json!({ "seen": 3 })
    );
    assert!(matches!(
        tree.inspect(ActorId(999_999), SOON).await,
        Err(InspectError::NotFound)
    ));
    assert!(matches!(
        tree.inspect(sup.id(), SOON).await,
        Err(InspectError::Gone)
    ));
    assert!(tree.find_by_name("nobody").is_none());
    tree.shutdown(SOON).await;
    assert_eq!(tree.snapshot().len(), 1, "only the root is left");
}

#[actix_rt::test]
async fn inspecting_a_blocked_or_crashing_actor_ends_by_the_deadline() {
    struct Shy;
    impl Supervised for Shy {
        const KIND: &'static str = "shy";
        fn snapshot(&self) -> serde_json::Value {
            panic!("do not look");
        }
    }
    let tree = tree();
    let shy = tree
        .root()
        .start_child(spec("shy"), &here(), |_| Shy)
        .unwrap();
    until("it runs", || tree.totals().started == 1).await;
    assert!(matches!(
        tree.inspect(shy.id(), SOON).await,
        Err(InspectError::Gone)
    ));
    until("it is back", || shy.stats().generation == 2).await;

    let arbiter = Arbiter::new();
    let log = Log::default();
    let busy = {
        let log = log.clone();
        tree.root()
            .start_child(spec("busy"), &arbiter.handle(), move |_| {
                Probe::new("busy", &log)
            })
            .unwrap()
    };
    let (release, gate) = std::sync::mpsc::channel::<()>();
    busy.try_tell(act(move |_, _| _ = gate.recv())).unwrap();
    until("it is inside", || busy.stats().handled_total == 1).await;
    let inspections: Vec<_> = (0..17)
        .map(|_| tree.inspect(busy.id(), Duration::from_millis(50)))
        .collect();
    let outcomes = futures_util::future::join_all(inspections).await;
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Err(InspectError::Timeout)))
            .count(),
        16
    );
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Err(InspectError::Busy)))
            .count(),
        1
    );
    drop(release);
    assert_eq!(
        tree.inspect(busy.id(), SOON).await.unwrap(),
        json!({ "seen": 0 })
    );
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn events_tell_the_story_in_order() {
    let tree = tree();
    let mut events = tree.events();
    let log = Log::default();
    let actor = start(&tree, "a", &log);
    actor.try_tell(Crash).unwrap();
    actor.ask(Count, SOON).await.unwrap();
    actor.stop(ExitReason::Shutdown);
    soon(actor.ended()).await;
    let mut story = Vec::new();
    while let Ok(event) = events.try_recv() {
        story.push(match event {
            Event::Started { name, kind, .. } => format!("started {name} {kind}"),
            Event::Restarted {
                generation, reason, ..
            } => format!("restarted {generation} {}", reason.unwrap().code()),
            Event::Exited {
                reason, discarded, ..
            } => format!("exited {} {discarded}", reason.code()),
            Event::Crashed(crash) => format!("crashed {} {}", crash.name, crash.reason.code()),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(
        story,
        [
            "started a probe",
            "crashed a panicked",
            "restarted 2 panicked",
            "exited shutdown 0"
        ]
    );
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn the_crash_rate_raises_the_alarm_and_the_ring_is_bounded() {
    let alarms = Arc::new(AtomicU64::new(0));
    let tree = {
        let alarms = alarms.clone();
        Tree::new(TreeConfig {
            alarm_panics_max: 99,
            alarm_within: Duration::from_secs(3600),
            on_alarm: Some(Arc::new(move |alarm| {
                assert_eq!(alarm.panics, 100);
                alarms.fetch_add(1, Ordering::SeqCst);
            })),
            ..TreeConfig::default()
        })
    };
    let mut events = tree.events();
    let log = Log::default();
    let actors: Vec<_> = (0..10)
        .map(|n| start(&tree, &format!("a{n}"), &log))
        .collect();
    for round in 0..30 {
        for actor in &actors {
            assert!(matches!(
                actor.ask(Crash, SOON).await,
                Err(AskError::Panicked(_))
            ));
        }
        assert_eq!(
            alarms.load(Ordering::SeqCst),
            (round + 1) / 10,
            "spread over many actors, it adds up"
        );
    }
    let crashes = tree.recent_crashes();
    assert_eq!(crashes.len(), CRASHES_KEPT);
    assert_eq!(
        (
            &*crashes[CRASHES_KEPT - 1].name,
            crashes[CRASHES_KEPT - 1].generation
        ),
        ("a9", 30)
    );
    assert_eq!((tree.totals().panics, tree.totals().alarms), (300, 3));
    let mut heard = 0;
    while let Ok(event) = events.try_recv() {
        heard += u32::from(matches!(event, Event::Alarm(_)));
    }
    assert_eq!(heard, 3);
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn a_tasks_panic_is_caught_counted_and_told() {
    let tree = tree();
    let told = Log::default();
    let log = told.clone();
    tree.spawn_task_or("fine", async {}, |_| unreachable!("it did not panic"))
        .ended()
        .await;
    tree.spawn_task_or("conn", async { panic!("in a {}", "task") }, move |reason| {
        log.add(reason.to_string());
    })
    .ended()
    .await;
    assert_eq!(told.len(), 1);
    assert!(told.lines()[0].contains("in a task"), "{:?}", told.lines());
    struct Grenade;
    impl Drop for Grenade {
        fn drop(&mut self) {
            panic!("when the task's state is dropped");
        }
    }
    let grenade = Grenade;
    tree.spawn_task("drop", async move {
        let _kept = &grenade;
        tokio::task::yield_now().await;
        drop(grenade);
    })
    .ended()
    .await;
    let arbiter = Arbiter::new();
    tree.spawn_task_on(&arbiter.handle(), "elsewhere", || async {
        panic!("elsewhere")
    })
    .unwrap();
    let waiting = tree.spawn_task("waiting", std::future::pending());
    until("the one elsewhere is counted", || tree.totals().panics == 3).await;
    until("one is alive", || tree.totals().tasks_live == 1).await;
    waiting.abort();
    soon(waiting.ended()).await;
    assert_eq!(tree.totals().tasks_live, 0);
    let names: Vec<_> = tree
        .recent_crashes()
        .iter()
        .map(|crash| crash.name.to_string())
        .collect();
    assert_eq!(names, ["conn", "drop", "elsewhere"]);
    assert!(
        tree.recent_crashes()
            .iter()
            .all(|crash| crash.kind == "task" && crash.id.is_none())
    );
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn children_can_start_siblings_through_their_supervisor() {
    let tree = tree();
    let log = Log::default();
    let actor = start(&tree, "a", &log);
    let inner = log.clone();
    actor
        .try_tell(act(move |_, ctx| {
            let log = inner.clone();
            ctx.supervisor()
                .start_child(spec("b"), &here(), move |_| Probe::new("b", &log))
                .unwrap();
        }))
        .unwrap();
    until("b is there", || {
        tree.find_by_name("b")
            .is_some_and(|info| info.phase == "running")
    })
    .await;
    tree.shutdown(SOON).await;
}
