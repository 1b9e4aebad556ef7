//! Peers that are gone without a word: no FIN, no answer, only silence.

use stonechat_tests::{Node, NodeOptions, RawClient};

use super::{Bystanders, size};

#[tokio::test]
async fn silent_peers_are_given_up_and_others_stay() {
    let count = size(20, 2_000);
    let node = Node::start(NodeOptions::new().heartbeat_ms(3_000));
    let mut silent = Vec::new();
    for n in 0..count {
        silent.push(RawClient::join(&node, &format!("silent{n}"), "phone").await);
    }
    let mut others = Bystanders::join(&node).await;
    let gone = || {
        let timeouts = "\"heartbeat_timeout\"";
        let counted = node.admin().metric("stonechat_disconnects_total", timeouts);
        counted.unwrap_or_default()
    };
    let end = std::time::Instant::now() + 2 * stonechat_tests::DEADLINE;
    while gone() < count as f64 {
        assert!(std::time::Instant::now() < end, "{} of {count}", gone());
        // The others are heard of meanwhile: they talk, so they stay.
        others.talk().await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(gone(), count as f64, "and nobody else");
    others.talk().await;
    println!("half-open: {count} silent peers given up, others unharmed");
}
