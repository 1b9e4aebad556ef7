//! What waits for company is neither lost nor left waiting.

mod common;

use std::sync::Arc;

use common::gate::Gate;
use common::{config, id, run, soon, until, user};
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

/// Answers of a large commit wait for a message to the same device. When none comes, they
/// are told at the next tick.
#[test]
fn answers_do_not_wait_for_ever() {
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
            alice.message().await;
            gate.shut(true);
            alice.send(1, "bob").await;
            until("the first is being synced", || gate.is_waited_at()).await;
            for n in 2..=32 {
                alice.send(n, "bob").await;
            }
            gate.shut(false);
            for n in 1..=32 {
                assert_eq!(alice.accepted().await.id, id(n));
            }
        },
    );
}
