//! Backups of a server under load, one that is killed while it writes one, and what a restore
//! brings back.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Value, json};
use stonechat_tests::{Connect, DEADLINE, Node, NodeOptions, WsClient, eventually, new_id};

/// Sends `count` messages from alice to bob and waits until all are accepted; their ids.
async fn send(node: &Node, count: usize) -> Vec<String> {
    let (mut alice, _) = Connect::to(node)
        .sign_in(&node.user("alice"), "phone")
        .await;
    let mut ids = Vec::new();
    while ids.len() < count {
        // As many as may be unanswered.
        let batch: Vec<String> = (0..(count - ids.len()).min(64)).map(|_| new_id()).collect();
        for id in &batch {
            let frame = json!({"type": "send", "id": id, "to": {"user": "bob"}, "body": {"n": id}});
            alice.send_json(&frame).await;
        }
        for id in &batch {
            let accepted = alice.take("accepted").await;
            assert_eq!(accepted["id"], **id, "{accepted}");
        }
        ids.extend(batch);
    }
    alice.close().await;
    ids
}

/// Everything bob gets, acknowledged at the end: ids in order, and the places.
async fn receive(node: &Node, at_least: usize) -> Vec<(u64, String)> {
    let (mut bob, welcome) = Connect::to(node).sign_in(&node.user("bob"), "phone").await;
    let pending = usize::try_from(welcome["pending"].as_u64().expect("a number")).expect("a count");
    assert!(
        pending >= at_least,
        "{pending} wait, {at_least} were accepted"
    );
    let mut got = Vec::new();
    while got.len() < pending {
        let message = bob.take("message").await;
        let seq = message["seq"].as_u64().expect("a number");
        got.push((seq, message["id"].as_str().expect("an id").to_owned()));
        bob.send_json(&json!({"type": "ack", "seq": seq})).await;
    }
    bob.close().await;
    got
}

fn backups(node: &Node) -> Vec<Value> {
    let list = node.admin().get("/admin/v1/node/backups").expect(200);
    list["backups"].as_array().expect("a list").clone()
}

fn state_of(node: &Node, name: &str) -> Option<String> {
    let all = backups(node);
    let one = all.iter().find(|one| one["name"] == name)?;
    one["state"].as_str().map(str::to_owned)
}

fn begin(node: &Node, name: &str) {
    let name = json!({"name": name});
    node.admin()
        .post("/admin/v1/node/backups", &name)
        .expect(202);
}

/// Restores `file` into a new directory and moves the node there.
fn restore(node: &mut Node, file: &str, into: &str) {
    let file = node.data_dir().join("backups").join(file);
    let target: PathBuf = node.dir().join(into);
    node.move_data(target);
    let restored = node.run(&["restore", "--from", file.to_str().expect("a plain path")]);
    assert_eq!(restored.code, Some(0), "{restored:?}");
    let again = node.run(&["restore", "--from", file.to_str().expect("a plain path")]);
    assert_eq!(again.code, Some(69), "not into what is there: {again:?}");
    node.launch();
}

#[tokio::test]
async fn a_server_killed_while_it_writes_a_backup_is_restored_from_the_last_good_one() {
    let quick = NodeOptions::new()
        .set("limits.messages_per_s", "100000")
        .set("limits.messages_burst", "100000");
    let mut node = Node::start(quick);
    node.admin().create_user("alice");
    node.admin().create_user("bob");
    let before = send(&node, 2_000).await;

    // A good one, with messages coming in while it is written.
    begin(&node, "good");
    let during = send(&node, 1_000).await;
    eventually("the backup is done", || {
        (state_of(&node, "good")? == "done").then_some(())
    });
    let after = send(&node, 500).await;

    // The next one does not come to its end. Which of its steps it has reached is chance; that
    // it was begun and has not got its name is what is waited for.
    begin(&node, "bad");
    let partial = node.data_dir().join("backups").join("bad.partial");
    let deadline = Instant::now() + DEADLINE;
    while !partial.exists() && state_of(&node, "bad").as_deref() != Some("done") {
        assert!(
            Instant::now() < deadline,
            "the second backup was never begun"
        );
    }
    node.kill9();
    let whole = node.data_dir().join("backups").join("bad").exists();
    node.launch();
    let want = if whole { "done" } else { "interrupted" };
    assert_eq!(state_of(&node, "bad").as_deref(), Some(want));
    // The kill lost nothing of the server's own.
    let all = [before.clone(), during.clone(), after.clone()].concat();
    let held = node.admin().get("/admin/v1/users/bob/mailbox").expect(200);
    assert_eq!(held["depth"], all.len());

    node.kill9();
    restore(&mut node, "good", "restored");
    let got = receive(&node, before.len()).await;
    let ids: Vec<&String> = got.iter().map(|(_, id)| id).collect();
    let unique: BTreeSet<&&String> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "nothing twice");
    let want: Vec<&String> = all.iter().take(ids.len()).collect();
    assert_eq!(
        ids, want,
        "what was accepted before, and in order what came along"
    );
    assert!(
        ids.len() <= before.len() + during.len(),
        "nothing from after it was done"
    );

    // Places go on above all that were ever given, and the window knows what is held: what a
    // client sends again is accepted once.
    let (mut alice, _) = Connect::to(&node)
        .sign_in(&node.user("alice"), "phone")
        .await;
    let known = json!({"type": "send", "id": ids[ids.len() - 1], "to": {"user": "bob"}, "body": 1});
    alice.send_json(&known).await;
    let answer = alice.take("accepted").await;
    assert_eq!(answer["duplicate"], true, "{answer}");
    let lost = &after[after.len() - 1];
    let resent = json!({"type": "send", "id": lost, "to": {"user": "bob"}, "body": {"n": lost}});
    alice.send_json(&resent).await;
    let answer = alice.take("accepted").await;
    assert_ne!(answer["duplicate"], true, "{answer}");
    alice.close().await;
    let got = receive(&node, 1).await;
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].1, *lost);
    assert!(
        got[0].0 > all.len() as u64,
        "place {} was given before",
        got[0].0
    );
    assert_eq!(node.sigterm(), Some(0));
}

#[tokio::test]
async fn the_commands_back_up_a_running_and_a_stopped_server() {
    let mut node = Node::start_default();
    node.admin().create_user("alice");
    node.admin().create_user("bob");
    let ids = send(&node, 10).await;
    let online = node.dir().join("online.backup");
    let offline = node.dir().join("offline.backup");
    let written = node.run(&["backup", "--to", online.to_str().unwrap()]);
    assert_eq!(written.code, Some(0), "{written:?}");
    assert!(written.stdout.contains("10 messages"), "{written:?}");
    let refused = node.run(&["backup", "--to", online.to_str().unwrap()]);
    assert_eq!(refused.code, Some(69), "it is there: {refused:?}");
    assert_eq!(node.sigterm(), Some(0));
    let written = node.run(&["backup", "--to", offline.to_str().unwrap()]);
    assert_eq!(written.code, Some(0), "{written:?}");

    let mut bytes = std::fs::read(&offline).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = node.dir().join("damaged.backup");
    std::fs::write(&damaged, bytes).unwrap();
    let target = node.dir().join("elsewhere");
    node.move_data(target.clone());
    let refused = node.run(&["restore", "--from", damaged.to_str().unwrap()]);
    assert_eq!(refused.code, Some(65), "{refused:?}");
    assert!(!target.exists(), "nothing is written from a damaged backup");
    let restored = node.run(&["restore", "--from", offline.to_str().unwrap()]);
    assert_eq!(restored.code, Some(0), "{restored:?}");
    node.launch();
    let got = receive(&node, 10).await;
    assert_eq!(got.into_iter().map(|(_, id)| id).collect::<Vec<_>>(), ids);
    assert_eq!(node.sigterm(), Some(0));
}

#[tokio::test]
async fn admin_commands_do_what_they_say() {
    let mut node = Node::start_default();
    node.admin().create_user("alice");
    node.admin().create_user("bob");
    let run = |arguments: &[&str]| {
        let mut all = vec!["admin"];
        all.extend(arguments);
        let output = node.run(&all);
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
        output.stdout
    };
    let json = |arguments: &[&str]| -> Value {
        let mut all = arguments.to_vec();
        all.push("--json");
        serde_json::from_str(&run(&all)).unwrap()
    };
    assert_eq!(json(&["whoami"])["role"], "admin");
    assert_eq!(
        json(&["users", "--name", "ali"])["users"][0]["user"],
        "alice"
    );
    assert!(run(&["users"]).lines().next().unwrap().contains("USER"));
    assert_eq!(
        json(&["message", "hello", "--to", "bob"])["recipients_count"],
        1
    );
    assert!(run(&["mailbox", "messages", "bob"]).contains("_service"));
    assert_eq!(json(&["mailbox", "top"])["mailboxes"][0]["user"], "bob");
    let limits = json(&["limits", "bob", "--messages-per-s", "5"]);
    assert_eq!(limits["limits"]["messages_per_s"], 5);
    let file = node.dir().join("bob.ndjson");
    run(&[
        "mailbox",
        "export",
        "bob",
        "--to",
        file.to_str().expect("a plain path"),
    ]);
    let purge = ["mailbox", "purge", "bob", "--reason", "a test"];
    let refused = node.run(&[&["admin"], &purge[..]].concat());
    assert_eq!(refused.code, Some(1), "not without --yes: {refused:?}");
    assert!(refused.stderr.contains("--yes"), "{refused:?}");
    assert_eq!(json(&[&purge[..], &["--yes"]].concat())["purged_count"], 1);
    let imported = json(&[
        "mailbox",
        "import",
        "bob",
        "--from",
        file.to_str().expect("a plain path"),
    ]);
    assert_eq!(imported, json!({"imported_count": 1, "skipped_count": 0}));
    assert!(run(&["audit"]).contains("mailboxes.purge"));
    assert!(json(&["storage"])["journal_bytes"].as_u64().unwrap() > 0);
    let missing = node.run(&["admin", "user", "nobody"]);
    assert_eq!(missing.code, Some(1), "{missing:?}");
    let script = node.run(&["completion", "bash"]);
    assert!(script.code == Some(0) && script.stdout.contains("stonechat"));
    let man = node.run(&["man"]);
    assert!(
        man.stdout.contains("STONECHAT ADMIN MAILBOX PURGE"),
        "{}",
        man.stdout
    );
    assert_eq!(node.sigterm(), Some(0));
}

#[tokio::test]
async fn a_users_own_rate_is_enforced() {
    let mut node = Node::start_default();
    node.admin().create_user("alice");
    node.admin().create_user("bob");
    let slow = json!({"limits": {"messages_per_s": 1}});
    node.admin()
        .patch("/admin/v1/users/alice", &slow)
        .expect(200);
    let (mut alice, _) = Connect::to(&node)
        .sign_in(&node.user("alice"), "phone")
        .await;
    let limited = limited_of_twenty(&mut alice).await;
    assert!(
        limited >= 10,
        "{limited} of 20 at once were too many for one a second"
    );
    // She need not sign in again for another.
    let quick = json!({"limits": {"messages_per_s": 1_000_000}});
    node.admin()
        .patch("/admin/v1/users/alice", &quick)
        .expect(200);
    assert_eq!(limited_of_twenty(&mut alice).await, 0);
    alice.close().await;
    assert_eq!(node.sigterm(), Some(0));
}

/// How many of twenty sends at once are too many.
async fn limited_of_twenty(alice: &mut WsClient) -> u32 {
    for _ in 0..20 {
        let frame = json!({"type": "send", "id": new_id(), "to": {"user": "bob"}, "body": 1});
        alice.send_json(&frame).await;
    }
    let mut limited = 0;
    for _ in 0..20 {
        let one = |frame: &Value| frame["type"] == "accepted" || frame["type"] == "error";
        let answer = alice.take_where("an answer", one).await;
        limited += u32::from(answer["code"] == "rate_limited");
    }
    limited
}
