//! At the end of its file descriptors the node refuses, harms nobody, and recovers.

use serde_json::json;
use stonechat_tests::{Connect, Node, NodeOptions, WsClient, eventually_async, heavy};
use tokio::net::TcpStream;

/// Opens connections until one is not upgraded any more.
async fn open_until_refused(node: &Node, most: usize) -> (Vec<WsClient>, u16) {
    let mut open = Vec::new();
    loop {
        assert!(open.len() < most, "{most} connections fit");
        match Connect::to(node).open().await {
            Ok(client) => open.push(client),
            Err(refused) => return (open, refused.status),
        }
    }
}

async fn talk(alice: &mut WsClient, bob: &mut WsClient) {
    let id = alice.say("bob", &json!("hi")).await;
    assert_eq!(bob.message_acked().await["id"], json!(id));
}

#[tokio::test]
async fn the_limit_derived_from_the_descriptors_refuses_politely() {
    let _heavy = heavy();
    let node = Node::start(
        NodeOptions::new()
            .shell_prelude("ulimit -n 256")
            .auth_deadline_ms(600_000),
    );
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let (mut open, status) = open_until_refused(&node, 256).await;
    assert_eq!(status, 503, "refused in words, not by a broken connection");
    assert!(open.len() >= 16, "{} connections only", open.len());
    talk(&mut alice, &mut bob).await;
    node.admin().get("/readyz").expect(200);
    open.truncate(open.len() / 2);
    let mut carol = eventually_async("there is room again", async || {
        Connect::to(&node).open().await.ok()
    })
    .await;
    let token = node.user("carol");
    carol
        .send_json(&json!({"type": "hello", "token": token, "device": "phone"}))
        .await;
    carol.take("welcome").await;
    talk(&mut alice, &mut bob).await;
}

#[tokio::test]
async fn running_out_for_real_harms_nobody_and_passes() {
    let _heavy = heavy();
    // The limit of connections is set above what the descriptors allow: accept itself will fail.
    let node = Node::start(
        NodeOptions::new()
            .shell_prelude("ulimit -n 128")
            .connections_max(10_000)
            .auth_deadline_ms(600_000)
            .set("server.request_deadline_ms", "600000")
            .allow_log("accept")
            .allow_log("Too many open files"),
    );
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    // Sockets that say nothing; the kernel takes them even when the node cannot any more.
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(node.endpoint().listen).await.unwrap());
    }
    for _ in 0..20 {
        talk(&mut alice, &mut bob).await;
    }
    drop(idle);
    let token = node_token(&node).await;
    let mut carol = eventually_async("the node recovers", async || {
        Connect::to(&node).open().await.ok()
    })
    .await;
    carol
        .send_json(&json!({"type": "hello", "token": token, "device": "phone"}))
        .await;
    carol.take("welcome").await;
    talk(&mut alice, &mut bob).await;
}

/// A token for carol; the admin listener shares the descriptors, so it may need a moment too.
async fn node_token(node: &Node) -> String {
    let admin = node.admin();
    eventually_async("the admin API recovers", async || {
        admin
            .try_request("POST", "/admin/v1/users", Some(r#"{"user":"carol"}"#))
            .filter(|reply| reply.status == 201)
    })
    .await;
    admin.token("carol", None)
}
