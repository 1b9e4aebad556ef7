//! The client against a scripted server: receiving, acknowledging, receipts.

use crate::server::{Peer, Server, soon};
use serde_json::{Value, json};
use stonechat_client::protocol::UserId;
use stonechat_client::{AckMode, Client, ClientBuilder, Event, Events};

fn builder(server: &Server) -> ClientBuilder {
    Client::builder(&server.url, "phone")
        .token("secret")
        .tune(|tuning| {
            tuning.backoff_ms_base = 5;
            tuning.backoff_ms_max = 20;
        })
}

async fn next_seq(events: &mut Events) -> u64 {
    loop {
        match soon("a message", events.next()).await {
            Some(Event::Message(message)) => return message.seq,
            Some(Event::Terminal(terminal)) => panic!("ended: {terminal}"),
            Some(_) => {}
            None => panic!("no more events"),
        }
    }
}

/// The next frame that tells something about acknowledgements.
async fn next_ack(peer: &mut Peer) -> Value {
    loop {
        let frame = peer.frame().await;
        if frame["type"] == "ack" || frame.get("ack").is_some() {
            return frame;
        }
    }
}

#[tokio::test]
async fn duplicates_are_dropped_across_connections() {
    let server = Server::start().await;
    let (_client, mut events) = builder(&server).connect().unwrap();
    let (mut peer, _) = server.sign_in().await;
    for seq in [1, 2, 2, 1, 3] {
        peer.message(seq).await;
    }
    for seq in 1..=3 {
        assert_eq!(next_seq(&mut events).await, seq);
    }
    drop(peer);
    let (signed_in, seq) = tokio::join!(
        async {
            let (mut peer, hello) = server.sign_in().await;
            assert_eq!(
                hello["ack"], 3,
                "asking for the next says the third is handled"
            );
            for seq in 1..=4 {
                peer.message(seq).await;
            }
            peer
        },
        next_seq(&mut events)
    );
    assert_eq!(seq, 4);
    drop(signed_in);
}

#[tokio::test]
async fn acks_are_coalesced() {
    let server = Server::start().await;
    let (_client, mut events) = builder(&server)
        .tune(|tuning| {
            // Only the number counts here, not the time.
            tuning.ack_delay_ms = 3_600_000;
            tuning.ack_every = 10;
        })
        .connect()
        .unwrap();
    let (mut peer, _) = server.sign_in().await;
    for seq in 1..=25 {
        peer.message(seq).await;
    }
    for seq in 1..=21 {
        assert_eq!(next_seq(&mut events).await, seq);
    }
    // 20 are handled. However the two sides interleave, it takes at most two frames.
    let first = next_ack(&mut peer).await["seq"].as_u64().unwrap();
    assert!((10..=20).contains(&first), "{first}");
    if first < 20 {
        let second = next_ack(&mut peer).await["seq"].as_u64().unwrap();
        assert!(second >= first + 10 || second == 20, "{first} {second}");
    }
}

#[tokio::test]
async fn a_late_ack_rides_on_a_send() {
    let server = Server::start().await;
    let (client, mut events) = builder(&server)
        .tune(|tuning| tuning.ack_delay_ms = 3_600_000)
        .ack_mode(AckMode::Manual)
        .connect()
        .unwrap();
    let (mut peer, _) = server.sign_in().await;
    peer.message(1).await;
    assert_eq!(next_seq(&mut events).await, 1);
    assert!(client.ack(2).is_err(), "not handed out yet");
    client.ack(1).unwrap();
    client
        .send(&UserId::new("bob").unwrap(), "x")
        .await
        .unwrap();
    let frame = peer.frame().await;
    assert_eq!((&frame["type"], &frame["ack"]), (&json!("send"), &json!(1)));
}

#[tokio::test]
async fn in_manual_mode_only_what_is_acknowledged_is_told() {
    let server = Server::start().await;
    let (client, mut events) = builder(&server)
        .ack_mode(AckMode::Manual)
        .connect()
        .unwrap();
    let (mut peer, _) = server.sign_in().await;
    for seq in 1..=5 {
        peer.message(seq).await;
    }
    for seq in 1..=5 {
        assert_eq!(next_seq(&mut events).await, seq);
    }
    client.ack(4).unwrap();
    assert_eq!(next_ack(&mut peer).await, json!({"type": "ack", "seq": 4}));
    assert_eq!(client.resume_state().last_seq, 4);
}

#[tokio::test]
async fn read_marks_and_receipts_go_both_ways() {
    let server = Server::start().await;
    let (client, mut events) = builder(&server).connect().unwrap();
    let (mut peer, _) = server.sign_in().await;
    peer.message(1).await;
    let message = loop {
        if let Some(Event::Message(message)) = soon("a message", events.next()).await {
            break message;
        }
    };
    client.read(&message.from.user, message.id).unwrap();
    let read = loop {
        let frame = peer.frame().await;
        if frame["type"] == "read" {
            break frame;
        }
    };
    assert_eq!(read["from"], "bob");
    assert_eq!(read["id"], message.id.to_string());
    peer.say(json!({
        "type": "receipt", "rev": 7, "with": "bob", "delivered": message.id, "read": null, "ts_ms": 1
    }))
    .await;
    let receipt = loop {
        if let Some(Event::Receipt(receipt)) = soon("a receipt", events.next()).await {
            break receipt;
        }
    };
    assert_eq!(receipt.delivered, Some(message.id));
    assert!(events.try_next().is_none());
    drop(peer);
    let (_peer, hello) = server.sign_in().await;
    assert_eq!((&hello["ack"], &hello["rev"]), (&json!(1), &json!(7)));
}

#[tokio::test]
async fn ephemeral_messages_are_not_acknowledged() {
    let server = Server::start().await;
    let (client, mut events) = builder(&server).connect().unwrap();
    let (mut peer, _) = server.sign_in().await;
    peer.say(json!({
        "type": "message", "seq": 0, "ephemeral": true,
        "id": "0190163d-8694-739b-aea5-966c26f8ad91",
        "from": {"user": "bob", "device": "d"}, "ts_ms": 1, "body": "typing"
    }))
    .await;
    peer.message(1).await;
    assert_eq!(next_seq(&mut events).await, 0);
    assert_eq!(next_seq(&mut events).await, 1);
    assert_eq!(client.resume_state().last_seq, 0);
    events.try_next();
    assert_eq!(next_ack(&mut peer).await, json!({"type": "ack", "seq": 1}));
}

#[tokio::test]
async fn without_events_sending_goes_on_and_nothing_is_acknowledged() {
    let server = Server::start().await;
    let (client, events) = builder(&server).connect().unwrap();
    drop(events);
    let (mut peer, _) = server.sign_in().await;
    peer.message(1).await;
    let bob = UserId::new("bob").unwrap();
    for n in 0..3 {
        let sent = client.send(&bob, n).await.unwrap();
        let frame = peer.frame().await;
        assert_eq!((&frame["type"], frame.get("ack")), (&json!("send"), None));
        peer.accept_send(&frame).await;
        soon("the answer", sent).await.unwrap();
    }
    assert_eq!(client.resume_state().last_seq, 0);
}
