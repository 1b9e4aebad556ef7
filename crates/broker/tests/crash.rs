//! What a client was told is still so after a crash at that very moment. The
//! lazy interval is long here, so that only what is waited for is durable.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::gate::Gate;
use common::{config, device, id, run, soon, until, user};
use stonechat_broker::commit_sink;
use stonechat_mailbox::{JournalStore, Store, StoreConfig};

/// Told before its acknowledgement is durable, a watermark would step back (contract D8).
#[test]
fn a_receipt_does_not_step_back_when_it_was_told() {
    run(
        config(),
        |settings| settings.lazy_flush = Duration::from_secs(1),
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut alice = node.attach("alice/phone").await;
            let mut bob = node.attach("bob/laptop").await;
            alice.send(1, "bob").await;
            let message = bob.message().await;
            bob.ack(message.seq).await;
            alice.receipt("bob", Some(1), None).await;

            let image = tempfile::tempdir().expect("a directory");
            let image = image.path().join("image");
            node.store.crash_into(&image).expect("copies");
            let (commits, _sink) = commit_sink();
            let store = JournalStore::open(StoreConfig::new(&image), commits).expect("opens");
            let mailbox = soon("alice", store.open(&user("alice"))).await;
            let mailbox = mailbox.expect("opens").expect("is there");
            let receipt = soon("the receipt", store.receipt(&mailbox, &user("bob"))).await;
            let receipt = receipt.expect("reads").expect("was told");
            assert_eq!(receipt.delivered, Some(id(1)));
            soon("closing", store.close()).await.expect("closes");
        },
    );
}

/// What was sent and not acknowledged comes again marked as such (contract D4), also when
/// the crash follows the first sign-in.
#[test]
fn a_backlog_that_was_sent_counts_as_sent() {
    run(
        config(),
        |settings| settings.lazy_flush = Duration::from_secs(10),
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut alice = node.attach("alice/phone").await;
            alice.send(1, "bob").await;
            alice.accepted().await;
            let mut bob = node.attach("bob/laptop").await;
            let message = bob.message().await;
            assert!(!message.redelivered);

            let image = tempfile::tempdir().expect("a directory");
            let image = image.path().join("image");
            node.store.crash_into(&image).expect("copies");
            let (commits, _sink) = commit_sink();
            let store = JournalStore::open(StoreConfig::new(&image), commits).expect("opens");
            let mailbox = soon("bob", store.open(&user("bob"))).await;
            let mailbox = mailbox.expect("opens").expect("is there");
            let state = mailbox.device(&device("laptop")).expect("is known");
            assert_eq!((state.cursor, state.sent), (0, message.seq));
            soon("closing", store.close()).await.expect("closes");
        },
    );
}

/// The same for a message whose commit was under way when the device signed in: the note that
/// it is connected can only be in the next one.
#[test]
fn a_message_committed_during_the_sign_in_counts_as_sent() {
    let gate = Arc::new(Gate::default());
    let faults = Arc::clone(&gate);
    run(
        config(),
        |settings| {
            settings.lazy_flush = Duration::from_secs(10);
            settings.faults = Some(faults);
        },
        async |node| {
            node.create(&["alice", "bob"]).await;
            let alice = node.attach("alice/phone").await;
            soon("all is written", node.store.flush())
                .await
                .expect("flushes");
            gate.shut(true);
            alice.send(1, "bob").await;
            until("the message is being synced", || gate.is_waited_at()).await;
            let mailbox = soon("bob", node.store.open(&user("bob"))).await;
            let mailbox = mailbox.expect("opens").expect("is there");
            let attached = async {
                let laptop = device("laptop");
                until("he is noted", || mailbox.device(&laptop).is_some()).await;
                gate.shut(false);
            };
            let (mut bob, ()) = tokio::join!(node.attach("bob/laptop"), attached);
            let message = bob.message().await;

            let image = tempfile::tempdir().expect("a directory");
            let image = image.path().join("image");
            node.store.crash_into(&image).expect("copies");
            let (commits, _sink) = commit_sink();
            let store = JournalStore::open(StoreConfig::new(&image), commits).expect("opens");
            let mailbox = soon("bob", store.open(&user("bob"))).await;
            let mailbox = mailbox.expect("opens").expect("is there");
            let sent = mailbox.device(&device("laptop")).map(|state| state.sent);
            assert_eq!(sent, Some(message.seq));
            soon("closing", store.close()).await.expect("closes");
        },
    );
}
