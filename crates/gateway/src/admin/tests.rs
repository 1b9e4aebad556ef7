//! The admin API's handlers, over a real broker and store.

use std::collections::HashSet;

use actix_web::http::{Method, StatusCode};
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::web::Bytes;
use metrics_exporter_prometheus::PrometheusBuilder;
use parking_lot::Mutex;
use serde_json::{Value, json};
use stonechat_actors::TreeConfig;
use stonechat_broker::{BrokerConfig, commit_sink};
use stonechat_mailbox::{Append, Envelope, JournalStore, Store, StoreConfig};
use stonechat_protocol::{Address, CloseReason, DeviceId, MessageId};

use super::*;
use crate::auth::AuthConfig;

#[derive(Default)]
struct FakeEdge(Mutex<Vec<Option<UserId>>>);

impl EdgeView for FakeEdge {
    fn connections(&self) -> u64 {
        42
    }

    fn inject_connection_panic(&self, user: Option<UserId>) -> usize {
        self.0.lock().push(user);
        3
    }
}

struct World {
    _dir: tempfile::TempDir,
    store: Arc<dyn Store>,
    state: Shared,
    edge: Arc<FakeEdge>,
}

struct Answer {
    status: StatusCode,
    kind: String,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// Asserts that this is a complete problem, and returns its code.
    fn problem(&self) -> String {
        assert_eq!(self.kind, "application/problem+json", "{}", self.text);
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        let code = problem["code"].as_str().unwrap().to_owned();
        assert_eq!(problem["type"], format!("urn:stonechat:problem:{code}"));
        assert!(!problem["title"].as_str().unwrap().is_empty());
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        code
    }
}

impl World {
    async fn new(fault_injection: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (commits, sink) = commit_sink();
        let store: Arc<dyn Store> =
            JournalStore::open(StoreConfig::new(dir.path()), commits).unwrap();
        let config = BrokerConfig {
            fault_injection,
            ..BrokerConfig::default()
        };
        let tree = Tree::new(TreeConfig::default());
        let arbiters = [actix_rt::Arbiter::current()];
        let broker = Broker::start(config, Arc::clone(&store), &sink, tree, &arbiters).unwrap();
        let auth = Authenticator::open(Arc::clone(&store), AuthConfig::default())
            .await
            .unwrap();
        let edge = Arc::new(FakeEdge::default());
        let view: Arc<dyn EdgeView> = Arc::<FakeEdge>::clone(&edge);
        let parts = AdminParts {
            broker,
            auth,
            edge: view,
            metrics: PrometheusBuilder::new().build_recorder().handle(),
            secret: Secret::load_or_create(dir.path()).unwrap(),
            version: "1.2.3",
        };
        Self {
            _dir: dir,
            store,
            state: state(parts, fault_injection),
            edge,
        }
    }

    async fn request(&self, request: TestRequest) -> Answer {
        let app = App::new()
            .wrap(ErrorHandlers::new().default_handler(as_problem))
            .app_data(self.state.clone())
            .configure(routes);
        let service = init_service(app).await;
        let response = call_service(&service, request.to_request()).await;
        let header = response.headers().get(CONTENT_TYPE);
        let kind = header.map_or("", |kind| kind.to_str().unwrap()).to_owned();
        let status = response.status();
        let body: Bytes = read_body(response).await;
        Answer {
            status,
            kind,
            text: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    /// A request with the secret; `body`: `null` for none.
    async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let secret = self.state.parts.secret.expose();
        let mut request = TestRequest::with_uri(&format!("/admin/v1{path}"))
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .insert_header(("authorization", format!("Bearer {secret}")));
        if !body.is_null() {
            request = request.set_payload(body.to_string());
        }
        self.request(request).await
    }

    async fn expect(&self, method: &str, path: &str, body: Value, status: u16) -> Answer {
        let answer = self.call(method, path, body).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{method} {path}: {}",
            answer.text
        );
        answer
    }

    async fn expect_problem(&self, method: &str, path: &str, body: Value, status: u16, code: &str) {
        let answer = self.expect(method, path, body, status).await;
        assert_eq!(answer.problem(), code, "{method} {path}");
    }

    async fn end(self) {
        let tree = self.state.parts.broker.tree().clone();
        assert!(tree.shutdown(Duration::from_secs(10)).await.is_clean());
        self.store.close().await.unwrap();
    }
}

const NONE: Value = Value::Null;

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

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
async fn users_come_and_go() {
    let world = World::new(false).await;
    let created = world
        .expect("POST", "/users", json!({"user": "bob"}), 201)
        .await
        .json();
    let again = world
        .expect("POST", "/users", json!({"user": "bob"}), 200)
        .await
        .json();
    assert_eq!(created, again);
    assert_eq!(created["user"], "bob");
    assert!(created["created_ms"].as_u64().unwrap() > 1_600_000_000_000);
    for name in ["a+b", "carol", "dave"] {
        world
            .expect("POST", "/users", json!({"user": name}), 201)
            .await;
    }
    let page = world
        .expect("GET", "/users?limit=2", NONE, 200)
        .await
        .json();
    let names = |page: &Value| -> Vec<String> {
        let users = page["users"].as_array().unwrap();
        users
            .iter()
            .map(|user| user["user"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&page), ["a+b", "bob"]);
    assert_eq!(page["next"], "bob");
    let page = world
        .expect("GET", "/users?limit=2&after=bob", NONE, 200)
        .await
        .json();
    assert_eq!(names(&page), ["carol", "dave"]);
    let page = world
        .expect("GET", "/users?limit=2&after=dave", NONE, 200)
        .await
        .json();
    assert_eq!((names(&page).len(), &page["next"]), (0, &NONE));
    let page = world
        .expect("GET", "/users?after=a%2Bb", NONE, 200)
        .await
        .json();
    assert_eq!(names(&page), ["bob", "carol", "dave"]);

    let phone = DeviceId::new("phone").unwrap();
    let mailbox = world.store.open(&user("bob")).await.unwrap().unwrap();
    world.store.attach(&mailbox, &phone, 5).await.unwrap();
    let shown = world.expect("GET", "/users/bob", NONE, 200).await.json();
    assert_eq!(shown["connected"], false);
    assert_eq!(shown["disabled"], false);
    assert_eq!(shown["devices"][0]["device"], "phone");
    assert_eq!(shown["devices"][0]["pending"], 0);
    assert_eq!(shown["devices"][0]["last_seen_ms"], 5);
    assert_eq!(shown["mailbox"]["messages"], 0);
    world
        .expect_problem(
            "DELETE",
            "/users/bob/devices/x",
            NONE,
            404,
            "unknown_device",
        )
        .await;
    world
        .expect("DELETE", "/users/bob/devices/phone", NONE, 204)
        .await;
    let shown = world.expect("GET", "/users/bob", NONE, 200).await.json();
    assert_eq!(shown["devices"], json!([]));
    let closed = world
        .expect("POST", "/users/bob/disconnect", NONE, 200)
        .await
        .json();
    assert_eq!(closed["disconnected"], 0);

    let changed = world
        .expect("PATCH", "/users/bob", json!({"disabled": true}), 200)
        .await;
    assert_eq!(changed.json()["disabled"], true);
    world
        .expect_problem("POST", "/users/bob/tokens", NONE, 409, "user_disabled")
        .await;
    world
        .expect("PATCH", "/users/bob", json!({"disabled": false}), 200)
        .await;
    world.expect("DELETE", "/users/bob", NONE, 204).await;
    world
        .expect_problem("GET", "/users/bob", NONE, 404, "unknown_user")
        .await;
    world.end().await;
}

#[actix_web::test]
async fn tokens_are_issued_and_revoked() {
    let world = World::new(false).await;
    let phone = DeviceId::new("phone").unwrap();
    let auth = world.state.parts.auth.clone();
    world
        .expect("POST", "/users", json!({"user": "bob"}), 201)
        .await;
    let issue = async |body: Value| {
        let issued = world
            .expect("POST", "/users/bob/tokens", body, 201)
            .await
            .json();
        assert!(issued["expires_ms"].as_u64().is_some());
        let text = |key: &str| issued[key].as_str().unwrap().to_owned();
        (text("token"), text("id"))
    };
    let (one, one_id) = issue(NONE).await;
    let (two, _) = issue(json!({"device": "phone", "ttl_s": 60})).await;
    assert_eq!(auth.authenticate(&one, &phone).await, Ok(user("bob")));
    assert_eq!(auth.authenticate(&two, &phone).await, Ok(user("bob")));
    world
        .expect_problem(
            "POST",
            "/users/bob/tokens",
            json!({"ttl_s": 0}),
            400,
            "bad_ttl",
        )
        .await;
    world
        .expect_problem(
            "POST",
            "/users/bob/tokens",
            json!({"device": ""}),
            400,
            "bad_name",
        )
        .await;

    world
        .expect("DELETE", &format!("/tokens/{one_id}"), NONE, 204)
        .await;
    assert!(auth.authenticate(&one, &phone).await.is_err());
    assert!(auth.authenticate(&two, &phone).await.is_ok());
    let rotated = world.expect("POST", "/keys/rotate", NONE, 200).await.json();
    assert_eq!(rotated["keys"], 2);
    assert!(auth.authenticate(&two, &phone).await.is_ok());
    world.expect("DELETE", "/users/bob/tokens", NONE, 204).await;
    assert!(auth.authenticate(&two, &phone).await.is_err());
    let (three, _) = issue(NONE).await;
    assert!(auth.authenticate(&three, &phone).await.is_ok());
    let rotated = world
        .expect("POST", "/keys/rotate", json!({"void_older": true}), 200)
        .await;
    assert_eq!(rotated.json()["keys"], 1);
    assert!(auth.authenticate(&three, &phone).await.is_err());
    world.end().await;
}

#[actix_web::test]
async fn dead_letters_are_shown_put_back_and_thrown_away() {
    let world = World::new(false).await;
    for name in ["alice", "bob"] {
        world
            .expect("POST", "/users", json!({"user": name}), 201)
            .await;
    }
    let sender = world.store.open(&user("alice")).await.unwrap().unwrap();
    let mailbox = world.store.open(&user("bob")).await.unwrap().unwrap();
    let from = Address {
        user: user("alice"),
        device: DeviceId::new("phone").unwrap(),
    };
    world.store.attach(&sender, &from.device, 1).await.unwrap();
    let body = r#"{"text": "hi", "n": 12345678901234567890123}"#;
    for n in 1..=2_u128 {
        let envelope = Arc::new(Envelope {
            from: from.clone(),
            to: user("bob"),
            id: MessageId::from_u128((7 << 76) | (2 << 62) | n),
            ts_ms: 10,
            expires_ms: u64::MAX,
            body: Bytes::from_static(body.as_bytes()),
        });
        let append = Append {
            envelope,
            sender: Arc::clone(&sender),
            recipients: [Arc::clone(&mailbox)].into_iter().collect(),
        };
        world.store.append(append).unwrap();
    }
    world.store.barrier().await.unwrap();
    for seq in 1..=2 {
        let reason = format!("panicked at {seq}");
        world
            .store
            .dead_letter(&mailbox, seq, reason, 20)
            .await
            .unwrap();
    }

    let list = world
        .expect("GET", "/dead-letters?limit=1", NONE, 200)
        .await
        .json();
    let first = &list["dead_letters"][0];
    assert_eq!(list["dead_letters"].as_array().unwrap().len(), 1);
    assert_eq!(first["user"], "bob");
    assert_eq!(first["from"], json!({"user": "alice", "device": "phone"}));
    assert_eq!(first["reason"], "panicked at 1");
    assert_eq!(first["body_bytes"], body.len());
    assert_eq!(first.get("body"), None);
    let next = list["next"].as_str().unwrap();
    let rest = world
        .expect("GET", &format!("/dead-letters?after={next}"), NONE, 200)
        .await
        .json();
    assert_eq!(rest["dead_letters"][0]["reason"], "panicked at 2");

    let path = |entry: &Value| format!("/dead-letters/{}", entry["number"]);
    let shown = world.expect("GET", &path(first), NONE, 200).await.json();
    assert_eq!(shown["body"]["text"], "hi");
    world
        .expect("POST", &format!("{}/replay", path(first)), NONE, 200)
        .await;
    world
        .expect_problem("GET", &path(first), NONE, 404, "unknown_dead_letter")
        .await;
    assert_eq!(mailbox.stats().messages, 1);
    world
        .expect("DELETE", &path(&rest["dead_letters"][0]), NONE, 204)
        .await;
    let list = world.expect("GET", "/dead-letters", NONE, 200).await.json();
    assert_eq!(list["dead_letters"], json!([]));
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
            assert!(families.contains(name), "{line}");
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
    };
    let tree = world.state.parts.broker.tree().clone();
    let parts = || AdminParts {
        broker: world.state.parts.broker.clone(),
        auth: world.state.parts.auth.clone(),
        edge: Arc::new(FakeEdge::default()),
        metrics: PrometheusBuilder::new().build_recorder().handle(),
        secret: world.state.parts.secret.clone(),
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
