//! Access, refusals, and the node itself.

use std::collections::HashSet;

use actix_web::http::StatusCode;
use actix_web::test::TestRequest;
use serde_json::json;
use stonechat_protocol::CloseReason;

use super::*;

#[actix_web::test]
async fn only_the_secret_opens_the_admin_api() {
    let world = World::new(false).await;
    let secret = world.state.parts.secret.expose().to_owned();
    for header in [
        "",
        "Bearer",
        "Bearer x",
        &format!("Basic {secret}"),
        &format!("Bearer {secret}x"),
    ] {
        let request = TestRequest::get()
            .uri("/admin/v1/node")
            .insert_header(("authorization", header));
        let answer = world.request(request).await;
        assert_eq!(answer.problem(), "unauthorized", "{header}");
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    let mut codes = HashSet::new();
    for _ in 0..20 {
        let answer = world
            .request(TestRequest::get().uri("/admin/v1/nothing"))
            .await;
        codes.insert(answer.problem());
    }
    assert!(codes.contains("too_many_failures"), "{codes:?}");
    // Whoever has the secret is not locked out by those who guess.
    world.expect("GET", "/node", NONE, 200).await;
    for open in ["/healthz", "/readyz", "/metrics"] {
        let answer = world.request(TestRequest::get().uri(open)).await;
        assert_eq!(answer.status, StatusCode::OK, "{open}");
    }
    world.end().await;
}

#[actix_web::test]
async fn every_refusal_is_a_problem() {
    let world = World::new(false).await;
    for (method, path, body, status, code) in [
        ("GET", "/nothing", NONE, 404, "not_found"),
        ("PUT", "/users", NONE, 405, "method_not_allowed"),
        ("GET", "/keys/rotate", NONE, 405, "method_not_allowed"),
        ("POST", "/users", NONE, 400, "bad_json"),
        (
            "POST",
            "/users",
            json!({"user": "bob", "x": 1}),
            400,
            "bad_json",
        ),
        ("POST", "/users", json!("bob"), 400, "bad_json"),
        ("POST", "/users", json!({"user": "Bob"}), 400, "bad_name"),
        (
            "POST",
            "/users",
            json!({"user": "x".repeat(70_000)}),
            413,
            "too_large",
        ),
        ("GET", "/users?limit=many", NONE, 400, "bad_query"),
        ("GET", "/users?after=Bob", NONE, 400, "bad_query"),
        ("GET", "/users/Bob", NONE, 400, "bad_name"),
        ("GET", "/users/bob", NONE, 404, "unknown_user"),
        (
            "PATCH",
            "/users/bob",
            json!({"disabled": true}),
            404,
            "unknown_user",
        ),
        ("DELETE", "/users/bob", NONE, 404, "unknown_user"),
        ("POST", "/users/bob/tokens", NONE, 404, "unknown_user"),
        ("DELETE", "/users/bob/tokens", NONE, 404, "unknown_user"),
        (
            "DELETE",
            "/users/bob/devices/phone",
            NONE,
            404,
            "unknown_user",
        ),
        ("POST", "/users/bob/disconnect", NONE, 404, "unknown_user"),
        ("DELETE", "/tokens/bob", NONE, 404, "unknown_token"),
        ("GET", "/dead-letters/0", NONE, 404, "unknown_dead_letter"),
        ("GET", "/dead-letters/7", NONE, 404, "unknown_dead_letter"),
        ("GET", "/dead-letters/x", NONE, 404, "unknown_dead_letter"),
        (
            "DELETE",
            "/dead-letters/7",
            NONE,
            404,
            "unknown_dead_letter",
        ),
        (
            "POST",
            "/dead-letters/7/replay",
            NONE,
            404,
            "unknown_dead_letter",
        ),
        ("POST", "/faults/panic", NONE, 404, "not_found"),
        (
            "POST",
            "/faults/panic",
            json!({"target": "router"}),
            404,
            "not_found",
        ),
    ] {
        world.expect_problem(method, path, body, status, code).await;
    }
    let answer = world.request(TestRequest::get().uri("/elsewhere")).await;
    assert_eq!(answer.problem(), "not_found");
    let answer = world.request(TestRequest::post().uri("/healthz")).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text);
    answer.problem();
    world.end().await;
}

#[actix_web::test]
async fn the_node_shows_itself_and_says_when_it_drains() {
    let world = World::new(false).await;
    let node = world.expect("GET", "/node", NONE, 200).await.json();
    assert_eq!(node["version"], "1.2.3");
    assert_eq!(node["connections"], 42);
    assert_eq!(node["sessions"], 0);
    assert_eq!(node["panics"], 0);
    assert_eq!(node["store"]["messages"], 0);
    let mut names = Vec::new();
    let mut path = "/actors?limit=2".to_owned();
    loop {
        let page = world.expect("GET", &path, NONE, 200).await.json();
        let actors = page["actors"].as_array().unwrap().clone();
        assert!(actors.len() <= 2);
        names.extend(
            actors
                .iter()
                .map(|actor| actor["name"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => path = format!("/actors?limit=2&after={next}"),
            None => break,
        }
    }
    assert!(names.iter().any(|name| name == "router"), "{names:?}");

    let text = world.request(TestRequest::get().uri("/metrics")).await.text;
    let mut families = HashSet::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap();
            assert!(families.insert(name.to_owned()), "{name} is told twice");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let of_histogram = ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|part| name.strip_suffix(part))
                .any(|family| families.contains(family));
            assert!(of_histogram || families.contains(name), "{line}");
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        }
    }
    assert!(families.contains("stonechat_sessions"));
    assert!(
        text.contains("\nstonechat_build_info{version=\"1.2.3\"} 1\n"),
        "{text}"
    );

    let ready = world.request(TestRequest::get().uri("/readyz")).await;
    assert_eq!(ready.json(), json!({"ready": true, "reasons": []}));
    let broker = world.state.parts.broker.clone();
    broker
        .drain(CloseReason::Shutdown, 1, Duration::from_secs(5))
        .await;
    let ready = world.request(TestRequest::get().uri("/readyz")).await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready.json()["ready"], false);
    assert!(
        ready.json()["reasons"][0]
            .as_str()
            .unwrap()
            .starts_with("draining")
    );
    world.end().await;
}

#[actix_web::test]
async fn panics_are_injected_only_where_it_is_allowed() {
    let world = World::new(true).await;
    let path = "/faults/panic";
    let done = world
        .expect("POST", path, json!({"target": "connection"}), 200)
        .await;
    assert_eq!(done.json()["injected"], 3);
    let bob = json!({"target": "connection", "user": "bob"});
    world.expect("POST", path, bob, 200).await;
    assert_eq!(*world.edge.0.lock(), [None, Some(user("bob"))]);
    let queue = json!({"target": "offline_queue", "shard": 0});
    world.expect("POST", path, queue, 200).await;
    for (body, status, code) in [
        (json!({"target": "session"}), 400, "bad_json"),
        (json!({"target": "moon"}), 400, "bad_json"),
        (
            json!({"target": "session", "user": "bob"}),
            404,
            "no_target",
        ),
        (
            json!({"target": "offline_queue", "shard": 9}),
            404,
            "no_target",
        ),
        (
            json!({"target": "session", "user": "bob", "on_id": "x"}),
            400,
            "bad_name",
        ),
    ] {
        world.expect_problem("POST", path, body, status, code).await;
    }
    world.end().await;
}

#[actix_web::test]
async fn it_does_not_listen_beyond_loopback_unasked() {
    let world = World::new(false).await;
    let config = AdminConfig {
        listen: "0.0.0.0:0".parse().unwrap(),
        insecure_listen: false,
        fault_injection: false,
        requests_per_s: 100,
    };
    let tree = world.state.parts.broker.tree().clone();
    let parts = || AdminParts {
        broker: world.state.parts.broker.clone(),
        auth: world.state.parts.auth.clone(),
        edge: Arc::new(FakeEdge::default()),
        metrics: PrometheusBuilder::new().build_recorder().handle(),
        secret: world.state.parts.secret.clone(),
        tokens: world.state.parts.tokens.clone(),
        events: Events::new(),
        control: control::fake(),
        data_dir: world.state.parts.data_dir.clone(),
        version: "1.2.3",
    };
    let error = start(&config, parts(), &tree).err().unwrap();
    assert!(matches!(error, AdminError::NotLoopback(_)), "{error}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = AdminConfig {
        listen: taken.local_addr().unwrap(),
        ..config
    };
    let error = start(&config, parts(), &tree).err().unwrap();
    assert!(matches!(error, AdminError::Listen { .. }), "{error}");
    drop(taken);
    let running = start(&config, parts(), &tree).unwrap();
    assert_eq!(running.local_addr(), config.listen);
    running.stop().await;
    world.end().await;
}
