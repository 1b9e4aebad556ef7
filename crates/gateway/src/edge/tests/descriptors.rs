//! Running out of file descriptors: whoever is connected does not notice, and
//! it passes.

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::listening::{node, request};
use super::pipe::Client;

const CHILD: &str = "edge::tests::descriptors::child_with_few_descriptors";

/// Descriptors the child may have beyond those it has at the start: each connection takes
/// two, one for the client and one for the server.
const DESCRIPTORS: u64 = 60;

/// The limit is the process's, so the test runs in one of its own.
#[test]
fn without_descriptors_connections_go_on_and_later_new_ones_are_taken() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CHILD, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

#[actix_rt::test]
#[ignore = "run by the test above in a process of its own"]
async fn child_with_few_descriptors() {
    // More connections than there are descriptors: the limit is met where sockets are accepted.
    let node = node(|config| config.connections_max = Some(10_000));
    let mut clients = vec![node.sign_in("first").await];
    let (_, hard) = rlimit::Resource::NOFILE.get().unwrap();
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    rlimit::Resource::NOFILE
        .set(open + DESCRIPTORS, hard)
        .unwrap();

    let mut waiting = Vec::new();
    while let Ok(mut io) = TcpStream::connect(node.edge.local_addr()).await {
        io.write_all(request("").as_bytes()).await.unwrap();
        let mut client = Client { io };
        // Beyond the limit a socket is connected by the kernel and accepted by nobody.
        match timeout(Duration::from_millis(300), client.head()).await {
            Ok(_) => {
                client.hello("someone").await;
                clients.push(client);
            }
            Err(_) => waiting.push(client),
        }
    }
    assert!(clients.len() > 20, "{} connections", clients.len());
    for client in &mut clients {
        client.send("bob").await;
        assert_eq!(client.json().await["type"], "accepted");
    }

    clients.truncate(10);
    drop(waiting);
    let mut late = node.sign_in("late").await;
    late.say(json!({"type": "ping"})).await;
    assert_eq!(late.json().await["type"], "pong");
    for client in &mut clients {
        client.send("bob").await;
        assert_eq!(client.json().await["type"], "accepted");
    }
}
