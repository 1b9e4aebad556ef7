//! The data directory: whose it is, what happens when the disk has no room, check and compaction.

use serde_json::{Value, json};
use stonechat_tests::{Connect, Node, NodeOptions, WsClient, eventually, heavy};

#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let node = Node::start_default();
    let second = node.run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ]);
    assert_eq!(second.code, Some(69), "{second:?}");
    let said = format!("{}{}", second.stdout, second.stderr);
    assert!(said.contains("data"), "it says what is in use: {said}");
    // The first one is unharmed, and still the one that is listed.
    node.admin().get("/readyz").expect(200);
    let listed = std::fs::read_to_string(node.data_dir().join("node.json")).unwrap();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["pid"], node.pid());
}

#[test]
fn what_is_secret_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut node = Node::start_default();
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let secret = node.data_dir().join("admin.secret");
    assert_eq!(mode(&secret), 0o600);
    assert_eq!(mode(&node.data_dir()), 0o700);
    let before = std::fs::read_to_string(&secret).unwrap();
    assert!(before.trim().len() >= 40, "32 random bytes");
    assert_eq!(node.sigterm(), Some(0));
    // Loosened by mistake, it is not used any more.
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = node.run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ]);
    assert!(refused.code.is_some_and(|code| code != 0), "{refused:?}");
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("admin.secret"), "{said}");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    node.launch();
    assert_eq!(
        std::fs::read_to_string(&secret).unwrap(),
        before,
        "made once"
    );
}

/// The file size limit stands for a full disk: writes fail, reads go on.
#[tokio::test]
async fn without_room_sends_are_refused_and_nothing_accepted_is_lost() {
    let _heavy = heavy();
    let mut node = Node::start(
        NodeOptions::new()
            // 4 MiB a file, in blocks of 512 bytes; the signal that goes with it is ignored.
            .shell_prelude("trap '' XFSZ; ulimit -f 8192")
            .set("storage.reserve_bytes", "0")
            .set("storage.migrate_after_ms", "3600000")
            .set("storage.segment_age_ms_max", "86400000")
            .allow_log("\"ERROR\""),
    );
    let token = node.user("bob");
    let alice_token = node.user("alice");
    let (mut alice, _) = Connect::to(&node).sign_in(&alice_token, "phone").await;
    let body = json!("b".repeat(60_000));
    let mut accepted = Vec::new();
    let refused = loop {
        assert!(accepted.len() < 200, "12 MB were accepted into 4 MiB");
        let id = alice.send_to("bob", &body).await;
        let answer = alice
            .take_where("an answer", |frame| {
                frame["ref"] == json!(id) || frame["id"] == json!(id)
            })
            .await;
        if answer["type"] == "error" {
            break answer;
        }
        accepted.push(id);
    };
    assert_eq!(refused["code"], "storage_unavailable", "{refused}");
    assert!(
        refused["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0),
        "{refused}"
    );
    eventually("the node says it is not ready", || {
        (node.admin().get("/readyz").status == 503).then_some(())
    });
    node.admin().get("/healthz").expect(200);
    // What is stored can still be read.
    let (mut bob, _) = Connect::to(&node).sign_in(&token, "phone").await;
    assert_eq!(bob.message().await["id"], json!(accepted[0]));
    drop(bob);
    node.kill9();
    node.reconfigure(|options| options.shell_prelude(":"));
    node.launch();
    let (mut bob, welcome) = Connect::to(&node).sign_in(&token, "phone").await;
    assert!(
        welcome["pending"]
            .as_u64()
            .is_some_and(|n| n >= accepted.len() as u64),
        "{welcome}"
    );
    for id in &accepted {
        assert_eq!(bob.message_acked().await["id"], json!(id));
    }
    let (mut alice, _) = Connect::to(&node).sign_in(&alice_token, "phone").await;
    alice.say("bob", &json!("room again")).await;
}

#[tokio::test]
async fn check_and_compact_on_a_stopped_node() {
    let mut node = Node::start(NodeOptions::new().set("storage.migrate_after_ms", "10"));
    let token = node.user("bob");
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut ids = Vec::new();
    for n in 0..100 {
        ids.push(alice.say("bob", &json!(n)).await);
    }
    let running = node.run(&["store", "check"]);
    assert_eq!(
        running.code,
        Some(69),
        "a running node has its store to itself: {running:?}"
    );
    assert_eq!(node.sigterm(), Some(0));
    for arguments in [["store", "check"], ["store", "compact"], ["store", "check"]] {
        let done = node.run(&arguments);
        assert_eq!(done.code, Some(0), "{arguments:?}: {done:?}");
        assert!(
            !done.stdout.trim().is_empty(),
            "{arguments:?} reports: {done:?}"
        );
    }
    node.launch();
    let (mut bob, welcome) = Connect::to(&node).sign_in(&token, "phone").await;
    assert_eq!(welcome["pending"], 100);
    for id in &ids {
        assert_eq!(bob.message_acked().await["id"], json!(id));
    }
}

#[tokio::test]
async fn damage_is_found_and_not_started_over() {
    let mut node = Node::start_default();
    node.user("bob");
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    for n in 0..50 {
        alice
            .say("bob", &json!({"n": n, "text": "x".repeat(200)}))
            .await;
    }
    node.kill9();
    // One byte in the middle of the oldest journal segment: proven durable by what follows it.
    let journal = node.data_dir().join("journal");
    let mut segments: Vec<_> = std::fs::read_dir(&journal)
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "log"))
        .collect();
    segments.sort();
    let path = segments
        .iter()
        .max_by_key(|path| std::fs::metadata(path).map_or(0, |meta| meta.len()))
        .expect("a segment");
    let mut bytes = std::fs::read(path).unwrap();
    let data = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[data / 2] ^= 0x10;
    std::fs::write(path, &bytes).unwrap();
    let check = node.run(&["store", "check"]);
    assert!(check.code.is_some_and(|code| code != 0), "{check:?}");
    let start = node.run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ]);
    assert!(start.code.is_some_and(|code| code != 0), "{start:?}");
    let said = format!("{}{}", start.stdout, start.stderr);
    assert!(
        said.contains("damage"),
        "it says what is wrong and where to read on: {said}"
    );
    // Mended (from the copy we have), it starts again with everything.
    bytes[data / 2] ^= 0x10;
    std::fs::write(path, &bytes).unwrap();
    node.launch();
    assert_eq!(node.admin().user("bob")["mailbox"]["messages"], 50);
}
