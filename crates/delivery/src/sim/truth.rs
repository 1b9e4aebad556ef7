//! The checker: what the simulated world knows and the server does not, and the
//! promises held against it.

use stonechat_protocol::{Seq, UNACCEPTED_MAX};

use super::types::{Dev, Msg, index_of};
use super::world::World;
use crate::Watermarks;

impl World {
    pub(super) fn message_at(&self, mailbox: usize, seq: Seq) -> Option<usize> {
        let history = &self.history[mailbox];
        let at = history.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
        Some(history[at].1)
    }

    /// D2, D3: a message took its places for good.
    pub(super) fn became_durable(&mut self, msg: usize, places: &[(usize, Seq)]) {
        if self.msgs[msg].durable {
            self.violated("D3", || format!("message {msg} is stored twice"));
        }
        if self.msgs[msg].refused && !self.msgs[msg].asked_twice && !self.plan.greedy {
            self.violated("D3", || format!("message {msg} was refused and is stored"));
        }
        self.msgs[msg].durable = true;
        let from = self.msgs[msg].from;
        for &(mailbox, seq) in places {
            let history = &self.history[mailbox];
            let last = history.last().map_or(0, |(seq, _)| *seq);
            let sent_by = |entry: &&(Seq, usize)| self.msgs[entry.1].from == from;
            let before = history.iter().rev().find(sent_by).map(|(_, msg)| *msg);
            if seq <= last {
                self.violated("D2", || {
                    format!("mailbox {mailbox} goes from {last} to {seq}")
                });
            }
            if before.is_some_and(|before| before >= msg) {
                self.violated("D2", || format!("message {msg} comes after {before:?}"));
            }
            let side = self.msgs[msg].side(mailbox);
            self.msgs[msg].places[side] = seq;
            self.history[mailbox].push((seq, msg));
        }
    }

    /// D6: the bound on what is unanswered holds behind the machine, too.
    pub(super) fn check_in_flight(&mut self, msg: usize) {
        let from = self.msgs[msg].from;
        let queued = self
            .store
            .pending
            .iter()
            .chain(self.shards.iter().flatten());
        let count = queued
            .filter(|append| self.msgs[append.msg].from == from)
            .count();
        if count > UNACCEPTED_MAX {
            self.violated("D6", || format!("{from:?} has {count} sends in flight"));
        }
    }

    /// D1, D3: what a sender is told.
    pub(super) fn check_answer(&mut self, msg: usize, duplicate: bool) {
        if !self.msgs[msg].durable {
            self.violated("D1", || {
                format!("message {msg} is accepted and not durable")
            });
        }
        if !duplicate && self.msgs[msg].answered_first {
            self.violated("D3", || format!("message {msg} is accepted twice as new"));
        }
        self.msgs[msg].answered_first |= !duplicate;
    }

    /// D2, D4, D6: what is sent to a device.
    pub(super) fn check_delivery(&mut self, ix: usize, seq: Seq, msg: usize, redelivered: bool) {
        let dev = self.conns[ix].dev;
        if self.msgs[msg].from == dev {
            self.violated("D4", || format!("{dev:?} gets its own message {msg}"));
        }
        let client = self.client_of(dev);
        let before = client.sent_before.contains(&seq);
        if !before {
            client.sent_before.push(seq);
        }
        if before && !redelivered {
            self.violated("D4", || format!("{dev:?} gets {seq} again, not marked"));
        }
        if redelivered && !before && !self.disturbed {
            self.violated("D4", || format!("{dev:?} gets {seq} first, but marked"));
        }
        let size = self.msgs[msg].size;
        let outstanding = &mut self.conns[ix].outstanding;
        let last = outstanding.back().map_or(0, |(seq, _)| *seq);
        outstanding.push_back((seq, size));
        let count = outstanding.len();
        let bytes: u32 = outstanding.iter().map(|(_, size)| size).sum();
        if seq <= last {
            self.violated("D2", || format!("{dev:?} is sent {seq} after {last}"));
        }
        let too_many = count > self.plan.window_messages_max as usize;
        if too_many || (bytes > self.plan.window_bytes_max && count > 1) {
            self.violated("D6", || {
                format!("{dev:?} has {count} messages of {bytes} bytes unacknowledged")
            });
        }
    }

    pub(super) fn welcome_truth(&mut self, dev: Dev) {
        if self.client_of(dev).not_due.is_some() {
            return;
        }
        let live = &self.store.mailboxes[dev.user].live;
        let gone = self.history[dev.user].iter().map(|(seq, _)| *seq);
        let gone = gone
            .filter(|seq| !live.iter().any(|(held, _)| held == seq))
            .collect();
        self.client_of(dev).not_due = Some(gone);
    }

    pub(super) fn expired(&mut self, mailbox: usize, msg: usize) {
        let side = self.msgs[msg].side(mailbox);
        self.msgs[msg].expired[side] = true;
    }

    /// Whether this device has to get this message.
    fn is_due(&self, dev: Dev, not_due: &[Seq], seq: Seq, msg: &Msg) -> bool {
        let side = msg.side(dev.user);
        msg.from != dev && !msg.expired[side] && !msg.dead[side] && !not_due.contains(&seq)
    }

    /// D2, D3, D4: a device hands a message to its application.
    pub(super) fn check_handled(&mut self, c: usize, seq: Seq, msg: usize) {
        let (dev, handled) = (self.clients[c].dev, self.clients[c].handled);
        let history = &self.history[dev.user];
        if self.message_at(dev.user, seq) != Some(msg) {
            self.violated("D2", || {
                format!("{seq} of mailbox {} is not message {msg}", dev.user)
            });
            return;
        }
        let start = history.partition_point(|(seq, _)| *seq <= handled);
        let not_due = self.clients[c].not_due.as_deref().unwrap_or_default();
        let between = history[start..].iter().take_while(|(held, _)| *held < seq);
        let skipped = between
            .copied()
            .find(|(held, msg)| self.is_due(dev, not_due, *held, &self.msgs[*msg]));
        if let Some((skipped, _)) = skipped {
            self.violated("D4", || format!("{dev:?} gets {seq} and not {skipped}"));
        }
        let from = self.msgs[msg].from;
        let last = self.clients[c].last_from[from.index()].replace(msg);
        if last.is_some_and(|last| last >= msg) {
            self.violated("D2", || {
                format!("{dev:?} gets message {msg} after {last:?}")
            });
        }
        let side = self.msgs[msg].side(dev.user);
        if self.msgs[msg].handled[side] & (1 << dev.dev) != 0 {
            self.violated("D3", || format!("{dev:?} hands message {msg} on twice"));
        }
        self.msgs[msg].handled[side] |= 1 << dev.dev;
    }

    /// D8: a device hears of watermarks.
    pub(super) fn client_receipt(
        &mut self,
        c: usize,
        ix: usize,
        with: usize,
        rev: u64,
        marks: Watermarks,
    ) {
        let dev = self.clients[c].dev;
        if rev <= self.clients[c].rev && !self.conns[ix].receipts_may_repeat {
            let seen = self.clients[c].rev;
            self.violated("D8", || {
                format!("{dev:?} hears of receipt {rev} after {seen}")
            });
        }
        self.clients[c].rev = self.clients[c].rev.max(rev);
        let (delivered, read) = (
            self.mark_place(dev, with, marks.delivered),
            self.mark_place(dev, with, marks.read),
        );
        let (Some(delivered), Some(read)) = (delivered, read) else {
            self.violated("D8", || {
                format!("{dev:?} hears {marks:?}, which it never sent to {with}")
            });
            return;
        };
        let before = self.clients[c].marks[with];
        if delivered < before.0 || read < before.1 || read > delivered {
            self.violated("D8", || {
                format!("{dev:?} hears {delivered}, {read} after {before:?}")
            });
        }
        // A message passed over because its time was up may be back after a crash that lost its
        // removal, if the clock stepped back as well. Then it counts as delivered.
        let excused = |msg: &Msg| msg.expired[0] && self.clock_went_back;
        let handled = marks.delivered.is_none_or(|id| {
            let msg = &self.msgs[index_of(id)];
            msg.handled[0] != 0 || excused(msg)
        });
        let was_read = marks.read.is_none_or(|id| self.msgs[index_of(id)].read);
        if !handled || !was_read {
            self.violated("D8", || {
                format!("{dev:?} hears {marks:?}, which is not true")
            });
        }
        self.clients[c].marks[with] = (delivered, read);
    }

    /// Place of a watermark in the reader's mailbox: 0 for none, nothing if it cannot be.
    fn mark_place(
        &self,
        dev: Dev,
        with: usize,
        id: Option<stonechat_protocol::MessageId>,
    ) -> Option<Seq> {
        let Some(id) = id else { return Some(0) };
        let msg = self.msgs.get(index_of(id))?;
        let ours = msg.id == id && msg.from.user == dev.user && msg.to == Some(with);
        (ours && msg.durable).then_some(msg.places[0])
    }

    /// D1: after a crash everything accepted is in the journal.
    pub(super) fn check_nothing_lost(&mut self) {
        let mut found = vec![false; self.msgs.len()];
        for record in &self.store.log {
            if let super::store::Record::Message { msg, .. } = record {
                found[*msg] = true;
            }
        }
        let lost = |at: &usize| self.msgs[*at].accepted && !self.msgs[*at].ephemeral && !found[*at];
        if let Some(msg) = (0..found.len()).find(lost) {
            self.violated("D1", || {
                format!("message {msg} was accepted and did not survive")
            });
        }
    }

    /// Everything has come to rest: was every promise kept to the end?
    pub(super) fn check_end(&mut self) {
        let waiting = self
            .clients
            .iter()
            .find(|client| !client.unanswered.is_empty());
        if let Some(client) = waiting {
            let (dev, unanswered) = (client.dev, client.unanswered.clone());
            self.violated("liveness", || {
                format!("{dev:?} has no answer to {unanswered:?}")
            });
        }
        let lost = |msg: &&Msg| msg.accepted && !msg.durable && !msg.ephemeral;
        if let Some(msg) = self.msgs.iter().find(lost).map(|msg| msg.id) {
            self.violated("D1", || format!("{msg} was accepted and is gone"));
        }
        for c in 0..self.clients.len() {
            self.check_complete(c);
        }
        for user in 0..self.plan.users {
            if let Some((seq, _)) = self.store.mailboxes[user].live.front().copied() {
                self.violated("D5", || format!("mailbox {user} still holds {seq}"));
            }
            for with in 0..self.plan.users {
                self.check_final_receipt(user, with);
            }
        }
    }

    fn check_complete(&mut self, c: usize) {
        let dev = self.clients[c].dev;
        let not_due = self.clients[c].not_due.as_deref().unwrap_or_default();
        let missing = self.history[dev.user].iter().copied().find(|(seq, msg)| {
            let msg = &self.msgs[*msg];
            let handled = msg.handled[msg.side(dev.user)] & (1 << dev.dev) != 0;
            !handled && self.is_due(dev, not_due, *seq, msg)
        });
        if let Some((seq, msg)) = missing {
            self.violated("D4", || format!("{dev:?} never gets {seq}, message {msg}"));
        }
    }

    fn check_final_receipt(&mut self, sender: usize, with: usize) {
        if sender == with {
            return;
        }
        let mut truth = (0, 0, 0);
        let mut gone = false;
        for &(seq, msg) in &self.history[with] {
            let msg = &self.msgs[msg];
            if msg.from.user != sender {
                continue;
            }
            gone |= msg.expired[0] || msg.dead[0];
            if msg.handled[0] != 0 || (msg.expired[0] && self.clock_went_back) {
                truth.1 = seq;
                if msg.handled[0] != 0 && !msg.expired[0] && !msg.dead[0] {
                    truth.0 = seq;
                }
            }
            if msg.read {
                truth.2 = seq;
            }
        }
        let marks = self.store.conversation(sender, with).receipts.watermarks();
        let dev = Dev {
            user: sender,
            dev: 0,
        };
        let delivered = self
            .mark_place(dev, with, marks.delivered)
            .unwrap_or(Seq::MAX);
        let read = self.mark_place(dev, with, marks.read).unwrap_or(Seq::MAX);
        if delivered < truth.0 || delivered > truth.1 || read > truth.2 {
            self.violated("D8", || {
                format!("{sender} with {with}: {delivered}, {read}; the truth is {truth:?}")
            });
        }
        // Where the machine can know it, what was read last is what it says.
        let exact = self.plan.devices[sender] == 1 || truth.2 == delivered;
        if exact && !gone && read != truth.2 {
            self.violated("D8", || {
                format!("{sender} with {with}: read {read}, in truth {truth:?}")
            });
        }
        let behind = self
            .clients
            .iter()
            .find(|client| client.dev.user == sender && client.marks[with] != (delivered, read));
        if let Some((dev, seen)) = behind.map(|client| (client.dev, client.marks[with])) {
            self.violated("D8", || {
                format!("{dev:?} last heard {seen:?} of {with}, not {delivered}, {read}")
            });
        }
    }
}
