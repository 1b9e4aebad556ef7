//! TLS: served when configured, certificates exchanged without a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;
use stonechat_tests::{Connect, Node, NodeOptions, eventually, eventually_async};

/// A self-signed certificate for `localhost`, as files and as what a client trusts.
struct Identity {
    cert: String,
    key: String,
}

impl Identity {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
        let made = made.expect("a certificate can be made");
        Self {
            cert: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        }
    }

    fn install(&self, dir: &Path) -> (PathBuf, PathBuf) {
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        std::fs::write(&cert, &self.cert).expect("the directory is ours");
        std::fs::write(&key, &self.key).expect("the directory is ours");
        (cert, key)
    }

    fn trusted(&self) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        let cert = CertificateDer::from_pem_slice(self.cert.as_bytes()).expect("our own PEM");
        roots.add(cert).expect("our own certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

fn with_tls() -> (tempfile::TempDir, Identity, Node) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let identity = Identity::new();
    let (cert, key) = identity.install(dir.path());
    let node = Node::start(NodeOptions::new().tls(&cert, &key).allow_log("certificate"));
    (dir, identity, node)
}

#[tokio::test]
async fn messages_travel_over_tls() {
    let (_dir, identity, node) = with_tls();
    let over_tls = Connect::to(&node).tls(identity.trusted());
    let (mut alice, _) = over_tls.sign_in(&node.user("alice"), "phone").await;
    let (mut bob, _) = over_tls.sign_in(&node.user("bob"), "phone").await;
    for bytes in [1, 1_000, 60_000] {
        let body = json!("b".repeat(bytes));
        alice.say("bob", &body).await;
        assert_eq!(bob.message_acked().await["body"], body);
    }
    alice.close().await;
    // Neither plain text nor a client that trusts another certificate gets in.
    assert!(Connect::to(&node).open().await.is_err());
    let distrustful = Connect::to(&node).tls(Identity::new().trusted());
    assert!(distrustful.open().await.is_err());
    bob.fence().await;
}

#[tokio::test]
async fn a_certificate_is_exchanged_without_a_restart() {
    let (dir, old, node) = with_tls();
    let token = node.user("alice");
    let (mut before, _) = Connect::to(&node)
        .tls(old.trusted())
        .sign_in(&token, "phone")
        .await;
    let new = Identity::new();
    new.install(dir.path());
    node.signal("HUP");
    let trust_new = Connect::to(&node).tls(new.trusted());
    eventually_async("the new certificate is served", async || {
        trust_new.open().await.ok()
    })
    .await;
    assert!(Connect::to(&node).tls(old.trusted()).open().await.is_err());
    let (mut after, _) = trust_new.sign_in(&token, "tablet").await;
    // The connection from before stays.
    let id = before.say("alice", &json!("still here")).await;
    assert_eq!(after.message().await["id"], json!(id));
    // A reload that fails keeps what works.
    std::fs::write(dir.path().join("cert.pem"), "no certificate").expect("the directory is ours");
    let mark = node.log().len();
    node.signal("HUP");
    node.wait_log(mark, "ertificate");
    trust_new
        .open()
        .await
        .expect("the certificate from before is still served");
    after.fence().await;
    before.fence().await;
}

#[tokio::test]
async fn a_certificate_that_is_replaced_is_noticed_and_told() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (cert, key) = Identity::new().install(dir.path());
    let options = NodeOptions::new().tls(&cert, &key);
    let options = options.set("server.tls_watch_ms", "20");
    let node = Node::start(options.allow_log("certificate"));
    let metric = |name: &str, labels: &str| node.admin().metric(name, labels);
    let stale = || metric("stonechat_tls_certificate_stale", "");
    assert_eq!(stale(), Some(0.0));
    let end = metric("stonechat_tls_certificate_expiry_timestamp_seconds", "");
    assert!(end.is_some_and(|end| end > 1.8e9), "{end:?}");

    std::fs::write(&key, "no key").expect("the directory is ours");
    eventually("it is told", || (stale() == Some(1.0)).then_some(()));
    let new = Identity::new();
    new.install(dir.path());
    eventually("it is mended", || (stale() == Some(0.0)).then_some(()));
    let socket = Connect::to(&node).tls(new.trusted()).open().await;
    assert!(socket.is_ok());
    assert_eq!(
        metric("stonechat_tls_handshakes_total", "kind=\"full\""),
        Some(1.0)
    );
}

#[test]
fn a_node_does_not_start_with_a_bad_certificate() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (cert, key) = Identity::new().install(dir.path());
    std::fs::write(&key, "no key").expect("the directory is ours");
    let node = Node::prepared(NodeOptions::new().tls(&cert, &key));
    let refused = node.run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ]);
    assert!(refused.code.is_some_and(|code| code != 0), "{refused:?}");
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("key"), "it names the file: {said}");
}
