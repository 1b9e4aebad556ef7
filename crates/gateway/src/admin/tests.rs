//! The admin API's handlers, over a real broker and store.

mod access;
mod actors;
mod data;
mod mailboxes;
mod node;
mod session;
mod steering;

use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::http::header::RETRY_AFTER;
use actix_web::http::{Method, StatusCode};
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::web::Bytes;
use metrics_exporter_prometheus::PrometheusBuilder;
use parking_lot::Mutex;
use serde_json::Value;
use stonechat_actors::TreeConfig;
use stonechat_broker::{BrokerConfig, commit_sink};
use stonechat_mailbox::{JournalStore, Store, StoreConfig};

use super::*;
use crate::auth::AuthConfig;

#[derive(Default)]
struct FakeEdge(Mutex<Vec<Option<UserId>>>, AtomicBool);

impl FakeEdge {
    fn stop(&self) {
        self.1.store(true, Ordering::SeqCst);
    }
}

impl EdgeView for FakeEdge {
    fn connections(&self) -> u64 {
        42
    }

    fn is_stopping(&self) -> bool {
        self.1.load(Ordering::SeqCst)
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
    retry_after: String,
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
        let tokens = AdminTokens::open(Arc::clone(&store)).await.unwrap();
        let parts = AdminParts {
            broker,
            auth,
            edge: view,
            metrics: PrometheusBuilder::new().build_recorder().handle(),
            secret: Secret::load_or_create(dir.path()).unwrap(),
            tokens,
            data_dir: dir.path().to_owned(),
            events: Events::new(),
            control: control::fake(),
            version: "1.2.3",
        };
        let config = AdminConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            insecure_listen: false,
            tls: None,
            tls_watch_ms: 0,
            fault_injection,
            requests_per_s: 100,
        };
        Self {
            _dir: dir,
            store,
            state: state(parts, &config),
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
        let header = |name| {
            let value = response.headers().get(name);
            value.map_or("", |value| value.to_str().unwrap()).to_owned()
        };
        let (kind, retry_after) = (header(CONTENT_TYPE), header(RETRY_AFTER));
        let status = response.status();
        let body: Bytes = read_body(response).await;
        Answer {
            status,
            kind,
            retry_after,
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
