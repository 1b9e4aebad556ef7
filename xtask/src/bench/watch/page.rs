//! Open dashboards and a scraper, imitated: what they ask the admin listener for and how often, with the
//! cookie a browser has, and nothing done with the answers.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use stonechat_swarm::Admin;

/// How often the pages ask, and a scraper scrapes.
const NODE_EVERY: Duration = Duration::from_secs(2);
const HISTORY_EVERY: Duration = Duration::from_secs(5);
const TREE_EVERY: Duration = Duration::from_secs(2);
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
/// Children of a supervisor the page asks for when it is opened.
const CHILDREN: u32 = 200;
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a reader of a stream sleeps before it looks whether it is wanted still.
const GLANCE: Duration = Duration::from_millis(100);

/// What the watchers asked for and were told.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Seen {
    pub(super) requests: u64,
    pub(super) bytes: u64,
}

impl Seen {
    pub(super) fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
    }
}

/// Asks the admin API, with the secret or as a browser that is signed in.
pub(super) struct Looker {
    agent: ureq::Agent,
    /// `http://HOST:PORT`.
    root: String,
    /// Name and value of the header that lets it in.
    credential: (&'static str, String),
}

impl Looker {
    pub(super) fn new(admin: &Admin) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .proxy(None)
            .build()
            .new_agent();
        Self {
            agent,
            root: admin.base.trim_end_matches("/admin/v1").to_owned(),
            credential: ("authorization", admin.bearer.clone()),
        }
    }

    /// Signs in as the dashboard does.
    fn signed_in(admin: &Admin) -> Result<Self> {
        let mut looker = Self::new(admin);
        let token = admin.bearer.trim_start_matches("Bearer ");
        let answer = looker
            .agent
            .post(format!("{}/admin/v1/session", looker.root))
            .send_json(json!({ "token": token }))?;
        let cookie = answer.headers().get("set-cookie");
        let cookie = cookie.context("signing in gives a cookie")?.to_str()?;
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        looker.credential = ("cookie", cookie);
        Ok(looker)
    }

    fn get(&self, address: &str) -> Result<String> {
        let (name, value) = &self.credential;
        let mut answer = self
            .agent
            .get(format!("{}{address}", self.root))
            .header(*name, value)
            .call()
            .with_context(|| format!("a watcher asked for {address}"))?;
        // Sizes of answers are the server's to bound.
        Ok(answer
            .body_mut()
            .with_config()
            .limit(u64::MAX)
            .read_to_string()?)
    }

    /// Asks for something below `/admin/v1` and lets the answer be.
    pub(super) fn look(&self, path: &str) -> Result<u64> {
        Ok(self.get(&format!("/admin/v1{path}"))?.len() as u64)
    }

    /// One number of an answer.
    pub(super) fn number(&self, path: &str, name: &str) -> Result<f64> {
        let answer: Value = serde_json::from_str(&self.get(&format!("/admin/v1{path}"))?)?;
        let number = answer[name].as_f64();
        number.with_context(|| format!("{path} tells no {name}"))
    }
}

/// Somebody is looking, until they are closed.
pub(super) struct Watchers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Seen>>>,
}

impl Watchers {
    /// Opens so many dashboards, each with the overview in one tab and the tree in another, and starts
    /// a scraper.
    pub(super) fn open(admin: &Admin, dashboards: usize) -> Result<Self> {
        let mut watchers = Self {
            stop: Arc::default(),
            threads: Vec::new(),
        };
        watchers.every(
            Looker::new(admin),
            vec![("/metrics".to_owned(), SCRAPE_EVERY)],
        );
        for _ in 0..dashboards {
            let overview = Looker::signed_in(admin)?;
            let cookie = overview.credential.1.clone();
            let mut tree = vec![("/admin/v1/actors/tree".to_owned(), TREE_EVERY)];
            // Whoever looks at the tree has opened what there is in it.
            for id in supervisors(&overview)? {
                let children = format!("/admin/v1/actors/tree?under={id}&limit={CHILDREN}");
                tree.push((children, TREE_EVERY));
            }
            let history = overview.get("/admin/v1/history")?;
            let history: Value = serde_json::from_str(&history)?;
            let last_ms = history["at_ms"].as_array().and_then(|all| all.last());
            let since_ms = last_ms.and_then(Value::as_u64).unwrap_or(0);
            let news = format!("/admin/v1/history?since_ms={since_ms}");
            for tab in 0..2 {
                watchers.stream(admin, &cookie)?;
                let looker = Looker {
                    agent: overview.agent.clone(),
                    root: overview.root.clone(),
                    credential: ("cookie", cookie.clone()),
                };
                let asked = if tab == 0 {
                    vec![
                        ("/admin/v1/node".to_owned(), NODE_EVERY),
                        (news.clone(), HISTORY_EVERY),
                    ]
                } else {
                    std::mem::take(&mut tree)
                };
                watchers.every(looker, asked);
            }
        }
        Ok(watchers)
    }

    /// Asks for each of some addresses again and again.
    fn every(&mut self, looker: Looker, addresses: Vec<(String, Duration)>) {
        let stop = Arc::clone(&self.stop);
        self.threads.push(std::thread::spawn(move || {
            let mut seen = Seen::default();
            let begun = Instant::now();
            let mut due: Vec<Instant> = addresses.iter().map(|_| begun).collect();
            while !stop.load(Ordering::Relaxed) {
                for ((address, every), due) in addresses.iter().zip(&mut due) {
                    if *due <= Instant::now() {
                        seen.bytes += looker.get(address)?.len() as u64;
                        seen.requests += 1;
                        *due += *every;
                    }
                }
                std::thread::sleep(GLANCE);
            }
            Ok(seen)
        }));
    }

    /// Listens to events, as a page does all the time.
    fn stream(&mut self, admin: &Admin, cookie: &str) -> Result<()> {
        let host = admin.base.trim_start_matches("http://");
        let host = host.trim_end_matches("/admin/v1");
        let mut socket = TcpStream::connect(host)?;
        socket.set_read_timeout(Some(GLANCE))?;
        write!(
            socket,
            "GET /admin/v1/events HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\
             Accept: text/event-stream\r\n\r\n"
        )?;
        let stop = Arc::clone(&self.stop);
        self.threads.push(std::thread::spawn(move || {
            let mut seen = Seen {
                requests: 1,
                bytes: 0,
            };
            let mut buffer = [0; 16 * 1024];
            while !stop.load(Ordering::Relaxed) {
                match socket.read(&mut buffer) {
                    Ok(0) => bail!("the server ended a stream of events"),
                    Ok(read) => {
                        let first = seen.bytes == 0;
                        let good = buffer[..read].starts_with(b"HTTP/1.1 200");
                        ensure!(!first || good, "a stream of events was refused");
                        seen.bytes += read as u64;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
            ensure!(seen.bytes > 0, "a stream of events told nothing");
            Ok(seen)
        }));
        Ok(())
    }

    /// Nobody looks any more. Fails when one of them could not.
    pub(super) fn close(mut self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for thread in std::mem::take(&mut self.threads) {
            let seen = thread.join().map_err(|_| anyhow!("a watcher panicked"))??;
            all.add(seen);
        }
        Ok(all)
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        // They see it within a moment; nobody waits for them where something failed already.
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Supervisors whose children are listed on request only.
fn supervisors(looker: &Looker) -> Result<Vec<u64>> {
    let tree: Value = serde_json::from_str(&looker.get("/admin/v1/actors/tree")?)?;
    let all = tree["supervisors"].as_array().context("a tree")?;
    let dynamic = all.iter().filter(|one| one["strategy"] == "dynamic");
    Ok(dynamic.filter_map(|one| one["id"].as_u64()).collect())
}
