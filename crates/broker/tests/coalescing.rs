//! What waits for company is neither lost nor left waiting.

mod common;

use std::sync::Arc;

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
async fn large_commit(node: &Node, gate: &Gate, alice: &Device, first: u64) {
    gate.shut(true);
    alice.send(first, "bob").await;
    until("the first is being synced", || gate.is_waited_at()).await;
    for n in 1..=LARGE {
        alice.send(first + n, "bob").await;
    }
    until("they are in line for the next", || {
        node.store.stats().queued == LARGE
    })
    .await;
    gate.shut(false);
}

/// What waits in the inbox of alice's session.
fn depth(node: &Node) -> u64 {
    let session = node.broker.session_actor(&user("alice"));
    let info = session.and_then(|id| node.broker.tree().info(id));
    info.map_or(0, |info| u64::from(info.depth))
}

/// Alice is in the middle of a conversation, and a tick is to come to her session.
async fn conversation(node: &Node) -> (Device, Device) {
    node.create(&["alice", "bob"]).await;
    let mut alice = node.attach("alice/phone").await;
    let bob = node.attach("bob/laptop").await;
    bob.send(1, "alice").await;
    let message = alice.message().await;
    alice.ack(message.seq).await;
    (alice, bob)
}

/// Answers of a large commit wait for a message to the same device. When none comes, they
/// are told at the next tick.
#[test]
fn answers_do_not_wait_for_ever() {
    for acknowledges in [false, true] {
        let gate = Arc::new(Gate::default());
        let faults = Arc::clone(&gate);
        run(
            ticks(200),
            |settings| settings.faults = Some(faults),
            async |node| {
                node.create(&["alice", "bob"]).await;
                let mut alice = node.attach("alice/phone").await;
                let bob = node.attach("bob/laptop").await;
                bob.send(1, "alice").await;
                let message = alice.message().await;
                if acknowledges {
                    // Then a tick is to come already, and they wait in the inbox.
                    alice.ack(message.seq).await;
                }
                large_commit(node, &gate, &alice, 1).await;
                for n in 1..=1 + LARGE {
                    assert_eq!(alice.accepted().await.id, id(n));
                }
            },
        );
    }
}

/// Where a tick is to come they do not even wake the session. The message that does comes after them.
#[test]
fn answers_wait_in_the_inbox_for_a_message() {
    let gate = Arc::new(Gate::default());
    let faults = Arc::clone(&gate);
    run(
        ticks(NEVER_MS),
        |settings| settings.faults = Some(faults),
        async |node| {
            let (mut alice, bob) = conversation(node).await;
            large_commit(node, &gate, &alice, 1).await;
            until("the answers wait", || depth(node) == LARGE).await;
            bob.send(2, "alice").await;
            for n in 1..=1 + LARGE {
                assert_eq!(alice.accepted().await.id, id(n));
            }
            assert_eq!(alice.message().await.n, 2);
            assert_eq!(depth(node), 0);
        },
    );
}
