//! The release binary of the server, run for a measurement: started on free
//! ports in a temporary directory, asked for users, ended by its own handle.
//!
//! It measures nothing itself; figures of the process are read from `/proc`.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde::Deserialize;
use serde_json::json;

/// How long any single step may take.
pub(crate) const STEP_DEADLINE: Duration = Duration::from_secs(60);

/// A running server. Dropping it ends the process, whatever happens.
pub(crate) struct Server {
    process: Child,
    node: NodeFile,
    bearer: String,
    /// Trusts the server's certificate; nobody else does.
    certificate: Option<CertificateDer<'static>>,
    // Last, so that the directory goes after the process.
    _dir: tempfile::TempDir,
}

#[derive(Deserialize)]
struct NodeFile {
    listen: SocketAddr,
    admin_listen: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// Starts `binary`, or what `cargo build --release` makes, with TLS if asked.
    pub(crate) fn start(binary: Option<&Path>, tls: bool) -> Result<Self> {
        let binary = match binary {
            Some(binary) => binary.to_owned(),
            None => crate::release::server()?,
        };
        let dir = tempfile::tempdir()?;
        let data = dir.path().join("data");
        let mut command = Command::new(&binary);
        command
            .arg("serve")
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(&data)
            // Clients that are only held do not answer pings.
            .args(["--set", "server.heartbeat_ms=3600000"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut certificate = None;
        if tls {
            let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
            let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
            std::fs::write(&cert, made.cert.pem())?;
            std::fs::write(&key, made.signing_key.serialize_pem())?;
            for (name, file) in [("cert", &cert), ("key", &key)] {
                let set = format!("server.tls_{name}={}", file.display());
                command.args(["--set", &set]);
            }
            certificate = Some(made.cert.der().clone());
        }
        let process = command
            .spawn()
            .with_context(|| format!("{} could not be started", binary.display()))?;
        let mut server = Self {
            process,
            node: NodeFile {
                listen: ([127, 0, 0, 1], 0).into(),
                admin_listen: ([127, 0, 0, 1], 0).into(),
            },
            bearer: String::new(),
            certificate,
            _dir: dir,
        };
        server.node = wait_for_node(&data)?;
        let secret = std::fs::read_to_string(data.join("admin.secret"))?;
        server.bearer = format!("Bearer {}", secret.trim());
        Ok(server)
    }

    fn post(&self, path: &str, body: &serde_json::Value) -> Result<serde_json::Value> {
        let mut answer = ureq::post(format!("http://{}/admin/v1{path}", self.node.admin_listen))
            .header("Authorization", &self.bearer)
            .send_json(body)?;
        Ok(answer.body_mut().read_json()?)
    }

    /// Makes a user; returns a token.
    pub(crate) fn user_with_token(&self, user: &str) -> Result<String> {
        self.post("/users", &json!({ "user": user }))?;
        let issued = self.post(&format!("/users/{user}/tokens"), &json!({}))?;
        let token = issued["token"].as_str();
        Ok(token.context("the admin API gave no token")?.to_owned())
    }

    /// A TCP connection to the public listener.
    pub(crate) fn connect(&self) -> Result<TcpStream> {
        let socket = TcpStream::connect(self.node.listen)?;
        socket.set_read_timeout(Some(STEP_DEADLINE))?;
        socket.set_nodelay(true)?;
        Ok(socket)
    }

    /// What a TLS client of this server needs; `None` when it speaks plain TCP.
    pub(crate) fn tls_client(&self) -> Result<Option<Arc<ClientConfig>>> {
        let Some(certificate) = &self.certificate else {
            return Ok(None);
        };
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Some(Arc::new(config)))
    }

    /// A TLS connection to the public listener.
    pub(crate) fn connect_tls(
        &self,
        config: &Arc<ClientConfig>,
    ) -> Result<StreamOwned<ClientConnection, TcpStream>> {
        let name = ServerName::try_from("localhost")?;
        let tls = ClientConnection::new(Arc::clone(config), name)?;
        Ok(StreamOwned::new(tls, self.connect()?))
    }

    /// The resident set once it has stopped moving by more than 1 % for a second, in bytes.
    pub(crate) fn settled_rss(&self) -> Result<u64> {
        let deadline = Instant::now() + STEP_DEADLINE;
        let mut last = self.rss_bytes()?;
        let mut calm = 0;
        while calm < 5 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(200));
            let now = self.rss_bytes()?;
            calm = if now.abs_diff(last) * 100 <= last {
                calm + 1
            } else {
                0
            };
            last = now;
        }
        Ok(last)
    }

    fn rss_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// Processor time used so far, user and system: what the kernel has accounted to the
    /// threads, in nanoseconds.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text.split_ascii_whitespace().next().unwrap_or_default();
            nanoseconds += first.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }
}

fn wait_for_node(data: &Path) -> Result<NodeFile> {
    let deadline = Instant::now() + STEP_DEADLINE;
    loop {
        if let Ok(text) = std::fs::read_to_string(data.join("node.json"))
            && let Ok(node) = serde_json::from_str(&text)
        {
            return Ok(node);
        }
        ensure!(Instant::now() < deadline, "the server did not get ready");
        std::thread::sleep(Duration::from_millis(20));
    }
}
