//! What waits for company is neither lost nor left waiting.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::gate::Gate;
use common::{Device, Node, config, id, run, soon, until, user};
use stonechat_broker::{BrokerConfig, Fault};
use stonechat_mailbox::Store;

/// A tick that never comes while a test runs.
const NEVER_MS: u64 = 600_000;

fn ticks(coalesce_ms: u64) -> BrokerConfig {
    BrokerConfig {
        coalesce_ms,
        ..config()
    }
}

/// Acknowledged, and the session panics before it passed that on: the device is not sent the
/// message again.
#[test]
fn a_panic_forgets_no_acknowledgement() {
    run(
        ticks(NEVER_MS),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let alice = node.attach("alice/phone").await;
            let mut bob = node.attach("bob/laptop").await;
            alice.send(1, "bob").await;
            let message = bob.message().await;
            bob.ack(message.seq).await;
            assert!(node.broker.inject(Fault::Session(user("bob"))));
            until("a panic", || node.broker.tree().totals().panics > 0).await;
            alice.send(2, "bob").await;
            assert_eq!(bob.messages(1).await, [2]);
        },
    );
}

/// The same when the device leaves.
#[test]
fn leaving_forgets_no_acknowledgement() {
    run(
        ticks(NEVER_MS),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let alice = node.attach("alice/phone").await;
            let mut bob = node.attach("bob/laptop").await;
            alice.send(1, "bob").await;
            let message = bob.message().await;
            bob.ack(message.seq).await;
            drop(bob);
            let mailbox = soon("bob", node.store.open(&user("bob"))).await;
            let mailbox = mailbox.expect("opens").expect("is there");
            until("it left the mailbox", || mailbox.stats().messages == 0).await;
        },
    );
}

/// Messages in each commit that [`large_commit`] makes.
const LARGE: u64 = 31;

/// Sends message `first` and after it, in one commit, [`LARGE`] more.
async fn large_commit(node: &Node, gate: &Gate, from: &Device, to: &str, first: u64) {
    held_up(node, gate, from, to, first).await;
    gate.shut(false);
}

/// The same, and the disk is still held up.
async fn held_up(node: &Node, gate: &Gate, from: &Device, to: &str, first: u64) {
    gate.shut(true);
    from.send(first, to).await;
    until("something is being synced", || gate.is_waited_at()).await;
    for n in 1..=LARGE {
        from.send(first + n, to).await;
    }
    // And the first with them, where it was an acknowledgement that was being synced.
    until("they are in line for the next", || {
        node.store.stats().queued >= LARGE
    })
    .await;
}

/// What waits in the inbox of alice's session.
fn depth(node: &Node) -> u64 {
    let session = node.broker.session_actor(&user("alice"));
    let info = session.and_then(|id| node.broker.tree().info(id));
    info.map_or(0, |info| u64::from(info.depth))
}

/// Runs `test` on a disk that can be held up.
fn gated(coalesce_ms: u64, test: impl AsyncFnOnce(&Node, &Gate)) {
    let gate = Arc::new(Gate::default());
    let faults = Arc::clone(&gate);
    run(
        ticks(coalesce_ms),
        |settings| settings.faults = Some(faults),
        async |node| test(node, &gate).await,
    );
}

/// Alice, who has sent message 1, and bob. A device's first send waits for the disk before it is passed on,
/// which would be for ever where something else is held up there.
async fn connected(node: &Node) -> (Device, Device) {
    node.create(&["alice", "bob"]).await;
    let mut alice = node.attach("alice/phone").await;
    let bob = node.attach("bob/laptop").await;
    alice.send(1, "bob").await;
    assert_eq!(alice.accepted().await.id, id(1));
    (alice, bob)
}

/// Alice is in the middle of a conversation, and if she `acknowledges`, a tick is to come to her session.
async fn conversation(node: &Node, acknowledges: bool) -> (Device, Device) {
    let (mut alice, bob) = connected(node).await;
    bob.send(1, "alice").await;
    let message = alice.message().await;
    if acknowledges {
        alice.ack(message.seq).await;
    }
    (alice, bob)
}

/// All messages of a large commit that began with `first` are accepted, in their order.
async fn all_accepted(alice: &mut Device, first: u64) {
    for n in first..=first + LARGE {
        assert_eq!(alice.accepted().await.id, id(n));
    }
}

/// Answers of a large commit wait for a message to the same device. When none comes, they
/// are told at the next tick.
#[test]
fn answers_do_not_wait_for_ever() {
    // Where a tick is to come already, they wait in the inbox.
    for acknowledges in [false, true] {
        gated(200, async |node, gate| {
            let (mut alice, _bob) = conversation(node, acknowledges).await;
            large_commit(node, gate, &alice, "bob", 2).await;
            all_accepted(&mut alice, 2).await;
        });
    }
}

/// Consent to that ends with the last tick, also while the conversation is not over yet.
#[test]
fn without_a_tick_answers_wake_their_session() {
    gated(100, async |node, gate| {
        let (mut alice, _bob) = conversation(node, true).await;
        let mailbox = soon("alice", node.store.open(&user("alice"))).await;
        let mailbox = mailbox.expect("opens").expect("is there");
        until("the tick has come", || mailbox.stats().messages == 0).await;
        large_commit(node, gate, &alice, "bob", 2).await;
        all_accepted(&mut alice, 2).await;
    });
}

/// Where a tick is to come they do not even wake the session. The message that does comes after them.
#[test]
fn answers_wait_in_the_inbox_for_a_message() {
    gated(NEVER_MS, async |node, gate| {
        let (mut alice, bob) = conversation(node, true).await;
        held_up(node, gate, &alice, "bob", 2).await;
        // The first is a small commit, and wakes the session. It has had its turn when that is heard.
        gate.pass_one();
        assert_eq!(alice.accepted().await.id, id(2));
        gate.shut(false);
        until("the answers wait", || depth(node) == LARGE).await;
        bob.send(2, "alice").await;
        for n in 3..=2 + LARGE {
            assert_eq!(alice.accepted().await.id, id(n));
        }
        assert_eq!(alice.message().await.n, 2);
        assert_eq!(depth(node), 0);
    });
}

/// An answer that came to the inbox before a tick, and is taken up after it, does not wait for the whole of
/// the next one as well.
#[test]
fn a_tick_in_between_does_not_make_answers_wait_twice() {
    const TICK_MS: u64 = 300;
    gated(TICK_MS, async |node, gate| {
        let (mut alice, bob) = connected(node).await;
        let in_time = async |first: u64, alice: &mut Device| {
            // Alice has something to acknowledge while the node is busy, so the tick that comes is
            // followed by another.
            large_commit(node, gate, &bob, "alice", first).await;
            for n in first..=first + LARGE {
                let message = alice.message().await;
                assert_eq!(message.n, n);
                alice.ack(message.seq).await;
            }
            large_commit(node, gate, alice, "bob", first).await;
            let tick = Duration::from_millis(TICK_MS);
            let began = Instant::now();
            let answered = async {
                all_accepted(alice, first).await;
                began.elapsed()
            };
            let ticked = async {
                tokio::time::sleep(tick).await;
                began.elapsed()
            };
            let (answered, ticked) = tokio::join!(answered, ticked);
            answered < ticked + tick / 2
        };
        // What was slow may have been the machine: then once more.
        let mut tries = (0..10).map(|n| 2 + n * (1 + LARGE));
        while !in_time(tries.next().expect("one try in time"), &mut alice).await {}
    });
}
