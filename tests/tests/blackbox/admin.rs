//! The admin API: users, tokens, problems, credentials, health, metrics, the tree.

use serde_json::{Value, json};
use stonechat_tests::{
    Connect, DEADLINE, Node, NodeOptions, WsClient, eventually, eventually_async, new_id,
};

#[test]
fn users_are_created_listed_shown_and_removed() {
    let mut node = Node::start_default();
    let admin = node.admin();
    let created = admin
        .post("/admin/v1/users", &json!({"user": "bob"}))
        .expect(201);
    assert_eq!(created["user"], "bob");
    assert!(created["created_ms"].as_u64().is_some());
    let again = admin
        .post("/admin/v1/users", &json!({"user": "bob"}))
        .expect(200);
    assert_eq!(again, created, "creating is idempotent");
    for name in ["alice", "a.b_c+d-9", "carol", &"z".repeat(64)] {
        admin.create_user(name);
    }
    let bob = admin.user("bob");
    assert_eq!(bob["disabled"], false);
    assert_eq!(bob["connected"], false);
    assert_eq!(bob["devices"], json!([]));
    for field in ["messages", "bytes", "last_seq", "expired_total"] {
        assert_eq!(bob["mailbox"][field], 0, "{field}: {bob}");
    }
    // Page by page, in order, each once.
    let mut names = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!(
            "/admin/v1/users?limit=2&after={}",
            after.replace('+', "%2B")
        );
        let page = admin.get(&path).expect(200);
        let users = page["users"].as_array().unwrap();
        assert!(users.len() <= 2, "{page}");
        names.extend(
            users
                .iter()
                .map(|user| user["user"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    let expected = ["a.b_c+d-9", "alice", "bob", "carol", &"z".repeat(64)];
    assert_eq!(names, expected);
    admin.delete("/admin/v1/users/carol").expect(204);
    admin.get("/admin/v1/users/carol").expect_problem(404);
    admin.delete("/admin/v1/users/carol").expect_problem(404);
    node.crash_and_restart();
    let admin = node.admin();
    assert_eq!(admin.user("bob")["created_ms"], created["created_ms"]);
    admin.get("/admin/v1/users/carol").expect_problem(404);
}

#[test]
fn mistakes_are_answered_with_problems() {
    let node = Node::start_default();
    let admin = node.admin();
    for user in ["", "Bob", "a b", "ü", &"a".repeat(65)] {
        admin
            .post("/admin/v1/users", &json!({"user": user}))
            .expect_problem(400);
    }
    admin
        .post("/admin/v1/users", &json!({}))
        .expect_problem(400);
    admin
        .post("/admin/v1/users", &json!({"user": 1}))
        .expect_problem(400);
    let raw = |body: &str| {
        admin
            .try_request("POST", "/admin/v1/users", Some(body))
            .unwrap()
    };
    raw("{").expect_problem(400);
    raw("[]").expect_problem(400);
    raw(&format!("{{\"user\":\"{}\"}}", "a".repeat(70_000))).expect_problem(413);
    admin.get("/admin/v1/users/nobody").expect_problem(404);
    admin.get("/admin/v1/nothing").expect_problem(404);
    admin.get("/nothing").expect_problem(404);
    admin
        .request("PUT", "/admin/v1/users", Some(&json!({})))
        .expect_problem(405);
    admin
        .post("/admin/v1/users/nobody/tokens", &json!({}))
        .expect_problem(404);
    admin
        .delete("/admin/v1/users/nobody/tokens")
        .expect_problem(404);
    admin
        .patch("/admin/v1/users/nobody", &json!({"disabled": true}))
        .expect_problem(404);
    admin
        .post("/admin/v1/users/nobody/disconnect", &json!({}))
        .expect_problem(404);
    admin.get("/admin/v1/dead-letters/1").expect_problem(404);
    admin.get("/admin/v1/dead-letters/x").expect_problem(404);
    admin.get("/admin/v1/users?limit=x").expect_problem(400);
    admin.create_user("alice");
    let token = |body: Value| admin.post("/admin/v1/users/alice/tokens", &body);
    token(json!({"device": "a b"})).expect_problem(400);
    token(json!({"ttl_s": -1})).expect_problem(400);
    token(json!({"ttl_s": 0})).expect_problem(400);
    admin
        .patch("/admin/v1/users/alice", &json!({"disabled": "yes"}))
        .expect_problem(400);
}

#[test]
fn without_the_secret_nothing_is_told() {
    let node = Node::start_default();
    let admin = node.admin();
    admin.create_user("alice");
    let token = admin.token("alice", None);
    for secret in [None, Some(""), Some("wrong"), Some(token.as_str())] {
        let stranger = admin.with_secret(secret);
        for path in ["/admin/v1/users", "/admin/v1/node", "/admin/v1/nothing"] {
            let reply = stranger.get(path);
            assert!(matches!(reply.status, 401 | 429), "{path}: {reply:?}");
            assert!(!reply.text.contains("alice"));
        }
        let reply = stranger.post("/admin/v1/users", &json!({"user": "eve"}));
        assert!(matches!(reply.status, 401 | 429), "{reply:?}");
    }
    admin.with_secret(None).get("/healthz").expect(200);
    admin.with_secret(None).get("/readyz").expect(200);
    assert_eq!(admin.with_secret(None).get("/metrics").status, 200);
    eventually("the right secret works, whatever was tried before", || {
        (admin.get("/admin/v1/users/eve").status == 404).then_some(())
    });
}

#[tokio::test]
async fn who_is_connected_is_shown() {
    let node = Node::start_default();
    let admin = node.admin();
    let alice = WsClient::join(&node, "alice", "phone").await;
    let _tablet = WsClient::join(&node, "alice", "tablet").await;
    let shown = admin.user("alice");
    assert_eq!(shown["connected"], true);
    assert_eq!(admin.device("alice", "phone")["connected"], true);
    alice.close().await;
    let phone = eventually("the phone is away", || {
        let phone = admin.device("alice", "phone");
        (phone["connected"] == false).then_some(phone)
    });
    assert!(
        phone["last_seen_ms"]
            .as_u64()
            .is_some_and(|ms| ms > 1_700_000_000_000),
        "{phone}"
    );
    assert_eq!(phone["cursor"], 0);
    assert_eq!(admin.device("alice", "tablet")["connected"], true);
    let info = eventually("one connection is left", || {
        let info = admin.get("/admin/v1/node").expect(200);
        (info["connections"] == 1).then_some(info)
    });
    assert_eq!(info["sessions"], 1, "{info}");
    assert_eq!(info["panics"], 0, "{info}");
    assert!(
        info["version"].is_string() && info["uptime_s"].is_u64(),
        "{info}"
    );
    assert!(info["store"].is_object(), "{info}");
}

#[tokio::test]
async fn an_operator_can_disconnect_a_user() {
    let node = Node::start_default();
    let token = node.user("alice");
    let (mut phone, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let (mut tablet, _) = Connect::to(&node).sign_in(&token, "tablet").await;
    let reply = node
        .admin()
        .post("/admin/v1/users/alice/disconnect", &json!({}));
    assert!((200..300).contains(&reply.status), "{reply:?}");
    phone.bye("shutdown", 1001).await;
    tablet.bye("shutdown", 1001).await;
    Connect::to(&node).sign_in(&token, "phone").await;
}

#[tokio::test]
async fn the_tree_names_every_actor() {
    let node = Node::start_default();
    let _alice = WsClient::join(&node, "alice", "phone").await;
    let tree = node.admin().get("/admin/v1/actors?limit=1000").expect(200);
    let actors = tree["actors"].as_array().unwrap();
    for kind in ["session", "router", "offline"] {
        let one = actors.iter().find(|actor| {
            let named = |field: &str| {
                actor[field]
                    .as_str()
                    .is_some_and(|text| text.contains(kind))
            };
            named("kind") || named("name")
        });
        let one = one.unwrap_or_else(|| panic!("no {kind}: {tree}"));
        for field in [
            "id",
            "name",
            "generation",
            "restarts",
            "depth",
            "high_water",
            "capacity",
        ] {
            assert!(!one[field].is_null(), "{field} of {one}");
        }
    }
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let node = Node::start_default();
    let admin = node.admin();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    for n in 0..10 {
        alice.say("bob", &json!(n)).await;
        bob.message_acked().await;
    }
    // The last acknowledgement has been read, too.
    bob.fence().await;
    let is = |name: &str, labels: &str, at_least: f64| {
        let value = admin.metric(name, labels);
        assert!(
            value.is_some_and(|value| value >= at_least),
            "{name}{{{labels}}} is {value:?}"
        );
    };
    is("stonechat_connections", "", 2.0);
    is("stonechat_connections_opened_total", "", 2.0);
    is("stonechat_frames_received_total", "type=\"send\"", 10.0);
    is("stonechat_frames_received_total", "type=\"ack\"", 10.0);
    is("stonechat_frames_sent_total", "", 22.0);
    is("stonechat_received_bytes_total", "", 1_000.0);
    is("stonechat_sent_bytes_total", "", 1_000.0);
    is("stonechat_journal_sync_seconds_count", "", 1.0);
    is("stonechat_journal_bytes", "", 1.0);
    alice.close().await;
    eventually("one connection is left", || {
        (admin.metric("stonechat_connections", "") == Some(1.0)).then_some(())
    });
}

#[tokio::test]
async fn how_long_sends_wait_is_counted_for_each_that_was_accepted() {
    let node = Node::start_default();
    let admin = node.admin();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let _bob = WsClient::join(&node, "bob", "phone").await;
    let mut last = String::new();
    for n in 0..10 {
        last = alice.say("bob", &json!(n)).await;
    }
    let send = |id: &str, user: &str, ephemeral: bool| {
        let to = json!({"user": user});
        json!({"type": "send", "id": id, "to": to, "body": 9, "ephemeral": ephemeral})
    };
    // None of these waited for a disk: a resend, an ephemeral send, a refused one.
    alice.send_json(&send(&last, "bob", false)).await;
    assert_eq!(alice.accepted(&last).await["duplicate"], true);
    let id = new_id();
    alice.send_json(&send(&id, "bob", true)).await;
    assert_eq!(alice.accepted(&id).await["ephemeral"], true);
    alice.send_json(&send(&new_id(), "nobody", false)).await;
    alice.take("error").await;
    let of = |part: &str, labels: &str| {
        let name = format!("stonechat_send_accepted_seconds_{part}");
        admin.metric(&name, labels)
    };
    assert_eq!(of("count", ""), Some(10.0));
    assert_eq!(of("bucket", "le=\"+Inf\""), Some(10.0));
    let sum = of("sum", "").expect("it is told");
    assert!(sum > 0.0 && sum < 10.0 * DEADLINE.as_secs_f64(), "{sum}");
    // And in the last hour, which is looked at every few seconds.
    let median = eventually_async("a sample of it", async || {
        alice.say("bob", &json!("more")).await;
        let history = admin.get("/admin/v1/history").expect(200);
        let values = history["series"]["send_accepted_p50_ms"]
            .as_array()?
            .clone();
        values.iter().find_map(Value::as_f64)
    });
    assert!(median.await > 0.0);
}

#[tokio::test]
async fn a_connection_is_told_with_where_it_comes_from_and_what_went_over_it() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let connection = || node.admin().user("alice")["connections"][0].clone();
    let before = connection();
    let peer = before["peer"].as_str().expect("an address");
    assert!(peer.starts_with("127.0.0.1:"), "{before}");
    alice.say("alice", &json!("b".repeat(10_000))).await;
    // What was counted before the answer was written is there once the answer is.
    alice.fence().await;
    let after = connection();
    let more = |key: &str| {
        let of = |connection: &Value| connection[key].as_u64().expect(key);
        of(&after) - of(&before)
    };
    assert_eq!(
        more("received_frames_count"),
        2,
        "a send and a ping: {after}"
    );
    assert!(more("sent_frames_count") >= 2, "accepted and pong: {after}");
    assert!(more("received_bytes") > 10_000, "{after}");
    assert!((20..1_000).contains(&more("sent_bytes")), "{after}");
    assert_eq!(after["since_ms"], before["since_ms"]);
    let table = node.run(&["admin", "connections", "alice"]).stdout;
    assert!(table.contains(peer) && table.contains("phone"), "{table}");
}

#[test]
fn an_audit_log_that_cannot_be_written_is_told_and_holds_nothing_up() {
    let mut node = Node::prepared(NodeOptions::new().allow_log("audit log"));
    let in_its_place = node.data_dir().join("audit.ndjson");
    std::fs::create_dir_all(&in_its_place).expect("the directory is ours");
    node.launch();
    let admin = node.admin();
    let failures = "stonechat_admin_ledger_failures_total";
    let failed = || {
        admin
            .metric(failures, "file=\"audit.ndjson\"")
            .unwrap_or(0.0)
    };
    let before = failed();
    let reply = admin.post("/admin/v1/users", &json!({"user": "bob"}));
    assert_eq!(reply.status, 201, "{}", reply.text);
    assert!(failed() > before);
    let entry = &admin.get("/admin/v1/audit?limit=1").expect(200)["entries"][0];
    assert_eq!(
        entry["target"], "bob",
        "it is known as long as the node runs"
    );
    let told = admin
        .get("/admin/v1/events?kinds=node&wait=false&after=0")
        .text;
    assert!(told.contains("audit_failed"), "{told}");
    // The whole entry is in the log.
    let log = node.log();
    let line = log.lines().find(|line| line.contains("not on the disk"));
    let line: Value = serde_json::from_str(line.expect("an error")).expect("a line of JSON");
    assert_eq!(line["level"], "ERROR", "{line}");
    let text = line.to_string();
    for part in ["users.create", "bob", "secret", "127.0.0.1:"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }

    std::fs::remove_dir(&in_its_place).expect("it is empty");
    let healed = failed();
    admin.create_user("carol");
    assert!((failed() - healed).abs() < f64::EPSILON);
    let file = std::fs::read_to_string(&in_its_place).expect("it is there again");
    assert!(file.contains("carol") && !file.contains("bob"), "{file}");
}
