//! TLS of the admin listener: API, metrics and commands over it, nothing beside it, certificates
//! exchanged without a restart.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use serde_json::json;
use stonechat_tests::node::{command, run};
use stonechat_tests::{Admin, Connect, DEADLINE, Node, NodeOptions, Output, WsClient, eventually};

struct Identity {
    cert: String,
    key: String,
}

impl Identity {
    fn new() -> Self {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate can be made");
        Self {
            cert: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        }
    }

    fn install(&self, dir: &Path) -> (PathBuf, PathBuf) {
        let (cert, key) = (dir.join("admin.pem"), dir.join("admin.key"));
        std::fs::write(&cert, &self.cert).expect("the directory is ours");
        std::fs::write(&key, &self.key).expect("the directory is ours");
        (cert, key)
    }
}

fn with_tls(change: impl FnOnce(NodeOptions) -> NodeOptions) -> (tempfile::TempDir, Node) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (cert, key) = Identity::new().install(dir.path());
    let node = Node::start(change(NodeOptions::new().admin_tls(&cert, &key)));
    (dir, node)
}

fn ok(output: Output) -> String {
    assert_eq!(output.code, Some(0), "{output:?}");
    output.stdout
}

/// What a plain HTTP request is answered with, if anything.
fn plain(node: &Node) -> String {
    let mut socket = TcpStream::connect(node.endpoint().admin_listen).expect("it listens");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    socket.write_all(request).expect("it is taken");
    let mut answer = Vec::new();
    // Closed or reset: either way nothing more comes.
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn everything_of_the_admin_listener_is_by_tls_and_nothing_by_plain_http() {
    let (_dir, node) = with_tls(|options| options);
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    alice
        .say("alice", &json!("clients are not concerned"))
        .await;
    let admin = node.admin();
    assert_eq!(admin.get("/readyz").status, 200);
    assert!(admin.metric("stonechat_connections", "").is_some());
    let expiry = "stonechat_tls_certificate_expiry_timestamp_seconds";
    assert!(admin.metric(expiry, "listener=\"admin\"").is_some());
    assert_eq!(admin.metric(expiry, "listener=\"clients\""), None);
    assert_eq!(admin.get("/admin/v1/whoami").expect(200)["role"], "admin");
    assert_eq!(admin.get("/dashboard/").status, 200);

    let said = plain(&node);
    assert!(!said.starts_with("HTTP/1.1 2"), "{said}");
    let other = Identity::new();
    let distrustful = node.admin().trusting(&other.cert);
    assert!(distrustful.try_request("GET", "/healthz", None).is_none());
    assert_eq!(admin.get("/healthz").status, 200, "it serves on");
}

#[test]
fn the_dashboards_cookie_is_for_tls_only() {
    let (_dir, node) = with_tls(|options| options);
    let secret = std::fs::read_to_string(node.data_dir().join("admin.secret")).unwrap();
    let sign_in = json!({"token": secret.trim()});
    let answer = node.admin().post("/admin/v1/session", &sign_in);
    let cookie = answer.header("set-cookie");
    assert!(cookie.contains("; Secure"), "{cookie}");
}

#[test]
fn commands_reach_a_node_by_tls() {
    let (dir, node) = with_tls(|options| options);
    // On the machine, the certificate of the configuration is trusted without being named.
    ok(node.run(&["user", "add", "carol"]));

    // From elsewhere: address, certificate and token are all there is.
    let token = node.admin().post(
        "/admin/v1/admin-tokens",
        &json!({"name": "ann", "role": "viewer", "ttl_s": 600}),
    );
    let token = token.expect(201)["token"].as_str().unwrap().to_owned();
    let url = format!("https://{}", node.endpoint().admin_listen);
    let elsewhere = |arguments: &[&str]| {
        let mut command = command();
        command
            .args(["admin", "--admin-url", &url])
            .args(arguments)
            .env("STONECHAT_ADMIN_SECRET", &token)
            .current_dir(dir.path());
        run(command)
    };
    let ca = dir.path().join("admin.pem");
    let ca = ca.to_str().unwrap();
    assert!(ok(elsewhere(&["--ca", ca, "whoami"])).contains("ann"));
    assert!(ok(elsewhere(&["--ca", ca, "users"])).contains("carol"));
    let distrusted = elsewhere(&["whoami"]);
    assert_eq!(distrusted.code, Some(69), "{distrusted:?}");
    assert!(distrusted.stderr.contains("--ca"), "{distrusted:?}");
    let nonsense = dir.path().join("nonsense.pem");
    std::fs::write(&nonsense, "no certificate").unwrap();
    let refused = elsewhere(&["--ca", nonsense.to_str().unwrap(), "whoami"]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("nonsense.pem"), "{refused:?}");
}

#[test]
fn its_certificate_is_exchanged_without_a_restart() {
    // Only when it is told to.
    let told_only = |options: NodeOptions| options.set("server.tls_watch_ms", "0");
    let (dir, node) = with_tls(|options| told_only(options).allow_log("certificate"));
    let before = node.admin();
    // A stream that is open stays as it is.
    let mut stream = node
        .admin()
        .stream("/admin/v1/events?count=1&kinds=connected");
    let new = Identity::new();
    new.install(dir.path());
    node.signal("HUP");
    let admin = |identity: &Identity| -> Admin { node.admin().trusting(&identity.cert) };
    eventually("the new certificate is served", || {
        let answer = admin(&new).try_request("GET", "/healthz", None)?;
        (answer.status == 200).then_some(())
    });
    assert!(before.try_request("GET", "/healthz", None).is_none());

    std::fs::write(dir.path().join("admin.key"), "no key").expect("the directory is ours");
    node.signal("HUP");
    let stale = || admin(&new).metric("stonechat_tls_certificate_stale", "listener=\"admin\"");
    eventually("it is told", || (stale() == Some(1.0)).then_some(()));
    // The one in use stays, and so does who was there before.
    admin(&new).create_user("alice");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let token = admin(&new).token("alice", None);
        let (mut alice, _) = Connect::to(&node).sign_in(&token, "phone").await;
        alice.fence().await;
    });
    let mut told = String::new();
    stream
        .read_to_string(&mut told)
        .expect("the stream goes on");
    assert!(told.contains("event: connected"), "{told}");
}

#[test]
fn its_certificate_is_noticed_when_it_is_replaced() {
    let (dir, node) = with_tls(|options| options.set("server.tls_watch_ms", "20"));
    let new = Identity::new();
    new.install(dir.path());
    let admin = node.admin().trusting(&new.cert);
    eventually("the new certificate is served", || {
        admin.try_request("GET", "/healthz", None).map(drop)
    });
}

#[test]
fn a_node_does_not_start_with_a_bad_certificate_for_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (cert, key) = Identity::new().install(dir.path());
    let node = Node::prepared(NodeOptions::new().admin_tls(&cert, &key));
    let serve = || {
        let ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        node.run(&[&["serve"][..], &ports].concat())
    };
    std::fs::write(&key, "no key").expect("the directory is ours");
    let refused = serve();
    assert_eq!(refused.code, Some(78), "{refused:?}");
    for part in ["admin listener", "admin.key", "PEM"] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    std::fs::remove_file(&cert).expect("it was there");
    let refused = serve();
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("admin.pem"), "{refused:?}");
}

#[test]
fn with_tls_it_may_listen_beyond_loopback_and_half_of_it_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (cert, key) = Identity::new().install(dir.path());
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    let half = Node::prepared(NodeOptions::new().set("admin.tls_cert", &quoted(&cert)));
    let refused = half.run(&["serve"]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("admin.tls_key"), "{refused:?}");

    let whole = Node::prepared(NodeOptions::new().admin_tls(&cert, &key));
    let shown = whole.run(&["config", "--admin-listen", "0.0.0.0:8081"]);
    assert_eq!(shown.code, Some(0), "with TLS that is fine: {shown:?}");
    let plain = Node::prepared(NodeOptions::new());
    let refused = plain.run(&["config", "--admin-listen", "0.0.0.0:8081"]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("admin.tls_cert"), "{refused:?}");
}

#[test]
fn a_swarm_says_that_it_cannot() {
    let (_dir, node) = with_tls(|options| options);
    let refused = node.run(&["swarm", "run", "idle", "--users", "2", "--duration", "1"]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("http:// only"), "{refused:?}");
}
