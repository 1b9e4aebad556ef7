//! The simulated server behind the sessions: shards, committer, reads; and
//! what goes wrong: crashes, panics, cuts, clock steps.

use stonechat_protocol::ErrorCode;

use super::Sabotage;
use super::coverage::Case;
use super::effects::receipts_state;
use super::plan::DEVICES_MAX;
use super::store::Record;
use super::transitions::{FeedEvent, ReceiptsEvent};
use super::types::{Note, Stage};
use super::world::World;
use crate::ReadItem;

impl World {
    /// A shard takes the oldest of its appends. `false`: nothing to do.
    pub(super) fn shard_step(&mut self, shard: usize) -> bool {
        let Some(mut append) = self.shards[shard].pop_front() else {
            return false;
        };
        let (msg, session) = (append.msg, append.session);
        let sender = self.msgs[msg].from.user;
        append.mailboxes = self.store.recipients(&self.msgs[msg]);
        let quota = self.plan.quota_messages;
        let full = append.mailboxes.iter().any(|mailbox| {
            let row = &self.store.mailboxes[*mailbox];
            // The sender's own copy must not keep it from writing to others.
            let own_copy = self.msgs[msg].to != Some(*mailbox);
            row.live.len() + row.queued >= quota * if own_copy { 2 } else { 1 }
        });
        let note = if !self.calm && self.rng.chance(self.plan.shard_panic) {
            self.hit(Case::ShardPanic);
            Note::Abandoned { msg, session }
        } else if self.msgs[msg].to.is_none() {
            self.hit(Case::RefusedUnknownUser);
            let code = ErrorCode::UnknownUser;
            Note::Refused { msg, code, session }
        } else if full {
            self.hit(Case::RefusedMailboxFull);
            for mailbox in &append.mailboxes {
                self.store.mailboxes[*mailbox].was_full = true;
            }
            let code = ErrorCode::MailboxFull;
            Note::Refused { msg, code, session }
        } else {
            let to_self = self.msgs[msg].to == Some(sender);
            if to_self || append.mailboxes.len() > 1 {
                self.hit(if to_self {
                    Case::ToSelf
                } else {
                    Case::CopyToOwnDevice
                });
            }
            for mailbox in &append.mailboxes {
                let row = &mut self.store.mailboxes[*mailbox];
                if std::mem::take(&mut row.was_full) {
                    self.coverage.hit(Case::MailboxFullThenRoom);
                }
                if row.live.len() + row.queued >= quota {
                    self.coverage.hit(Case::OwnCopyBeyondQuota);
                }
            }
            self.store.append(append);
            self.check_in_flight(msg);
            return true;
        };
        self.resolved[sender] += 1;
        self.tell_session(sender, note);
        true
    }

    fn tell_session(&mut self, user: usize, note: Note) {
        if let Some(session) = &mut self.sessions[user] {
            session.inbox.push_back(note);
        }
    }

    /// The committer writes a batch, or fails to.
    pub(super) fn write_step(&mut self) {
        let count = self.rng.range(1, 8);
        let fails = !self.calm && self.rng.chance(self.plan.write_failure);
        for _ in 0..count {
            let Some((append, places)) = self.store.place() else {
                return;
            };
            let (msg, session) = (append.msg, append.session);
            self.note(|| format!("journal takes message {msg} at {places:?}, failed: {fails}"));
            let sender = self.msgs[msg].from.user;
            if fails {
                self.hit(Case::WriteFailed);
                self.resolved[sender] += 1;
                self.tell_session(sender, Note::Abandoned { msg, session });
                continue;
            }
            self.store.append_record(Record::Message { msg, places });
            if self.sabotaged(Sabotage::AnswerBeforeSync) {
                self.tell_session(sender, Note::Accepted { msg });
            }
        }
    }

    /// Everything written becomes durable, and is then heard of.
    pub(super) fn sync_step(&mut self) -> bool {
        let from = self.store.synced;
        if from == self.store.log.len() {
            return false;
        }
        if !self.calm && self.rng.chance(self.plan.sync_failure) {
            self.hit(Case::SyncFailed);
            self.note(|| "the sync fails".to_owned());
            if !self.sabotaged(Sabotage::BelieveFailedSync) {
                // What is on the disk cannot be known: the server says nothing and ends.
                self.crash();
                return true;
            }
        } else {
            self.store.on_disk = self.store.log.len();
        }
        self.store.synced = self.store.log.len();
        self.note(|| format!("journal synced from {from}"));
        for lsn in from..self.store.synced {
            let Record::Message { msg, places } = &self.store.log[lsn] else {
                continue;
            };
            let (msg, places) = (*msg, places.clone());
            self.became_durable(msg, &places);
            let sender = self.msgs[msg].from.user;
            self.resolved[sender] += 1;
            for (mailbox, prev, seq) in self.store.apply_message(msg, &places, &self.msgs) {
                let Some(session) = &mut self.sessions[mailbox] else {
                    continue;
                };
                if !self.calm && self.rng.chance(self.plan.note_loss) {
                    session.missed = true;
                    self.hit(Case::NotificationLost);
                } else {
                    session.inbox.push_back(Note::Committed { prev, seq, msg });
                }
            }
            if !self.sabotaged(Sabotage::AnswerBeforeSync) {
                self.tell_session(sender, Note::Accepted { msg });
            }
        }
        self.release_tells();
        true
    }

    /// A read is carried out, or its result arrives. `false`: nothing to do.
    pub(super) fn read_step(&mut self, ix: usize) -> bool {
        let user = self.conns[ix].dev.user;
        let Some(mut read) = self.conns[ix].read.take() else {
            return false;
        };
        if !self.calm && self.rng.chance(self.plan.read_failure) {
            self.hit(Case::FeedReadFailed);
            self.feed_hears(ix, FeedEvent::ReadFailed);
            if let Some(feed) = &mut self.conns[ix].feed {
                feed.read_failed();
            }
            if let Some(session) = &mut self.sessions[user] {
                session.missed = true;
            }
            return true;
        }
        if let Some(batch) = read.batch.take() {
            self.read_arrives(ix, &batch);
            return true;
        }
        let what = (read.after, read.messages_max, read.bytes_max);
        let (mut batch, expired) = self.store.read(user, what, self.now_ms, &self.msgs);
        for (_, msg) in expired {
            self.hit(Case::ExpiredInRead);
            self.expired(user, msg);
        }
        let last_ms = |(_, msg): &(u64, usize)| self.msgs[*msg].expires_ms == self.now_ms;
        if batch.items.iter().any(last_ms) {
            self.hit(Case::ExpiryLastMillisecond);
        }
        if self.sabotaged(Sabotage::ReadClaimsEnd) {
            batch.upto = self.store.mailboxes[user].last_seq;
            batch.end = true;
        }
        if self.rng.chance(500) {
            self.read_arrives(ix, &batch);
        } else {
            read.batch = Some(batch);
            self.conns[ix].read = Some(read);
        }
        true
    }

    fn read_arrives(&mut self, ix: usize, batch: &super::types::Batch) {
        let dev = self.conns[ix].dev;
        self.feed_hears(ix, FeedEvent::ReadDone);
        if !batch.end {
            self.hit(Case::FeedReadBounded);
        }
        let items = batch.items.iter().map(|&(seq, msg)| ReadItem {
            seq,
            size: self.msgs[msg].size,
            own: self.msgs[msg].from == dev,
        });
        let Some(feed) = &mut self.conns[ix].feed else {
            return;
        };
        let effects = feed.read_done(items, batch.upto, batch.end);
        let delivered = effects
            .iter()
            .filter(|effect| matches!(effect, crate::Effect::Deliver { .. }))
            .count();
        self.hit(match (batch.items.len(), delivered) {
            (0, _) => Case::FeedReadEmpty,
            (items, delivered) if delivered < items => Case::FeedReadStale,
            _ => Case::FeedFromRead,
        });
        self.carry_out(ix, &effects);
    }

    pub(super) fn fault_step(&mut self) {
        match self.rng.below(8) {
            0 if self.rng.chance(self.plan.crash) => self.crash(),
            1 | 2 if self.rng.chance(self.plan.cut) => self.cut_some(),
            3 if self.rng.chance(self.plan.stuck) => {
                let client = self.rng.below(self.clients.len());
                self.clients[client].stuck = !self.clients[client].stuck;
                self.hit(Case::ClientStuck);
            }
            4 if self.rng.chance(self.plan.session_panic * 20) => {
                let user = self.rng.below(self.plan.users);
                self.session_panics(user, None);
            }
            5 if self.rng.chance(self.plan.session_end) => self.end_sessions(),
            6 if self.rng.chance(self.plan.clock_step) => self.step_clock(),
            7 => {
                let mailbox = self.rng.below(self.plan.users);
                self.expire(mailbox);
            }
            _ => {}
        }
    }

    /// Sessions without a connection end.
    fn end_sessions(&mut self) {
        for user in 0..self.plan.users {
            let idle = self.conns_of(user).iter().all(Option::is_none);
            if idle && self.sessions[user].take().is_some() {
                self.note(|| format!("session {user} ends"));
                self.hit(Case::SessionEnded);
            }
        }
    }

    fn expire(&mut self, mailbox: usize) {
        let last_seq = self.store.mailboxes[mailbox].last_seq;
        let mut gone = self
            .store
            .expire(mailbox, self.now_ms, last_seq, &self.msgs);
        for (_, msg) in &gone {
            self.hit(Case::ExpiredInScan);
            self.expired(mailbox, *msg);
        }
        if self.sabotaged(Sabotage::ExpireEarly)
            && gone.is_empty()
            && let Some((seq, msg)) = self.store.mailboxes[mailbox].live.front().copied()
        {
            self.store.remove(mailbox, seq);
            gone.push((seq, msg));
        }
    }

    fn step_clock(&mut self) {
        let step = self.rng.range(1, 5000) as u64;
        if self.rng.chance(500) {
            // At times beyond what any message lives.
            let hours = self.rng.chance(100);
            self.hit(if hours {
                Case::ClockForwardHours
            } else {
                Case::ClockForward
            });
            let before = self.now_ms;
            self.now_ms += if hours { 7_200_000 } else { step };
            let past = |(_, msg): &(u64, usize)| {
                let expires_ms = self.msgs[*msg].expires_ms;
                (before..self.now_ms).contains(&expires_ms)
            };
            if self
                .store
                .mailboxes
                .iter()
                .any(|row| row.live.iter().any(past))
            {
                self.hit(Case::ExpiredByClockStep);
            }
        } else {
            self.hit(Case::ClockBack);
            self.clock_went_back = true;
            self.now_ms -= step.min(self.now_ms);
        }
    }

    /// The network loses a connection: of what is under way a part still arrives.
    fn cut_some(&mut self) {
        let client = self.rng.below(self.clients.len());
        let Some(ix) = self.clients[client].conn else {
            return;
        };
        self.hit(Case::ConnectionCut);
        let up = self.rng.below(self.conns[ix].up.len() + 1);
        let down = self.rng.below(self.conns[ix].down.len() + 1);
        let conn = &mut self.conns[ix];
        conn.cut = true;
        conn.up.truncate(up);
        conn.down.truncate(down);
        self.note(|| format!("connection {ix} is cut, {up} and {down} frames arrive"));
    }

    /// What a crash leaves of the journal: everything synced, and of the rest what the disk
    /// happened to write. `false`: torn or missing.
    fn what_is_left(&mut self) -> Vec<bool> {
        let (synced, written) = (self.store.on_disk, self.store.log.len());
        let kept = self.rng.range(synced, written);
        let mut whole: Vec<bool> = (0..written).map(|lsn| lsn < kept).collect();
        if kept > synced {
            self.hit(Case::CrashKeptTail);
        }
        if kept < written {
            let torn = self.rng.chance(500);
            self.hit(if torn {
                Case::CrashTornRecord
            } else {
                Case::CrashLostTail
            });
            // Disks do not write in order.
            if self.rng.chance(300) {
                for beyond in whole.iter_mut().skip(kept + 1) {
                    *beyond = self.rng.chance(500);
                    if *beyond {
                        self.coverage.hit(Case::CrashKeptBeyondHole);
                    }
                }
            }
        }
        whole
    }

    /// The process dies. What was written and not synced survives in part.
    fn crash(&mut self) {
        self.hit(Case::Crash);
        let (synced, written) = (self.store.on_disk, self.store.log.len());
        let left = self.what_is_left();
        self.disturbed = true;
        let (before, marks) = self.store.recover(&left, &self.msgs);
        let kept = self.store.log.len();
        self.note(|| format!("crash: {kept} of {written} records kept, {synced} were synced"));
        for record in &before[kept..] {
            if let Record::Removed { mailbox, seq } = record
                && self.store.mailboxes[*mailbox].last_seq >= *seq
            {
                self.coverage.hit(Case::CrashUndidRemoval);
            }
        }
        for marks in marks {
            let state = receipts_state(marks);
            self.hit(Case::ReceiptRestored);
            self.coverage
                .transitions
                .receipts(state, ReceiptsEvent::Restored);
        }
        for lsn in 0..kept {
            if let Record::Message { msg, places } = &self.store.log[lsn] {
                let (msg, places) = (*msg, places.clone());
                if !self.msgs[msg].durable {
                    self.became_durable(msg, &places);
                }
            }
        }
        if self.sabotaged(Sabotage::SeqReused) {
            for mailbox in &mut self.store.mailboxes {
                mailbox.next_seq = mailbox.live.back().map_or(0, |(seq, _)| *seq);
            }
        }
        self.check_nothing_lost();
        self.shards = Default::default();
        self.tasks.clear();
        for user in 0..self.plan.users {
            self.sessions[user] = None;
            self.attempts[user] = Default::default();
            self.tells[user].clear();
            self.submitted[user] = 0;
            self.resolved[user] = 0;
        }
        for ix in 0..self.conns.len() {
            if self.conns[ix].stage != Stage::Closed {
                let down = self.rng.below(self.conns[ix].down.len() + 1);
                let conn = &mut self.conns[ix];
                conn.stage = Stage::Closed;
                conn.cut = true;
                conn.up.clear();
                conn.down.truncate(down);
                conn.feed = None;
                conn.read = None;
                let _ = conn.coalescer.take();
            }
        }
    }

    /// A session panics while it handles something, which is lost, and restarts with its inbox.
    /// Sockets stay open unless an answer is owed that nobody can give any more.
    pub(super) fn session_panics(&mut self, user: usize, handling: Option<usize>) {
        let Some(old) = self.sessions[user].take() else {
            return;
        };
        self.hit(Case::SessionPanic);
        self.disturbed = true;
        self.note(|| format!("session {user} panics"));
        let mut session = self.new_session(user);
        session.conns = old.conns;
        session.inbox = old.inbox;
        session.missed = true;
        self.sessions[user] = Some(session);
        // What was sent is forgotten with the feeds: it may have been everything.
        let last_seq = self.store.mailboxes[user].last_seq;
        let mut kept = [None; DEVICES_MAX];
        for (slot, ix) in kept.iter_mut().zip(old.conns) {
            let Some(ix) = ix else { continue };
            if self.conns[ix].stage != Stage::Attached {
                continue;
            }
            let dev = self.conns[ix].dev;
            let _ = self.conns[ix].coalescer.take();
            if self.conns[ix].unanswered > 0 || handling == Some(ix) {
                self.hit(Case::SessionPanicClosedSocket);
                self.conns[ix].feed = None;
                self.close(ix);
                self.store.detach(dev, last_seq);
            } else {
                self.hit(Case::SessionPanicKeptSocket);
                self.make_feed(ix, last_seq);
                self.conns[ix].receipts_may_repeat = true;
                self.tell_since(ix, None);
                *slot = Some(ix);
            }
        }
        // Poison panics again here; `missed` brings the others to their reads later.
        for ix in kept.into_iter().flatten() {
            if self.conns[ix].stage == Stage::Attached && self.rng.chance(500) {
                self.start_feed(ix);
            }
        }
    }
}
