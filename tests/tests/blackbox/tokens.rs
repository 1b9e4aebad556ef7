//! The life of a token: bound, expired, revoked, its keys rotated, its user disabled or removed.

use serde_json::{Value, json};
use stonechat_tests::{Connect, Node, WsClient, eventually_async};

/// Whether a token signs in now.
async fn signs_in(node: &Node, token: &str, device: &str) -> bool {
    let mut client = Connect::to(node).open().await.expect("the upgrade is fine");
    let hello = json!({"type": "hello", "token": token, "device": device});
    client.send_json(&hello).await;
    let answer = client.frame().await;
    if answer["type"] == "welcome" {
        client.close().await;
        return true;
    }
    assert_eq!(
        (&answer["type"], &answer["code"]),
        (&json!("error"), &json!("unauthorized"))
    );
    client.bye("unauthorized", 4003).await;
    false
}

#[tokio::test]
async fn a_bound_token_is_good_for_its_device_only() {
    let node = Node::start_default();
    node.admin().create_user("alice");
    let token = node.admin().token("alice", Some("phone"));
    assert!(signs_in(&node, &token, "phone").await);
    assert!(!signs_in(&node, &token, "tablet").await);
}

#[tokio::test]
async fn a_token_expires() {
    let node = Node::start_default();
    let admin = node.admin();
    admin.create_user("alice");
    let issued = admin
        .post("/admin/v1/users/alice/tokens", &json!({"ttl_s": 5}))
        .expect(201);
    let token = issued["token"].as_str().unwrap().to_owned();
    assert!(issued["expires_ms"].as_u64().is_some());
    assert!(signs_in(&node, &token, "phone").await, "it is young");
    eventually_async("the token expires", async || {
        (!signs_in(&node, &token, "phone").await).then_some(())
    })
    .await;
}

#[tokio::test]
async fn revoking_all_tokens_disconnects_and_new_ones_work() {
    let node = Node::start_default();
    let admin = node.admin();
    let token = node.user("alice");
    let (mut alice, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let revoked = admin.delete("/admin/v1/users/alice/tokens");
    assert!((200..300).contains(&revoked.status), "{revoked:?}");
    let bye = alice.bye("revoked", 4004).await;
    assert!(bye.get("retry_after_ms").is_none(), "{bye}");
    assert!(!signs_in(&node, &token, "phone").await);
    assert!(signs_in(&node, &admin.token("alice", None), "phone").await);
    bob.fence().await;
}

#[tokio::test]
async fn revoking_one_token_leaves_the_others() {
    let node = Node::start_default();
    let admin = node.admin();
    admin.create_user("alice");
    let issue = |device: &str| {
        admin
            .post("/admin/v1/users/alice/tokens", &json!({"device": device}))
            .expect(201)
    };
    let (lost, kept) = (issue("lost"), issue("kept"));
    let lost_token = lost["token"].as_str().unwrap();
    let kept_token = kept["token"].as_str().unwrap();
    let path = format!("/admin/v1/tokens/{}", lost["id"].as_str().unwrap());
    let reply = admin.delete(&path);
    assert!((200..300).contains(&reply.status), "{reply:?}");
    assert!(!signs_in(&node, lost_token, "lost").await);
    assert!(signs_in(&node, kept_token, "kept").await);
    // Revocation is durable.
    let mut node = node;
    node.crash_and_restart();
    assert!(!signs_in(&node, lost_token, "lost").await);
    assert!(signs_in(&node, kept_token, "kept").await);
    // So is what is known of both, newest first.
    let listed = node.admin().get("/admin/v1/users/alice/tokens").expect(200);
    for (place, issued, device, state) in
        [(0, &kept, "kept", "good"), (1, &lost, "lost", "revoked")]
    {
        let one = &listed["tokens"][place];
        assert_eq!(one["id"], issued["id"], "{listed}");
        assert_eq!(one["device"], device, "{listed}");
        assert_eq!(one["state"], state, "{listed}");
        assert_eq!(one["expires_ms"], issued["expires_ms"], "{listed}");
    }
    assert!(!listed.to_string().contains(kept_token));
    let table = node.run(&["admin", "user-tokens", "alice"]).stdout;
    let lost_line = table.lines().find(|line| line.contains("lost"));
    assert!(
        lost_line.is_some_and(|line| line.ends_with("revoked")),
        "{table}"
    );
    // Removed with the user, so that another of the same name begins anew.
    assert_eq!(node.admin().delete("/admin/v1/users/alice").status, 204);
    assert_eq!(node.admin().get("/admin/v1/users/alice/tokens").status, 404);
    node.admin().create_user("alice");
    let listed = node.admin().get("/admin/v1/users/alice/tokens").expect(200);
    assert_eq!(listed["tokens"], json!([]));
}

#[tokio::test]
async fn a_disabled_user_is_out_until_enabled() {
    let node = Node::start_default();
    let admin = node.admin();
    let token = node.user("alice");
    let (mut alice, _) = Connect::to(&node).sign_in(&token, "phone").await;
    admin
        .patch("/admin/v1/users/alice", &json!({"disabled": true}))
        .expect(200);
    alice.bye("revoked", 4004).await;
    assert!(!signs_in(&node, &token, "phone").await);
    assert_eq!(admin.user("alice")["disabled"], true);
    admin
        .patch("/admin/v1/users/alice", &json!({"disabled": false}))
        .expect(200);
    assert!(signs_in(&node, &token, "phone").await);
}

#[tokio::test]
async fn a_removed_user_is_gone_with_everything() {
    let node = Node::start_default();
    let admin = node.admin();
    let token = node.user("alice");
    let (mut alice, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    bob.say("alice", &json!("kept nowhere")).await;
    alice.message().await;
    let reply = admin.delete("/admin/v1/users/alice");
    assert!((200..300).contains(&reply.status), "{reply:?}");
    alice.bye("revoked", 4004).await;
    assert!(!signs_in(&node, &token, "phone").await);
    admin.get("/admin/v1/users/alice").expect_problem(404);
    let id = bob.send_to("alice", &json!("nobody there")).await;
    bob.error("unknown_user", &json!(id)).await;
    // A user created anew under the name starts with nothing, and old tokens stay void.
    let fresh = node.user("alice");
    assert!(!signs_in(&node, &token, "phone").await);
    let (_alice, welcome) = Connect::to(&node).sign_in(&fresh, "phone").await;
    assert_eq!(welcome["pending"], 0);
}

#[tokio::test]
async fn keys_rotate_without_voiding_tokens() {
    let mut node = Node::start_default();
    let old = node.user("alice");
    let reply = node.admin().post("/admin/v1/keys/rotate", &json!({}));
    assert!((200..300).contains(&reply.status), "{reply:?}");
    let new = node.admin().token("alice", None);
    assert_ne!(
        old.split('.').nth(1),
        new.split('.').nth(1),
        "the new token is signed with another key"
    );
    for token in [&old, &new] {
        assert!(signs_in(&node, token, "phone").await);
    }
    node.crash_and_restart();
    for token in [&old, &new] {
        assert!(signs_in(&node, token, "phone").await);
    }
}

#[tokio::test]
async fn the_log_has_no_token_and_no_body() {
    let node = Node::start(stonechat_tests::NodeOptions::new().set("log.filter", "\"debug\""));
    let token = node.user("alice");
    let (mut alice, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let body = "a-body-nobody-else-should-read";
    alice.say("alice", &json!(body)).await;
    let mut bad = Connect::to(&node).open().await.unwrap();
    let hello = json!({"type": "hello", "token": format!("{token}x"), "device": "phone"});
    bad.send_json(&hello).await;
    bad.error("unauthorized", &Value::Null).await;
    alice.close().await;
    let secret = std::fs::read_to_string(node.data_dir().join("admin.secret")).unwrap();
    let log = node.log();
    assert!(
        log.contains("alice") || log.len() > 500,
        "there is a log to look at: {log}"
    );
    for hidden in [token.as_str(), body, secret.trim()] {
        assert!(!log.contains(hidden), "the log tells {hidden}");
    }
}
