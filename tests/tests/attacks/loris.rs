//! Clients that take their time, so as to hold what they hold for ever.

use std::time::{Duration, Instant};

use stonechat_tests::raw::{Shape, opcode, upgrade_request};
use stonechat_tests::{Node, NodeOptions, RawClient};

use super::{Bystanders, size, until_connections};

/// Longest time one of them keeps at it.
const PATIENCE: Duration = Duration::from_secs(20);
const EVERY: Duration = Duration::from_millis(40);

/// Writes a byte now and then until the server hangs up.
async fn dribble(client: &mut RawClient, bytes: &[u8]) {
    let end = Instant::now() + PATIENCE;
    for byte in bytes.iter().cycle() {
        assert!(Instant::now() < end, "the server lets it go on for ever");
        if !client.try_write(&[*byte]).await || client.is_closed_within(EVERY).await {
            return;
        }
    }
}

#[tokio::test]
async fn a_request_a_byte_at_a_time_is_given_up() {
    let node = Node::start(NodeOptions::new().set("server.request_deadline_ms", "1000"));
    let mut others = Bystanders::join(&node).await;
    let mut slow = Vec::new();
    for _ in 0..size(10, 300) {
        let mut client = RawClient::connect(&node).await;
        slow.push(tokio::spawn(async move {
            // Never an end of the line, so never the end of the head.
            dribble(&mut client, b"GET").await;
        }));
    }
    others.median(20).await;
    let count = slow.len();
    for one in slow {
        one.await.expect("every one is given up");
    }
    others.talk().await;
    println!("slow requests: {count} given up");
}

#[tokio::test]
async fn a_hello_a_byte_at_a_time_is_given_up() {
    let node = Node::start(NodeOptions::new().auth_deadline_ms(3_000));
    let mut others = Bystanders::join(&node).await;
    let endless = Shape::new(opcode::TEXT, vec![b' '; 60_000]).encode();
    let mut slow = Vec::new();
    for _ in 0..size(10, 300) {
        let mut client = RawClient::open(&node).await;
        let endless = endless.clone();
        slow.push(tokio::spawn(async move {
            dribble(&mut client, &endless).await;
        }));
    }
    others.median(20).await;
    let count = slow.len();
    for one in slow {
        one.await.expect("every one is given up");
    }
    others.talk().await;
    println!("slow hellos: {count} given up");
}

#[tokio::test]
async fn a_frame_a_byte_at_a_time_does_not_count_as_life() {
    let node = Node::start(NodeOptions::new().heartbeat_ms(400));
    let endless = Shape::new(opcode::TEXT, vec![b' '; 60_000]).encode();
    let mut slow = Vec::new();
    for n in 0..size(5, 100) {
        let mut client = RawClient::join(&node, &format!("user{n}"), "phone").await;
        let endless = endless.clone();
        slow.push(tokio::spawn(async move {
            dribble(&mut client, &endless).await;
        }));
    }
    let count = slow.len();
    for one in slow {
        one.await.expect("every one is given up");
    }
    until_connections(&node, 0.0);
    println!("slow frames: {count} given up");
}

#[tokio::test]
async fn half_a_request_and_a_pause_hold_no_place_for_others() {
    let node = Node::start(NodeOptions::new().set("server.request_deadline_ms", "1000"));
    let half = upgrade_request(&node.endpoint().listen);
    let mut waiting = Vec::new();
    for _ in 0..size(40, 600) {
        let mut client = RawClient::connect(&node).await;
        client.write(&half.as_bytes()[..40]).await;
        waiting.push(client);
    }
    let mut others = Bystanders::join(&node).await;
    others.talk().await;
    for mut client in waiting {
        let end = client.rest().await;
        assert!(end.is_empty() || end.starts_with("HTTP/1.1 408"), "{end}");
    }
}
