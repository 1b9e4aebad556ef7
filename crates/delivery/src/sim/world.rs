//! The simulated world and its scheduler: what may happen next, and with what
//! odds.

use std::collections::VecDeque;

use stonechat_protocol::{Seq, UserId};

use super::client::Client;
use super::coverage::{Case, Coverage};
use super::plan::{DEVICES_MAX, Plan};
use super::rng::Rng;
use super::server::Session;
use super::store::{Delivered, Store};
use super::types::{Append, Conn, Dev, Msg};
use super::{Sabotage, Violation};
use crate::{Attempts, Watermarks};

/// Trace lines kept for a report.
const TRACE_LINES_MAX: usize = 400;
/// Rounds the last phase may take before it counts as stuck.
const SETTLE_ROUNDS_MAX: usize = 3000;

/// A changed watermark that is told when the journal is synced beyond `lsn`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tell {
    pub(super) lsn: usize,
    pub(super) with: usize,
    pub(super) rev: u64,
    pub(super) marks: Watermarks,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    pub(super) sabotage: Option<Sabotage>,
    pub(super) coverage: Coverage,
    pub(super) now_ms: u64,
    pub(super) msgs: Vec<Msg>,
    pub(super) names: Vec<UserId>,
    pub(super) store: Store,
    pub(super) shards: [VecDeque<Append>; 2],
    /// Sends handed on and sends decided, by user: the difference is what a barrier waits for.
    pub(super) submitted: Vec<u64>,
    pub(super) resolved: Vec<u64>,
    pub(super) sessions: Vec<Option<Session>>,
    pub(super) session_number: u64,
    pub(super) attempts: Vec<Attempts<Seq>>,
    pub(super) tasks: Vec<Delivered>,
    pub(super) tells: Vec<VecDeque<Tell>>,
    pub(super) conns: Vec<Conn>,
    pub(super) clients: Vec<Client>,
    /// The truth: what is durable in each mailbox, in order.
    pub(super) history: Vec<Vec<(Seq, usize)>>,
    /// A crash or panic happened: `redelivered` may be said too often.
    pub(super) disturbed: bool,
    pub(super) clock_went_back: bool,
    /// The last phase: no more faults, no new messages.
    pub(super) calm: bool,
    pub(super) violation: Option<Violation>,
    pub(super) trace: Option<VecDeque<String>>,
}

impl World {
    pub(super) fn new(seed: u64, sabotage: Option<Sabotage>, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng);
        let users = plan.users;
        let mut clients = Vec::new();
        for user in 0..users {
            for dev in 0..plan.devices[user] {
                let skew = rng.below(plan.skew_ms as usize + 1) as u64;
                clients.push(Client::new(Dev { user, dev }, users, skew));
            }
        }
        let name = |user: usize| UserId::new(["a", "b", "c", "d", "e"][user]);
        Self {
            names: (0..users).filter_map(|user| name(user).ok()).collect(),
            store: Store::new(users),
            shards: Default::default(),
            submitted: vec![0; users],
            resolved: vec![0; users],
            sessions: (0..users).map(|_| None).collect(),
            session_number: 0,
            attempts: (0..users).map(|_| Attempts::default()).collect(),
            tasks: Vec::new(),
            tells: vec![VecDeque::new(); users],
            conns: Vec::new(),
            clients,
            history: vec![Vec::new(); users],
            disturbed: false,
            clock_went_back: false,
            calm: false,
            violation: None,
            trace: trace.then(VecDeque::new),
            coverage: Coverage::default(),
            now_ms: 1_000_000,
            msgs: Vec::new(),
            plan,
            rng,
            sabotage,
        }
    }

    pub(super) fn hit(&mut self, case: Case) {
        self.coverage.hit(case);
    }

    pub(super) fn sabotaged(&self, how: Sabotage) -> bool {
        self.sabotage == Some(how)
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE_LINES_MAX {
                trace.pop_front();
            }
            trace.push_back(format!("{:>4} {}", self.coverage.steps, line()));
        }
    }

    /// A promise was broken. The first one counts.
    pub(super) fn violated(&mut self, rule: &'static str, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let what = what();
            self.note(|| format!("VIOLATED {rule}: {what}"));
            self.violation = Some(Violation { rule, what });
        }
    }

    /// Runs the schedule to its end or to the first violation.
    pub(super) fn run(&mut self) {
        for _ in 0..self.plan.steps {
            self.coverage.steps += 1;
            self.step();
            if self.violation.is_some() {
                return;
            }
        }
        self.calm = true;
        self.note(|| "--- calm".to_owned());
        for client in &mut self.clients {
            client.stuck = false;
        }
        for round in 0..2 {
            // The second time everybody connects anew: an acknowledgement that was lost inside
            // the server is found out by redelivery.
            if round > 0 {
                self.reconnect_everybody();
            }
            self.settle();
            if self.violation.is_some() {
                return;
            }
            self.note(|| format!("--- settled {round}"));
        }
        self.check_end();
        self.coverage.schedules += 1;
        self.coverage.accepted += self.msgs.iter().filter(|msg| msg.accepted).count() as u64;
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..22 => {
                let client = self.rng.below(self.clients.len());
                self.client_step(client);
            }
            22..44 => self.some_conn(Self::server_read),
            44..52 => {
                let shard = self.rng.below(self.shards.len());
                self.some_times(|world| world.shard_step(shard));
            }
            52..58 => self.write_step(),
            58..66 => {
                self.sync_step();
            }
            66..80 => {
                let user = self.rng.below(self.plan.users);
                self.some_times(|world| world.session_step(user));
            }
            80..88 => self.some_conn(Self::read_step),
            88..92 => self.some_times(Self::task_step),
            92..95 => {
                self.tick();
                self.some_conn(Self::flush_if_due);
            }
            _ => self.fault_step(),
        }
    }

    fn some_times(&mut self, mut act: impl FnMut(&mut Self) -> bool) {
        for _ in 0..self.rng.range(1, 4) {
            if !act(self) || self.violation.is_some() {
                return;
            }
        }
    }

    /// Lets something happen to a connection: that of a client, or one of those before, with
    /// which the server may not be done yet.
    fn some_conn(&mut self, act: impl Fn(&mut Self, usize) -> bool) {
        let client = self.rng.below(self.clients.len());
        let recent = self.conns.len().min(self.clients.len() * 2);
        if recent == 0 {
            return;
        }
        let old = self.conns.len() - 1 - self.rng.below(recent);
        let at = match self.clients[client].conn {
            Some(at) if !self.rng.chance(200) => at,
            _ => old,
        };
        self.some_times(|world| act(world, at));
    }

    fn tick(&mut self) {
        self.now_ms += self.rng.range(1, 60) as u64;
    }

    fn reconnect_everybody(&mut self) {
        for client in 0..self.clients.len() {
            if let Some(conn) = self.clients[client].conn {
                self.conns[conn].cut = true;
            }
        }
    }

    /// Lets everything take its course until nothing moves any more.
    fn settle(&mut self) {
        for _ in 0..SETTLE_ROUNDS_MAX {
            self.coverage.steps += 1;
            let mut moved = false;
            for client in 0..self.clients.len() {
                while self.client_calm_step(client) && self.violation.is_none() {
                    moved = true;
                }
            }
            for conn in 0..self.conns.len() {
                while self.violation.is_none() && self.server_read(conn) {
                    moved = true;
                }
                moved |= self.read_step(conn);
            }
            for shard in 0..self.shards.len() {
                while self.shard_step(shard) {
                    moved = true;
                }
            }
            while !self.store.pending.is_empty() {
                self.write_step();
                moved = true;
            }
            moved |= self.sync_step();
            while self.violation.is_none() && self.task_step() {
                moved = true;
            }
            for user in 0..self.plan.users {
                while self.violation.is_none() && self.session_step(user) {
                    moved = true;
                }
            }
            self.now_ms += 60;
            for conn in 0..self.conns.len() {
                moved |= self.flush_if_due(conn);
            }
            if !moved || self.violation.is_some() {
                return;
            }
        }
        self.violated("liveness", || "the system does not come to rest".to_owned());
    }

    pub(super) fn client_of(&mut self, dev: Dev) -> &mut Client {
        let before: usize = self.plan.devices[..dev.user].iter().sum();
        &mut self.clients[before + dev.dev]
    }

    pub(super) fn conns_of(&self, user: usize) -> [Option<usize>; DEVICES_MAX] {
        self.sessions[user]
            .as_ref()
            .map_or([None; DEVICES_MAX], |session| session.conns)
    }
}
