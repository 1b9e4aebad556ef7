//! A model of a well-behaved client, as strict as the protocol asks, and a few
//! that are not: greedy, impatient, lying.

use std::collections::VecDeque;

use stonechat_protocol::{ErrorCode, MessageId, Seq};

use super::coverage::Case;
use super::plan::DEVICES_MAX;
use super::types::{Conn, Dev, Down, Msg, Stage, Up, index_of, message_id};
use super::world::World;
use crate::Coalescer;

/// Messages a schedule may create.
const MESSAGES_MAX: usize = 300;

/// One device: its application's state survives everything.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) dev: Dev,
    pub(super) conn: Option<usize>,
    pub(super) stuck: bool,
    /// Had more unanswered than the protocol allows.
    beyond_bound: bool,
    skew_ms: u64,
    clock_ms: u64,
    /// Sends without an answer, in order.
    pub(super) unanswered: VecDeque<usize>,
    last_accepted: Option<usize>,
    /// Greatest `seq` handed to the application.
    pub(super) handled: Seq,
    /// What arrived last and has to be acknowledged. After a redelivery that may be less than
    /// `handled`: the simplest client knows no better.
    owes_ack: Option<Seq>,
    /// Last message handled, by sending device.
    pub(super) last_from: Vec<Option<usize>>,
    /// What the user looks at next, by sender, and what was read last.
    to_read: Vec<Option<usize>>,
    last_read: Vec<Option<usize>>,
    pub(super) rev: u64,
    /// Places of the watermarks last heard of, by peer.
    pub(super) marks: Vec<(Seq, Seq)>,
    /// Truth: what had left the mailbox before this device was first welcomed.
    pub(super) not_due: Option<Vec<Seq>>,
    /// Truth: what was sent to this device.
    pub(super) sent_before: Vec<Seq>,
}

impl Client {
    pub(super) fn new(dev: Dev, users: usize, skew_ms: u64) -> Self {
        Self {
            dev,
            conn: None,
            stuck: false,
            beyond_bound: false,
            skew_ms,
            clock_ms: 0,
            unanswered: VecDeque::new(),
            last_accepted: None,
            handled: 0,
            owes_ack: None,
            last_from: vec![None; users * DEVICES_MAX],
            to_read: vec![None; users],
            last_read: vec![None; users],
            rev: 0,
            marks: vec![(0, 0); users],
            not_due: None,
            sent_before: Vec::new(),
        }
    }
}

impl World {
    pub(super) fn client_step(&mut self, c: usize) {
        let Some(ix) = self.clients[c].conn else {
            if self.rng.chance(self.plan.connect) {
                self.connect(c);
            }
            return;
        };
        if self.clients[c].stuck {
            return;
        }
        if self.rng.chance(self.plan.leave) {
            self.conns[ix].cut = true;
        }
        let frames = self.rng.range(0, 4);
        if frames == 0 && !self.conns[ix].down.is_empty() {
            self.hit(Case::ClientSlow);
        }
        for _ in 0..frames {
            if !self.client_reads(c, ix) {
                break;
            }
        }
        if self.clients[c].conn.is_none() {
            return;
        }
        match self.rng.below(10) {
            0..4 => self.send_some(c, ix),
            4..8 if !self.rng.chance(self.plan.ack_delay) => self.ack_now(c, ix),
            8 => self.read_some(c, ix),
            9 => self.misbehave(c, ix),
            _ => {}
        }
    }

    /// In the last phase: take everything, acknowledge everything. `false`: nothing to do.
    pub(super) fn client_calm_step(&mut self, c: usize) -> bool {
        let Some(ix) = self.clients[c].conn else {
            self.connect(c);
            return true;
        };
        if self.client_reads(c, ix) {
            return true;
        }
        let before = self.conns[ix].up.len();
        if self.clients[c].conn.is_some() {
            self.ack_now(c, ix);
            self.read_some(c, ix);
        }
        self.conns[ix].up.len() != before
    }

    fn connect(&mut self, c: usize) {
        if self.plan.forgetful && !self.calm && self.rng.chance(500) {
            self.clients[c].unanswered.clear();
        }
        let client = &self.clients[c];
        let (dev, handled, rev) = (client.dev, client.handled, client.rev);
        let ack = (handled > 0 && self.rng.chance(500)).then_some(handled);
        let rev = self.rng.chance(700).then_some(rev);
        let mut up = VecDeque::from([Up::Hello { ack, rev }]);
        // First what is unanswered, in order, before anything new.
        for msg in client.unanswered.iter().copied() {
            self.msgs[msg].sends += 1;
            up.push_back(Up::Send { msg });
        }
        for (from, read) in client.last_read.iter().enumerate() {
            if let Some(msg) = read {
                let id = self.msgs[*msg].id;
                up.push_back(Up::Read { from, id });
            }
        }
        let coalescer = Coalescer::new(self.plan.linger_ms, self.plan.conversations_max);
        let ix = self.conns.len();
        self.note(|| format!("client {dev:?} opens connection {ix} with {up:?}"));
        self.conns.push(Conn {
            dev,
            up,
            down: VecDeque::new(),
            cut: false,
            stage: Stage::New,
            feed: None,
            read: None,
            coalescer,
            unanswered: 0,
            receipts_may_repeat: false,
            outstanding: VecDeque::new(),
        });
        self.clients[c].conn = Some(ix);
    }

    /// Takes a frame. `false`: there was none.
    fn client_reads(&mut self, c: usize, ix: usize) -> bool {
        let Some(frame) = self.conns[ix].down.pop_front() else {
            if self.conns[ix].cut {
                self.clients[c].conn = None;
            }
            return self.conns[ix].cut;
        };
        let dev = self.clients[c].dev;
        self.note(|| format!("client {dev:?} takes {frame:?}"));
        match frame {
            Down::Accepted { id, duplicate } => self.client_accepted(c, index_of(id), duplicate),
            Down::Error { code, id } => self.client_refused(c, code, id),
            Down::Message { seq: 0, .. } => {}
            Down::Message {
                seq,
                msg,
                redelivered,
            } => self.client_message(c, seq, msg, redelivered),
            Down::Receipt { with, rev, marks } => self.client_receipt(c, ix, with, rev, marks),
        }
        true
    }

    fn client_accepted(&mut self, c: usize, msg: usize, duplicate: bool) {
        self.msgs[msg].accepted = true;
        if duplicate && self.msgs[msg].sends == 1 {
            self.violated("D3", || {
                format!("message {msg} is called a duplicate, but was sent once")
            });
        }
        let strict = !self.plan.impatient && !self.plan.greedy;
        let client = &mut self.clients[c];
        client.last_accepted = Some(msg);
        let at = client.unanswered.iter().position(|waiting| *waiting == msg);
        if let Some(at) = at {
            client.unanswered.remove(at);
        }
        if self.msgs[msg].ephemeral {
            return;
        }
        if strict && at.is_some_and(|at| at > 0) {
            self.violated("D3", || {
                format!("message {msg} is answered before earlier sends")
            });
        }
        if self.msgs[msg].refused && !self.msgs[msg].asked_twice {
            self.violated("D3", || format!("message {msg} was refused, then accepted"));
        }
    }

    fn client_refused(&mut self, c: usize, code: ErrorCode, id: Option<MessageId>) {
        if matches!(code, ErrorCode::BadAck | ErrorCode::UnknownMessage) {
            if code == ErrorCode::BadAck && !self.plan.liar {
                self.violated("D4", || "an honest acknowledgement was refused".to_owned());
            }
            return;
        }
        let Some(msg) = id.map(index_of) else { return };
        if code == ErrorCode::TooManyUnanswered && self.msgs[msg].asked_twice {
            // A repeat counts as well: more than the protocol allows were unanswered, and what
            // this client now thinks of the first is wrong.
            self.clients[c].beyond_bound = true;
        }
        self.clients[c].unanswered.retain(|waiting| *waiting != msg);
        self.msgs[msg].refused = true;
        // A connection the client gave up long ago may reach the server after the present one.
        // What was accepted is recognised then, too; a refusal does not bind that far.
        let asks = |frame: &Up| matches!(frame, Up::Send { msg: asked } if *asked == msg);
        if self.conns.iter().any(|conn| conn.up.iter().any(asks)) {
            self.msgs[msg].asked_twice = true;
        }
        let beyond = self.plan.greedy || self.plan.forgetful || self.clients[c].beyond_bound;
        let excused = beyond || self.msgs[msg].asked_twice;
        if self.msgs[msg].durable && !excused {
            self.violated("D3", || {
                format!("message {msg} is stored, its sender hears {code}")
            });
        }
    }

    fn client_message(&mut self, c: usize, seq: Seq, msg: usize, redelivered: bool) {
        self.clients[c].owes_ack = Some(seq);
        let dev = self.clients[c].dev;
        if seq <= self.clients[c].handled {
            self.hit(Case::ClientDroppedRepeat);
            let side = self.msgs[msg].side(dev.user);
            let known = self.msgs[msg].handled[side] & (1 << dev.dev) != 0;
            if !redelivered {
                self.violated("D3", || format!("{dev:?} gets {seq} again, unmarked"));
            } else if !known && !self.msgs[msg].expired[side] {
                self.violated("D2", || format!("{dev:?} gets {seq} after later ones"));
            }
            return;
        }
        self.check_handled(c, seq, msg);
        let client = &mut self.clients[c];
        client.handled = seq;
        let from = self.msgs[msg].from;
        if from.user != dev.user {
            // Some of what arrives is looked at, not everything.
            if self.calm || client.to_read[from.user].is_none() || seq.is_multiple_of(3) {
                client.to_read[from.user] = Some(msg);
            }
        }
    }

    fn ack_now(&mut self, c: usize, ix: usize) {
        let client = &mut self.clients[c];
        if let Some(seq) = client.owes_ack.take() {
            let rev = (client.rev > 0).then_some(client.rev);
            self.conns[ix].up.push_back(Up::Ack { seq, rev });
        }
    }

    fn read_some(&mut self, c: usize, ix: usize) {
        for from in 0..self.plan.users {
            let client = &mut self.clients[c];
            if let Some(msg) = client.to_read[from].take() {
                client.last_read[from] = Some(msg);
                self.msgs[msg].read = true;
                let id = self.msgs[msg].id;
                self.conns[ix].up.push_back(Up::Read { from, id });
            }
        }
    }

    fn send_some(&mut self, c: usize, ix: usize) {
        let max = if self.plan.greedy {
            70
        } else {
            self.plan.unanswered_max
        };
        for _ in 0..self.rng.range(1, self.plan.burst_max) {
            if self.clients[c].unanswered.len() >= max || self.msgs.len() >= MESSAGES_MAX {
                return;
            }
            let msg = self.compose(c);
            if !self.msgs[msg].ephemeral {
                self.clients[c].unanswered.push_back(msg);
            }
            self.conns[ix].up.push_back(Up::Send { msg });
        }
    }

    fn compose(&mut self, c: usize) -> usize {
        let index = self.msgs.len();
        let to = match self.rng.below(100) {
            0 => None,
            _ => Some(self.rng.below(self.plan.users)),
        };
        let size = self.rng.pick(&[1, 1, 5, 20]);
        let ttl_ms = if self.rng.chance(self.plan.short_ttl) {
            1000
        } else {
            // The second is more than the server allows.
            self.rng.pick(&[3_600_000, 7_200_000])
        };
        let ephemeral = self.rng.chance(self.plan.ephemeral);
        let poison = self.rng.chance(self.plan.poison);
        let client = &mut self.clients[c];
        client.clock_ms = client.clock_ms.max(self.now_ms + client.skew_ms);
        self.msgs.push(Msg {
            id: message_id(client.clock_ms, index),
            from: client.dev,
            to,
            size,
            ttl_ms,
            ephemeral,
            poison,
            ts_ms: 0,
            expires_ms: u64::MAX,
            places: [0; 2],
            durable: false,
            accepted: false,
            refused: false,
            sends: 1,
            asked_twice: false,
            answered_first: false,
            expired: [false; 2],
            dead: [false; 2],
            handled: [0; 2],
            read: false,
        });
        index
    }

    /// What no good client does, and no server may be hurt by.
    fn misbehave(&mut self, c: usize, ix: usize) {
        if self.plan.impatient {
            let unanswered = &self.clients[c].unanswered;
            let count = unanswered.len();
            let again = match self.rng.below(count + 1) {
                0 => self.clients[c].last_accepted,
                nth => self.clients[c].unanswered.get(nth - 1).copied(),
            };
            if let Some(msg) = again {
                self.msgs[msg].sends += 1;
                self.msgs[msg].asked_twice = true;
                self.conns[ix].up.push_back(Up::Send { msg });
            }
        }
        if self.plan.liar {
            let seq = self.clients[c].handled + 1000;
            self.conns[ix].up.push_back(Up::Ack { seq, rev: None });
            let from = self.rng.below(self.plan.users);
            let id = message_id(1 << 40, (1 << 32) - 1);
            self.conns[ix].up.push_back(Up::Read { from, id });
        }
    }
}
