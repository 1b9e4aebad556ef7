//! Receipts while the store is behind: however many wait for it, each conversation's
//! latest watermarks arrive (contract D8), and no reader is refused for it. Also when
//! they wait in a queue that panics, or in a process that is killed.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::gate::Held;
use common::{DEADLINE, Device, Node, config, device, id, run, soon, until, user};
use futures_util::FutureExt;
use futures_util::future::join_all;
use stonechat_broker::{BrokerConfig, Event, Fault, Posted, commit_sink};
use stonechat_mailbox::{Envelope, JournalStore, Receipt, Store, StoreConfig, StoreError};
use stonechat_protocol::{Address, Seq};

/// More senders than an offline queue asks the store for at a time.
const CROWD: u64 = 600;

/// All users in one offline queue, so that everybody waits for the same.
fn one_queue() -> BrokerConfig {
    BrokerConfig {
        shards: 1,
        ..config()
    }
}

/// Stores the messages `1..` of these users, who are not connected and not in memory.
async fn post(node: &Node, from: &[String], to: &str) {
    let mailbox = soon("a mailbox", node.store.open(&user(to))).await;
    let mailbox = mailbox.expect("opens").expect("is there");
    let posted = |(n, from): (u64, &String)| Posted {
        mailbox: Arc::clone(&mailbox),
        sender: None,
        envelope: Envelope {
            from: Address {
                user: user(from),
                device: device("phone"),
            },
            to: user(to),
            id: id(n),
            ts_ms: 1,
            expires_ms: u64::MAX,
            body: Bytes::from_static(b"{}"),
            trace: Default::default(),
        },
    };
    let messages = (1..).zip(from).map(posted).collect();
    let results = soon("the messages are stored", node.broker.post(messages)).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

/// The store of these tests: everything of the last minutes is in memory, except what the test is about.
fn held_by(held: &Arc<Held>) -> impl FnOnce(&mut StoreConfig) {
    let held = Arc::clone(held);
    move |settings| {
        settings.faults = Some(held);
        settings.migrate_after = Duration::from_secs(600);
        settings.segment_age_max = Duration::from_secs(600);
    }
}

/// What is stored of a conversation, if that is known without asking the database.
fn stored(node: &Node, of: &str, with: &str) -> Option<Receipt> {
    let mailbox = node.store.resident(&user(of))?;
    let receipt = node.store.receipt(&mailbox, &user(with)).now_or_never()?;
    match receipt {
        // It cannot be asked yet.
        Err(StoreError::Overloaded) => None,
        receipt => receipt.expect("reads"),
    }
}

/// Receives messages of `CROWD` senders and acknowledges them while the store answers nothing.
async fn acknowledge_a_crowd(bob: &mut Device) {
    let mut last: Seq = 0;
    for n in 1..=CROWD {
        let message = bob.message().await;
        assert_eq!(message.n, n);
        last = message.seq;
        if n % 16 == 0 {
            bob.ack(last).await;
        }
    }
    bob.ack(last).await;
}

fn refusals(events: &[Event]) -> Vec<&Event> {
    let refusals = events.iter();
    refusals
        .filter(|event| matches!(event, Event::Error(_)))
        .collect()
}

/// Everybody who wrote to bob hears of it when the store answers again, and those who wrote to others
/// meanwhile do, too. Nothing follows in any of these conversations.
#[test]
fn more_receipts_than_the_store_can_be_asked_for_all_arrive() {
    let held = Arc::new(Held::default());
    run(one_queue(), held_by(&held), async |node| {
        node.create(&["alice", "bob", "carol"]).await;
        let crowd: Vec<String> = (1..=CROWD).map(|n| format!("sender-{n}")).collect();
        join_all(crowd.iter().map(async |name| node.create(&[name]).await)).await;
        let mut alice = node.attach("alice/phone").await;
        let mut bob = node.attach("bob/laptop").await;
        let mut carol = node.attach("carol/desk").await;
        post(node, &crowd, "bob").await;
        held.hold(true);
        acknowledge_a_crowd(&mut bob).await;

        alice.send(1, "bob").await;
        alice.send(2, "carol").await;
        let (to_bob, to_carol) = (bob.message().await, carol.message().await);
        bob.ack(to_bob.seq).await;
        carol.read("alice", 2).await;
        carol.ack(to_carol.seq).await;
        let asked = carol.rest(1000, "alice").await;
        assert!(refusals(&asked).is_empty(), "refused: {asked:?}");
        held.hold(false);

        alice.receipt("bob", Some(1), None).await;
        alice.receipt("carol", Some(2), Some(2)).await;
        for (n, name) in (1..).zip(&crowd) {
            let moved = || stored(node, name, "bob").and_then(|receipt| receipt.delivered);
            until("the sender's receipt", || moved() == Some(id(n))).await;
        }
        let asked = carol.rest(1001, "alice").await;
        assert!(refusals(&asked).is_empty(), "refused: {asked:?}");
    });
}

/// What waits keeps its order within a conversation: a read of what was acknowledged before it is not
/// held against an older watermark.
#[test]
fn a_read_that_waits_is_not_refused_for_what_came_after_it() {
    let held = Arc::new(Held::default());
    run(one_queue(), held_by(&held), async |node| {
        node.create(&["alice", "bob"]).await;
        let mut bob = node.attach("bob/laptop").await;
        post(node, &["alice", "alice", "alice"].map(String::from), "bob").await;
        held.hold(true);
        for n in 1..=3 {
            let message = bob.message().await;
            assert_eq!(message.n, n);
            bob.ack(message.seq).await;
            // The acknowledgement goes on its way with the read.
            if n < 3 {
                bob.read("alice", n).await;
            }
        }
        all_acknowledged(node, "bob", 3).await;
        held.hold(false);
        let moved = || {
            stored(node, "alice", "bob")
                .is_some_and(|it| (it.delivered, it.read) == (Some(id(3)), Some(id(2))))
        };
        until("both watermarks have moved", moved).await;
        let after = bob.rest(1001, "alice").await;
        assert!(refusals(&after).is_empty(), "refused: {after:?}");
    });
}

/// The only offline queue panics and starts again.
async fn crash_queue(node: &Node) {
    let tree = node.broker.tree();
    let before = tree.totals().restarts;
    assert!(node.broker.inject(Fault::OfflineQueue(0)));
    until("it starts again", || tree.totals().restarts > before).await;
}

async fn all_acknowledged(node: &Node, of: &str, upto: Seq) {
    let mailbox = node.store.resident(&user(of)).expect("resident");
    let cursor = || mailbox.device(&device("laptop")).map(|state| state.cursor);
    until("all is acknowledged", || cursor() == Some(upto)).await;
}

/// Those that wait for the store, those that wait for these, and again: a queue that panics twice.
#[test]
fn a_panic_loses_no_receipt_that_waits() {
    let held = Arc::new(Held::default());
    run(one_queue(), held_by(&held), async |node| {
        node.create(&["bob"]).await;
        let crowd: Vec<String> = (1..=CROWD).map(|n| format!("sender-{n}")).collect();
        join_all(crowd.iter().map(async |name| node.create(&[name]).await)).await;
        let mut bob = node.attach("bob/laptop").await;
        post(node, &crowd, "bob").await;
        held.hold(true);
        acknowledge_a_crowd(&mut bob).await;
        all_acknowledged(node, "bob", CROWD).await;
        crash_queue(node).await;
        crash_queue(node).await;
        held.hold(false);
        for (n, name) in (1..).zip(&crowd) {
            let moved = || stored(node, name, "bob").and_then(|receipt| receipt.delivered);
            until("the sender's receipt", || moved() == Some(id(n))).await;
        }
    });
}

/// The store carries out an acknowledgement whether or not its queue is there to hear what it delivered.
#[test]
fn a_panic_loses_no_acknowledgement_that_the_store_is_at() {
    let held = Arc::new(Held::default());
    run(one_queue(), held_by(&held), async |node| {
        node.create(&["alice", "bob"]).await;
        post(node, &["alice", "alice", "alice"].map(String::from), "bob").await;
        node.store.migrate_now().expect("migrates");
        let mut bob = node.attach("bob/laptop").await;
        assert_eq!(bob.messages(3).await, [1, 2, 3]);
        held.hold(true);
        bob.ack(2).await;
        until("the store is at it", || held.is_waited_for()).await;
        crash_queue(node).await;
        held.hold(false);
        let moved = || stored(node, "alice", "bob").and_then(|receipt| receipt.delivered);
        until("alice's receipt", || moved() == Some(id(2))).await;
        bob.ack(3).await;
        until("alice's receipt", || moved() == Some(id(3))).await;
    });
}

#[test]
fn a_panic_loses_no_read_that_waits() {
    let held = Arc::new(Held::default());
    run(one_queue(), held_by(&held), async |node| {
        node.create(&["alice", "bob"]).await;
        let mut bob = node.attach("bob/laptop").await;
        post(node, &["alice", "alice", "alice"].map(String::from), "bob").await;
        assert_eq!(bob.messages(3).await, [1, 2, 3]);
        held.hold(true);
        bob.ack(3).await;
        bob.read("alice", 2).await;
        all_acknowledged(node, "bob", 3).await;
        crash_queue(node).await;
        held.hold(false);
        let moved = || {
            stored(node, "alice", "bob")
                .is_some_and(|it| (it.delivered, it.read) == (Some(id(3)), Some(id(2))))
        };
        until("both watermarks have moved", moved).await;
        let after = bob.rest(1001, "alice").await;
        assert!(refusals(&after).is_empty(), "refused: {after:?}");
    });
}

/// Acknowledgements on their way to a queue, and marks on their way from one queue to another.
#[test]
fn messages_whose_handling_panics_lose_no_receipt() {
    run(
        config(),
        |_| {},
        async |node| {
            let tree = node.broker.tree();
            node.create(&["bob"]).await;
            let mut bob = node.attach("bob/laptop").await;
            tree.inject_panics("offline_queue", 2);
            for n in 1..=8 {
                let name = format!("sender-{n}");
                node.create(&[&name]).await;
                let mut sender = node.attach(&format!("{name}/phone")).await;
                sender.send(1, "bob").await;
                let message = bob.message().await;
                bob.ack(message.seq).await;
                if tree.totals().panics >= 4 {
                    // The pauses between restarts grow.
                    tree.inject_panics("offline_queue", 0);
                }
                sender.receipt("bob", Some(1), None).await;
            }
            assert!(tree.totals().panics > 0);
        },
    );
}

/// What a receipt is derived from after a crash is kept for as long as the receipt waits.
#[test]
fn a_crash_loses_no_receipt_however_long_it_waited() {
    let held = Arc::new(Held::default());
    let tune = |settings: &mut StoreConfig| {
        held_by(&held)(settings);
        // Time for the queue to take note; the checkpoint below grants none.
        settings.receipt_grace = Duration::from_secs(5);
    };
    run(one_queue(), tune, async |node| {
        node.create(&["alice", "bob"]).await;
        let mut bob = node.attach("bob/laptop").await;
        post(node, &[String::from("alice")], "bob").await;
        assert_eq!(bob.messages(1).await, [1]);
        let mailbox = soon("bob", node.store.open(&user("bob"))).await;
        let mailbox = mailbox.expect("opens").expect("is there");
        held.hold(true);
        bob.ack(1).await;
        // Not every look that is held is for the receipt.
        until("it left the mailbox", || mailbox.stats().messages == 0).await;
        until("the receipt waits", || held.is_waited_for()).await;
        // Between two of its messages: it has said so.
        let tree = node.broker.tree();
        let queue = tree.find_by_name("offline_queue.0").expect("it is there");
        tree.inspect(queue.id, DEADLINE).await.expect("it answers");
        soon("all is written", node.store.flush())
            .await
            .expect("flushes");
        let store = Arc::clone(&node.store);
        let written = std::thread::spawn(move || store.checkpoint_now()).join();
        written.expect("no panic").expect("a checkpoint");

        let image = tempfile::tempdir().expect("a directory");
        let image = image.path().join("image");
        // Let go before, it could be told and written down in time.
        let crashed = node.store.crash_into_after(&image, || held.hold(false));
        crashed.expect("copies");
        let (commits, _sink) = commit_sink();
        let store = JournalStore::open(StoreConfig::new(&image), commits).expect("opens");
        let mailbox = soon("alice", store.open(&user("alice"))).await;
        let mailbox = mailbox.expect("opens").expect("is there");
        let receipt = soon("the receipt", store.receipt(&mailbox, &user("bob"))).await;
        let delivered = receipt
            .expect("reads")
            .and_then(|receipt| receipt.delivered);
        assert_eq!(delivered, Some(id(1)));
        soon("closing", store.close()).await.expect("closes");
    });
}

/// The store refuses to be asked, and is asked again.
#[test]
fn a_receipt_outlasts_a_store_that_refuses_to_be_asked() {
    /// More than may wait for the database.
    const QUESTIONS: usize = 70_000;
    let held = Arc::new(Held::default());
    run(one_queue(), held_by(&held), async |node| {
        node.create(&["alice", "bob"]).await;
        let mut bob = node.attach("bob/laptop").await;
        post(node, &[String::from("alice")], "bob").await;
        assert_eq!(bob.messages(1).await, [1]);
        held.hold(true);
        let questions: Vec<_> = (0..QUESTIONS).map(|_| node.store.values("none")).collect();
        let refused = soon("an answer", node.store.values("none")).await;
        assert!(
            matches!(refused, Err(StoreError::Overloaded)),
            "{refused:?}"
        );
        bob.ack(1).await;
        all_acknowledged(node, "bob", 1).await;
        held.hold(false);
        drop(questions);
        let moved = || stored(node, "alice", "bob").and_then(|receipt| receipt.delivered);
        until("alice's receipt", || moved() == Some(id(1))).await;
    });
}
