//! A look at the server every second: what its process uses, how deep its inboxes are, what waits in
//! mailboxes.
//!
//! It is a thread of its own, so that a server that answers late does not hold up the users. Memory,
//! processor time, threads and descriptors come from `/proc` when the process is on this machine,
//! otherwise (more seldom, it costs the server more) from `/metrics`. What cannot be read is absent, and
//! never an error: a server that is being killed on purpose answers nobody.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::process;
use crate::Admin;

const EVERY: Duration = Duration::from_secs(1);
/// What costs the server more is asked this often: every so many looks.
const SELDOM: u32 = 5;
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Actors looked at: those that were started first, which all users share.
const ACTORS: u32 = 64;
/// Waiting for the end in small steps, so that a run does not last longer for it.
const STEP: Duration = Duration::from_millis(50);

/// What was seen of the server; what is not known is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerLook {
    /// Resident memory.
    pub rss_bytes: Option<u64>,
    /// Processor time, in cores.
    pub cpu_share: Option<f64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open descriptors.
    pub fds: Option<u64>,
    /// Messages in the fullest inbox of the actors that all users share.
    pub inbox_depth_max: Option<u64>,
    /// Whose inbox that is.
    pub inbox_deepest: Option<String>,
    /// Messages that wait for the next commit.
    pub commits_queued: Option<u64>,
    /// Messages in all mailboxes.
    pub mailbox_messages: Option<u64>,
    /// Bytes of the journal and the database on disk.
    pub disk_bytes: Option<u64>,
}

impl ServerLook {
    /// Of each figure the greater one.
    pub(super) fn worse(&self, next: &Self) -> Self {
        let deeper = next.inbox_depth_max > self.inbox_depth_max;
        let deepest = if deeper { next } else { self };
        let cpu = [self.cpu_share, next.cpu_share];
        Self {
            rss_bytes: self.rss_bytes.max(next.rss_bytes),
            cpu_share: cpu.into_iter().flatten().reduce(f64::max),
            threads: self.threads.max(next.threads),
            fds: self.fds.max(next.fds),
            inbox_depth_max: deepest.inbox_depth_max,
            inbox_deepest: deepest.inbox_deepest.clone(),
            commits_queued: self.commits_queued.max(next.commits_queued),
            mailbox_messages: self.mailbox_messages.max(next.mailbox_messages),
            disk_bytes: self.disk_bytes.max(next.disk_bytes),
        }
    }
}

/// What the server used over a whole run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerUse {
    /// Its version, as it says itself.
    pub version: Option<String>,
    /// Resident memory before the users were created.
    pub rss_bytes_first: Option<u64>,
    /// The most.
    pub rss_bytes_max: Option<u64>,
    /// Processor time since the run began, seconds, over all its processes when it was started again.
    pub cpu_s: Option<f64>,
    /// The most descriptors.
    pub fds_max: Option<u64>,
    /// The deepest inbox of the actors that all users share.
    pub inbox_depth_max: Option<u64>,
    /// The most messages in mailboxes.
    pub mailbox_messages_max: Option<u64>,
    /// The most bytes of journal and database on disk.
    pub disk_bytes_max: Option<u64>,
}

#[derive(Debug)]
struct Shared {
    pid: AtomicU32,
    ended: AtomicBool,
    look: Mutex<ServerLook>,
    used: Mutex<ServerUse>,
}

/// Looks at a server until it is dropped.
#[derive(Debug)]
pub struct Probe {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Probe {
    /// Looks at the server behind this admin API, and at its process when `pid` is on this machine.
    pub fn start(admin: Admin, pid: Option<u32>) -> Self {
        let shared = Arc::new(Shared {
            pid: AtomicU32::new(pid.unwrap_or(0)),
            ended: AtomicBool::new(false),
            look: Mutex::default(),
            used: Mutex::default(),
        });
        let of_thread = Arc::clone(&shared);
        let looking = move || Looking::new(admin).run(&of_thread);
        // Without the thread there are no figures of the server, and the run goes on.
        let thread = thread::Builder::new().name("probe".to_owned());
        Self {
            shared,
            thread: thread.spawn(looking).ok(),
        }
    }

    /// The server is this process from now on: it was started, or started again.
    pub fn watch_server(&self, pid: u32) {
        self.shared.pid.store(pid, Ordering::Relaxed);
    }

    /// What was seen last.
    pub fn look(&self) -> ServerLook {
        let look = self.shared.look.lock();
        look.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Processor time counts from now on: creating users is not what is measured.
    pub fn begin(&self) {
        let used = self.shared.used.lock();
        used.unwrap_or_else(PoisonError::into_inner).cpu_s = None;
    }

    /// What it used since the probe was started, processor time since the run began.
    pub fn used(&self) -> ServerUse {
        let used = self.shared.used.lock();
        used.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has no way to panic that would matter here.
            let _ = thread.join();
        }
    }
}

struct Looking {
    admin: Admin,
    agent: ureq::Agent,
    turn: u32,
    /// Process (0: the one that `/metrics` tells of), time and processor time of the last look at it.
    last: Option<(u32, Instant, f64)>,
    look: ServerLook,
}

impl Looking {
    fn new(admin: Admin) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(ANSWER_WITHIN));
        Self {
            admin,
            agent: config.build().new_agent(),
            turn: 0,
            last: None,
            look: ServerLook::default(),
        }
    }

    fn run(mut self, shared: &Shared) {
        let mut next = Instant::now();
        while !shared.ended.load(Ordering::Relaxed) {
            if Instant::now() < next {
                thread::sleep(STEP);
                continue;
            }
            next = Instant::now() + EVERY;
            let cpu_s = self.process(shared.pid.load(Ordering::Relaxed));
            let version = self.node();
            if self.turn.is_multiple_of(SELDOM) {
                self.actors();
            }
            self.turn += 1;
            {
                let mut used = shared.used.lock().unwrap_or_else(PoisonError::into_inner);
                let look = &self.look;
                used.version = version.or(used.version.take());
                used.rss_bytes_first = used.rss_bytes_first.or(look.rss_bytes);
                used.rss_bytes_max = used.rss_bytes_max.max(look.rss_bytes);
                used.cpu_s = cpu_s.map(|s| s + used.cpu_s.unwrap_or(0.0)).or(used.cpu_s);
                used.fds_max = used.fds_max.max(look.fds);
                used.inbox_depth_max = used.inbox_depth_max.max(look.inbox_depth_max);
                used.mailbox_messages_max = used.mailbox_messages_max.max(look.mailbox_messages);
                used.disk_bytes_max = used.disk_bytes_max.max(look.disk_bytes);
            }
            let mut look = shared.look.lock().unwrap_or_else(PoisonError::into_inner);
            look.clone_from(&self.look);
        }
    }

    /// What the process uses; the processor time since the last look.
    fn process(&mut self, pid: u32) -> Option<f64> {
        let read = match pid {
            0 if !self.turn.is_multiple_of(SELDOM) => return None,
            0 => self.metrics(),
            pid => process::usage(pid).map(|usage| {
                self.look.rss_bytes = Some(usage.rss_bytes);
                self.look.threads = Some(usage.threads);
                self.look.fds = usage.fds;
                usage.cpu_s
            }),
        };
        let Some(cpu_s) = read else {
            // It is gone, or does not answer.
            self.look = ServerLook::default();
            self.last = None;
            return None;
        };
        let now = Instant::now();
        let (last_pid, at, before_s) = self.last.replace((pid, now, cpu_s))?;
        if last_pid != pid || cpu_s < before_s {
            return None;
        }
        let spent_s = cpu_s - before_s;
        self.look.cpu_share = Some(spent_s / (now - at).as_secs_f64().max(1e-3));
        Some(spent_s)
    }

    fn metrics(&mut self) -> Option<f64> {
        let url = self.admin.base.replace("/admin/v1", "/metrics");
        let mut answer = self.agent.get(url).call().ok()?;
        let text = answer.body_mut().read_to_string().ok()?;
        let value = |name: &str| metric(&text, name);
        self.look.rss_bytes = value("process_resident_memory_bytes").map(|bytes| bytes as u64);
        self.look.fds = value("process_open_fds").map(|fds| fds as u64);
        value("process_cpu_seconds_total")
    }

    fn get(&self, path: &str) -> Option<Value> {
        let url = format!("{}{path}", self.admin.base);
        let request = self.agent.get(url);
        let answer = request.header("Authorization", &self.admin.bearer).call();
        answer.ok()?.body_mut().read_json().ok()
    }

    /// What waits in the store; the version.
    fn node(&mut self) -> Option<String> {
        let node = self.get("/node");
        let of = |key: &str| node.as_ref()?["store"][key].as_u64();
        self.look.commits_queued = of("queued");
        self.look.mailbox_messages = of("messages");
        let disk = [of("journal_bytes"), of("sled_bytes")];
        self.look.disk_bytes = disk.into_iter().flatten().reduce(|a, b| a + b);
        Some(node.as_ref()?["version"].as_str()?.to_owned())
    }

    fn actors(&mut self) {
        let page = self.get(&format!("/actors?limit={ACTORS}"));
        let actors = page.as_ref().and_then(|page| page["actors"].as_array());
        let shared = actors.into_iter().flatten();
        let deepest = shared
            .filter(|actor| actor["kind"] != "session")
            .filter_map(|actor| Some((actor["depth"].as_u64()?, actor["name"].as_str()?)))
            .max_by_key(|(depth, _)| *depth);
        self.look.inbox_depth_max = deepest.map(|(depth, _)| depth);
        self.look.inbox_deepest = deepest.map(|(_, name)| name.to_owned());
    }
}

/// The value of a metric without labels.
fn metric(text: &str, name: &str) -> Option<f64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_by_their_whole_name() {
        let text = "# HELP process_open_fds x\nprocess_open_fds_max 9\nprocess_open_fds 5\n";
        assert_eq!(metric(text, "process_open_fds"), Some(5.0));
        assert_eq!(metric(text, "process_open"), None);
    }

    /// Nobody answers, and that holds nothing up.
    #[test]
    fn a_server_that_is_not_there_is_no_error() {
        let admin = Admin {
            base: "http://127.0.0.1:1/admin/v1".to_owned(),
            bearer: "Bearer x".to_owned(),
        };
        let probe = Probe::start(admin, Some(std::process::id()));
        let until = Instant::now() + Duration::from_secs(20);
        while probe.look().rss_bytes.is_none() {
            assert!(Instant::now() < until, "this process was not looked at");
            thread::sleep(STEP);
        }
        assert_eq!(probe.look().mailbox_messages, None);
        assert!(probe.used().rss_bytes_max.is_some());
        // A process that is not there any more uses nothing.
        probe.watch_server(u32::MAX);
        while probe.look().rss_bytes.is_some() {
            assert!(Instant::now() < until, "it is still looked at");
            thread::sleep(STEP);
        }
    }
}
