//! The bound of an inbox, whichever handle is used and however many threads push.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a helper outside a test function is still a test"
)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use actix_rt::Arbiter;
use common::{Count, Log, Note, Probe, SOON, act, here, soon, spec, tree, until};
use proptest::prelude::*;
use stonechat_actors::{
    ActorRef, AskError, Ctx, ExitReason, Handle, Supervised, TellError, TellTo, Tree, TrySendError,
};

/// A probe on an arbiter of its own, its handler held until the returned sender is used or dropped.
fn held(tree: &Tree, capacity: u32, log: &Log) -> (ActorRef<Probe>, mpsc::Sender<()>, Arbiter) {
    let arbiter = Arbiter::new();
    let log = log.clone();
    let actor = tree
        .root()
        .start_child(
            spec("held").inbox_capacity(capacity),
            &arbiter.handle(),
            move |_| Probe::new("held", &log),
        )
        .unwrap();
    let release = hold(&actor);
    (actor, release, arbiter)
}

/// Blocks the actor in a handler; returns when it is blocked.
fn hold(actor: &ActorRef<Probe>) -> mpsc::Sender<()> {
    let (release, gate) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    actor
        .try_tell(act(move |_, _| {
            entered.send(()).unwrap();
            let _ = gate.recv();
        }))
        .map_err(|_| "full")
        .unwrap();
    inside.recv().unwrap();
    release
}

#[actix_rt::test]
async fn full_and_closed_give_the_message_back() {
    let tree = tree();
    let log = Log::default();
    let (actor, release, _arbiter) = held(&tree, 2, &log);
    actor.try_tell(Note("1".into())).unwrap();
    actor
        .recipient::<Note>()
        .try_tell(Note("2".into()))
        .unwrap();
    let Err(TrySendError::Full(Note(text))) = actor.try_tell(Note("3".into())) else {
        panic!("not full")
    };
    assert_eq!(text, "3");
    let Err(TrySendError::Full(_)) = actor.clone().recipient::<Note>().try_tell(Note(text)) else {
        panic!("another handle is not another inbox")
    };
    let short = Duration::from_millis(20);
    let Err(TellError::Full(Note(text))) = actor.tell(Note("4".into()), short).await else {
        panic!("not full")
    };
    assert_eq!(text, "4");
    assert!(matches!(actor.ask(Count, short).await, Err(AskError::Full)));
    let stats = actor.stats();
    assert_eq!((stats.depth, stats.high_water, stats.capacity), (2, 2, 2));
    assert!(
        stats.blocked_ns_total >= 2 * 19_000_000,
        "two senders waited 20 ms each: {stats:?}"
    );

    // Somebody who waits learns of the end, and gets the message back.
    let mut waiting = Box::pin(actor.tell(Note("5".into()), SOON));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    let waited = actor.stats().blocked_ns_total;
    actor.stop(ExitReason::Shutdown);
    drop(release);
    let Err(TellError::Closed(Note(text))) = waiting.await else {
        panic!("not closed")
    };
    assert_eq!(text, "5");
    assert!(actor.stats().blocked_ns_total > waited);
    assert!(matches!(
        actor.try_tell(Note("6".into())),
        Err(TrySendError::Closed(_))
    ));
    assert!(matches!(
        actor.tell(Note("6".into()), SOON).await,
        Err(TellError::Closed(_))
    ));
    assert!(matches!(
        actor.ask(Count, SOON).await,
        Err(AskError::Closed)
    ));
    assert!(
        !log.lines().contains(&"1".to_owned()),
        "a stop overtakes what waits"
    );
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn an_answer_that_does_not_come_in_time_is_a_timeout() {
    let tree = tree();
    let log = Log::default();
    let (actor, release, _arbiter) = held(&tree, 8, &log);
    assert!(matches!(
        actor.ask(Count, Duration::from_millis(10)).await,
        Err(AskError::Timeout)
    ));
    drop(release);
    assert_eq!(
        actor.ask(Count, SOON).await.unwrap(),
        1,
        "the question nobody waited for was not handled"
    );
    tree.shutdown(SOON).await;
}

/// Senders that wait are served in the order in which they came, and nobody overtakes them.
#[actix_rt::test]
async fn the_line_is_fair() {
    let tree = tree();
    let log = Log::default();
    let (actor, release, _arbiter) = held(&tree, 1, &log);
    actor.try_tell(Note("first".into())).unwrap();
    let mut waiting = Vec::new();
    for n in 0..50 {
        let mut sender = Box::pin({
            let actor = actor.clone();
            async move {
                actor
                    .tell(Note(n.to_string()), SOON)
                    .await
                    .map_err(|_| "refused")
            }
        });
        // Polled once, it is in line.
        assert!(futures_util::poll!(&mut sender).is_pending());
        // Every other one gives up while it waits.
        if n % 2 == 0 {
            waiting.push(actix_rt::spawn(sender));
        }
    }
    drop(release);
    for sender in waiting {
        sender.await.unwrap().unwrap();
    }
    actor.ask(Count, SOON).await.unwrap();
    let notes: Vec<_> = log
        .lines()
        .into_iter()
        .filter(|line| line != "start held" && line != "first")
        .collect();
    let expected: Vec<_> = (0..50).step_by(2).map(|n| n.to_string()).collect();
    assert_eq!(notes, expected);
    let stats = actor.stats();
    assert_eq!((stats.depth, stats.high_water), (0, 1));
    tree.shutdown(SOON).await;
}

/// Knows how many of its messages are queued, from the outside: each carries a guard.
struct Sink {
    handled: Arc<AtomicU64>,
}

struct Load {
    sender: usize,
    n: u64,
    queued: Arc<AtomicU64>,
}

impl Supervised for Sink {
    const KIND: &'static str = "sink";
}

impl Handle<Load> for Sink {
    fn handle(&mut self, load: Load, _ctx: &mut Ctx<Self>) {
        load.queued.fetch_sub(1, Ordering::SeqCst);
        self.handled.fetch_add(1, Ordering::SeqCst);
        // Now and then a crash: the bound and the count must survive it.
        assert!(
            load.n % 997 != 996,
            "crash on purpose, sender {}",
            load.sender
        );
    }
}

#[actix_rt::test]
async fn the_bound_holds_under_concurrent_senders_and_nothing_is_lost() {
    const SENDERS: usize = 6;
    const EACH: u64 = 5_000;
    const CAPACITY: u32 = 7;
    let tree = tree();
    let arbiter = Arbiter::new();
    let (handled, queued, most) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
    );
    let actor = {
        let handled = handled.clone();
        tree.root()
            .start_child(
                spec("sink").inbox_capacity(CAPACITY),
                &arbiter.handle(),
                move |_| Sink {
                    handled: handled.clone(),
                },
            )
            .unwrap()
    };
    let threads: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (actor, queued, most) = (actor.clone(), queued.clone(), most.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .unwrap();
                runtime.block_on(async move {
                    let recipient: TellTo<Load> = actor.recipient();
                    for n in 0..EACH {
                        let load = Load {
                            sender,
                            n,
                            queued: queued.clone(),
                        };
                        // The guard is raised before the offer, so `most` may exceed the depth by what the
                        // senders hold in their hands, one each, and by the one being handled.
                        most.fetch_max(queued.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        let refused = match n % 3 {
                            0 => actor.tell(load, SOON).await.is_err(),
                            1 => recipient.tell(load, SOON).await.is_err(),
                            _ => match actor.try_tell(load) {
                                Ok(()) => false,
                                Err(refused) => {
                                    recipient.tell(refused.into_inner(), SOON).await.is_err()
                                }
                            },
                        };
                        assert!(!refused);
                        assert!(actor.stats().depth <= CAPACITY);
                    }
                });
            })
        })
        .collect();
    until("all senders are done", || {
        threads.iter().all(std::thread::JoinHandle::is_finished)
    })
    .await;
    for thread in threads {
        thread.join().unwrap();
    }
    let total = SENDERS as u64 * EACH;
    until("all is handled", || handled.load(Ordering::SeqCst) == total).await;
    until("the last turn is over", || actor.stats().depth == 0).await;
    let stats = actor.stats();
    assert_eq!(stats.handled_total, total);
    assert_eq!(
        stats.high_water, CAPACITY,
        "that many senders fill it, and no more than that fits"
    );
    assert!(most.load(Ordering::SeqCst) <= u64::from(CAPACITY) + SENDERS as u64 + 1);
    assert!(stats.blocked_ns_total > 0);
    assert_eq!(u64::from(stats.restarts), SENDERS as u64 * (EACH / 997));
    tree.shutdown(SOON).await;
}

/// Waiters that time out in the very moment in which they are granted a slot give it back.
#[actix_rt::test]
async fn no_slot_is_lost_to_senders_that_give_up() {
    let tree = tree();
    let arbiter = Arbiter::new();
    let log = Log::default();
    let actor = {
        let log = log.clone();
        tree.root()
            .start_child(spec("a").inbox_capacity(2), &arbiter.handle(), move |_| {
                Probe::new("a", &log)
            })
            .unwrap()
    };
    let threads: Vec<_> = (0..4)
        .map(|thread: u64| {
            let actor = actor.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .unwrap();
                runtime.block_on(async move {
                    for n in 0..2_000 {
                        let mut sender =
                            Box::pin(actor.tell(act(|probe, _| probe.seen += 1), SOON));
                        // Dropped after a few polls, wherever it is then.
                        for _ in 0..(n + thread) % 4 {
                            if futures_util::poll!(&mut sender).is_ready() {
                                break;
                            }
                            std::thread::yield_now();
                        }
                    }
                });
            })
        })
        .collect();
    until("all senders are done", || {
        threads.iter().all(std::thread::JoinHandle::is_finished)
    })
    .await;
    until("the inbox is empty", || actor.stats().depth == 0).await;
    let release = hold(&actor);
    for n in 0..2 {
        actor
            .try_tell(Note(n.to_string()))
            .expect("both slots are there");
    }
    assert!(actor.try_tell(Note("third".into())).is_err());
    drop(release);
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn a_long_queue_is_dropped_without_overflowing_the_stack() {
    let tree = tree();
    let log = Log::default();
    let (actor, release, _arbiter) = held(&tree, 1 << 20, &log);
    let mut events = tree.events();
    for _ in 0..1_000_000 {
        actor.try_tell(Note(String::new())).unwrap();
    }
    actor.stop(ExitReason::Shutdown);
    drop(release);
    soon(actor.ended()).await;
    loop {
        if let stonechat_actors::Event::Exited { discarded, .. } = events.recv().await.unwrap() {
            assert_eq!(discarded, 1_000_000, "counted, not dropped in silence");
            break;
        }
    }
    tree.shutdown(SOON).await;
}

#[actix_rt::test]
async fn a_busy_actor_lets_its_neighbours_live() {
    let tree = tree();
    let log = Log::default();
    let busy = {
        let log = log.clone();
        tree.root()
            .start_child(spec("busy"), &here(), move |_| Probe::new("busy", &log))
            .unwrap()
    };
    // It feeds itself for ever.
    fn again(probe: &mut Probe, ctx: &mut Ctx<Probe>) {
        probe.seen += 1;
        ctx.myself()
            .try_tell(act(again))
            .map_err(|_| "full")
            .unwrap();
    }
    busy.try_tell(act(again)).map_err(|_| "full").unwrap();
    let other = {
        let log = log.clone();
        tree.root()
            .start_child(spec("other"), &here(), move |_| Probe::new("other", &log))
            .unwrap()
    };
    assert_eq!(other.ask(Count, SOON).await.unwrap(), 1);
    assert!(
        tree.shutdown(SOON).await.is_clean(),
        "and a stop gets through to it"
    );
}

#[derive(Clone, Debug)]
enum Step {
    TryTell,
    TellAndGiveUp,
    TellAndWait,
    Drain,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a model: what is accepted is handled, in order; depth never exceeds the capacity.
    #[test]
    fn the_inbox_agrees_with_a_model(
        capacity in 1u32..5,
        steps in prop::collection::vec(prop_oneof![
            4 => Just(Step::TryTell), 2 => Just(Step::TellAndGiveUp), 2 => Just(Step::TellAndWait),
            1 => Just(Step::Drain),
        ], 1..60),
    ) {
        actix_rt::System::new().block_on(async move {
            let tree = tree();
            let log = Log::default();
            let actor = {
                let log = log.clone();
                tree.root().start_child(spec("a").inbox_capacity(capacity), &here(), move |_| Probe::new("a", &log)).unwrap()
            };
            until("it runs", || log.len() == 1).await;
            log.clear();
            // On one thread the actor runs only where this test awaits.
            let (mut expected, mut line) = (Vec::new(), std::collections::VecDeque::new());
            let mut depth = 0;
            for (n, step) in steps.into_iter().enumerate() {
                let text = n.to_string();
                let room = depth < capacity && line.is_empty();
                match step {
                    Step::TryTell => {
                        assert_eq!(actor.try_tell(Note(text.clone())).is_ok(), room);
                        if room { expected.push(text); depth += 1; }
                    }
                    Step::TellAndGiveUp | Step::TellAndWait => {
                        let owned = actor.clone();
                        let message = Note(text.clone());
                        let mut sender: Sender = Box::pin(async move { owned.tell(message, SOON).await.is_ok() });
                        let done = futures_util::poll!(&mut sender).is_ready();
                        assert_eq!(done, room);
                        if room { expected.push(text); depth += 1; }
                        else if matches!(step, Step::TellAndWait) { line.push_back((text, sender)); }
                        else {
                            // A line that has only quitters in it may still look like a line.
                            drop(sender);
                            if line.is_empty() { drain(&actor, &mut line, &mut expected).await; depth = 0; }
                        }
                    }
                    Step::Drain => { drain(&actor, &mut line, &mut expected).await; depth = 0; }
                }
                assert!(actor.stats().depth <= capacity);
            }
            drain(&actor, &mut line, &mut expected).await;
            assert_eq!(log.lines(), expected);
            assert!(actor.stats().high_water <= capacity);
            tree.shutdown(SOON).await;
        });
    }
}

type Sender = std::pin::Pin<Box<dyn Future<Output = bool>>>;

async fn drain(
    actor: &ActorRef<Probe>,
    line: &mut std::collections::VecDeque<(String, Sender)>,
    expected: &mut Vec<String>,
) {
    while let Some((text, sender)) = line.pop_front() {
        assert!(sender.await);
        expected.push(text);
    }
    until("it is empty", || actor.stats().depth == 0).await;
}
