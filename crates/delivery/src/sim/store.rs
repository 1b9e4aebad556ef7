//! The simulated store: a journal with an unsynced tail, mailboxes in memory
//! that a crash rebuilds from what was on disk.
//!
//! It stands for what `stonechat-mailbox` promises, not for how that is kept:
//! moving messages from the journal to the database is not modelled.

use std::collections::VecDeque;

use smallvec::SmallVec;
use stonechat_protocol::{IdWindow, MessageId, Seq};

use super::plan::DEVICES_MAX;
use super::types::{Append, Batch, Dev, Msg};
use crate::{Receipts, Watermarks, expiry};

/// Mailboxes a message goes to, with its place in each.
pub(super) type Places = SmallVec<[(usize, Seq); 2]>;

#[derive(Debug, Clone)]
pub(super) enum Record {
    Message {
        msg: usize,
        places: Places,
    },
    Attach(Dev),
    Detach {
        dev: Dev,
        sent: Seq,
    },
    Ack {
        dev: Dev,
        upto: Seq,
    },
    /// Expired or a dead letter: out of the mailbox without an acknowledgement.
    Removed {
        mailbox: usize,
        seq: Seq,
    },
    Read {
        sender: usize,
        with: usize,
        marks: Watermarks,
        places: (Seq, Seq),
    },
    ReceiptsSeen {
        dev: Dev,
        rev: u64,
    },
}

#[derive(Debug, Clone, Default)]
pub(super) struct DeviceRow {
    pub(super) registered: bool,
    pub(super) connected: bool,
    pub(super) cursor: Seq,
    pub(super) sent: Seq,
    pub(super) receipts_seen: u64,
    pub(super) window: IdWindow,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Mailbox {
    pub(super) next_seq: Seq,
    pub(super) last_seq: Seq,
    pub(super) live: VecDeque<(Seq, usize)>,
    pub(super) devices: [DeviceRow; DEVICES_MAX],
    pub(super) rev: u64,
    /// Appends on their way, for the quota.
    pub(super) queued: usize,
    /// Truth: refused something since the last append.
    pub(super) was_full: bool,
}

impl Mailbox {
    pub(super) fn registered(&self) -> usize {
        self.devices.iter().filter(|row| row.registered).count()
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Conversation {
    pub(super) receipts: Receipts,
    pub(super) rev: u64,
}

/// An acknowledgement's news for a sender.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivered {
    pub(super) sender: usize,
    pub(super) with: usize,
    pub(super) id: MessageId,
    pub(super) at: Seq,
    /// The journal must be synced beyond this before anyone may be told.
    pub(super) lsn: usize,
}

#[derive(Debug)]
pub(super) struct Store {
    pub(super) log: Vec<Record>,
    pub(super) synced: usize,
    /// Truth: what the disk has, whatever the server thinks.
    pub(super) on_disk: usize,
    pub(super) pending: VecDeque<Append>,
    pub(super) mailboxes: Vec<Mailbox>,
    conversations: Vec<Conversation>,
    epoch: u64,
}

impl Store {
    pub(super) fn new(users: usize) -> Self {
        Self {
            log: Vec::new(),
            synced: 0,
            on_disk: 0,
            pending: VecDeque::new(),
            mailboxes: vec![Mailbox::default(); users],
            conversations: vec![Conversation::default(); users * users],
            epoch: 0,
        }
    }

    pub(super) fn row(&self, dev: Dev) -> &DeviceRow {
        &self.mailboxes[dev.user].devices[dev.dev]
    }

    pub(super) fn row_mut(&mut self, dev: Dev) -> &mut DeviceRow {
        &mut self.mailboxes[dev.user].devices[dev.dev]
    }

    pub(super) fn conversation(&mut self, sender: usize, with: usize) -> &mut Conversation {
        let at = sender * self.mailboxes.len() + with;
        &mut self.conversations[at]
    }

    /// Gives a changed conversation its revision.
    pub(super) fn revise(&mut self, sender: usize, with: usize) -> u64 {
        let mailbox = &mut self.mailboxes[sender];
        mailbox.rev = (mailbox.rev + 1).max(self.epoch << 28);
        let rev = mailbox.rev;
        self.conversation(sender, with).rev = rev;
        rev
    }

    pub(super) fn find(&self, mailbox: usize, msg: usize) -> Option<Seq> {
        let held = self.mailboxes[mailbox].live.iter().rev();
        held.copied()
            .find(|(_, held)| *held == msg)
            .map(|(seq, _)| seq)
    }

    pub(super) fn append_record(&mut self, record: Record) -> usize {
        self.log.push(record);
        self.log.len() - 1
    }

    /// Queues an append in the order of the calls.
    pub(super) fn append(&mut self, append: Append) {
        for mailbox in &append.mailboxes {
            self.mailboxes[*mailbox].queued += 1;
        }
        self.pending.push_back(append);
    }

    /// Takes the oldest pending append and its places. Given up, the places stay unused.
    pub(super) fn place(&mut self) -> Option<(Append, Places)> {
        let append = self.pending.pop_front()?;
        let mut places = SmallVec::new();
        for &mailbox in &append.mailboxes {
            let row = &mut self.mailboxes[mailbox];
            row.next_seq += 1;
            row.queued -= 1;
            places.push((mailbox, row.next_seq));
        }
        Some((append, places))
    }

    /// The recipient, and the sender's own mailbox when it has other devices.
    pub(super) fn recipients(&self, msg: &Msg) -> SmallVec<[usize; 2]> {
        let mut mailboxes: SmallVec<[usize; 2]> = msg.to.into_iter().collect();
        let copy = self.mailboxes[msg.from.user].registered() > 1;
        if copy && msg.to != Some(msg.from.user) {
            mailboxes.push(msg.from.user);
        }
        mailboxes
    }

    /// A durable message becomes visible.
    pub(super) fn apply_message(
        &mut self,
        msg: usize,
        places: &[(usize, Seq)],
        msgs: &[Msg],
    ) -> SmallVec<[(usize, Seq, Seq); 2]> {
        let mut placed = SmallVec::new();
        for &(mailbox, seq) in places {
            let row = &mut self.mailboxes[mailbox];
            placed.push((mailbox, row.last_seq, seq));
            row.last_seq = seq;
            row.next_seq = row.next_seq.max(seq);
            row.live.push_back((seq, msg));
        }
        let from = msgs[msg].from;
        self.row_mut(from)
            .window
            .insert(msgs[msg].id, msgs[msg].ts_ms);
        placed
    }

    pub(super) fn attach(&mut self, dev: Dev) -> usize {
        self.apply_attach(dev);
        self.append_record(Record::Attach(dev))
    }

    fn apply_attach(&mut self, dev: Dev) {
        let row = self.row_mut(dev);
        row.registered = true;
        row.connected = true;
    }

    pub(super) fn detach(&mut self, dev: Dev, sent: Seq) {
        self.apply_detach(dev, sent);
        self.append_record(Record::Detach { dev, sent });
    }

    fn apply_detach(&mut self, dev: Dev, sent: Seq) {
        let row = self.row_mut(dev);
        row.connected = false;
        row.sent = row.sent.max(sent);
    }

    /// Returns what senders have to hear.
    pub(super) fn ack(&mut self, dev: Dev, upto: Seq, msgs: &[Msg]) -> SmallVec<[Delivered; 2]> {
        let lsn = self.append_record(Record::Ack { dev, upto });
        self.apply_ack(dev, upto, lsn, msgs)
    }

    fn apply_ack(
        &mut self,
        dev: Dev,
        upto: Seq,
        lsn: usize,
        msgs: &[Msg],
    ) -> SmallVec<[Delivered; 2]> {
        let mut news: SmallVec<[Delivered; 2]> = SmallVec::new();
        let mailbox = &mut self.mailboxes[dev.user];
        let upto = upto.min(mailbox.last_seq);
        if upto <= mailbox.devices[dev.dev].cursor {
            return news;
        }
        let rows = mailbox.devices.iter().filter(|row| row.registered);
        let front = rows.map(|row| row.cursor).max().unwrap_or(0);
        mailbox.devices[dev.dev].cursor = upto;
        let first = mailbox.live.iter();
        for &(at, msg) in first.filter(|(seq, _)| *seq > front && *seq <= upto) {
            let sender = msgs[msg].from.user;
            if sender == dev.user {
                continue;
            }
            let id = msgs[msg].id;
            if let Some(known) = news.iter_mut().find(|known| known.sender == sender) {
                known.id = id;
                known.at = at;
            } else {
                news.push(Delivered {
                    sender,
                    with: dev.user,
                    id,
                    at,
                    lsn,
                });
            }
        }
        let rows = mailbox.devices.iter().filter(|row| row.registered);
        let slowest = rows.map(|row| row.cursor).min().unwrap_or(0);
        mailbox.live.retain(|(seq, _)| *seq > slowest);
        news
    }

    pub(super) fn remove(&mut self, mailbox: usize, seq: Seq) {
        self.mailboxes[mailbox]
            .live
            .retain(|(held, _)| *held != seq);
        self.append_record(Record::Removed { mailbox, seq });
    }

    /// Messages after `after`; what has expired on the way leaves the mailbox and is returned
    /// beside, to be counted.
    pub(super) fn read(
        &mut self,
        mailbox: usize,
        (after, messages_max, bytes_max): (Seq, u32, u32),
        now_ms: u64,
        msgs: &[Msg],
    ) -> (Batch, Vec<(Seq, usize)>) {
        let mut batch = Batch {
            items: SmallVec::new(),
            upto: after,
            end: true,
        };
        let (mut bytes, mut expired) = (0u32, Vec::new());
        for &(seq, msg) in self.mailboxes[mailbox]
            .live
            .iter()
            .filter(|(seq, _)| *seq > after)
        {
            if expiry::is_expired(msgs[msg].expires_ms, now_ms) {
                expired.push((seq, msg));
                continue;
            }
            let size = msgs[msg].size;
            let full = batch.items.len() >= messages_max as usize || bytes + size > bytes_max;
            if full && !batch.items.is_empty() {
                batch.end = false;
                break;
            }
            bytes += size;
            batch.items.push((seq, msg));
            batch.upto = seq;
        }
        if batch.end {
            batch.upto = self.mailboxes[mailbox].last_seq.max(after);
        }
        for (seq, _) in &expired {
            self.remove(mailbox, *seq);
        }
        (batch, expired)
    }

    /// Takes out what has expired by now, up to a place.
    pub(super) fn expire(
        &mut self,
        mailbox: usize,
        now_ms: u64,
        upto: Seq,
        msgs: &[Msg],
    ) -> Vec<(Seq, usize)> {
        let live = self.mailboxes[mailbox].live.iter().copied();
        let gone: Vec<_> = live
            .take_while(|(seq, _)| *seq <= upto)
            .filter(|(_, msg)| expiry::is_expired(msgs[*msg].expires_ms, now_ms))
            .collect();
        for (seq, _) in &gone {
            self.remove(mailbox, *seq);
        }
        gone
    }

    /// Starts again from what is left of the journal, up to the first record that is not whole.
    /// Returns the journal as it was, and the watermarks each stored `read` came upon.
    pub(super) fn recover(
        &mut self,
        left: &[bool],
        msgs: &[Msg],
    ) -> (Vec<Record>, Vec<Watermarks>) {
        let users = self.mailboxes.len();
        let before = std::mem::take(&mut self.log);
        let log: Vec<Record> = before
            .iter()
            .zip(left)
            .take_while(|(_, whole)| **whole)
            .map(|(record, _)| record.clone())
            .collect();
        let mut marks = Vec::new();
        *self = Self {
            epoch: self.epoch + 1,
            ..Self::new(users)
        };
        for (lsn, record) in log.iter().enumerate() {
            if let Record::Read { sender, with, .. } = record {
                marks.push(self.conversation(*sender, *with).receipts.watermarks());
            }
            self.replay(lsn, record, msgs);
        }
        self.synced = log.len();
        self.on_disk = log.len();
        self.log = log;
        for mailbox in &mut self.mailboxes {
            for row in mailbox.devices.iter_mut().filter(|row| row.connected) {
                row.connected = false;
                row.sent = mailbox.last_seq;
            }
        }
        (before, marks)
    }

    fn replay(&mut self, lsn: usize, record: &Record, msgs: &[Msg]) {
        match record {
            Record::Message { msg, places } => {
                self.apply_message(*msg, places, msgs);
            }
            Record::Attach(dev) => self.apply_attach(*dev),
            Record::Detach { dev, sent } => self.apply_detach(*dev, *sent),
            Record::Ack { dev, upto } => {
                for news in self.apply_ack(*dev, *upto, lsn, msgs) {
                    let conversation = self.conversation(news.sender, news.with);
                    if conversation.receipts.delivered(news.id, news.at).is_some() {
                        self.revise(news.sender, news.with);
                    }
                }
            }
            Record::Removed { mailbox, seq } => {
                self.mailboxes[*mailbox]
                    .live
                    .retain(|(held, _)| held != seq);
            }
            Record::Read {
                sender,
                with,
                marks,
                places,
            } => {
                let conversation = self.conversation(*sender, *with);
                conversation.receipts.restore(*marks, places.0, places.1);
                self.revise(*sender, *with);
            }
            Record::ReceiptsSeen { dev, rev } => self.row_mut(*dev).receipts_seen = *rev,
        }
    }
}
