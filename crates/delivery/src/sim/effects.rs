//! The simulated server carrying out what the machines say: sending,
//! acknowledging, telling receipts.

use stonechat_protocol::{ErrorCode, MessageId, Seq};

use super::Sabotage;
use super::coverage::Case;
use super::store::Record;
use super::transitions::{FeedEvent, ReceiptsEvent, ReceiptsState};
use super::types::{Down, PendingRead, Stage, index_of};
use super::world::{Tell, World};
use crate::{Effect, ReadError, Receipts, SenderDevices, Verdict, Watermarks};

impl World {
    /// `false`: the session panicked on the way.
    pub(super) fn carry_out(&mut self, ix: usize, effects: &[Effect]) -> bool {
        for effect in effects {
            let dev = self.conns[ix].dev;
            self.note(|| format!("connection {ix} of {dev:?}: {effect:?}"));
            match *effect {
                Effect::Deliver { seq, redelivered } => {
                    if !self.deliver(ix, seq, redelivered) {
                        return false;
                    }
                }
                Effect::Read {
                    after,
                    messages_max,
                    bytes_max,
                } => {
                    self.hit(Case::FeedRead);
                    if self.conns[ix].read.is_some() {
                        self.violated("D6", || format!("connection {ix} has two reads"));
                    }
                    self.conns[ix].read = Some(PendingRead {
                        after,
                        messages_max,
                        bytes_max,
                        batch: None,
                    });
                }
                Effect::AutoAck { upto } => {
                    self.hit(Case::FeedAutoAck);
                    self.store_ack(ix, upto);
                }
            }
        }
        true
    }

    fn deliver(&mut self, ix: usize, seq: Seq, redelivered: bool) -> bool {
        let user = self.conns[ix].dev.user;
        // The envelope comes with the notification or the read; this looks it up instead.
        let Some(msg) = self.message_at(user, seq) else {
            self.violated("D1", || {
                format!("{seq} of mailbox {user} is delivered but not durable")
            });
            return true;
        };
        if self.msgs[msg].poison && !self.msgs[msg].dead[self.msgs[msg].side(user)] {
            self.poisoned(user, seq, msg);
            return false;
        }
        let redelivered = redelivered && !self.sabotaged(Sabotage::NeverMarked);
        if redelivered {
            self.hit(Case::FeedRedelivered);
        }
        if self.msgs[msg].size > self.plan.window_bytes_max {
            self.hit(Case::FeedOversize);
        }
        self.check_delivery(ix, seq, msg, redelivered);
        self.push_down(
            ix,
            Down::Message {
                seq,
                msg,
                redelivered,
            },
        );
        if self.sabotaged(Sabotage::CursorAtSend) {
            self.store_ack(ix, seq);
        }
        true
    }

    /// Handling this message panics. The supervisor counts, which survives the panic.
    fn poisoned(&mut self, user: usize, seq: Seq, msg: usize) {
        match self.attempts[user].failed(seq) {
            Verdict::Retry { failures: 1 } => self.hit(Case::PoisonRetriedOnce),
            Verdict::Retry { .. } => self.hit(Case::PoisonRetriedTwice),
            Verdict::DeadLetter => {
                self.hit(Case::DeadLetter);
                let side = self.msgs[msg].side(user);
                self.msgs[msg].dead[side] = true;
                self.store.remove(user, seq);
            }
        }
        self.session_panics(user, None);
    }

    /// Sends a frame, and with it, at times, the receipts that wait.
    pub(super) fn push_down(&mut self, ix: usize, frame: Down) {
        if !self.conns[ix].coalescer.is_empty() && self.rng.chance(500) {
            self.hit(Case::CoalescerRode);
            self.flush(ix);
        }
        if !self.conns[ix].cut {
            self.conns[ix].down.push_back(frame);
        }
    }

    fn flush(&mut self, ix: usize) {
        let receipts = self.conns[ix].coalescer.take();
        self.push_receipts(ix, receipts.into_iter().map(|(_, receipt)| receipt));
    }

    fn push_receipts(
        &mut self,
        ix: usize,
        receipts: impl Iterator<Item = (u64, usize, Watermarks)>,
    ) {
        let conn = &mut self.conns[ix];
        for (rev, with, marks) in receipts {
            if !conn.cut {
                conn.down.push_back(Down::Receipt { with, rev, marks });
            }
        }
    }

    pub(super) fn flush_if_due(&mut self, ix: usize) -> bool {
        let due = self.conns[ix].coalescer.is_due(self.now_ms);
        if due {
            let linger_over = self.conns[ix].coalescer.due_ms() <= Some(self.now_ms);
            self.hit(if linger_over {
                Case::CoalescerDue
            } else {
                Case::CoalescerDueByClockBack
            });
            self.flush(ix);
        }
        due
    }

    pub(super) fn on_ack(&mut self, ix: usize, seq: Seq) {
        let Some(feed) = &mut self.conns[ix].feed else {
            return;
        };
        let state = feed.state();
        let outcome = feed.ack(seq);
        let event = match &outcome {
            Ok(step) if step.cursor.is_some() => FeedEvent::Ack,
            Ok(_) => FeedEvent::AckRepeated,
            Err(_) => FeedEvent::AckNotSent,
        };
        self.coverage.transitions.feed(state, event);
        let Ok(step) = outcome else {
            self.hit(Case::AckNotSent);
            let code = ErrorCode::BadAck;
            self.push_down(ix, Down::Error { code, id: None });
            return;
        };
        let outstanding = &mut self.conns[ix].outstanding;
        let last_sent = outstanding.back().map_or(0, |(sent, _)| *sent);
        while outstanding.front().is_some_and(|(sent, _)| *sent <= seq) {
            outstanding.pop_front();
        }
        if step.cursor.is_some() && seq > last_sent {
            self.hit(Case::AckOfEarlierConnection);
        }
        match step.cursor {
            Some(upto) => {
                self.hit(Case::AckMoved);
                // A shard that panics over an acknowledgement loses it: a later one, or the
                // next connection, makes up for it.
                if !self.calm && self.rng.chance(self.plan.shard_panic) {
                    self.hit(Case::ShardPanic);
                } else {
                    self.store_ack(ix, upto);
                }
            }
            None => self.hit(Case::AckRepeated),
        }
        if !step.effects.is_empty() {
            self.hit(Case::AckFreesRead);
        }
        self.carry_out(ix, &step.effects);
    }

    fn store_ack(&mut self, ix: usize, upto: Seq) {
        let dev = self.conns[ix].dev;
        let upto = upto + u64::from(self.sabotaged(Sabotage::AckOffByOne));
        let held = self.store.mailboxes[dev.user].live.len();
        // What expired on the way was not delivered, and is counted: a read has passed over it,
        // or will.
        for (_, msg) in self.store.expire(dev.user, self.now_ms, upto, &self.msgs) {
            self.hit(Case::ExpiredInAck);
            self.expired(dev.user, msg);
        }
        let news = self.store.ack(dev, upto, &self.msgs);
        if held > 0 && self.store.mailboxes[dev.user].live.is_empty() {
            self.hit(Case::MailboxEmptied);
        }
        self.tasks.extend(news);
    }

    /// An acknowledgement's news reaches a sender's watermarks, in any order but not before
    /// the acknowledgement is durable.
    pub(super) fn task_step(&mut self) -> bool {
        let early = self.sabotaged(Sabotage::TellBeforeDurable);
        let synced = self.store.synced;
        let ready = |lsn: usize| lsn < synced || early;
        let count = self.tasks.iter().filter(|task| ready(task.lsn)).count();
        if count == 0 {
            return false;
        }
        let nth = self.rng.below(count);
        let at = (0..self.tasks.len())
            .filter(|at| ready(self.tasks[*at].lsn))
            .nth(nth);
        let Some(at) = at else { return false };
        let news = self.tasks.swap_remove(at);
        let backwards = self.sabotaged(Sabotage::ReceiptsNotMonotonic);
        let conversation = self.store.conversation(news.sender, news.with);
        let before = conversation.receipts.watermarks();
        let mut moved = conversation.receipts.delivered(news.id, news.at);
        let event = match moved {
            Some(_) => ReceiptsEvent::DeliveredMoved,
            None => ReceiptsEvent::DeliveredStale,
        };
        let transitions = &mut self.coverage.transitions;
        transitions.receipts(receipts_state(before), event);
        if backwards && before.delivered != Some(news.id) {
            let marks = Watermarks {
                delivered: Some(news.id),
                ..before
            };
            conversation.receipts = Receipts::new(marks);
            moved = Some(marks);
        }
        match moved {
            Some(marks) => {
                self.hit(Case::ReceiptDelivered);
                self.tell(news.sender, news.with, news.lsn, marks);
            }
            None => self.hit(Case::ReceiptDeliveredStale),
        }
        true
    }

    pub(super) fn on_read(&mut self, ix: usize, sender: usize, id: MessageId) {
        let reader = self.conns[ix].dev.user;
        let found = self.store.find(reader, index_of(id));
        let devices = match self.store.mailboxes[sender].registered() {
            0 | 1 => SenderDevices::One,
            _ => SenderDevices::Several,
        };
        let gullible = self.sabotaged(Sabotage::BelieveReads);
        let conversation = self.store.conversation(sender, reader);
        let before = conversation.receipts.watermarks();
        let mut result = conversation.receipts.read(id, found, devices);
        let event = match result {
            Ok(Some(_)) => ReceiptsEvent::ReadMoved,
            Ok(None) => ReceiptsEvent::ReadStale,
            Err(_) => ReceiptsEvent::ReadUnknown,
        };
        let transitions = &mut self.coverage.transitions;
        transitions.receipts(receipts_state(before), event);
        if gullible && result == Err(ReadError::UnknownMessage) {
            let marks = Watermarks {
                delivered: Some(id),
                read: Some(id),
            };
            conversation.receipts = Receipts::new(marks);
            result = Ok(Some(marks));
        }
        let places = conversation.receipts.places();
        match result {
            Ok(Some(marks)) => {
                let case = match found {
                    Some(_) => Case::ReceiptReadFound,
                    None if before.delivered == Some(id) => Case::ReceiptRead,
                    None => Case::ReceiptReadBetween,
                };
                self.hit(case);
                let lsn = self.store.append_record(Record::Read {
                    sender,
                    with: reader,
                    marks,
                    places,
                });
                let lsn = if self.sabotaged(Sabotage::TellBeforeDurable) {
                    0
                } else {
                    lsn
                };
                self.tell(sender, reader, lsn, marks);
            }
            Ok(None) => self.hit(Case::ReceiptReadStale),
            Err(ReadError::UnknownMessage) => {
                self.hit(Case::ReceiptReadUnknown);
                let (code, id) = (ErrorCode::UnknownMessage, Some(id));
                self.push_down(ix, Down::Error { code, id });
            }
        }
    }

    /// Watermarks changed: everybody of the sender is told, in the order of revisions, when
    /// the journal is synced.
    fn tell(&mut self, sender: usize, with: usize, lsn: usize, marks: Watermarks) {
        let rev = self.store.revise(sender, with);
        self.note(|| format!("receipt {rev} of {sender} with {with}: {marks:?}"));
        self.tells[sender].push_back(Tell {
            lsn,
            with,
            rev,
            marks,
        });
        self.release_tells();
    }

    pub(super) fn release_tells(&mut self) {
        let early = self.sabotaged(Sabotage::TellBeforeDurable);
        for sender in 0..self.plan.users {
            while let Some(tell) = self.tells[sender].front().copied() {
                if tell.lsn >= self.store.synced && !early {
                    break;
                }
                self.tells[sender].pop_front();
                for ix in self.conns_of(sender).into_iter().flatten() {
                    if self.conns[ix].stage == Stage::Attached {
                        self.coalesce(ix, tell.rev, tell.with, tell.marks);
                    }
                }
            }
        }
    }

    fn coalesce(&mut self, ix: usize, rev: u64, with: usize, marks: Watermarks) {
        let name = self.names[with].clone();
        let coalescer = &mut self.conns[ix].coalescer;
        let before = coalescer.len();
        let now = coalescer.push(name, (rev, with, marks), self.now_ms);
        if !now.is_empty() {
            self.hit(Case::CoalescerFull);
        } else if before > 0 && self.conns[ix].coalescer.len() == before {
            self.hit(Case::CoalescerMerged);
        } else if before == 0 {
            self.hit(Case::CoalescerHeld);
        }
        self.push_receipts(ix, now.into_iter().map(|(_, receipt)| receipt));
    }

    /// What a device has not seen, the latest of each conversation. What is not yet durable
    /// comes when it is.
    pub(super) fn tell_since(&mut self, ix: usize, rev: Option<u64>) {
        let dev = self.conns[ix].dev;
        let since = rev.unwrap_or(self.store.row(dev).receipts_seen);
        let mut news = Vec::new();
        for with in 0..self.plan.users {
            let conversation = self.store.conversation(dev.user, with);
            let (rev, marks) = (conversation.rev, conversation.receipts.watermarks());
            let waits = self.tells[dev.user].iter().any(|tell| tell.with == with);
            if rev > since && !waits {
                news.push((rev, with, marks));
            }
        }
        news.sort_unstable_by_key(|(rev, ..)| *rev);
        for (rev, with, marks) in news {
            self.hit(Case::ReceiptToldOnConnect);
            self.coalesce(ix, rev, with, marks);
        }
    }

    pub(super) fn on_receipts_seen(&mut self, ix: usize, rev: u64) {
        let dev = self.conns[ix].dev;
        let row = self.store.row_mut(dev);
        if rev > row.receipts_seen {
            row.receipts_seen = rev;
            self.store.append_record(Record::ReceiptsSeen { dev, rev });
        }
    }
}

pub(super) fn receipts_state(marks: Watermarks) -> ReceiptsState {
    match (marks.delivered, marks.read) {
        (None, _) => ReceiptsState::Nothing,
        (Some(_), None) => ReceiptsState::Delivered,
        (delivered, read) if delivered == read => ReceiptsState::ReadAll,
        _ => ReceiptsState::ReadBehind,
    }
}
