//! Models of the inbox and of restarts: the real code, with its threads run in every order chance finds.
//!
//! Each model is a handful of threads around one actor. Its schedules are drawn at random, and for the
//! smallest also enumerated. A wake-up that is lost shows as a deadlock, everything else as a difference
//! between what senders were told and what the actor handled.
//!
//! Not here: weak memory (operations take effect in one order, the same for all threads), the keeper and
//! its groups, time: a deadline passes when chance says so.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use shuttle::{future::block_on, thread};

use crate::{
    ActorRef, Ask, AskError, Backoff, ChildSpec, Ctx, ExitReason, Handle, Restart, Supervised,
    TellError, Tree, TreeConfig, TrySendError,
    cell::{Cell, Core, Node},
    inbox::Inbox,
    signal::Order,
    sync::deadlines_pass,
    task::{ActorTask, Launch},
};

/// Schedules of each model in the test command.
const SCHEDULES: usize = 3000;
/// A message after which the actor is left asleep over nothing.
const LAST_CALL: u32 = 50;
/// A message whose handling lasts until [`AWAITED`] is in.
const AWAITING: u32 = 60;
const AWAITED: u32 = 61;
/// A deadline that passes only when a model says so.
const DEADLINE: Duration = Duration::from_secs(1);

/// What happened, noted by everyone.
#[derive(Default)]
struct Log {
    handled: Vec<u32>,
    /// Dropped without having been handled.
    dropped: Vec<u32>,
    generations: u32,
    /// The actor will not wake by itself any more.
    impatient: bool,
    /// The sender of [`AWAITED`] was told that it is in.
    awaited: bool,
}

type Shared = Arc<Mutex<Log>>;

struct Worker {
    log: Shared,
    /// Ends by itself after so many messages.
    until: usize,
    /// Panics over these.
    poison: &'static [u32],
}

impl Worker {
    fn end_if_done(&self, ctx: &mut Ctx<Self>) {
        if self.log.lock().handled.len() >= self.until {
            ctx.stop(ExitReason::Normal);
        }
    }
}

impl Supervised for Worker {
    const KIND: &'static str = "worker";

    fn started(&mut self, ctx: &mut Ctx<Self>) {
        self.log.lock().generations += 1;
        self.end_if_done(ctx);
    }
}

/// A message that notes what becomes of it.
struct Msg {
    n: u32,
    log: Shared,
    done: bool,
}

impl Drop for Msg {
    fn drop(&mut self) {
        if !self.done {
            self.log.lock().dropped.push(self.n);
        }
    }
}

impl Msg {
    fn new(n: u32, log: &Shared) -> Self {
        let log = Arc::clone(log);
        Self {
            n,
            log,
            done: false,
        }
    }

    /// Given back to its sender.
    fn back(mut self) {
        self.done = true;
    }
}

impl Handle<Msg> for Worker {
    fn handle(&mut self, mut msg: Msg, ctx: &mut Ctx<Self>) {
        msg.done = true;
        let mut log = self.log.lock();
        log.handled.push(msg.n);
        log.impatient |= msg.n == LAST_CALL;
        drop(log);
        while msg.n == AWAITING && !self.log.lock().awaited {
            thread::yield_now();
        }
        if self.poison.contains(&msg.n) {
            // Past the panic hook, which would have something to say about each of thousands.
            std::panic::resume_unwind(Box::new("poison"));
        }
        self.end_if_done(ctx);
    }
}

impl Ask<u32> for Worker {
    type Reply = u32;

    fn ask(&mut self, n: u32, ctx: &mut Ctx<Self>) -> u32 {
        self.handle(Msg::new(n, &Arc::clone(&self.log)), ctx);
        n + 1
    }
}

/// One tree for all models: it is not what they are about, and has a thread of its own.
fn tree() -> &'static Tree {
    static TREE: OnceLock<Tree> = OnceLock::new();
    TREE.get_or_init(|| {
        Tree::new(TreeConfig {
            alarm_panics_max: usize::MAX,
            ..TreeConfig::default()
        })
    })
}

fn worker(
    capacity: u32,
    until: usize,
    poison: &'static [u32],
) -> (ActorRef<Worker>, ActorTask<Worker>, Shared) {
    let log = Shared::default();
    let spec = ChildSpec::new("worker")
        .restart(Restart::Transient)
        .intensity(100, Duration::from_secs(3600))
        .backoff(Backoff {
            initial: Duration::ZERO,
            max: Duration::ZERO,
            reset_after: Duration::from_secs(1),
        });
    let sup = &tree().root().node;
    let cell = Arc::new(Cell::<Worker> {
        core: Core::new(
            sup.tree.next_id(),
            "worker".into(),
            Arc::clone(sup),
            spec.policy().expect("a good spec"),
        ),
        inbox: Inbox::new(capacity),
    });
    let noted = Arc::clone(&log);
    let factory = Box::new(move |_: &_| Worker {
        log: Arc::clone(&noted),
        until,
        poison,
    });
    let task = Launch::new(Arc::clone(&cell), factory)
        .task()
        .expect("a launch has its parts");
    (ActorRef { cell }, task, log)
}

/// Sends `messages` one after the other; those that were taken.
fn sender(
    actor: &ActorRef<Worker>,
    log: &Shared,
    messages: &'static [u32],
) -> thread::JoinHandle<Vec<u32>> {
    let (actor, log) = (actor.clone(), Arc::clone(log));
    thread::spawn(move || {
        let tell = |n: &&u32| match block_on(actor.tell(Msg::new(**n, &log), DEADLINE)) {
            Ok(()) => {
                log.lock().awaited |= **n == AWAITED;
                true
            }
            Err(TellError::Closed(msg) | TellError::Full(msg)) => {
                msg.back();
                false
            }
        };
        messages.iter().filter(tell).copied().collect()
    })
}

fn joined(senders: Vec<thread::JoinHandle<Vec<u32>>>) -> Vec<Vec<u32>> {
    let join = |sender: thread::JoinHandle<Vec<u32>>| sender.join().expect("senders do not panic");
    senders.into_iter().map(join).collect()
}

/// What each sender was told is true: taken once, in its order, or not at all.
fn check(log: &Shared, taken: &[Vec<u32>]) {
    let log = log.lock();
    for taken in taken {
        let mine = |n: &&u32| taken.contains(n);
        let handled: Vec<u32> = log.handled.iter().filter(mine).copied().collect();
        let lost = taken.iter().filter(|n| !handled.contains(n));
        assert!(
            lost.clone().all(|n| log.dropped.contains(n)),
            "taken, neither handled nor dropped at the end: {lost:?}",
            lost = lost.collect::<Vec<_>>()
        );
        let kept = taken.iter().filter(|n| handled.contains(n)).copied();
        assert_eq!(handled, kept.collect::<Vec<_>>(), "twice, or out of order");
    }
    let all = log.handled.len() + log.dropped.len();
    let told = taken.iter().map(Vec::len).sum::<usize>();
    assert_eq!(
        all, told,
        "handled {:?}, dropped {:?}, told {taken:?}",
        log.handled, log.dropped
    );
}

/// For good: nothing is taken any more.
fn check_closed(actor: &ActorRef<Worker>, log: &Shared) {
    assert!(!actor.is_alive());
    match actor.try_tell(Msg::new(99, log)) {
        Err(TrySendError::Closed(msg)) => msg.back(),
        Err(TrySendError::Full(_)) => panic!("an actor that has ended is not full"),
        Ok(()) => panic!("an actor that has ended took a message"),
    }
    match block_on(actor.tell(Msg::new(99, log), DEADLINE)) {
        Err(TellError::Closed(msg)) => msg.back(),
        other => panic!("an actor that has ended said {:?}", other.is_ok()),
    }
    assert!(matches!(
        block_on(actor.ask(99, DEADLINE)),
        Err(AskError::Closed)
    ));
}

fn schedules() -> usize {
    let asked = std::env::var("STONECHAT_MODEL_SCHEDULES").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(SCHEDULES)
}

/// Random schedules, and such with few, deliberate switches.
fn explore(model: impl Fn() + Send + Sync + Copy + 'static) {
    tree();
    shuttle::check_random(model, schedules());
    shuttle::check_pct(model, schedules(), 3);
}

#[test]
fn nobody_sleeps_over_a_message_or_a_free_slot() {
    fn model() {
        let (actor, task, log) = worker(1, 4, &[]);
        let senders = vec![
            sender(&actor, &log, &[1, 2]),
            sender(&actor, &log, &[11, 12]),
        ];
        block_on(task);
        let taken = joined(senders);
        assert_eq!(taken.concat().len(), 4);
        check(&log, &taken);
        assert_eq!(actor.stats().depth, 0, "a slot leaked");
        check_closed(&actor, &log);
    }
    explore(model);
    // The smallest one in every order, as far as that goes.
    shuttle::check_dfs(
        || {
            let (actor, task, log) = worker(1, 2, &[]);
            let senders = vec![sender(&actor, &log, &[1]), sender(&actor, &log, &[11])];
            block_on(task);
            check(&log, &joined(senders));
        },
        Some(2 * schedules()),
    );
}

#[test]
fn a_slot_that_is_freed_goes_on_at_once() {
    fn model() {
        let (actor, task, log) = worker(2, 4, &[]);
        let senders = vec![
            sender(&actor, &log, &[1, AWAITING, 3]),
            sender(&actor, &log, &[AWAITED]),
        ];
        block_on(task);
        check(&log, &joined(senders));
    }
    explore(model);
}

#[test]
fn a_slot_nobody_wants_any_more_goes_to_the_next_in_line() {
    fn model() {
        let (actor, task, log) = worker(1, 2, &[]);
        let senders = vec![sender(&actor, &log, &[1]), sender(&actor, &log, &[11])];
        let turns_away = {
            let cell = Arc::clone(&actor.cell);
            thread::spawn(move || drop(Inbox::wait_for_slot(&cell)))
        };
        block_on(task);
        turns_away.join().expect("it does not panic");
        check(&log, &joined(senders));
    }
    explore(model);
}

#[test]
fn who_takes_its_consent_back_is_not_left_asleep() {
    fn model() {
        let (actor, task, log) = worker(3, 3, &[]);
        let lazily = {
            let (actor, log) = (actor.clone(), Arc::clone(&log));
            thread::spawn(move || {
                let may_wait = || !log.lock().impatient;
                let tell = |n| actor.try_tell_lazily(Msg::new(n, &log), may_wait).is_ok();
                [1, 2].into_iter().filter(|n| tell(*n)).collect()
            })
        };
        let senders = vec![lazily, sender(&actor, &log, &[LAST_CALL])];
        block_on(task);
        let taken = joined(senders);
        assert_eq!(taken.concat().len(), 3);
        check(&log, &taken);
        check_closed(&actor, &log);
    }
    explore(model);
}

#[test]
fn a_restart_keeps_what_waits_and_handles_it_once() {
    fn model() {
        let (actor, task, log) = worker(2, 6, &[2, 11]);
        let senders = vec![
            sender(&actor, &log, &[1, 2, 3]),
            sender(&actor, &log, &[11, 12, 13]),
        ];
        block_on(task);
        let taken = joined(senders);
        assert_eq!(taken.concat().len(), 6);
        check(&log, &taken);
        assert_eq!(
            log.lock().generations,
            3,
            "one for each panic, and the first"
        );
        assert_eq!(actor.stats().restarts, 2);
        assert_eq!(actor.stats().depth, 0, "a slot leaked");
    }
    explore(model);
}

#[test]
fn nobody_sleeps_over_a_stop() {
    fn model() {
        let (actor, task, log) = worker(1, usize::MAX, &[]);
        let stopper = {
            let actor = actor.clone();
            thread::spawn(move || actor.stop(ExitReason::Shutdown))
        };
        block_on(task);
        stopper.join().expect("it does not panic");
        check_closed(&actor, &log);
    }
    explore(model);
}

#[test]
fn a_stop_beside_senders_and_panics_is_heard_and_final() {
    fn model() {
        let (actor, task, log) = worker(1, usize::MAX, &[2]);
        let senders = vec![
            sender(&actor, &log, &[1, 2, 3]),
            sender(&actor, &log, &[11, 12]),
        ];
        let stopper = {
            let actor = actor.clone();
            thread::spawn(move || actor.stop(ExitReason::Shutdown))
        };
        let watcher = {
            let actor = actor.clone();
            thread::spawn(move || block_on(actor.ended()))
        };
        block_on(task);
        let reason = watcher.join().expect("it does not panic");
        assert!(matches!(*reason, ExitReason::Shutdown), "{reason}");
        stopper.join().expect("it does not panic");
        check(&log, &joined(senders));
        check_closed(&actor, &log);
    }
    explore(model);
}

#[test]
fn a_sender_that_gives_up_leaves_no_slot_behind() {
    fn model() {
        let (actor, task, log) = worker(1, usize::MAX, &[]);
        let senders = vec![
            sender(&actor, &log, &[1, 2]),
            sender(&actor, &log, &[11, 12]),
            sender(&actor, &log, &[21]),
        ];
        let ender = {
            let (actor, log) = (actor.clone(), Arc::clone(&log));
            thread::spawn(move || {
                let taken = joined(senders);
                let all = taken.concat().len();
                // The inbox runs empty, so a slot that is not free then never will be.
                while log.lock().handled.len() < all {
                    thread::yield_now();
                }
                while actor.stats().depth > 0 {
                    thread::yield_now();
                }
                actor
                    .try_tell(Msg::new(31, &log))
                    .is_ok()
                    .then_some(())
                    .expect("an empty inbox has room");
                while log.lock().handled.len() < all + 1 {
                    thread::yield_now();
                }
                actor.stop(ExitReason::Shutdown);
                taken
            })
        };
        block_on(task);
        let mut taken = ender.join().expect("it does not panic");
        taken.push(vec![31]);
        check(&log, &taken);
    }
    tree();
    deadlines_pass(true);
    shuttle::check_random(model, schedules());
}

#[test]
fn who_asks_hears_what_became_of_it() {
    fn model() {
        let (actor, task, log) = worker(1, 3, &[2]);
        let askers: Vec<_> = [1, 2, 3]
            .into_iter()
            .map(|n| {
                let actor = actor.clone();
                thread::spawn(move || block_on(actor.ask(n, DEADLINE)))
            })
            .collect();
        block_on(task);
        for (n, asker) in (1..).zip(askers) {
            match asker.join().expect("it does not panic") {
                Ok(answer) => assert_eq!((answer, n == 2), (n + 1, false)),
                Err(AskError::Panicked(_)) => assert_eq!(n, 2),
                Err(error) => panic!("{n}: {error}"),
            }
        }
        assert_eq!(log.lock().handled.len(), 3);
    }
    explore(model);
}

#[test]
fn a_group_restart_keeps_what_waits() {
    fn model() {
        let (actor, task, log) = worker(1, 4, &[]);
        let senders = vec![
            sender(&actor, &log, &[1, 2]),
            sender(&actor, &log, &[11, 12]),
        ];
        let keeper = {
            let cell = Arc::clone(&actor.cell);
            thread::spawn(move || {
                cell.order(Order::Halt);
                block_on(
                    cell.core
                        .reached(|phase| phase.name() == "halted" || phase.name() == "ended"),
                );
                cell.order(Order::Resume { fresh: true });
            })
        };
        block_on(task);
        keeper.join().expect("it does not panic");
        check(&log, &joined(senders));
        assert_eq!(log.lock().handled.len(), 4);
    }
    explore(model);
}
