//! Users, tokens and dead letters.

use actix_web::web::Bytes;
use serde_json::{Value, json};
use stonechat_mailbox::{Append, Envelope};
use stonechat_protocol::{Address, DeviceId, MessageId};

use super::*;

#[actix_web::test]
async fn users_come_and_go() {
    let world = World::new(false).await;
    let created = world
        .expect("POST", "/users", json!({"user": "bob"}), 201)
        .await
        .json();
    let again = world
        .expect("POST", "/users", json!({"user": "bob"}), 200)
        .await
        .json();
    assert_eq!(created, again);
    assert_eq!(created["user"], "bob");
    assert!(created["created_ms"].as_u64().unwrap() > 1_600_000_000_000);
    for name in ["a+b", "carol", "dave"] {
        world
            .expect("POST", "/users", json!({"user": name}), 201)
            .await;
    }
    let page = world
        .expect("GET", "/users?limit=2", NONE, 200)
        .await
        .json();
    let names = |page: &Value| -> Vec<String> {
        let users = page["users"].as_array().unwrap();
        users
            .iter()
            .map(|user| user["user"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&page), ["a+b", "bob"]);
    assert_eq!(page["next"], "bob");
    let page = world
        .expect("GET", "/users?limit=2&after=bob", NONE, 200)
        .await
        .json();
    assert_eq!(names(&page), ["carol", "dave"]);
    let page = world
        .expect("GET", "/users?limit=2&after=dave", NONE, 200)
        .await
        .json();
    assert_eq!((names(&page).len(), &page["next"]), (0, &NONE));
    let page = world
        .expect("GET", "/users?after=a%2Bb", NONE, 200)
        .await
        .json();
    assert_eq!(names(&page), ["bob", "carol", "dave"]);

    let phone = DeviceId::new("phone").unwrap();
    let mailbox = world.store.open(&user("bob")).await.unwrap().unwrap();
    world.store.attach(&mailbox, &phone, 5).await.unwrap();
    let shown = world.expect("GET", "/users/bob", NONE, 200).await.json();
    assert_eq!(shown["connected"], false);
    assert_eq!(shown["disabled"], false);
    assert_eq!(shown["devices"][0]["device"], "phone");
    assert_eq!(shown["devices"][0]["pending"], 0);
    assert_eq!(shown["devices"][0]["last_seen_ms"], 5);
    assert_eq!(shown["mailbox"]["messages"], 0);
    world
        .expect_problem(
            "DELETE",
            "/users/bob/devices/x",
            NONE,
            404,
            "unknown_device",
        )
        .await;
    world
        .expect("DELETE", "/users/bob/devices/phone", NONE, 204)
        .await;
    let shown = world.expect("GET", "/users/bob", NONE, 200).await.json();
    assert_eq!(shown["devices"], json!([]));
    let closed = world
        .expect("POST", "/users/bob/disconnect", NONE, 200)
        .await
        .json();
    assert_eq!(closed["disconnected"], 0);

    let changed = world
        .expect("PATCH", "/users/bob", json!({"disabled": true}), 200)
        .await;
    assert_eq!(changed.json()["disabled"], true);
    world
        .expect_problem("POST", "/users/bob/tokens", NONE, 409, "user_disabled")
        .await;
    world
        .expect("PATCH", "/users/bob", json!({"disabled": false}), 200)
        .await;
    world.expect("DELETE", "/users/bob", NONE, 204).await;
    world
        .expect_problem("GET", "/users/bob", NONE, 404, "unknown_user")
        .await;
    world.end().await;
}

#[actix_web::test]
async fn tokens_are_issued_and_revoked() {
    let world = World::new(false).await;
    let phone = DeviceId::new("phone").unwrap();
    let auth = world.state.parts.auth.clone();
    world
        .expect("POST", "/users", json!({"user": "bob"}), 201)
        .await;
    let issue = async |body: Value| {
        let issued = world
            .expect("POST", "/users/bob/tokens", body, 201)
            .await
            .json();
        assert!(issued["expires_ms"].as_u64().is_some());
        let text = |key: &str| issued[key].as_str().unwrap().to_owned();
        (text("token"), text("id"))
    };
    let (one, one_id) = issue(NONE).await;
    let (two, _) = issue(json!({"device": "phone", "ttl_s": 60})).await;
    assert_eq!(auth.authenticate(&one, &phone).await, Ok(user("bob")));
    assert_eq!(auth.authenticate(&two, &phone).await, Ok(user("bob")));
    world
        .expect_problem(
            "POST",
            "/users/bob/tokens",
            json!({"ttl_s": 0}),
            400,
            "bad_ttl",
        )
        .await;
    world
        .expect_problem(
            "POST",
            "/users/bob/tokens",
            json!({"device": ""}),
            400,
            "bad_name",
        )
        .await;

    world
        .expect("DELETE", &format!("/tokens/{one_id}"), NONE, 204)
        .await;
    assert!(auth.authenticate(&one, &phone).await.is_err());
    assert!(auth.authenticate(&two, &phone).await.is_ok());
    let rotated = world.expect("POST", "/keys/rotate", NONE, 200).await.json();
    assert_eq!(rotated["keys"], 2);
    assert!(auth.authenticate(&two, &phone).await.is_ok());
    world.expect("DELETE", "/users/bob/tokens", NONE, 204).await;
    assert!(auth.authenticate(&two, &phone).await.is_err());
    let (three, _) = issue(NONE).await;
    assert!(auth.authenticate(&three, &phone).await.is_ok());
    let rotated = world
        .expect("POST", "/keys/rotate", json!({"void_older": true}), 200)
        .await;
    assert_eq!(rotated.json()["keys"], 1);
    assert!(auth.authenticate(&three, &phone).await.is_err());
    world.end().await;
}

#[actix_web::test]
async fn dead_letters_are_shown_put_back_and_thrown_away() {
    let world = World::new(false).await;
    for name in ["alice", "bob"] {
        world
            .expect("POST", "/users", json!({"user": name}), 201)
            .await;
    }
    let sender = world.store.open(&user("alice")).await.unwrap().unwrap();
    let mailbox = world.store.open(&user("bob")).await.unwrap().unwrap();
    let from = Address {
        user: user("alice"),
        device: DeviceId::new("phone").unwrap(),
    };
    world.store.attach(&sender, &from.device, 1).await.unwrap();
    let body = r#"{"text": "hi", "n": 12345678901234567890123}"#;
    for n in 1..=2_u128 {
        let envelope = Arc::new(Envelope {
            from: from.clone(),
            to: user("bob"),
            id: MessageId::from_u128((7 << 76) | (2 << 62) | n),
            ts_ms: 10,
            expires_ms: u64::MAX,
            body: Bytes::from_static(body.as_bytes()),
            trace: Default::default(),
        });
        let append = Append {
            envelope,
            sender: Arc::clone(&sender),
            recipients: [Arc::clone(&mailbox)].into_iter().collect(),
        };
        world.store.append(append).unwrap();
    }
    world.store.barrier().await.unwrap();
    for seq in 1..=2 {
        let reason = format!("panicked at {seq}");
        world
            .store
            .dead_letter(&mailbox, seq, reason, 20)
            .await
            .unwrap();
    }

    let list = world
        .expect("GET", "/dead-letters?limit=1", NONE, 200)
        .await
        .json();
    let first = &list["dead_letters"][0];
    assert_eq!(list["dead_letters"].as_array().unwrap().len(), 1);
    assert_eq!(first["user"], "bob");
    assert_eq!(first["from"], json!({"user": "alice", "device": "phone"}));
    assert_eq!(first["reason"], "panicked at 1");
    assert_eq!(first["body_bytes"], body.len());
    assert_eq!(first.get("body"), None);
    let next = list["next"].as_str().unwrap();
    let rest = world
        .expect("GET", &format!("/dead-letters?after={next}"), NONE, 200)
        .await
        .json();
    assert_eq!(rest["dead_letters"][0]["reason"], "panicked at 2");

    let path = |entry: &Value| format!("/dead-letters/{}", entry["number"]);
    let shown = world.expect("GET", &path(first), NONE, 200).await.json();
    assert_eq!(shown["body"]["text"], "hi");
    world
        .expect("POST", &format!("{}/replay", path(first)), NONE, 200)
        .await;
    world
        .expect_problem("GET", &path(first), NONE, 404, "unknown_dead_letter")
        .await;
    assert_eq!(mailbox.stats().messages, 1);
    world
        .expect("DELETE", &path(&rest["dead_letters"][0]), NONE, 204)
        .await;
    let list = world.expect("GET", "/dead-letters", NONE, 200).await.json();
    assert_eq!(list["dead_letters"], json!([]));
    world.end().await;
}
