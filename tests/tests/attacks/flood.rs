//! Many connections from one address that never sign in (`limits.unauthenticated_per_peer_max`).

use std::net::Ipv4Addr;

use stonechat_tests::{Node, NodeOptions, RawClient, eventually_async};

use super::{Bystanders, size};

const EACH_MAX: usize = 20;
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn options() -> NodeOptions {
    NodeOptions::new()
        .set("server.peers_trusted", "[]")
        .set("limits.unauthenticated_per_peer_max", &EACH_MAX.to_string())
        .auth_deadline_ms(600_000)
        .set("server.request_deadline_ms", "600000")
}

#[tokio::test]
async fn a_flood_from_one_address_keeps_nobody_else_out() {
    let node = Node::start(options());
    let mut others = Bystanders::join(&node).await;
    let mut flood = Vec::new();
    for _ in 0..EACH_MAX {
        flood.push(RawClient::connect(&node).await);
    }
    // One more is refused in words, whatever it asks for, and counted.
    let refused = eventually_async("the address has no place left", async || {
        let mut client = RawClient::connect(&node).await;
        let head = client.response_head_if_any().await;
        if head.is_none() {
            flood.push(client);
        }
        head
    })
    .await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(
        refused.to_lowercase().contains("retry-after: "),
        "{refused}"
    );
    let count = size(60, 5_000);
    for n in 0..count {
        flood.push(RawClient::connect(&node).await);
        if n % 100 == 0 {
            others.talk().await;
        }
    }
    let counted = node
        .admin()
        .metric("stonechat_connections_refused_total", "\"429\"");
    assert!(counted.is_some_and(|n| n >= 1.0), "{counted:?}");
    // From another address one gets in at once.
    let token = node.user("carol");
    let mut carol = RawClient::connect_from(&node, ELSEWHERE).await;
    carol.upgrade_and_sign_in(&node, &token).await;
    others.talk().await;
    println!("flood: {count} silent sockets more than the {EACH_MAX} allowed; others unharmed");
    // And from this one when the flood is over.
    drop(flood);
    let token = node.user("dave");
    eventually_async("the address has places again", async || {
        let mut dave = RawClient::connect(&node).await;
        dave.try_sign_in(&node, &token).await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_has_signed_in_is_not_counted() {
    let node = Node::start(options());
    let mut all = Vec::new();
    for n in 0..EACH_MAX + 10 {
        all.push(RawClient::join(&node, &format!("user{n}"), "phone").await);
    }
    // Upgraded is not signed in.
    let mut waiting = Vec::new();
    let refused = eventually_async("the address has no place left", async || {
        let mut client = RawClient::connect(&node).await;
        let head = client.upgrade(&node).await?;
        if head.starts_with("HTTP/1.1 101") {
            waiting.push(client);
            return None;
        }
        Some(head)
    })
    .await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert_eq!(waiting.len(), EACH_MAX);
    // One that signs in makes room for one.
    let token = node.user("carol");
    waiting.pop().expect("one waits").sign_in(&token).await;
    eventually_async("there is room for one more", async || {
        let mut client = RawClient::connect(&node).await;
        let head = client.upgrade(&node).await?;
        head.starts_with("HTTP/1.1 101").then_some(client)
    })
    .await;
}
