//! Panics injected while 200 users chat: nobody else is disturbed, nothing accepted is lost.

use std::time::Duration;

use serde_json::{Value, json};
use stonechat_tests::traffic::{Load, Report, Traffic, wait_panics};
use stonechat_tests::{Node, NodeOptions, heavy};

const USERS: usize = 200;
const QUEUES: u64 = 3;

fn disconnects<'a>(report: &'a Report, spared: &[&str]) -> Vec<(&'a str, &'a [String])> {
    report
        .ledgers
        .iter()
        .filter(|(user, ledger)| !spared.contains(&user.as_str()) && !ledger.disconnects.is_empty())
        .map(|(user, ledger)| (user.as_str(), ledger.disconnects.as_slice()))
        .collect()
}

#[test]
fn panics_in_every_kind_of_actor_disturb_nobody_else() {
    let _heavy = heavy();
    let node = Node::start(NodeOptions::new().fault_injection().offline_queues(QUEUES));
    let load = Load {
        users: USERS,
        window: 8,
        pace: Duration::from_millis(100),
        panics: true,
        tablets: false,
    };
    let traffic = Traffic::start(&node, load);
    traffic.wait_progress(2, Duration::from_secs(60));
    let admin = node.admin();
    let mut faults: Vec<Value> = vec![
        json!({"target": "session", "user": "u0"}),
        json!({"target": "session", "user": "u0"}),
        json!({"target": "session", "user": "u3"}),
        json!({"target": "router"}),
        json!({"target": "connection", "user": "u4"}),
        json!({"target": "router"}),
    ];
    faults.extend((0..QUEUES).map(|shard| json!({"target": "offline_queue", "shard": shard})));
    let mut injected = 0;
    for fault in &faults {
        admin.inject_panic(fault).expect(200);
        injected += 1;
        wait_panics(&node, injected);
        // Everybody goes on after each of them, the victims included.
        traffic.wait_progress(3, Duration::from_secs(60));
    }
    let report = traffic.finish(Duration::from_secs(60));
    report.verify();
    // Only sends caught in the panic of their own session may be refused, and they are told so.
    let refused = report.refused();
    assert!(
        refused.len() <= 3 * load.window && refused.iter().all(|(_, code)| code == "internal"),
        "{refused:?}"
    );
    let victims = ["u0", "u3", "u4"];
    let disturbed = disconnects(&report, &victims);
    assert!(
        disturbed.is_empty(),
        "others were disconnected: {disturbed:?}"
    );
    // What it is told is tested below; in mid-traffic a failed write may be all it sees.
    let (_, hit) = &report.ledgers[4];
    assert_eq!(hit.disconnects.len(), 1, "{:?}", hit.disconnects);
    assert!(report.accepted() >= USERS * 3 * faults.len());
    let node_info = admin.get("/admin/v1/node").expect(200);
    assert_eq!(node_info["panics"], injected, "{node_info}");
}

#[tokio::test]
async fn a_panicked_connection_says_internal_and_the_device_comes_back() {
    let node = Node::start(NodeOptions::new().fault_injection());
    let token = node.user("alice");
    let connect = stonechat_tests::Connect::to(&node);
    let (mut alice, _) = connect.sign_in(&token, "phone").await;
    let (mut bob, _) = connect.sign_in(&node.user("bob"), "phone").await;
    let fault = json!({"target": "connection", "user": "alice"});
    node.admin().inject_panic(&fault).expect(200);
    alice.bye("internal", 1011).await;
    bob.say("alice", &json!("meanwhile")).await;
    let (mut alice, _) = connect.sign_in(&token, "phone").await;
    assert_eq!(alice.message().await["body"], "meanwhile");
}

#[tokio::test]
async fn a_panicked_session_keeps_its_sockets_and_its_inbox() {
    let node = Node::start(NodeOptions::new().fault_injection());
    let token = node.user("alice");
    let connect = stonechat_tests::Connect::to(&node);
    let (mut alice, _) = connect.sign_in(&token, "phone").await;
    let (mut bob, _) = connect.sign_in(&node.user("bob"), "phone").await;
    alice.allow_repeats();
    for round in 0..3 {
        let held = bob.say("alice", &json!(round)).await;
        let message = alice.message().await;
        assert_eq!(message["id"], json!(held));
        let fault = json!({"target": "session", "user": "alice"});
        node.admin().inject_panic(&fault).expect(200);
        wait_panics(&node, round + 1);
        // Same socket, and the ack of what was delivered before the panic still counts.
        alice.ack(message["seq"].as_u64().unwrap()).await;
        loop {
            let told = bob.take("receipt").await;
            if told["delivered"] == json!(held) {
                break;
            }
        }
        let own = alice.say("bob", &json!({"back": round})).await;
        assert_eq!(bob.message_acked().await["id"], json!(own));
    }
}

#[tokio::test]
async fn faults_are_not_to_be_had_without_the_flag() {
    let node = Node::start_default();
    let fault = json!({"target": "router"});
    node.admin().inject_panic(&fault).expect_problem(404);
}
