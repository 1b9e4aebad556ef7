//! The simulated server's sessions: thin wiring around the machines, as the
//! broker's actors are.

use std::collections::VecDeque;

use stonechat_protocol::Seq;

use super::Sabotage;
use super::coverage::Case;
use super::plan::DEVICES_MAX;
use super::transitions::{FeedEvent, OutboundEvent};
use super::types::{Note, Stage, Up};
use super::world::World;
use crate::{Feed, FeedLimits, FeedStart, Outbound, RateLimits, TokenBucket};

/// One connected user's actor.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) outbounds: [Option<Outbound>; DEVICES_MAX],
    pub(super) conns: [Option<usize>; DEVICES_MAX],
    /// Tells its own sends from those of the session before it.
    pub(super) number: u64,
    /// Windows may be loaded when so many of the user's sends are decided.
    pub(super) barrier: u64,
    pub(super) inbox: VecDeque<Note>,
    pub(super) bucket: TokenBucket,
    /// When the bucket was last asked.
    pub(super) bucket_ms: u64,
    /// A notification found the inbox full, or a read failed.
    pub(super) missed: bool,
}

impl World {
    pub(super) fn rate_limits(&self) -> RateLimits {
        RateLimits {
            messages_per_s: if self.calm {
                1_000_000
            } else {
                self.plan.messages_per_s
            },
            messages_burst: self.plan.messages_per_s,
            bytes_per_s: if self.calm {
                1_000_000
            } else {
                self.plan.bytes_per_s
            },
            bytes_burst: self.plan.bytes_per_s,
        }
    }

    pub(super) fn new_session(&mut self, user: usize) -> Session {
        self.session_number += 1;
        Session {
            number: self.session_number,
            outbounds: [None, None, None],
            conns: [None; DEVICES_MAX],
            barrier: self.submitted[user],
            inbox: VecDeque::new(),
            bucket: TokenBucket::new(&self.rate_limits(), self.now_ms),
            bucket_ms: self.now_ms,
            missed: false,
        }
    }

    /// Takes one frame of a connection. `false`: nothing to do.
    pub(super) fn server_read(&mut self, ix: usize) -> bool {
        let conn = &mut self.conns[ix];
        match conn.stage {
            Stage::New => match conn.up.pop_front() {
                Some(Up::Hello { ack, rev }) => {
                    self.on_hello(ix, ack, rev);
                    true
                }
                _ if conn.cut => {
                    conn.stage = Stage::Closed;
                    true
                }
                _ => false,
            },
            Stage::Attaching { .. } if conn.cut && conn.up.is_empty() => {
                self.close(ix);
                true
            }
            Stage::Attaching { .. } | Stage::Closed => false,
            Stage::Attached => self.read_frame(ix),
        }
    }

    fn read_frame(&mut self, ix: usize) -> bool {
        let user = self.conns[ix].dev.user;
        let frame = match self.conns[ix].up.front() {
            None if self.conns[ix].cut => {
                self.close(ix);
                return true;
            }
            None => return false,
            Some(Up::Send { msg }) if !self.msgs[*msg].ephemeral && !self.may_load(user) => {
                self.hit(Case::BarrierWaited);
                return false;
            }
            Some(_) => self.conns[ix].up.pop_front(),
        };
        self.note(|| format!("server takes {frame:?} of connection {ix}"));
        if !self.calm && self.rng.chance(self.plan.session_panic) {
            self.session_panics(user, Some(ix));
            return true;
        }
        match frame {
            Some(Up::Send { msg }) => self.on_send(ix, msg),
            Some(Up::Ack { seq, rev }) => {
                if let Some(rev) = rev {
                    self.on_receipts_seen(ix, rev);
                }
                self.on_ack(ix, seq);
            }
            Some(Up::Read { from, id }) => self.on_read(ix, from, id),
            Some(Up::Hello { .. }) | None => {}
        }
        true
    }

    /// Everything this user's earlier session handed on is decided.
    fn may_load(&self, user: usize) -> bool {
        self.sabotaged(Sabotage::NoBarrier)
            || self.sessions[user]
                .as_ref()
                .is_some_and(|session| self.resolved[user] >= session.barrier)
    }

    fn on_hello(&mut self, ix: usize, ack: Option<Seq>, rev: Option<u64>) {
        let dev = self.conns[ix].dev;
        if self.sessions[dev.user].is_none() {
            let session = self.new_session(dev.user);
            self.sessions[dev.user] = Some(session);
        }
        if let Some(old) = self.conns_of(dev.user)[dev.dev] {
            self.hit(Case::ConnectionReplaced);
            self.close(old);
        }
        if let Some(session) = &mut self.sessions[dev.user] {
            session.conns[dev.dev] = Some(ix);
        }
        if !self.store.row(dev).registered && self.store.mailboxes[dev.user].last_seq > 0 {
            self.hit(Case::LateDevice);
        }
        let lsn = self.store.attach(dev);
        self.conns[ix].stage = Stage::Attaching { lsn, ack, rev };
        self.note(|| format!("connection {ix} attaches {dev:?}, journal {lsn}"));
    }

    /// Makes the feed of a connection whose registration is durable.
    fn on_attached(&mut self, ix: usize, ack: Option<Seq>, rev: Option<u64>) {
        let dev = self.conns[ix].dev;
        self.welcome_truth(dev);
        let sent = self.store.row(dev).sent;
        self.make_feed(ix, sent);
        self.conns[ix].receipts_may_repeat = rev.is_none();
        if let Some(seq) = ack {
            self.hit(Case::AckWithHello);
            self.on_ack(ix, seq);
        }
        self.tell_since(ix, rev);
        self.start_feed(ix);
    }

    pub(super) fn make_feed(&mut self, ix: usize, sent: Seq) {
        let dev = self.conns[ix].dev;
        let last_seq = self.store.mailboxes[dev.user].last_seq;
        let mut cursor = self.store.row(dev).cursor;
        if self.sabotaged(Sabotage::NoRedelivery) {
            cursor = cursor.max(sent);
        }
        if last_seq <= cursor {
            self.hit(Case::FeedStartCaughtUp);
        }
        // Not to know the end must do as well.
        let unsure = self.rng.chance(200);
        if unsure {
            self.hit(Case::FeedStartUnsure);
        }
        let start = FeedStart {
            cursor,
            sent,
            last_seq: if unsure { Seq::MAX } else { last_seq },
        };
        let limits = FeedLimits {
            window_messages_max: self.plan.window_messages_max,
            window_bytes_max: self.plan.window_bytes_max,
        };
        let conn = &mut self.conns[ix];
        conn.stage = Stage::Attached;
        conn.feed = Some(Feed::new(start, limits));
        conn.read = None;
        conn.outstanding.clear();
        self.note(|| format!("connection {ix} feeds {dev:?} from {start:?}"));
    }

    pub(super) fn start_feed(&mut self, ix: usize) {
        self.feed_hears(ix, FeedEvent::Start);
        if let Some(feed) = &mut self.conns[ix].feed {
            let effects = feed.start();
            self.carry_out(ix, &effects);
        }
    }

    /// The server is done with a connection.
    pub(super) fn close(&mut self, ix: usize) {
        let dev = self.conns[ix].dev;
        let conn = &mut self.conns[ix];
        conn.stage = Stage::Closed;
        conn.cut = true;
        conn.up.clear();
        conn.read = None;
        if let Some(feed) = conn.feed.take() {
            let sent = feed.sent();
            self.store.detach(dev, sent);
            self.note(|| format!("connection {ix} of {dev:?} is closed, sent {sent}"));
        }
        if let Some(session) = &mut self.sessions[dev.user]
            && session.conns[dev.dev] == Some(ix)
        {
            session.conns[dev.dev] = None;
            if let Some(outbound) = &mut session.outbounds[dev.dev] {
                let state = outbound.state();
                outbound.disconnected();
                self.coverage
                    .transitions
                    .outbound(state, OutboundEvent::Disconnected);
            }
        }
    }

    /// Completes an attach, handles a note or looks for what was missed. `false`: nothing to do.
    pub(super) fn session_step(&mut self, user: usize) -> bool {
        for ix in self.conns_of(user).into_iter().flatten() {
            if let Stage::Attaching { lsn, ack, rev } = self.conns[ix].stage {
                if lsn < self.store.synced || self.sabotaged(Sabotage::AttachNotDurable) {
                    self.on_attached(ix, ack, rev);
                    return true;
                }
                self.hit(Case::AttachWaited);
            }
        }
        let Some(session) = &mut self.sessions[user] else {
            return false;
        };
        if let Some(note) = session.inbox.pop_front() {
            self.note(|| format!("session {user} hears {note:?}"));
            if !self.calm && self.rng.chance(self.plan.session_panic) {
                self.session_panics(user, None);
            } else {
                self.on_note(user, note);
            }
            return true;
        }
        if session.missed && (self.calm || self.rng.chance(300)) {
            if let Some(session) = &mut self.sessions[user] {
                session.missed = false;
            }
            self.nudge(user);
            return true;
        }
        false
    }

    /// Counts what a feed is about to hear, by the state it is in.
    pub(super) fn feed_hears(&mut self, ix: usize, event: FeedEvent) {
        if let Some(feed) = &self.conns[ix].feed {
            self.coverage.transitions.feed(feed.state(), event);
        }
    }

    fn nudge(&mut self, user: usize) {
        self.hit(Case::Nudge);
        let last_seq = self.store.mailboxes[user].last_seq;
        for ix in self.conns_of(user).into_iter().flatten() {
            self.feed_hears(ix, FeedEvent::Nudge);
            if let Some(feed) = &mut self.conns[ix].feed {
                let effects = feed.nudge(last_seq);
                if !self.carry_out(ix, &effects) {
                    return;
                }
            }
        }
    }

    fn on_note(&mut self, user: usize, note: Note) {
        match note {
            Note::Committed { prev, seq, msg } => self.on_committed(user, prev, seq, msg),
            Note::Accepted { msg } => {
                let ts_ms = self.msgs[msg].ts_ms;
                let event = OutboundEvent::Committed;
                self.decide(msg, event, |outbound, id| outbound.committed(id, ts_ms));
            }
            // What became of an earlier session's sends is not this one's business: the device may
            // have sent one of them anew. That one was accepted is true whoever hears it.
            Note::Refused { session, .. } | Note::Abandoned { session, .. }
                if Some(session) != self.session_now(user)
                    && !self.sabotaged(Sabotage::StaleRefusals) =>
            {
                self.hit(Case::StaleRefusal);
            }
            Note::Refused { msg, code, .. } => {
                let event = OutboundEvent::Refused;
                self.decide(msg, event, |outbound, id| outbound.refused(id, code, None));
            }
            Note::Abandoned { msg, .. } => {
                self.hit(Case::RefusedAbandoned);
                let event = OutboundEvent::Abandoned;
                self.decide(msg, event, |outbound, id| outbound.abandoned(id, Some(100)));
            }
        }
    }

    fn on_committed(&mut self, user: usize, prev: Seq, seq: Seq, msg: usize) {
        let prev = if self.sabotaged(Sabotage::PrevUnchecked) {
            0
        } else {
            prev
        };
        for ix in self.conns_of(user).into_iter().flatten() {
            let own = self.msgs[msg].from == self.conns[ix].dev;
            let size = self.msgs[msg].size;
            let event = match own {
                true => FeedEvent::CommittedOwn,
                false => FeedEvent::Committed,
            };
            self.feed_hears(ix, event);
            let Some(feed) = &mut self.conns[ix].feed else {
                continue;
            };
            let caught_up = feed.is_caught_up();
            let effects = feed.committed(prev, seq, size, own);
            let case = match effects.first() {
                Some(crate::Effect::Deliver { .. }) => Case::FeedLive,
                Some(crate::Effect::Read { .. }) if caught_up => Case::FeedGapSeen,
                _ if own => Case::FeedOwnSkipped,
                _ if caught_up && !feed.is_caught_up() => Case::FeedWindowFull,
                _ => Case::FeedRead,
            };
            self.hit(case);
            if !self.carry_out(ix, &effects) {
                return;
            }
        }
    }
}
