//! Receipts: read marks, what moves while a device is away or just returning,
//! and clients that claim what is not so.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::gate::Brim;
use common::{config, id, run, soon, user};
use stonechat_broker::{Command, Input};
use stonechat_mailbox::{Store, Unavailable};

/// The message leaves the mailbox with the acknowledgement that rides on the very frame.
#[test]
fn read_and_acknowledged_in_one_frame_out_of_the_database() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut alice = node.attach("alice/phone").await;
            for n in 1..=40 {
                alice.send(n, "bob").await;
                alice.accepted().await;
            }
            let mut bob = node.attach("bob/laptop").await;
            for n in 1..=40 {
                node.store.migrate_now().expect("migrates");
                let message = bob.message().await;
                assert_eq!(message.n, n);
                bob.input(Input {
                    ack: Some(message.seq),
                    rev: None,
                    command: Some(Command::Read {
                        from: user("alice"),
                        id: id(n),
                    }),
                })
                .await;
                alice.receipt("bob", Some(n), Some(n)).await;
            }
            let rest = bob.rest(1000, "bob").await;
            assert!(rest.is_empty(), "refused: {rest:?}");
        },
    );
}

/// A client that claims to have seen receipts there are not is told of the next ones all the same.
#[test]
fn a_revision_from_nowhere_silences_nothing() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut plug = node.plug("alice/phone");
            plug.rev = Some(1 << 52);
            let mut alice = plug.attach(node).await.expect("attaches");
            let mut bob = node.attach("bob/laptop").await;
            for n in 1..=2 {
                alice.send(n, "bob").await;
                let message = bob.message().await;
                bob.ack(message.seq).await;
                alice.receipt("bob", Some(n), None).await;
                let input = Input {
                    rev: Some(1 << 52),
                    ..Input::default()
                };
                alice.input(input).await;
            }
            drop(alice);
            let mut plug = node.plug("alice/phone");
            plug.rev = None;
            let mut alice = plug.attach(node).await.expect("attaches");
            alice.send(3, "bob").await;
            let message = bob.message().await;
            bob.ack(message.seq).await;
            alice.receipt("bob", Some(3), None).await;
        },
    );
}

/// A receipt that moves while a device is told of the earlier ones is told, too.
#[test]
fn receipts_of_a_time_away_and_of_the_moment_of_return() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob", "carol"]).await;
            let mut bob = node.attach("bob/laptop").await;
            let mut carol = node.attach("carol/laptop").await;
            let mut rev = 0;
            for round in 0..20 {
                let n = round * 2 + 1;
                let mut plug = node.plug("alice/phone");
                plug.rev = Some(rev);
                let alice = plug.attach(node).await.expect("attaches");
                alice.send(n, "bob").await;
                alice.send(n + 1, "carol").await;
                let (to_bob, to_carol) = (bob.message().await, carol.message().await);
                drop(alice);
                bob.ack(to_bob.seq).await;
                let mailbox = node.store.resident(&user("alice")).expect("resident");
                let known = || {
                    use futures_util::FutureExt;
                    let receipt = node.store.receipt(&mailbox, &user("bob"));
                    let receipt = receipt.now_or_never().and_then(Result::ok).flatten();
                    receipt.is_some_and(|receipt| receipt.delivered == Some(id(n)))
                };
                common::until("bob's receipt is stored", known).await;
                let mut plug = node.plug("alice/phone");
                plug.rev = Some(rev);
                let mut alice = plug.attach(node).await.expect("attaches");
                carol.ack(to_carol.seq).await;
                let first = alice.receipt("bob", Some(n), None).await;
                let second = alice.receipt("carol", Some(n + 1), None).await;
                rev = first.rev.max(second.rev);
            }
        },
    );
}

/// While the disk is full no receipt can be made durable, so none is told. It is told when there is room
/// again: the sender, who stays connected, would never ask.
#[test]
fn a_receipt_outlasts_a_full_disk() {
    let brim = Arc::new(Brim::default());
    let disk = Arc::clone(&brim);
    run(
        config(),
        |settings| {
            settings.faults = Some(disk);
            settings.disk_probe = Duration::from_millis(5);
        },
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut alice = node.attach("alice/phone").await;
            let mut bob = node.attach("bob/laptop").await;
            for n in 1..=5 {
                alice.send(n, "bob").await;
                alice.accepted().await;
                let message = bob.message().await;
                brim.fill(true);
                bob.ack(message.seq).await;
                let full = || node.store.unavailable() == Some(Unavailable::DiskFull);
                common::until("the disk is full", full).await;
                for _ in 0..20 {
                    let flushed = soon("a flush is given up", node.store.flushed()).await;
                    assert!(flushed.is_err(), "nothing is durable");
                }
                brim.fill(false);
                alice.receipt("bob", Some(n), None).await;
                let accepting = || node.store.unavailable().is_none();
                common::until("there is room again", accepting).await;
            }
        },
    );
}

/// The same for one who signs in while the disk is full, and is to be told what moved before.
#[test]
fn receipts_of_a_time_away_outlast_a_full_disk() {
    let brim = Arc::new(Brim::default());
    let disk = Arc::clone(&brim);
    run(
        config(),
        |settings| {
            settings.faults = Some(disk);
            settings.disk_probe = Duration::from_millis(5);
        },
        async |node| {
            node.create(&["alice", "bob"]).await;
            let alice = node.attach("alice/phone").await;
            let mut bob = node.attach("bob/laptop").await;
            alice.send(1, "bob").await;
            let message = bob.message().await;
            drop(alice);
            brim.fill(true);
            bob.ack(message.seq).await;
            let full = || node.store.unavailable() == Some(Unavailable::DiskFull);
            common::until("the disk is full", full).await;
            let mut alice = node.attach("alice/phone").await;
            for _ in 0..20 {
                let flushed = soon("a flush is given up", node.store.flushed()).await;
                assert!(flushed.is_err(), "nothing is durable");
            }
            brim.fill(false);
            alice.receipt("bob", Some(1), None).await;
        },
    );
}

/// Two devices send, and the greater id came first: what is said to be read then does not take the
/// watermark back to it.
#[test]
fn a_read_of_an_earlier_message_with_a_greater_id_takes_nothing_back() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut phone = node.attach("alice/phone").await;
            let mut tablet = node.attach("alice/tablet").await;
            let mut bob = node.attach("bob/laptop").await;
            // It acknowledges nothing, so everything stays in the mailbox.
            let _other = node.attach("bob/desk").await;
            phone.send(9, "bob").await;
            phone.accepted().await;
            let first = bob.message().await;
            tablet.send(5, "bob").await;
            tablet.accepted().await;
            let second = bob.message().await;
            assert!(second.seq > first.seq && (first.n, second.n) == (9, 5));
            bob.ack(second.seq).await;
            phone.receipt("bob", Some(5), None).await;
            bob.read("alice", 9).await;
            phone.receipt("bob", Some(5), Some(9)).await;
            bob.read("alice", 5).await;
            phone.receipt("bob", Some(5), Some(5)).await;
        },
    );
}

/// The same when the messages leave the mailbox, because the reader's other device has them too, while
/// the read is on its way.
#[test]
fn a_read_of_what_is_just_leaving_takes_nothing_back() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut phone = node.attach("alice/phone").await;
            let mut tablet = node.attach("alice/tablet").await;
            let mut bob = node.attach("bob/laptop").await;
            let mut other = node.attach("bob/desk").await;
            for round in 1..=200 {
                let (first, second) = (1_000 + round, round);
                phone.send(first, "bob").await;
                phone.accepted().await;
                tablet.send(second, "bob").await;
                tablet.accepted().await;
                assert_eq!(bob.messages(1).await, [first]);
                let seq = bob.message().await.seq;
                assert_eq!(other.messages(2).await, [first, second]);
                for device in [&bob, &other] {
                    device.ack(seq).await;
                    device.read("alice", first).await;
                    device.read("alice", second).await;
                }
                phone.receipt("bob", Some(second), Some(second)).await;
            }
        },
    );
}
