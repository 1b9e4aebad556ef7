//! Timers and futures of an actor, and what a restart does to them.
#![allow(
    clippy::unwrap_used,
    reason = "a helper outside a test function is still a test"
)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::{Count, Log, Probe, SOON, act, here, spec, tree, until};
use stonechat_actors::ActorRef;

fn probe(tree: &stonechat_actors::Tree, name: &str, log: &Log) -> ActorRef<Probe> {
    let (owned, log) = (name.to_owned(), log.clone());
    tree.root()
        .start_child(spec(name), &here(), move |_| Probe::new(&owned, &log))
        .unwrap()
}

#[actix_rt::test]
async fn a_restart_drops_timers_and_futures_and_old_handles_cancel_nothing() {
    let tree = tree();
    let log = Log::default();
    let actor = probe(&tree, "a", &log);
    let dropped = Arc::new(AtomicBool::new(false));
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let flag = Flag(dropped.clone());
    let (tx, rx) = std::sync::mpsc::channel();
    actor
        .try_tell(act(move |_, ctx| {
            let old = ctx.run_later(Duration::from_millis(20), |probe, _| {
                probe.log.add("old timer");
            });
            ctx.run_interval(Duration::from_millis(5), |probe, _| {
                probe.log.add("old interval");
            });
            ctx.spawn_then(
                async move {
                    let _flag = flag;
                    std::future::pending::<()>().await;
                },
                |probe, (), _| probe.log.add("old future"),
            );
            tx.send(old).unwrap();
            panic!("before any of them fires");
        }))
        .unwrap();
    actor.ask(Count, SOON).await.unwrap();
    let old = rx.recv().unwrap();
    assert!(
        dropped.load(Ordering::SeqCst),
        "the future went with its generation"
    );
    let (tx, rx) = std::sync::mpsc::channel();
    actor
        .try_tell(act(move |_, ctx| {
            ctx.run_later(Duration::from_millis(60), |probe, _| {
                probe.log.add("new timer");
            });
            tx.send(old.cancel(ctx)).unwrap();
        }))
        .unwrap();
    until("the new timer fires", || {
        log.lines().contains(&"new timer".to_owned())
    })
    .await;
    assert!(!rx.recv().unwrap(), "the old handle matched nothing");
    assert!(
        !log.lines().iter().any(|line| line.starts_with("old")),
        "{:?}",
        log.lines()
    );
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn timers_and_futures_work_and_their_panics_are_caught() {
    let tree = tree();
    let log = Log::default();
    let actor = probe(&tree, "a", &log);
    actor
        .try_tell(act(|_, ctx| {
            let ms = Duration::from_millis;
            ctx.run_later(ms(30), |probe, _| probe.log.add("second"));
            ctx.run_later(ms(10), |probe, _| probe.log.add("first"));
            let never = ctx.run_later(ms(5), |probe, _| probe.log.add("never"));
            assert!(ctx.cancel_timer(never));
            assert!(!ctx.cancel_timer(never), "once only");
            let mut ticks = 0;
            let slot = Arc::new(std::sync::Mutex::new(None));
            let mine = slot.clone();
            let ticker = ctx.run_interval(ms(1), move |probe, ctx| {
                ticks += 1;
                probe.log.add("tick");
                if ticks == 3 {
                    let handle: stonechat_actors::TimerHandle = mine.lock().unwrap().unwrap();
                    assert!(handle.cancel(ctx));
                }
            });
            *slot.lock().unwrap() = Some(ticker);
            ctx.spawn_then(
                async {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    7
                },
                |probe, out, _| {
                    probe.log.add(format!("future {out}"));
                },
            );
        }))
        .unwrap();
    let ticks = || log.lines().iter().filter(|line| *line == "tick").count();
    until("all of it", || {
        ticks() >= 3 && log.lines().contains(&"second".to_owned())
    })
    .await;
    actor
        .try_tell(act(|_, ctx| {
            ctx.run_later(Duration::from_millis(20), |probe, _| probe.log.add("later"));
        }))
        .unwrap();
    until("time has passed", || {
        log.lines().contains(&"later".to_owned())
    })
    .await;
    assert_eq!(ticks(), 3, "cancelled is cancelled");
    let lines = log.lines();
    assert!(lines.contains(&"future 7".to_owned()));
    assert!(!lines.contains(&"never".to_owned()));
    let at = |what: &str| lines.iter().position(|line| line == what).unwrap();
    assert!(at("first") < at("second"));

    actor
        .try_tell(act(|_, ctx| {
            _ = ctx.run_later(Duration::ZERO, |_, _| panic!("timer"));
        }))
        .unwrap();
    until("restart", || actor.stats().restarts == 1).await;
    actor
        .try_tell(act(|_, ctx| {
            ctx.spawn_then(async { panic!("future") }, |_, (): (), _| {});
        }))
        .unwrap();
    until("restart", || actor.stats().restarts == 2).await;
    actor
        .try_tell(act(|_, ctx| {
            ctx.spawn_then(async {}, |_, (), _| panic!("then"));
        }))
        .unwrap();
    until("restart", || actor.stats().restarts == 3).await;
    assert_eq!(actor.ask(Count, SOON).await.unwrap(), 1);
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn timers_and_futures_have_a_limit() {
    let tree = tree();
    let log = Log::default();
    let actor = probe(&tree, "a", &log);
    actor
        .try_tell(act(|_, ctx| {
            for _ in 0..=stonechat_actors::TIMERS_MAX {
                ctx.run_later(SOON, |_, _| {});
            }
        }))
        .unwrap();
    until("restart", || actor.stats().restarts == 1).await;
    actor
        .try_tell(act(|_, ctx| {
            for _ in 0..=stonechat_actors::FUTURES_MAX {
                ctx.spawn_then(std::future::pending::<()>(), |_, (), _| {});
            }
            assert_eq!(ctx.futures_len(), stonechat_actors::FUTURES_MAX);
        }))
        .unwrap();
    until("restart", || actor.stats().restarts == 2).await;
    assert!(
        tree.info(actor.id())
            .unwrap()
            .last_exit
            .unwrap()
            .contains("futures")
    );
    assert_eq!(tree.totals().panics, 0);
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn a_timer_is_brought_forward_and_never_put_off() {
    let tree = tree();
    let log = Log::default();
    let actor = probe(&tree, "a", &log);
    actor
        .try_tell(act(|_, ctx| {
            let hour = Duration::from_secs(3600);
            let far = ctx.run_later(hour, |probe, _| probe.log.add("far"));
            let near = ctx.run_later(Duration::from_millis(20), |probe, _| probe.log.add("near"));
            let now = std::time::Instant::now();
            ctx.hasten_timer(far, now);
            ctx.hasten_timer(near, now + hour);
        }))
        .unwrap();
    until("both have fired", || log.lines().len() == 3).await;
    assert_eq!(log.lines(), ["start a", "far", "near"]);
    tree.shutdown(SOON).await;
}
