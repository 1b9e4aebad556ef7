//! Limits, searches, mailboxes, service messages, backups.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;

/// Longest wait for a backup.
const DEADLINE: Duration = Duration::from_secs(30);

impl World {
    async fn users(&self, names: &[&str]) {
        for name in names {
            self.expect("POST", "/users", json!({"user": name}), 201)
                .await;
        }
    }

    async fn get(&self, path: &str) -> Value {
        self.expect("GET", path, NONE, 200).await.json()
    }

    /// `count` service messages to `user`.
    async fn fill(&self, user: &str, count: u64) {
        for n in 0..count {
            let message = json!({"to": {"user": user}, "body": {"n": n}});
            self.expect("POST", "/service-messages", message, 202).await;
        }
    }
}

fn names(page: &Value) -> Vec<&str> {
    let users = page["users"].as_array().unwrap();
    users
        .iter()
        .map(|user| user["user"].as_str().unwrap())
        .collect()
}

#[actix_web::test]
async fn users_are_found_by_name_and_state_and_paged() {
    let world = World::new(false).await;
    world.users(&["ann", "anna", "bob", "hanna"]).await;
    let disabled = json!({"disabled": true});
    world.expect("PATCH", "/users/anna", disabled, 200).await;
    assert_eq!(
        names(&world.get("/users?q=ann").await),
        ["ann", "anna", "hanna"]
    );
    let first = world.get("/users?q=ann&limit=2").await;
    assert_eq!(names(&first), ["ann", "anna"]);
    let next = first["next"].as_str().unwrap();
    let second = world
        .get(&format!("/users?q=ann&limit=2&after={next}"))
        .await;
    assert_eq!(
        (names(&second), &second["next"]),
        (vec!["hanna"], &Value::Null)
    );
    assert_eq!(names(&world.get("/users?disabled=true").await), ["anna"]);
    assert_eq!(
        names(&world.get("/users?connected=true").await),
        Vec::<&str>::new()
    );
    assert_eq!(
        names(&world.get("/users?connected=false&q=b").await),
        ["bob"]
    );
}

#[actix_web::test]
async fn limits_are_set_kept_shown_and_lifted() {
    let world = World::new(false).await;
    world.users(&["bob"]).await;
    let limits = json!({"messages_per_s": 3, "mailbox_messages_max": 2, "mailbox_bytes_max": null});
    let set = json!({"limits": limits});
    for _ in 0..2 {
        let shown = world.expect("PATCH", "/users/bob", set.clone(), 200).await;
        assert_eq!(shown.json()["limits"], limits);
    }
    assert_eq!(world.get("/users/bob").await["limits"], limits);
    // What is absent stays.
    let off = json!({"disabled": true});
    let shown = world.expect("PATCH", "/users/bob", off, 200).await.json();
    assert_eq!(shown["limits"], limits);
    world.fill("bob", 2).await;
    let third = json!({"to": {"user": "bob"}, "body": 3});
    world
        .expect_problem(
            "POST",
            "/service-messages",
            third.clone(),
            409,
            "limit_reached",
        )
        .await;
    let lifted = world
        .expect("PATCH", "/users/bob", json!({"limits": null}), 200)
        .await;
    assert!(lifted.json().get("limits").is_none());
    world.expect("POST", "/service-messages", third, 202).await;
    for bad in [
        json!({}),
        json!({"limits": {"messages_per_s": 0}}),
        json!({"limits": {"x": 1}}),
    ] {
        let answer = world.call("PATCH", "/users/bob", bad.clone()).await;
        assert_eq!(answer.status.as_u16(), 400, "{bad}");
    }
}

#[actix_web::test]
async fn a_mailbox_is_looked_into_purged_exported_and_imported() {
    let world = World::new(false).await;
    world.users(&["bob", "carol"]).await;
    world.fill("bob", 5).await;
    let mailbox = world.get("/users/bob/mailbox").await;
    assert_eq!(
        (&mailbox["depth"], &mailbox["newest_seq"]),
        (&json!(5), &json!(5))
    );
    let page = world.get("/users/bob/mailbox/messages?limit=3").await;
    let seqs: Vec<_> = page["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["seq"].clone())
        .collect();
    assert_eq!(
        (json!(seqs), &page["next"]),
        (json!([1, 2, 3]), &json!("3"))
    );
    assert!(page["messages"][0].get("body").is_none(), "never bodies");
    assert_eq!(page["messages"][0]["from"]["user"], "_service");

    let exported = world.call("GET", "/users/bob/mailbox/export", NONE).await;
    assert_eq!(exported.kind, "application/x-ndjson");
    assert_eq!(exported.text.lines().count(), 5);
    for (imported, skipped) in [(5, 0), (0, 5)] {
        let secret = world.state.parts.secret.expose();
        let request = TestRequest::with_uri("/admin/v1/users/carol/mailbox/import")
            .method(Method::POST)
            .insert_header(("authorization", format!("Bearer {secret}")))
            .set_payload(exported.text.clone());
        let answer = world.request(request).await.json();
        let want = json!({"imported_count": imported, "skipped_count": skipped});
        assert_eq!(answer, want);
    }
    let again = world.call("GET", "/users/carol/mailbox/export", NONE).await;
    assert_eq!(again.text, exported.text, "in order, as they were");
    let top = world.get("/mailboxes/top?by=depth").await;
    assert_eq!(top["mailboxes"].as_array().unwrap().len(), 2);

    let no_reason = json!({"reason": " "});
    world
        .expect_problem(
            "POST",
            "/users/bob/mailbox/purge",
            no_reason,
            400,
            "bad_reason",
        )
        .await;
    let purge = json!({"up_to_seq": 3, "reason": "asked for by the user"});
    for count in [3, 0] {
        let purged = world
            .expect("POST", "/users/bob/mailbox/purge", purge.clone(), 200)
            .await;
        assert_eq!(
            purged.json(),
            json!({"purged_count": count, "up_to_seq": 3})
        );
    }
    assert_eq!(world.get("/users/bob/mailbox").await["depth"], 2);
    assert_eq!(world.get("/node/storage").await["purged_total"], 3);
    let audit = world.get("/audit").await;
    assert!(
        audit.to_string().contains("asked for by the user"),
        "{audit}"
    );
    for path in ["", "/messages", "/export"] {
        let path = format!("/users/nobody/mailbox{path}");
        world
            .expect_problem("GET", &path, NONE, 404, "unknown_user")
            .await;
    }
}

#[actix_web::test]
async fn service_messages_reach_one_some_and_all() {
    let world = World::new(false).await;
    let reserved = json!({"user": "_service"});
    world
        .expect_problem("POST", "/users", reserved, 409, "reserved_name")
        .await;
    world.users(&["ann", "bob", "carol"]).await;
    let unknown = json!({"to": {"users": ["ann", "nobody"]}, "body": 1});
    world
        .expect_problem("POST", "/service-messages", unknown, 404, "unknown_user")
        .await;
    let some = json!({"to": {"users": ["ann", "bob", "ann"]}, "body": 1});
    let sent = world
        .expect("POST", "/service-messages", some, 202)
        .await
        .json();
    assert_eq!(sent["recipients_count"], 2);
    let all = json!({"to": {"all": true}, "body": {"note": "maintenance"}});
    let sent = world
        .expect("POST", "/service-messages", all, 202)
        .await
        .json();
    assert_eq!(sent["recipients_count"], 3);
    let deadline = Instant::now() + DEADLINE;
    for (user, depth) in [("ann", 2), ("bob", 2), ("carol", 1)] {
        while world.get(&format!("/users/{user}/mailbox")).await["depth"] != depth {
            assert!(Instant::now() < deadline, "{user} never got it");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[actix_web::test]
async fn a_backup_is_begun_once_listed_and_whole() {
    let world = World::new(false).await;
    world.users(&["bob"]).await;
    world.fill("bob", 7).await;
    for bad in ["", "../x", ".hidden", "a/b", "x.partial"] {
        let name = json!({"name": bad});
        world
            .expect_problem("POST", "/node/backups", name, 400, "bad_name")
            .await;
    }
    assert_eq!(world.get("/node/backups").await["backups"], json!([]));
    let name = json!({"name": "monday"});
    world
        .expect("POST", "/node/backups", name.clone(), 202)
        .await;
    let deadline = Instant::now() + DEADLINE;
    let done = loop {
        let list = world.get("/node/backups").await;
        if list["backups"][0]["state"] == "done" {
            break list["backups"][0].clone();
        }
        assert!(Instant::now() < deadline, "{list}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(done["messages_count"], 7);
    let again = world
        .expect("POST", "/node/backups", name, 200)
        .await
        .json();
    assert_eq!(again["bytes"], done["bytes"], "left as it is");
    let dir = world.state.parts.data_dir.join("backups");
    let report = stonechat_mailbox::verify_backup(&dir.join("monday")).unwrap();
    assert_eq!(
        (json!(report.bytes), report.messages),
        (done["bytes"].clone(), 7)
    );
    std::fs::write(dir.join("tuesday.partial"), "half").unwrap();
    let list = world.get("/node/backups").await;
    assert_eq!(list["backups"][1]["state"], "interrupted");
}
