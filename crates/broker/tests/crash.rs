//! What a client was told is still so after a crash at that very moment. The
//! lazy interval is long here, so that only what is waited for is durable.

mod common;

use std::time::Duration;

use common::{config, device, id, run, soon, user};
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
