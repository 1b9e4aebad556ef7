//! What nobody claims in time goes, and is counted.

use serde_json::json;
use stonechat_tests::{Connect, Node, NodeOptions, WsClient, eventually, new_id};

#[tokio::test]
async fn an_expired_message_is_not_delivered_but_counted() {
    let node = Node::start(NodeOptions::new().expire_interval_ms(100));
    let token = node.user("bob");
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mortal = new_id();
    let frame = json!({"type": "send", "id": mortal, "to": {"user": "bob"}, "body": 1, "ttl_s": 1});
    alice.send_json(&frame).await;
    alice.accepted(&mortal).await;
    let lasting = alice.say("bob", &json!("lasting")).await;
    let mailbox = eventually("it expires", || {
        let mailbox = node.admin().user("bob")["mailbox"].clone();
        (mailbox["expired_total"] == 1).then_some(mailbox)
    });
    assert_eq!(mailbox["messages"], 1, "{mailbox}");
    let (mut bob, welcome) = Connect::to(&node).sign_in(&token, "phone").await;
    assert_eq!(welcome["pending"], 1);
    assert_eq!(bob.message_acked().await["id"], json!(lasting));
    let told = alice.take("receipt").await;
    assert_eq!(told["delivered"], json!(lasting));
}

#[tokio::test]
async fn expired_is_expired_before_the_sweep_comes() {
    // The sweep is far away; still an expired message must not be handed out.
    let node = Node::start(NodeOptions::new().expire_interval_ms(3_600_000));
    let token = node.user("bob");
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mortal = new_id();
    let frame = json!({"type": "send", "id": mortal, "to": {"user": "bob"}, "body": 1, "ttl_s": 1});
    alice.send_json(&frame).await;
    let accepted = alice.accepted(&mortal).await;
    let expires_ms = accepted["ts_ms"].as_u64().unwrap() + 1_000;
    let lasting = alice.say("bob", &json!("lasting")).await;
    // The server's own clock says when the time has come.
    eventually("its time has come", || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        (now.unwrap().as_millis() > u128::from(expires_ms)).then_some(())
    });
    let (mut bob, _) = Connect::to(&node).sign_in(&token, "phone").await;
    assert_eq!(bob.message_acked().await["id"], json!(lasting));
}

#[tokio::test]
async fn a_connected_recipient_gets_it_in_time() {
    let node = Node::start(NodeOptions::new().expire_interval_ms(100));
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    for ttl_s in [10, 60, u64::from(u32::MAX), (1 << 53) - 1] {
        let id = new_id();
        let frame =
            json!({"type": "send", "id": id, "to": {"user": "bob"}, "body": 1, "ttl_s": ttl_s});
        alice.send_json(&frame).await;
        alice.accepted(&id).await;
        assert_eq!(bob.message_acked().await["id"], json!(id), "ttl_s {ttl_s}");
    }
}

#[tokio::test]
async fn no_message_outlives_the_limit_of_the_server() {
    let options = NodeOptions::new()
        .expire_interval_ms(100)
        .set("limits.ttl_s_max", "1");
    let node = Node::start(options);
    node.user("bob");
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let id = new_id();
    let frame = json!({"type": "send", "id": id, "to": {"user": "bob"}, "body": 1, "ttl_s": 1_000});
    alice.send_json(&frame).await;
    alice.accepted(&id).await;
    alice.say("bob", &json!("no ttl named")).await;
    eventually("both expire", || {
        (node.admin().user("bob")["mailbox"]["expired_total"] == 2).then_some(())
    });
}
