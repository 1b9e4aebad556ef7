//! The HTTP side of a connection: upgrade, subprotocol, origin, and requests that are no upgrade.

use serde_json::json;
use stonechat_tests::connect::SUBPROTOCOL;
use stonechat_tests::raw::upgrade_request;
use stonechat_tests::{Connect, Node, NodeOptions, RawClient, WsClient, eventually_async};

async fn status(connect: Connect) -> u16 {
    match connect.open().await {
        Ok(_) => 101,
        Err(refused) => refused.status,
    }
}

#[tokio::test]
async fn the_subprotocol_is_echoed() {
    let node = Node::start_default();
    for offered in [
        SUBPROTOCOL,
        "other, stonechat.v1.json",
        "stonechat.v1.json,other",
    ] {
        let client = Connect::to(&node)
            .protocols(Some(offered))
            .open()
            .await
            .unwrap();
        assert_eq!(
            client.headers["sec-websocket-protocol"], SUBPROTOCOL,
            "{offered}"
        );
    }
    let client = Connect::to(&node).protocols(None).open().await.unwrap();
    assert!(!client.headers.contains_key("sec-websocket-protocol"));
    assert_eq!(
        status(Connect::to(&node).protocols(Some("stonechat.v2.json"))).await,
        400
    );
}

#[tokio::test]
async fn a_foreign_origin_is_refused() {
    let node = Node::start_default();
    let own = format!("http://{}", node.endpoint().listen);
    let with = |origin: &str| status(Connect::to(&node).header("origin", origin));
    assert_eq!(with(&own).await, 101);
    for foreign in [
        "https://evil.example",
        "null",
        "http://127.0.0.1.evil.example",
    ] {
        assert_eq!(with(foreign).await, 403, "{foreign}");
    }
    assert_eq!(
        status(Connect::to(&node)).await,
        101,
        "no browser, no origin"
    );
}

#[tokio::test]
async fn origins_can_be_allowed() {
    let node = Node::start(NodeOptions::new().origins_allowed(&["https://chat.example"]));
    let with = |origin: &str| status(Connect::to(&node).header("origin", origin));
    assert_eq!(with("https://chat.example").await, 101);
    assert_eq!(with("https://other.example").await, 403);
    assert_eq!(with("http://chat.example").await, 403, "the scheme counts");
    let open = Node::start(NodeOptions::new().origins_allowed(&["*"]));
    let any = Connect::to(&open).header("origin", "https://any.example");
    assert_eq!(status(any).await, 101);
}

#[tokio::test]
async fn a_malformed_authorization_header_is_401() {
    let node = Node::start_default();
    for header in [
        "Basic YWxpY2U6eA==",
        "Bearer",
        "Bearer  ",
        &format!("Bearer {}", "x".repeat(6_000)),
    ] {
        let connect = Connect::to(&node).header("authorization", header);
        assert_eq!(status(connect).await, 401, "{header:.40}");
    }
}

async fn answer(node: &Node, request: &str) -> String {
    let mut client = RawClient::connect(node).await;
    client.write(request.as_bytes()).await;
    client.response_head().await
}

#[tokio::test]
async fn requests_that_are_no_upgrade() {
    let node = Node::start_default();
    let host = node.endpoint().listen;
    let get =
        |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let head = answer(&node, &get("/")).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let head = answer(&node, &get("/nothing")).await;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    let head = answer(&node, &get("/v1/ws")).await;
    assert!(head.starts_with("HTTP/1.1 426"), "{head}");
    assert!(head.to_lowercase().contains("upgrade: websocket"), "{head}");
    // The admin API is not on the public listener.
    for path in ["/admin/v1/node", "/metrics", "/healthz"] {
        let head = answer(&node, &get(path)).await;
        assert!(head.starts_with("HTTP/1.1 404"), "{path}: {head}");
    }
}

#[tokio::test]
async fn broken_upgrades_are_refused_and_harm_nobody() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let good = upgrade_request(&node.endpoint().listen);
    let cases = [
        (
            "another version",
            good.replace("Version: 13", "Version: 12"),
        ),
        (
            "no key",
            good.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        ),
        ("another path", good.replace("/v1/ws", "/v2/ws")),
        ("POST", good.replace("GET /", "POST /")),
        ("not HTTP", "\u{0}\u{1}\u{2} nonsense\r\n\r\n".to_owned()),
    ];
    for (what, request) in cases {
        let head = answer(&node, &request).await;
        let status: u16 = head
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0);
        assert!((400..500).contains(&status), "{what}: {head}");
    }
    alice.fence().await;
}

#[tokio::test]
async fn bytes_behind_the_handshake_belong_to_the_connection() {
    let node = Node::start_default();
    let token = node.user("alice");
    let hello = json!({"type": "hello", "token": token, "device": "phone"}).to_string();
    let mut bytes = upgrade_request(&node.endpoint().listen).into_bytes();
    bytes.extend(stonechat_tests::raw::Shape::new(1, hello).encode());
    bytes.extend(stonechat_tests::raw::Shape::new(1, r#"{"type":"ping","nonce":5}"#).encode());
    let mut client = RawClient::connect(&node).await;
    client.write(&bytes).await;
    assert!(client.response_head().await.starts_with("HTTP/1.1 101"));
    assert_eq!(client.json().await["type"], "welcome");
    assert_eq!(client.json().await["nonce"], 5);
}

#[tokio::test]
async fn a_connection_that_trickles_in_works() {
    let node = Node::start_default();
    let token = node.user("alice");
    let hello = json!({"type": "hello", "token": token, "device": "phone"}).to_string();
    let mut client = RawClient::connect(&node).await;
    for byte in upgrade_request(&node.endpoint().listen).as_bytes() {
        client.write(&[*byte]).await;
    }
    assert!(client.response_head().await.starts_with("HTTP/1.1 101"));
    for byte in stonechat_tests::raw::Shape::new(1, hello).encode() {
        client.write(&[byte]).await;
    }
    assert_eq!(client.json().await["type"], "welcome");
}

#[tokio::test]
async fn beyond_the_connection_limit_one_is_refused_and_later_let_in() {
    let node = Node::start(NodeOptions::new().connections_max(2));
    let alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let refused = Connect::to(&node)
        .open()
        .await
        .err()
        .expect("there is no room");
    assert_eq!(refused.status, 503, "{refused:?}");
    let after = refused.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse::<u64>();
    assert!(after.is_ok_and(|seconds| seconds > 0), "{refused:?}");
    bob.fence().await;
    alice.close().await;
    let carol = node.user("carol");
    let mut carol = eventually_async("a free place is found", async || {
        let mut client = Connect::to(&node).open().await.ok()?;
        client
            .send_json(&json!({"type": "hello", "token": carol, "device": "phone"}))
            .await;
        Some(client)
    })
    .await;
    carol.take("welcome").await;
}
