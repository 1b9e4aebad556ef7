//! Connections opened and dropped in bursts.

use std::time::Instant;

use stonechat_tests::{Node, NodeOptions, RawClient};

use super::{Bystanders, resident_bytes, size, until_connections};

/// Bursts after the first one, which pays for what is allocated once.
const ROUNDS: usize = 3;
/// What memory may grow by from the first burst to the last: it is to come back, not to add up.
const GROWTH_BYTES_MAX: u64 = 8 << 20;

#[tokio::test]
async fn bursts_of_connections_leave_nothing_behind() {
    let count = size(300, 10_000);
    let node = Node::start(NodeOptions::new());
    let mut others = Bystanders::join(&node).await;
    let calm = others.median(21).await;
    let fresh = resident_bytes(&node);
    let mut after_first = 0;
    for round in 0..=ROUNDS {
        let opening = Instant::now();
        let mut open = Vec::with_capacity(count);
        for n in 0..count {
            open.push(RawClient::open(&node).await);
            if n % 500 == 0 {
                others.talk().await;
            }
        }
        let opened = opening.elapsed();
        let at_peak = resident_bytes(&node);
        let dropping = Instant::now();
        drop(open);
        others.talk().await;
        until_connections(&node, 2.0);
        let recovered = dropping.elapsed();
        let meanwhile = others.median(21).await;
        let after = resident_bytes(&node);
        println!(
            "burst {round}: {count} opened in {opened:.1?}, gone {recovered:.1?} after; resident \
             {} KiB before, {} at the peak, {} after; a message takes {meanwhile:.1?} ({calm:.1?} before)",
            fresh >> 10,
            at_peak >> 10,
            after >> 10,
        );
        if round == 0 {
            after_first = after;
        }
        assert!(
            after <= after_first + GROWTH_BYTES_MAX,
            "{after_first} bytes after the first burst, {after} after burst {round}"
        );
    }
}
