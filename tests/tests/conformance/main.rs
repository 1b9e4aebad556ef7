//! The WebSocket layer of the real binary against RFC 6455 and docs/protocol.md, case by case.
//!
//! Cases are data: an id, what the client writes, byte by byte as it pleases, and what has to come
//! back. The groups follow those of the Autobahn suite (1 framing, 2 pings and pongs, 3 reserved
//! bits, 4 opcodes, 5 fragments, 6 UTF-8, 7 closing, 9 limits) and add the handshake (8). Frames are
//! put together here, without a WebSocket library, so that anything can be sent.
//!
//! `STONECHAT_CASES=6.` runs only the cases whose ids start like that, and says what each does.

mod case;
mod closing;
mod control;
mod fragments;
mod framing;
mod handshake;
mod limits;
mod text;
mod wire;

use std::collections::BTreeSet;

use stonechat_tests::{Node, WsClient};

use case::Case;

/// Fewer cases than this means that a group went missing.
const CASES_MIN: usize = 850;

/// After this many failures the rest is not worth waiting for.
const FAILURES_MAX: usize = 20;

fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    framing::cases(&mut cases);
    control::cases(&mut cases);
    fragments::cases(&mut cases);
    text::cases(&mut cases);
    closing::cases(&mut cases);
    handshake::cases(&mut cases);
    limits::cases(&mut cases);
    cases
}

#[test]
fn ids_are_unique() {
    let mut seen = BTreeSet::new();
    for case in all() {
        assert!(seen.insert(case.id.clone()), "{} is there twice", case.id);
    }
}

#[tokio::test]
async fn the_server_conforms() {
    let node = Node::start_default();
    let mut bystander = WsClient::join(&node, "bystander", "phone").await;
    let token = node.user("alice");
    let wanted = std::env::var("STONECHAT_CASES").ok();
    let mut failures = Vec::new();
    let mut count = 0;
    for case in all() {
        if wanted
            .as_ref()
            .is_some_and(|start| !case.id.starts_with(start))
        {
            continue;
        }
        count += 1;
        if let Err(why) = case.run(&node, &token).await {
            failures.push(format!("{} ({}): {why}", case.id, case.what));
            if failures.len() == FAILURES_MAX {
                break;
            }
        } else if wanted.is_some() {
            println!("{} {}", case.id, case.what);
        }
    }
    // Whatever was sent, nobody else has noticed.
    bystander.fence().await;
    println!(
        "conformance: {count} cases, {} passed",
        count - failures.len()
    );
    assert!(
        failures.is_empty(),
        "do not conform:\n{}",
        failures.join("\n")
    );
    assert!(count >= CASES_MIN || wanted.is_some(), "{count} cases only");
}
