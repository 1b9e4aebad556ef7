//! What panics cost: the connection that has to resend, a redelivery, and
//! nothing else. Nothing accepted is lost, and the order stays.

mod common;

use std::collections::VecDeque;
use std::sync::Arc;

use common::{Device, Node, config, id, number, run, send, until, user};
use stonechat_actors::{Tree, TreeConfig};
use stonechat_broker::{
    Broker, BrokerConfig, BrokerStartError, Event, Fault, OutletLimits, commit_sink,
};
use stonechat_mailbox::{DeadLetter, Store};
use stonechat_protocol::{CloseReason, ErrorCode, Seq};

/// Messages of one run under faults.
const MESSAGES: u64 = 620;
/// A fault is injected at every so many messages received.
const FAULT_EVERY: u64 = 100;

async fn dead_letters(node: &Node, count: usize) -> Vec<DeadLetter> {
    until("the dead letters", || {
        node.store.stats().dead_letters == count as u64
    })
    .await;
    let letters = node.store.dead_letters(0, 10);
    common::soon("the dead letters", letters)
        .await
        .expect("reads")
}

#[test]
fn a_session_panic_keeps_an_idle_connection_and_sends_again() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut alice = node.attach("alice/phone").await;
            let mut bob = node.attach("bob/laptop").await;
            alice.send(1, "bob").await;
            alice.send(2, "bob").await;
            assert_eq!(bob.messages(2).await, [1, 2]);
            bob.ack(1).await;
            alice.receipt("bob", Some(1), None).await;
            assert!(node.broker.inject(Fault::Session(user("bob"))));
            let again = bob.message().await;
            assert_eq!((again.n, again.redelivered), (2, true));
            alice.send(3, "bob").await;
            let new = bob.message().await;
            assert_eq!((new.n, new.redelivered), (3, false));
            bob.send(1, "alice").await;
            assert_eq!(bob.accepted().await.id, id(1));
            bob.ack(3).await;
            alice.receipt("bob", Some(3), None).await;
        },
    );
}

#[test]
fn a_session_panic_closes_a_connection_that_waits_for_answers() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut phone = node.attach("alice/phone").await;
            let mut tablet = node.attach("alice/tablet").await;
            // The session is on this thread: it has not had its turn when the send is in its inbox.
            assert!(node.broker.inject(Fault::Session(user("alice"))));
            phone.send(1, "bob").await;
            assert_eq!(phone.closed().await, CloseReason::Internal);
            drop(phone);
            let mut phone = node.attach("alice/phone").await;
            phone.send(1, "bob").await;
            assert_eq!(phone.accepted().await.id, id(1));
            assert_eq!(tablet.messages(1).await, [1], "the other stayed connected");
            let mut bob = node.attach("bob/laptop").await;
            assert_eq!((bob.pending, bob.message().await.n), (1, 1));
        },
    );
}

#[test]
fn a_poisonous_message_becomes_a_dead_letter_and_the_rest_arrives() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut alice = node.attach("alice/phone").await;
            let mut bob = node.attach("bob/laptop").await;
            assert!(node.broker.inject(Fault::Poison(user("bob"), id(2))));
            for n in 1..=3 {
                alice.send(n, "bob").await;
                assert_eq!(alice.accepted().await.id, id(n));
            }
            let mut last = 0;
            while last < 3 {
                let message = bob.message().await;
                assert_ne!(message.n, 2);
                last = message.n;
            }
            let letters = dead_letters(node, 1).await;
            assert_eq!(letters[0].user, user("bob"));
            assert_eq!(number(letters[0].stored.envelope.id), 2);
            assert!(
                letters[0].reason.contains("poison"),
                "{}",
                letters[0].reason
            );

            // Mended: it is put back, at the end.
            assert!(node.broker.inject(Fault::Poison(user("bob"), id(99))));
            let replayed = node.broker.replay_dead_letter(letters[0].number);
            common::soon("the dead letter is put back", replayed)
                .await
                .expect("puts it back");
            let message = bob.pick("the message", |event| {
                common::as_message(event).filter(|message| message.n == 2)
            });
            let message = message.await.expect("the connection is open");
            assert!(message.seq > 3 && !message.redelivered);
            assert!(dead_letters(node, 0).await.is_empty());
            let gone = node.broker.replay_dead_letter(letters[0].number).await;
            assert!(gone.is_err(), "it is not there any more");
            bob.ack(message.seq).await;
            alice.send(4, "bob").await;
            assert_eq!(alice.accepted().await.id, id(4));
            assert_eq!(bob.messages(1).await, [4]);
        },
    );
}

/// The acknowledgement in the sign-in makes room for the poisonous message at once.
#[test]
fn a_poisonous_message_does_not_keep_a_device_from_signing_in() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut alice = node.attach("alice/phone").await;
            let mut bob = node.attach("bob/laptop").await;
            alice.send(1, "bob").await;
            assert_eq!(bob.messages(1).await, [1]);
            assert!(node.broker.inject(Fault::Poison(user("bob"), id(2))));
            drop(bob);
            alice.send(2, "bob").await;
            alice.send(3, "bob").await;
            for n in 1..=3 {
                assert_eq!(alice.accepted().await.id, id(n));
            }
            let mut plug = node.plug("bob/laptop");
            plug.ack = Some(1);
            let mut bob = plug.attach(node).await.expect("attaches");
            // The first may come again: what the sign-in acknowledged was still on its way.
            let third = bob.pick("the third", |event| {
                common::as_message(event).filter(|message| message.n == 3)
            });
            third.await.expect("the connection is open");
            assert_eq!(number(dead_letters(node, 1).await[0].stored.envelope.id), 2);
            assert_eq!(node.broker.connected_devices(&user("bob")).len(), 1);
        },
    );
}

#[test]
fn a_connection_made_while_a_dead_letter_is_stored_gets_everything_once() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let alice = node.attach("alice/phone").await;
            let mut bob = node.attach("bob/laptop").await;
            assert!(node.broker.inject(Fault::Poison(user("bob"), id(1))));
            alice.send(1, "bob").await;
            // Connects and goes over and over, until the message is put away.
            while node.store.stats().dead_letters == 0 {
                drop(node.attach("bob/watch").await);
            }
            let mut watch = node.attach("bob/watch").await;
            alice.send(2, "bob").await;
            alice.send(3, "bob").await;
            assert_eq!(watch.messages(2).await, [2, 3]);
            assert_eq!(bob.messages(2).await, [2, 3]);
            for device in [&mut watch, &mut bob] {
                let rest = device.rest(50, "alice").await;
                let messages = rest.iter().filter_map(common::as_message);
                let kept = messages.filter(|message| !message.ephemeral);
                assert_eq!(kept.count(), 0, "{rest:?}");
            }
        },
    );
}

/// A sender as the protocol wants it: resends what is unanswered, in order, before anything new.
struct Talker {
    device: Device,
    next: u64,
    unanswered: VecDeque<u64>,
}

impl Talker {
    async fn attach(node: &Node) -> Device {
        let mut plug = node.plug("alice/phone");
        plug.home = node.arbiters[0].clone();
        plug.attach(node).await.expect("attaches")
    }

    async fn run(node: &Node) {
        let mut me = Self {
            device: Self::attach(node).await,
            next: 1,
            unanswered: VecDeque::new(),
        };
        while me.next <= MESSAGES || !me.unanswered.is_empty() {
            let mut gone = false;
            while !gone && me.next <= MESSAGES && me.unanswered.len() < 32 {
                me.unanswered.push_back(me.next);
                gone = me
                    .device
                    .link
                    .input(send(me.next, "bob", false))
                    .await
                    .is_err();
                me.next += 1;
            }
            if gone || me.answer().await.is_err() {
                me.reconnect(node).await;
            }
        }
    }

    async fn answer(&mut self) -> Result<(), CloseReason> {
        let answer = self.device.pick("an answer", |event| match event {
            Event::Accepted(accepted) => Some(Ok(accepted.id)),
            Event::Error(error) => Some(Err(error.clone())),
            _ => None,
        });
        let accepted = answer.await?.expect("nothing is refused here");
        assert_eq!(self.unanswered.pop_front(), Some(number(accepted)));
        Ok(())
    }

    async fn reconnect(&mut self, node: &Node) {
        loop {
            self.device = Self::attach(node).await;
            let mut sent = true;
            for n in &self.unanswered {
                sent = sent && self.device.link.input(send(*n, "bob", false)).await.is_ok();
            }
            if sent {
                return;
            }
        }
    }
}

/// A receiver as the protocol wants it: drops what it has seen, acknowledges everything.
async fn listen(node: &Node, on_message: impl AsyncFn(u64)) -> Vec<u64> {
    let mut got = Vec::new();
    let mut seen: Seq = 0;
    while got.len() < MESSAGES as usize {
        let mut plug = node.plug("bob/laptop");
        plug.home = node.arbiters[1].clone();
        plug.ack = Some(seen);
        let mut device = plug.attach(node).await.expect("attaches");
        while got.len() < MESSAGES as usize {
            let Ok(message) = device.try_message().await else {
                break;
            };
            if message.seq > seen {
                seen = message.seq;
                got.push(message.n);
                on_message(message.n).await;
            }
            let ack = stonechat_broker::Input {
                ack: Some(message.seq),
                ..stonechat_broker::Input::default()
            };
            if device.link.input(ack).await.is_err() {
                break;
            }
        }
    }
    got
}

/// Messages flow while `faults` are injected in turn; returns what bob's application saw.
fn under_faults(config: BrokerConfig, faults: &[Fault]) {
    run(
        config,
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let on_message = async |n: u64| {
                if n.is_multiple_of(FAULT_EVERY) {
                    let injected = n / FAULT_EVERY;
                    let fault = &faults[injected as usize % faults.len()];
                    assert!(node.broker.inject(fault.clone()), "{fault:?}");
                    // Not the next one before this one was: all are to hit what is under way.
                    let restarts = || node.broker.tree().totals().restarts;
                    until("the restart", || restarts() == injected).await;
                }
            };
            let (got, ()) = futures_util::join!(listen(node, on_message), Talker::run(node));
            let wanted: Vec<u64> = (1..=MESSAGES).collect();
            assert_eq!(got, wanted);

            // And the sender is told of the last in the end, whatever was lost on the way.
            let mut alice = node.attach("alice/phone").await;
            alice.receipt("bob", Some(MESSAGES), None).await;
        },
    );
}

/// What a dispatcher was about to tell when it panicked is found in the store, also when nothing follows it.
#[test]
fn what_a_dispatcher_did_not_tell_is_looked_up() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut alice = node.attach("alice/phone").await;
            let mut bob = node.attach("bob/laptop").await;
            alice.send(1, "bob").await;
            assert_eq!(bob.messages(1).await, [1]);
            assert_eq!(alice.accepted().await.id, id(1));
            let tree = node.broker.tree();
            tree.inject_panics("dispatcher", 1);
            alice.send(2, "bob").await;
            until("a panic", || tree.totals().panics > 0).await;
            tree.inject_panics("dispatcher", 0);
            assert_eq!(bob.messages(1).await, [2]);
            assert_eq!(alice.accepted().await.id, id(2));
        },
    );
}

#[test]
fn offline_queue_panics_lose_nothing() {
    under_faults(config(), &[Fault::OfflineQueue(0), Fault::OfflineQueue(1)]);
}

#[test]
fn dispatcher_panics_lose_nothing() {
    under_faults(config(), &[Fault::Dispatcher(0)]);
}

#[test]
fn router_panics_lose_nothing() {
    under_faults(config(), &[Fault::Router]);
}

#[test]
fn session_panics_lose_nothing() {
    let sessions = [Fault::Session(user("alice")), Fault::Session(user("bob"))];
    under_faults(config(), &sessions);
}

#[test]
fn all_of_them_together_lose_nothing() {
    let faults = [
        Fault::Session(user("bob")),
        Fault::OfflineQueue(0),
        Fault::Dispatcher(0),
        Fault::Router,
        Fault::Session(user("alice")),
        Fault::OfflineQueue(1),
    ];
    under_faults(config(), &faults);
}

#[test]
fn the_router_works_on_after_a_panic() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            for round in 0..5 {
                assert!(node.broker.inject(Fault::Router));
                let mut bob = node.attach("bob/laptop").await;
                bob.send(round + 1, "alice").await;
                assert_eq!(bob.accepted().await.id, id(round + 1));
            }
        },
    );
}

#[test]
fn faults_are_off_unless_asked_for() {
    let config = BrokerConfig {
        fault_injection: false,
        ..config()
    };
    run(
        config,
        |_| {},
        async |node| {
            node.create(&["bob"]).await;
            let _bob = node.attach("bob/laptop").await;
            assert!(!node.broker.inject(Fault::Router));
            assert!(!node.broker.inject(Fault::Session(user("bob"))));
        },
    );
}

#[test]
fn a_slow_device_is_given_up_and_nobody_else_notices() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut alice = node.attach("alice/phone").await;
            let mut fast = node.attach("bob/laptop").await;
            let mut plug = node.plug("bob/watch");
            plug.limits = OutletLimits {
                events_max: 3,
                ..OutletLimits::default()
            };
            let mut slow = plug.attach(node).await.expect("attaches");
            for n in 1..=10 {
                alice.send(n, "bob").await;
                assert_eq!(alice.accepted().await.id, id(n));
            }
            assert_eq!(fast.messages(10).await, (1..=10).collect::<Vec<u64>>());
            assert_eq!(slow.closed().await, CloseReason::SlowConsumer);
            drop(slow);
            let mut slow = node.attach("bob/watch").await;
            assert_eq!(slow.pending, 10);
            assert_eq!(slow.messages(10).await, (1..=10).collect::<Vec<u64>>());
            fast.send(1, "ghost").await;
            fast.refused(1, ErrorCode::UnknownUser).await;
        },
    );
}

/// Ephemeral messages are promised to nobody, so they must not cost a connection either.
#[test]
fn a_flood_of_ephemeral_messages_gives_no_device_up() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut alice = node.attach("alice/phone").await;
            let mut plug = node.plug("bob/watch");
            plug.limits = OutletLimits {
                events_max: 6,
                ..OutletLimits::default()
            };
            let mut bob = plug.attach(node).await.expect("attaches");
            for n in 101..=120 {
                alice.input(send(n, "bob", true)).await;
                alice.accepted().await;
            }
            alice.send(1, "bob").await;
            alice.accepted().await;
            let mut numbers = Vec::new();
            while numbers.last() != Some(&1) {
                numbers.push(bob.message().await.n);
            }
            assert_eq!(numbers, [101, 102, 103, 1]);
        },
    );
}

#[test]
fn a_broker_without_a_thread_to_live_on_does_not_start() {
    run(
        config(),
        |_| {},
        async |node| {
            let tree = Tree::try_new(TreeConfig::default()).expect("a tree");
            let (_commits, sink) = commit_sink();
            let store: Arc<dyn Store> = node.store.clone();
            let refused = Broker::start(config(), store, &sink, tree, &[]);
            assert!(matches!(refused, Err(BrokerStartError::NoArbiter)));
        },
    );
}
