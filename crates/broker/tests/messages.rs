//! Messages on their ordinary way: sent, stored, delivered, acknowledged,
//! receipted; resent, refused, copied. No faults here, see `faults`.

mod common;

use std::time::Duration;

use common::{as_message, config, id, run, send, user};
use stonechat_broker::{AttachError, BrokerConfig};
use stonechat_mailbox::Store;
use stonechat_protocol::{CloseReason, ErrorCode};

#[test]
fn a_message_is_accepted_delivered_acknowledged_and_receipted() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut alice = node.attach("alice/phone").await;
            let mut bob = node.attach("bob/laptop").await;
            assert_eq!(bob.pending, 0);
            alice.send(1, "bob").await;
            let accepted = alice.accepted().await;
            assert_eq!((accepted.id, accepted.duplicate), (id(1), false));
            let message = bob.message().await;
            assert_eq!((message.seq, message.n), (1, 1));
            assert!(!message.redelivered && !message.copy && !message.ephemeral);
            bob.ack(message.seq).await;
            let delivered = alice.receipt("bob", Some(1), None).await;
            bob.read("alice", 1).await;
            let read = alice.receipt("bob", Some(1), Some(1)).await;
            assert!(read.rev > delivered.rev);
            let mailbox = node.store.resident(&user("bob")).expect("resident");
            assert_eq!(mailbox.stats().messages, 0, "delivered to every device");
        },
    );
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_refused() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut bob = node.attach("bob/laptop").await;
            bob.ack(7).await;
            assert_eq!(bob.error().await.code, ErrorCode::BadAck);
            bob.read("alice", 1).await;
            bob.refused(1, ErrorCode::UnknownMessage).await;
            bob.read("nobody", 1).await;
            bob.refused(1, ErrorCode::UnknownMessage).await;
        },
    );
}

#[test]
fn who_was_away_gets_everything_at_sign_in() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut alice = node.attach("alice/phone").await;
            for n in 1..=5 {
                alice.send(n, "bob").await;
            }
            for n in 1..=5 {
                assert_eq!(alice.accepted().await.id, id(n));
            }
            let mut bob = node.attach("bob/laptop").await;
            assert_eq!(bob.pending, 5);
            assert_eq!(bob.messages(5).await, [1, 2, 3, 4, 5]);
            drop(bob);
            // What it had no chance to acknowledge, it acknowledges with the sign-in.
            let mut plug = node.plug("bob/laptop");
            plug.ack = Some(3);
            let mut bob = plug.attach(node).await.expect("attaches");
            assert_eq!(bob.pending, 2);
            let again = bob.message().await;
            assert_eq!((again.n, again.redelivered), (4, true));
            let again = bob.message().await;
            assert_eq!((again.n, again.redelivered), (5, true));
            alice.receipt("bob", Some(3), None).await;
        },
    );
}

#[test]
fn every_device_gets_it_and_the_senders_others_get_a_copy() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut phone = node.attach("alice/phone").await;
            let mut tablet = node.attach("alice/tablet").await;
            let mut laptop = node.attach("bob/laptop").await;
            let mut watch = node.attach("bob/watch").await;
            phone.send(1, "bob").await;
            phone.send(2, "alice").await;
            assert_eq!(laptop.message().await.n, 1);
            assert_eq!(watch.message().await.n, 1);
            let copy = tablet.message().await;
            assert_eq!((copy.n, copy.copy), (1, true));
            assert_eq!(tablet.messages(1).await, [2], "a message to oneself");
            phone.accepted().await;
            phone.accepted().await;
            let rest = phone.rest(3, "bob").await;
            assert!(rest.iter().all(|event| as_message(event).is_none()));
            // One device acknowledges: that is a receipt, but the message stays for the other.
            watch.ack(1).await;
            phone.receipt("bob", Some(1), None).await;
            drop(laptop);
            let mut laptop = node.attach("bob/laptop").await;
            assert_eq!((laptop.pending, laptop.message().await.n), (1, 1));
            let typing = watch.message().await;
            assert_eq!((typing.seq, typing.ephemeral), (0, true));
        },
    );
}

#[test]
fn a_resend_is_a_duplicate_and_an_id_below_is_too_old() {
    let config = BrokerConfig {
        session_linger_ms: 1,
        ..config()
    };
    run(
        config,
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut alice = node.attach("alice/phone").await;
            alice.send(5, "bob").await;
            let first = alice.accepted().await;
            drop(alice);
            node.no_sessions().await;
            let mut alice = node.attach("alice/phone").await;
            alice.send(5, "bob").await;
            let again = alice.accepted().await;
            assert!(again.duplicate);
            assert_eq!((again.id, again.ts_ms), (id(5), first.ts_ms));
            alice.send(4, "bob").await;
            alice.refused(4, ErrorCode::IdTooOld).await;
            alice.send(6, "bob").await;
            assert!(!alice.accepted().await.duplicate);
            let mut bob = node.attach("bob/laptop").await;
            assert_eq!(bob.pending, 2);
            assert_eq!(bob.messages(2).await, [5, 6]);
        },
    );
}

/// Nobody of that name is in memory, so the store's threads are asked, and the line waits.
#[test]
fn sends_keep_their_order_behind_one_whose_recipient_is_looked_up() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut alice = node.attach("alice/phone").await;
            let mut bob = node.attach("bob/laptop").await;
            let sends = [
                (1, "bob"),
                (2, "ghost"),
                (3, "bob"),
                (4, "spectre"),
                (5, "bob"),
            ];
            for (n, to) in sends {
                alice.send(n, to).await;
            }
            for n in [1, 3, 5] {
                assert_eq!(alice.accepted().await.id, id(n));
            }
            alice.refused(2, ErrorCode::UnknownUser).await;
            alice.refused(4, ErrorCode::UnknownUser).await;
            assert_eq!(bob.messages(3).await, [1, 3, 5]);
        },
    );
}

#[test]
fn a_full_mailbox_refuses_until_its_owner_fetches() {
    run(
        config(),
        |store| store.quota_messages = 3,
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut alice = node.attach("alice/phone").await;
            for n in 1..=4 {
                alice.send(n, "bob").await;
            }
            alice.refused(4, ErrorCode::MailboxFull).await;
            let mut bob = node.attach("bob/laptop").await;
            assert_eq!(bob.messages(3).await, [1, 2, 3]);
            bob.ack(3).await;
            alice.receipt("bob", Some(3), None).await;
            alice.send(5, "bob").await;
            assert_eq!(bob.messages(1).await, [5]);
        },
    );
}

#[test]
fn too_many_unanswered_refuses_the_one_and_nothing_else() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut alice = node.attach("alice/phone").await;
            // The session runs on this thread: none is answered before the last is handed over.
            for n in 1..=65 {
                alice.send(n, "bob").await;
            }
            alice.refused(65, ErrorCode::TooManyUnanswered).await;
            for n in 1..=64 {
                assert_eq!(alice.accepted().await.id, id(n));
            }
            alice.send(66, "bob").await;
            assert_eq!(alice.accepted().await.id, id(66));
        },
    );
}

#[test]
fn rates_limit_what_is_new_and_never_a_resend() {
    let mut config = config();
    config.rate.messages_burst = 2;
    config.rate.messages_per_s = 1;
    // A clock that has moved on by a second would let one more through.
    config.rate.bytes_burst = 20;
    config.rate.bytes_per_s = 1;
    run(
        config,
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut alice = node.attach("alice/phone").await;
            alice.send(1, "bob").await;
            alice.send(2, "bob").await;
            assert_eq!(alice.accepted().await.id, id(1));
            assert_eq!(alice.accepted().await.id, id(2));
            let mut n = 2;
            let limited = loop {
                n += 1;
                alice.send(n, "bob").await;
                let answer = alice.pick("an answer", |event| match event {
                    stonechat_broker::Event::Error(error) => Some(Some(error.clone())),
                    stonechat_broker::Event::Accepted(_) => Some(None),
                    _ => None,
                });
                if let Some(error) = answer.await.expect("open") {
                    break error;
                }
            };
            assert_eq!(limited.code, ErrorCode::RateLimited);
            assert_eq!(limited.reference, Some(id(n)));
            assert!(limited.retry_after_ms.is_some_and(|wait| wait > 0));
            for resent in 1..n {
                alice.send(resent, "bob").await;
                let answer = alice.accepted().await;
                assert_eq!((answer.id, answer.duplicate), (id(resent), true));
            }
        },
    );
}

#[test]
fn the_same_device_again_replaces_its_older_connection() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut old = node.attach("bob/laptop").await;
            let mut new = node.attach("bob/laptop").await;
            assert_eq!(old.closed().await, CloseReason::Replaced);
            drop(old);
            let mut alice = node.attach("alice/phone").await;
            alice.send(1, "bob").await;
            alice.accepted().await;
            assert_eq!(new.messages(1).await, [1]);
            assert_eq!(node.broker.stats().devices, 2);
        },
    );
}

#[test]
fn a_session_ends_after_its_last_device_and_the_next_one_knows_everything() {
    let config = BrokerConfig {
        session_linger_ms: 1,
        ..config()
    };
    run(
        config,
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut alice = node.attach("alice/phone").await;
            let mut bob = node.attach("bob/laptop").await;
            alice.send(1, "bob").await;
            assert_eq!(bob.messages(1).await, [1]);
            let session = bob.session_id.clone();
            alice.accepted().await;
            drop((alice, bob));
            node.no_sessions().await;
            let mut bob = node.attach("bob/laptop").await;
            assert_ne!(bob.session_id, session);
            let again = bob.message().await;
            assert_eq!((again.n, again.redelivered), (1, true));
        },
    );
}

#[test]
fn a_drain_closes_all_and_takes_nobody_new() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut alice = node.attach("alice/phone").await;
            let mut bob = node.attach("bob/laptop").await;
            let drained = node
                .broker
                .drain(CloseReason::Shutdown, 1234, Duration::from_secs(20));
            let leave = async {
                assert_eq!(alice.closed().await, CloseReason::Shutdown);
                assert_eq!(bob.closed().await, CloseReason::Shutdown);
                drop((alice, bob));
            };
            let (left, ()) = futures_util::join!(drained, leave);
            assert_eq!(left, 0);
            let refused = node.plug("bob/laptop").attach(node).await;
            let refused = refused.err().expect("refused");
            assert!(matches!(refused, AttachError::Overloaded { .. }));
            let unknown = node.broker.stats();
            assert_eq!(unknown.devices, 0);
        },
    );
}

#[test]
fn unknown_users_and_too_many_devices_are_not_attached() {
    let mut config = config();
    config.limits.devices_max = 1;
    run(
        config,
        |store| store.devices_max = 1,
        async |node| {
            node.create(&["bob"]).await;
            let unknown = node.plug("ghost/phone").attach(node).await;
            assert_eq!(unknown.err(), Some(AttachError::UnknownUser));
            let mut first = node.attach("bob/laptop").await;
            let second = node.plug("bob/phone").attach(node).await;
            assert_eq!(second.err(), Some(AttachError::TooManyDevices(1)));
            first.send(1, "bob").await;
            assert_eq!(first.accepted().await.id, id(1), "and the first works on");
        },
    );
}

#[test]
fn an_attach_given_up_leaves_nothing_behind() {
    let config = BrokerConfig {
        session_linger_ms: 1,
        ..config()
    };
    run(
        config,
        |_| {},
        async |node| {
            use futures_util::FutureExt;
            node.create(&["bob"]).await;
            // Polled once, then dropped: at every stage the router and the session may be at.
            for _ in 0..50 {
                let attach = node.plug("bob/laptop").attach(node);
                let mut attach = std::pin::pin!(attach);
                for _ in 0..3 {
                    if (&mut attach).now_or_never().is_some() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            node.no_sessions().await;
            assert_eq!(node.broker.stats().devices, 0);
        },
    );
}

#[test]
fn an_ephemeral_message_reaches_who_is_there_and_is_not_kept() {
    run(
        config(),
        |_| {},
        async |node| {
            node.create(&["alice", "bob"]).await;
            let mut alice = node.attach("alice/phone").await;
            alice.input(send(9, "bob", true)).await;
            let answer = alice.accepted().await;
            assert!(answer.ephemeral, "said so even though nobody was there");
            let mut bob = node.attach("bob/laptop").await;
            assert_eq!(bob.pending, 0);
            alice.input(send(8, "bob", true)).await;
            let message = bob.message().await;
            assert_eq!((message.n, message.seq, message.ephemeral), (8, 0, true));
            alice.input(send(7, "ghost", true)).await;
            alice.refused(7, ErrorCode::UnknownUser).await;
        },
    );
}
