//! The client against a scripted server: connecting, losing, resuming, ending.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::server::{Server, soon};
use serde_json::json;
use stonechat_client::protocol::{CloseReason, UserId};
use stonechat_client::{
    Client, ClientBuilder, DisconnectCause, Event, Events, Refused, ResumeState, SendError,
    SendOptions, Terminal,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn builder(server: &Server) -> ClientBuilder {
    Client::builder(&server.url, "phone")
        .token("secret")
        .tune(|tuning| {
            tuning.backoff_ms_base = 5;
            tuning.backoff_ms_max = 20;
        })
}

fn bob() -> UserId {
    UserId::new("bob").unwrap()
}

async fn next(events: &mut Events) -> Event {
    soon("an event", events.next()).await.expect("an event")
}

async fn disconnect_cause(events: &mut Events) -> DisconnectCause {
    loop {
        if let Event::Disconnected { cause, .. } = next(events).await {
            return cause;
        }
    }
}

async fn terminal(events: &mut Events) -> Terminal {
    loop {
        if let Event::Terminal(terminal) = next(events).await {
            assert!(events.next().await.is_none(), "nothing after the end");
            return terminal;
        }
    }
}

#[tokio::test]
async fn says_hello_and_is_ready() {
    let server = Server::start().await;
    let (client, mut events) = builder(&server).client_name("me/2").connect().unwrap();
    let (_peer, hello) = server.sign_in().await;
    assert_eq!(
        hello,
        json!({"type": "hello", "token": "secret", "device": "phone", "client": "me/2"})
    );
    let welcome = soon("ready", client.ready()).await.unwrap();
    assert_eq!(welcome.user.as_str(), "alice");
    assert!(matches!(next(&mut events).await, Event::Connected(_)));
}

#[tokio::test]
async fn unanswered_sends_are_resent_in_order_before_new_ones() {
    let server = Server::start().await;
    let (client, _events) = builder(&server).connect().unwrap();
    let (mut peer, _) = server.sign_in().await;
    let mut sent = Vec::new();
    for n in 0..5 {
        sent.push(client.send(&bob(), n).await.unwrap());
    }
    let first = peer.frame().await;
    assert_eq!(first["body"], 0);
    peer.accept_send(&first).await;
    assert_eq!(peer.frame().await["body"], 1);
    assert!(soon("the answer", sent.remove(0)).await.is_ok());
    drop(peer);
    sent.push(client.send(&bob(), 5).await.unwrap());
    let (mut peer, _) = server.sign_in().await;
    for n in 1..=5 {
        let frame = peer.frame().await;
        assert_eq!(frame["body"], n);
        assert_eq!(frame["id"], sent[n - 1].id().to_string());
        peer.say(json!({"type": "accepted", "id": frame["id"], "ts_ms": 5, "duplicate": n == 1}))
            .await;
    }
    for (n, answer) in sent.into_iter().enumerate() {
        let accepted = soon("the answer", answer).await.unwrap();
        assert_eq!(accepted.duplicate, n == 0);
    }
}

#[tokio::test]
async fn sends_wait_for_a_slot() {
    let server = Server::start().await;
    let (client, _events) = builder(&server).connect().unwrap();
    let (mut peer, _) = server.sign_in().await;
    for n in 0..64 {
        client.send(&bob(), n).await.unwrap();
    }
    let full = client.try_send(&bob(), 64, SendOptions::default());
    assert!(matches!(full, Err(SendError::Full)));
    let to = bob();
    let mut waiting = Box::pin(client.send(&to, 64));
    assert!(
        futures_util::poll!(&mut waiting).is_pending(),
        "a 65th send waits"
    );
    let first = peer.frame().await;
    peer.accept_send(&first).await;
    soon("a slot", waiting).await.unwrap();
    for n in 1..=64 {
        assert_eq!(peer.frame().await["body"], n);
    }
}

#[tokio::test]
async fn refusals_are_typed() {
    let server = Server::start().await;
    let (client, mut events) = builder(&server).connect().unwrap();
    let (mut peer, _) = server.sign_in().await;
    let sent = client.send(&bob(), "x").await.unwrap();
    let frame = peer.frame().await;
    peer.say(
        json!({"type": "error", "code": "unknown_user", "message": "no bob", "ref": frame["id"]}),
    )
    .await;
    let refused = soon("the answer", sent).await.unwrap_err();
    assert!(!refused.may_retry());
    assert_eq!(refused.to_string(), "unknown_user: no bob");
    peer.say(json!({"type": "error", "code": "bad_ack", "message": "m", "ref": null}))
        .await;
    loop {
        if let Event::ServerError(error) = next(&mut events).await {
            assert_eq!(error.code.as_str(), "bad_ack");
            break;
        }
    }
}

#[tokio::test]
async fn reasons_that_do_not_pass_end_the_client() {
    for reason in ["replaced", "revoked", "unauthorized", "too_many_devices"] {
        let server = Server::start().await;
        let (client, mut events) = builder(&server).connect().unwrap();
        let (mut peer, _) = server.sign_in().await;
        let sent = client.send(&bob(), "x").await.unwrap();
        peer.frame().await;
        peer.say(json!({"type": "bye", "reason": reason})).await;
        let Terminal::Refused(got) = terminal(&mut events).await else {
            panic!("not refused");
        };
        assert_eq!(got.as_str(), reason);
        assert!(matches!(
            soon("the answer", sent).await,
            Err(Refused::Ended(Terminal::Refused(_)))
        ));
        assert!(matches!(
            client.send(&bob(), "y").await,
            Err(SendError::Ended(_))
        ));
        assert!(client.ready().await.is_err());
        assert_eq!(client.resume_state().unanswered.len(), 1);
    }
}

#[tokio::test]
async fn shutdown_is_followed_by_another_attempt_not_before_it_is_welcome() {
    let server = Server::start().await;
    let (_client, mut events) = builder(&server).connect().unwrap();
    let (mut peer, _) = server.sign_in().await;
    peer.say(json!({"type": "bye", "reason": "shutdown", "retry_after_ms": 60}))
        .await;
    loop {
        if let Event::Disconnected { cause, retry_in } = next(&mut events).await {
            assert_eq!(cause, DisconnectCause::Bye(CloseReason::Shutdown));
            assert!(retry_in.as_millis() >= 60);
            break;
        }
    }
    server.sign_in().await;
}

#[tokio::test]
async fn http_refusals_pass_or_end_by_their_status() {
    let server = Server::start().await;
    let (_client, mut events) = builder(&server).connect().unwrap();
    for (status, more) in [(503, "Retry-After: 0\r\n"), (403, "")] {
        let mut tcp = server.tcp().await;
        let mut request = [0; 4096];
        let _ = tcp.read(&mut request).await.unwrap();
        let answer = format!("HTTP/1.1 {status} X\r\n{more}Content-Length: 0\r\n\r\n");
        tcp.write_all(answer.as_bytes()).await.unwrap();
    }
    assert_eq!(
        disconnect_cause(&mut events).await,
        DisconnectCause::Http { status: 503 }
    );
    assert_eq!(terminal(&mut events).await, Terminal::Http { status: 403 });
}

#[tokio::test]
async fn gives_up_after_as_many_attempts_as_told() {
    let url = {
        // Bound and dropped: nobody listens there any more.
        let server = Server::start().await;
        server.url.clone()
    };
    let (client, mut events) = Client::builder(url, "phone")
        .token("t")
        .tune(|tuning| {
            tuning.backoff_ms_base = 1;
            tuning.attempts_max = Some(4);
        })
        .connect()
        .unwrap();
    let Err(Terminal::GaveUp { attempts, .. }) = soon("the end", client.ready()).await else {
        panic!("did not give up");
    };
    assert_eq!(attempts, 4);
    let mut tries = 0;
    while let Event::Disconnected { cause, .. } = next(&mut events).await {
        assert!(matches!(cause, DisconnectCause::Network(_)), "{cause}");
        tries += 1;
    }
    assert_eq!(tries, 3);
}

#[tokio::test]
async fn a_half_open_connection_is_noticed_and_replaced() {
    let server = Server::start().await;
    let (_client, mut events) = builder(&server).connect().unwrap();
    // This peer says nothing more, and answers no WebSocket ping either: nobody reads it.
    let (silent, _) = server.sign_in_with(30).await;
    assert_eq!(
        disconnect_cause(&mut events).await,
        DisconnectCause::HeartbeatLost
    );
    let (mut peer, _) = server.sign_in_with(1_000).await;
    // An answered ping keeps it alive, so that a second one comes on the same connection.
    for _ in 0..2 {
        let ping = peer.frame().await;
        assert_eq!(ping["type"], "ping");
        peer.say(json!({"type": "pong", "nonce": ping["nonce"]}))
            .await;
    }
    drop(silent);
}

#[tokio::test]
async fn a_network_that_takes_nothing_is_given_up_and_nothing_is_lost() {
    let server = Server::start_narrow();
    let (client, mut events) = builder(&server)
        .tune(|tuning| tuning.write_ms_max = 3_000)
        .connect()
        .unwrap();
    let (stuck, _) = server.sign_in().await;
    // 64 bodies of 64 KiB: more than the kernel takes for a peer that does not read.
    let filling = "x".repeat(65_000);
    for n in 0..64 {
        client.send(&bob(), (n, &filling)).await.unwrap();
    }
    assert_eq!(
        disconnect_cause(&mut events).await,
        DisconnectCause::WriteTimeout
    );
    let (mut peer, _) = server.sign_in().await;
    for n in 0..64 {
        let frame = peer.frame().await;
        assert_eq!(frame["body"][0], n);
        peer.accept_send(&frame).await;
    }
    drop(stuck);
}

#[tokio::test]
async fn a_token_source_is_asked_for_each_attempt() {
    let server = Server::start().await;
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let (_client, mut events) = builder(&server)
        .token_source(move || {
            let n = count.fetch_add(1, Ordering::SeqCst);
            async move {
                if n == 0 {
                    return Err("not yet".into());
                }
                Ok(format!("token-{n}"))
            }
        })
        .connect()
        .unwrap();
    assert!(matches!(
        disconnect_cause(&mut events).await,
        DisconnectCause::Token(_)
    ));
    let (mut peer, hello) = server.sign_in().await;
    assert_eq!(hello["token"], "token-1");
    peer.say(json!({"type": "bye", "reason": "unauthorized"}))
        .await;
    let mut peer = server.accept().await;
    assert_eq!(peer.frame().await["token"], "token-2");
    peer.say(json!({"type": "bye", "reason": "unauthorized"}))
        .await;
    assert_eq!(
        terminal(&mut events).await,
        Terminal::Refused(CloseReason::Unauthorized)
    );
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn closing_waits_for_answers_and_says_goodbye() {
    let server = Server::start().await;
    let (client, mut events) = builder(&server).connect().unwrap();
    let (mut peer, _) = server.sign_in().await;
    let sent = client.send(&bob(), "x").await.unwrap();
    let frame = peer.frame().await;
    let (state, ()) = tokio::join!(soon("the end", client.close()), async {
        peer.accept_send(&frame).await;
        assert_eq!(peer.until_closed().await, Vec::<serde_json::Value>::new());
    });
    assert!(sent.await.is_ok());
    assert!(state.unanswered.is_empty());
    assert_eq!(terminal(&mut events).await, Terminal::Closed);
}

#[tokio::test]
async fn dropping_everything_closes_after_the_answers() {
    let server = Server::start().await;
    let (client, events) = builder(&server).connect().unwrap();
    let (mut peer, _) = server.sign_in().await;
    soon("ready", client.ready()).await.unwrap();
    let sent = client.send(&bob(), "x").await.unwrap();
    drop((client, events));
    let frame = peer.frame().await;
    peer.accept_send(&frame).await;
    assert!(soon("the answer", sent).await.is_ok());
    peer.until_closed().await;
}

#[tokio::test]
async fn a_new_process_continues_from_the_state_it_kept() {
    let server = Server::start().await;
    let (client, mut events) = builder(&server).connect().unwrap();
    let (mut peer, _) = server.sign_in().await;
    assert!(matches!(next(&mut events).await, Event::Connected(_)));
    peer.message(1).await;
    peer.message(2).await;
    assert!(matches!(next(&mut events).await, Event::Message(m) if m.seq == 1));
    assert!(matches!(next(&mut events).await, Event::Message(m) if m.seq == 2));
    let id = client.send(&bob(), "x").await.unwrap().id();
    let kept = serde_json::to_string(&client.resume_state()).unwrap();
    drop((client, events, peer));

    let state: ResumeState = serde_json::from_str(&kept).unwrap();
    let (client, mut events) = builder(&server).resume(state).connect().unwrap();
    let (mut peer, hello) = loop {
        // The first client, dropped, may still make an attempt to finish its work.
        let (peer, hello) = server.sign_in().await;
        if hello["ack"] == 1 {
            break (peer, hello);
        }
    };
    assert_eq!(hello["ack"], 1, "the second was not handled");
    let frame = peer.frame().await;
    assert_eq!(frame["id"], id.to_string());
    peer.accept_send(&frame).await;
    peer.message(2).await;
    assert!(matches!(next(&mut events).await, Event::Connected(_)));
    assert!(
        matches!(next(&mut events).await, Event::Settled { id: got, result: Ok(_) } if got == id)
    );
    assert!(matches!(next(&mut events).await, Event::Message(m) if m.seq == 2));
    assert!(client.send(&bob(), "y").await.unwrap().id() > id);
}
