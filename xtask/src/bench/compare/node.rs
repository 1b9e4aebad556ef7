//! A server under comparison, whichever it is: started, looked at, killed, started again on its data.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use stonechat_swarm::Roster;

use super::{ejabberd, packages, prosody, tree};
use crate::bench::process::Usage;
use crate::bench::server::{Running, Server};
use crate::bench::{Common, users};

const READY_WITHIN: Duration = Duration::from_secs(120);
const CALM_WITHIN: Duration = Duration::from_secs(30);

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ours,
    Ejabberd,
    Prosody,
}

impl Kind {
    /// All of them, in the order of the tables.
    pub(super) const ALL: [Self; 3] = [Self::Ours, Self::Ejabberd, Self::Prosody];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "Stonechat",
            Self::Ejabberd => "ejabberd",
            Self::Prosody => "Prosody",
        }
    }

    pub(super) fn version(self) -> String {
        match self {
            Self::Ours => env!("CARGO_PKG_VERSION").to_owned(),
            Self::Ejabberd => packages::version("ejabberd"),
            Self::Prosody => packages::version("prosody"),
        }
    }
}

/// A certificate that all servers show when connections are encrypted.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// Both in one file.
    pub(super) both: PathBuf,
    /// The certificate as bytes, for the tunnel.
    pub(super) der: PathBuf,
}

impl Tls {
    /// Makes one for `localhost`.
    pub(super) fn make(dir: &Path) -> Result<Self> {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()])?;
        // ejabberd shows no certificate whose end lies beyond what a two-digit year can say.
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2049, 1, 1);
        let key = rcgen::KeyPair::generate()?;
        let made = params.self_signed(&key)?;
        let tls = Self {
            certificate: dir.join("cert.pem"),
            key: dir.join("key.pem"),
            both: dir.join("both.pem"),
            der: dir.join("cert.der"),
        };
        let (certificate, key) = (made.pem(), key.serialize_pem());
        std::fs::write(&tls.certificate, &certificate)?;
        std::fs::write(&tls.key, &key)?;
        std::fs::write(&tls.both, format!("{certificate}{key}"))?;
        std::fs::write(&tls.der, made.der())?;
        Ok(tls)
    }
}

/// A running server. It ends, with all it has started, when this is dropped.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Where clients connect: the server, or the tunnel before it.
    pub(super) listen: SocketAddr,
    /// Ours only.
    pub(super) roster: Option<Roster>,
    ours: Option<Server>,
    /// Theirs only.
    process: Option<Running>,
    tunnel: Option<Running>,
    dir: PathBuf,
    pid: u32,
    tls: Option<Tls>,
}

impl Node {
    /// Starts a server with empty data in `dir`, and so many users.
    pub(super) fn start(
        kind: Kind,
        common: &Common,
        dir: &Path,
        users: usize,
        tls: Option<&Tls>,
    ) -> Result<Self> {
        let dir = dir.join(kind.name());
        // Of an earlier measurement.
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        let mut node = Self {
            kind,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            roster: None,
            ours: None,
            process: None,
            tunnel: None,
            dir,
            pid: 0,
            tls: tls.cloned(),
        };
        node.launch(common, users)?;
        if let Some(server) = &node.ours {
            node.roster = Some(users::create(&server.admin, users, users)?);
        }
        Ok(node)
    }

    /// Starts the server again on the data it left.
    pub(super) fn again(&mut self, common: &Common) -> Result<()> {
        ensure!(
            self.ours.is_none() && self.process.is_none(),
            "it is still there"
        );
        self.launch(common, 0)
    }

    fn launch(&mut self, common: &Common, users: usize) -> Result<()> {
        if self.kind == Kind::Ours {
            // Neither of the others asks idle clients for a sign of life by default.
            let mut settings = vec!["server.heartbeat_ms=3600000".to_owned()];
            if let Some(tls) = &self.tls {
                settings.push(format!("server.tls_cert={}", tls.certificate.display()));
                settings.push(format!("server.tls_key={}", tls.key.display()));
            }
            let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
            let server = Server::start(common, &self.dir, &settings)?;
            (self.listen, self.pid) = (server.listen, server.pid());
            self.ours = Some(server);
        } else {
            self.launch_peer(users)?;
        }
        if let Some(tls) = &self.tls {
            let (tunnel, listen) = tunnel(self.listen, &tls.der)?;
            (self.tunnel, self.listen) = (Some(tunnel), listen);
        }
        Ok(())
    }

    fn launch_peer(&mut self, users: usize) -> Result<()> {
        // Free now; should another program take it before the server does, the start fails and says so.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        self.listen.set_port(port);
        let tls = self.tls.as_ref();
        let mut command = match self.kind {
            Kind::Ejabberd => ejabberd::command(&self.dir, self.listen, users, tls)?,
            _ => prosody::command(&self.dir, self.listen, users, tls)?,
        };
        let ready = self.dir.join("ready");
        let _ = std::fs::remove_file(&ready);
        let out = File::create(self.dir.join("out.log"))?;
        let child = start(command.current_dir(&self.dir), &out)?;
        let mut process = Running(child);
        self.pid = process.pid();
        let until = Instant::now() + READY_WITHIN;
        loop {
            let told = self.kind != Kind::Ejabberd || ready.exists();
            if told && TcpStream::connect(self.listen).is_ok() {
                break;
            }
            if let Some(status) = process.0.try_wait()? {
                let log = std::fs::read_to_string(self.dir.join("out.log")).unwrap_or_default();
                bail!("{} ended with {status}:\n{log}", self.kind.name());
            }
            ensure!(
                Instant::now() < until,
                "{} did not get ready",
                self.kind.name()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        self.process = Some(process);
        Ok(())
    }

    /// What it and everything it has started have used.
    pub(super) fn usage(&self) -> Result<Usage> {
        tree::usage(self.pid)
    }

    /// Waits until it has nothing left to do: hardly any CPU for a second. Returns how long it was busy.
    pub(super) fn calm(&self) -> Result<Duration> {
        let began = Instant::now();
        let mut busy = began;
        let mut last = self.usage()?.cpu_s;
        while busy.elapsed() < Duration::from_secs(1) && began.elapsed() < CALM_WITHIN {
            std::thread::sleep(Duration::from_millis(200));
            let now = self.usage()?.cpu_s;
            if now - last > 0.021 {
                busy = Instant::now();
            }
            last = now;
        }
        Ok(busy - began)
    }

    /// Ends it as a crash of the machine's power supply would, for the processes; `kill -9`.
    pub(super) fn kill(&mut self) {
        let below = tree::below(self.pid);
        self.ours = None;
        let had = self.process.take().is_some();
        self.tunnel = None;
        if had {
            end(&below[1..]);
        }
    }

    /// Fails when our server had something to complain about.
    pub(super) fn check(&self) -> Result<()> {
        self.ours.as_ref().map_or(Ok(()), Server::check_log)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a command with its output in a file.
fn start(command: &mut Command, out: &File) -> Result<std::process::Child> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out.try_clone()?)
        .spawn()
        .with_context(|| format!("{program} cannot be started"))
}

/// Ends what a server has started and left behind; helpers of the Erlang VM notice by themselves that
/// it is gone, a little later.
fn end(pids: &[u32]) {
    let until = Instant::now() + Duration::from_secs(5);
    let there = || {
        pids.iter()
            .filter(|pid| Path::new(&format!("/proc/{pid}")).exists())
    };
    while there().next().is_some() {
        if Instant::now() > until {
            let left = there().map(u32::to_string);
            let _ = Command::new("kill").arg("-9").args(left).status();
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts what encrypts for clients that cannot.
fn tunnel(to: SocketAddr, certificate: &Path) -> Result<(Running, SocketAddr)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["tls-tunnel", "--to", &to.to_string(), "--certificate"])
        .arg(certificate)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().context("standard output is piped")?;
    let running = Running(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let listen = line.trim().parse().context("the tunnel told no address")?;
    Ok((running, listen))
}
