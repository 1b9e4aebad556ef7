//! Clients that never read, while others send to them.

use serde_json::json;
use stonechat_tests::{Connect, Node, NodeOptions, WsClient};

use super::{Bystanders, resident_bytes, size};

/// Bytes of each message to a stuck client.
const BODY_BYTES: usize = 16_000;
/// Messages to each: more than its window and the kernel's buffers hold.
const MESSAGES: usize = 400;
/// What one may cost the server: its window and outlet, and the recent messages everybody shares.
const EACH_BYTES_MAX: u64 = 16 << 20;

#[tokio::test]
async fn clients_that_never_read_cost_a_bounded_amount() {
    let count = size(2, 20);
    let node = Node::start(NodeOptions::new().write_deadline_ms(5_000));
    let mut others = Bystanders::join(&node).await;
    let calm = others.median(51).await;
    let mut stuck = Vec::new();
    for n in 0..count {
        let token = node.user(&format!("stuck{n}"));
        let connect = Connect::to(&node).receive_buffer_bytes(4_096);
        stuck.push(connect.sign_in(&token, "phone").await.0);
    }
    let before = resident_bytes(&node);
    let mut sender = WsClient::join(&node, "sender", "phone").await;
    let body = json!("b".repeat(BODY_BYTES));
    let mut peak = 0;
    let mut meanwhile = Vec::new();
    for n in 0..MESSAGES * count {
        sender.say(&format!("stuck{}", n % count), &body).await;
        if n % 50 == 0 {
            meanwhile.push(others.talk().await);
            peak = peak.max(resident_bytes(&node));
        }
    }
    meanwhile.sort_unstable();
    println!(
        "stuck: {count} clients that do not read, {} KB sent to each; resident {} KiB before, {} at \
         most; a message of others takes {:.1?} ({calm:.1?} before)",
        MESSAGES * BODY_BYTES / 1_000,
        before >> 10,
        peak >> 10,
        meanwhile[meanwhile.len() / 2],
    );
    let grown = peak.saturating_sub(before);
    assert!(
        grown <= EACH_BYTES_MAX * count as u64,
        "{grown} bytes for {count} clients"
    );
    others.talk().await;
}
