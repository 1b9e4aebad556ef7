//! `kill -9` in mid-traffic, five times over, and storms of reconnects: everything accepted arrives
//! once, in order.

use std::time::Duration;

use stonechat_tests::traffic::{Load, Traffic};
use stonechat_tests::{Node, NodeOptions, heavy};

const ROUNDS: usize = 5;

fn kill_rounds(options: NodeOptions, load: Load, progress: u64) {
    let _heavy = heavy();
    let mut node = Node::start(options);
    let traffic = Traffic::start(&node, load);
    for round in 0..ROUNDS {
        traffic.wait_progress(progress, Duration::from_secs(60));
        node.crash_and_restart();
        eprintln!("round {round}: restarted");
    }
    traffic.wait_progress(progress, Duration::from_secs(60));
    let report = traffic.finish(Duration::from_secs(60));
    report.verify();
    assert!(report.refused().is_empty(), "{:?}", report.refused());
    let expected = load.users as u64 * progress * (ROUNDS as u64 + 1);
    assert!(
        report.accepted() as u64 >= expected,
        "{}",
        report.accepted()
    );
    for (user, ledger) in &report.ledgers {
        let cuts = ledger.disconnects.len();
        assert!(cuts >= ROUNDS, "{user} was cut off {cuts} times only");
        assert!(
            !ledger.disconnects.iter().any(|how| how.starts_with("bye")),
            "{user}: a killed process says no goodbye: {:?}",
            ledger.disconnects
        );
    }
}

#[test]
fn five_kills_in_mid_traffic_lose_and_double_nothing() {
    let load = Load {
        users: 20,
        window: 16,
        pace: Duration::from_millis(4),
        panics: false,
        tablets: true,
    };
    kill_rounds(NodeOptions::new(), load, 60);
}

/// The same with everything moving from the journal to the database and segments released all the
/// time, so that a kill hits those steps too.
#[test]
fn five_kills_while_the_store_is_moving_house() {
    let load = Load {
        users: 10,
        window: 32,
        pace: Duration::from_millis(4),
        panics: false,
        tablets: false,
    };
    let options = NodeOptions::new()
        .set("storage.segment_bytes_max", "65536")
        .set("storage.segment_age_ms_max", "100")
        .set("storage.journal_bytes_max", "262144")
        .set("storage.migrate_after_ms", "10");
    kill_rounds(options, load, 60);
}

/// Everybody is thrown out at once, again and again, and comes back at once.
#[test]
fn reconnect_storms_lose_and_double_nothing() {
    let _heavy = heavy();
    let load = Load {
        users: 30,
        window: 16,
        pace: Duration::from_millis(5),
        panics: false,
        tablets: true,
    };
    let node = Node::start(NodeOptions::new());
    let traffic = Traffic::start(&node, load);
    let admin = node.admin();
    for _ in 0..ROUNDS {
        traffic.wait_progress(20, Duration::from_secs(60));
        for user in 0..load.users {
            let path = format!("/admin/v1/users/u{user}/disconnect");
            admin.post(&path, &serde_json::json!({})).expect(200);
        }
    }
    traffic.wait_progress(20, Duration::from_secs(60));
    let report = traffic.finish(Duration::from_secs(60));
    report.verify();
    assert!(report.refused().is_empty(), "{:?}", report.refused());
    for (user, ledger) in &report.ledgers {
        assert_eq!(
            ledger.disconnects.len(),
            ROUNDS,
            "{user}: {:?}",
            ledger.disconnects
        );
    }
}
