//! Comparing the store with the model, after a crash above all.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use stonechat_mailbox::{Store, StoreConfig};
use stonechat_protocol::Seq;

use crate::common::{Node, Time, config, device, id, segments, used_bytes, user, wait};
use crate::{DEVICES, USERS, World};

/// Only an explicit checkpoint forgets acknowledgements: the model hands their receipts
/// over first, as a broker does within the grace time, and some only after the next crash.
pub(crate) fn settings(dir: &Path, time: &Time) -> StoreConfig {
    StoreConfig {
        receipt_grace: Duration::from_secs(3600),
        // Reached within one run, so that prepared files are taken and left behind.
        prepare_from_bytes: 4096,
        ..config(dir, time)
    }
}

impl World {
    /// Compares what can be seen with the model.
    pub(crate) fn check(&mut self) {
        let now_ms = self.node.time.now();
        for (model, mailbox) in self.users.iter().zip(&self.mailboxes) {
            assert_eq!(mailbox.last_seq(), model.last_seq);
            let held: Vec<_> = model
                .held
                .iter()
                .filter(|(_, expires_ms)| **expires_ms > now_ms)
                .map(|(seq, _)| (*seq, model.history[seq].1))
                .collect();
            assert_eq!(self.node.held(mailbox, 0), held);
            for (index, known) in &model.devices {
                let state = mailbox
                    .device(&device(DEVICES[*index]))
                    .expect("the device is registered");
                assert_eq!(state.cursor, known.cursor);
                let from = known.window.len().saturating_sub(64);
                let window: Vec<_> = state
                    .window
                    .entries()
                    .iter()
                    .map(|entry| entry.id)
                    .collect();
                assert_eq!(window, known.window[from..]);
            }
            assert_eq!(mailbox.devices(), model.devices.len());
        }
        assert_eq!(self.node.store.stats().dead_letters, self.dead as u64);
        let stats = self.node.store.stats();
        let messages: u64 = self
            .mailboxes
            .iter()
            .map(|mailbox| mailbox.stats().messages)
            .sum();
        assert_eq!(stats.messages, messages, "the total is the sum");
        for ((at, with), known) in &self.receipts {
            let receipt = wait(
                self.node
                    .store
                    .receipt(&self.mailboxes[*at], &user(USERS[*with])),
            )
            .unwrap();
            let read = receipt.as_ref().and_then(|receipt| receipt.read);
            assert_eq!(read, (known.read > 0).then(|| id(known.read)));
            let delivered = receipt.and_then(|receipt| receipt.delivered);
            let history = &self.users[*with].history;
            assert_eq!(delivered, (known.put > 0).then(|| history[&known.put].1));
        }
    }

    pub(crate) fn open(&mut self) {
        let time: Time = self.node.time.clone();
        self.node = Node::with(settings(&self.dir(), &time), time);
        self.heard = 0;
        self.mailboxes = USERS.iter().map(|name| self.node.mailbox(name)).collect();
    }

    /// Everything is moved to the database, a few messages before that each by itself.
    pub(crate) fn migrate(&mut self, to: usize, trickle: usize) {
        for _ in 0..trickle {
            self.send(0, to, 40, 1_000_000);
            self.barrier();
            self.node.store.migrate_now().unwrap();
        }
        self.node.store.migrate_now().unwrap();
    }

    /// The process is killed; what it was writing is torn.
    pub(crate) fn crash(&mut self, garbage: &[u8], synced: bool) {
        if synced {
            self.node.store.sync_database_now().unwrap();
        }
        let image = self.base.path().join((self.generation + 1).to_string());
        self.node.store.crash_into(&image).unwrap();
        self.generation += 1;
        self.hear();
        self.queued.clear();
        let last = segments(&image).pop().unwrap();
        let mut bytes = std::fs::read(&last).unwrap();
        let from = usize::try_from(used_bytes(&last)).unwrap();
        // The rest of a prepared file is zeros beyond what was being written.
        bytes.resize(bytes.len().max(from + garbage.len()), 0);
        bytes[from..from + garbage.len()].copy_from_slice(garbage);
        std::fs::write(&last, bytes).unwrap();
        self.open();
        self.adopt();
        self.check();
        self.expire();
        self.check();
    }

    /// Checks what survived against what had to, and goes on from there.
    fn adopt(&mut self) {
        let now_ms = self.node.time.now();
        for (model, mailbox) in self.users.iter_mut().zip(&self.mailboxes) {
            assert_eq!(
                mailbox.last_seq(),
                model.last_seq,
                "everything heard of is there"
            );
            let states: BTreeMap<_, _> = mailbox.device_states().into_iter().collect();
            model.devices.retain(|index, known| {
                let state = states.get(&device(DEVICES[*index]));
                assert!(
                    state.is_some() || !known.registered,
                    "a durable device is gone"
                );
                if let Some(state) = state {
                    assert!((known.durable..=known.cursor).contains(&state.cursor));
                    assert!(state.sent >= state.cursor);
                    known.cursor = state.cursor;
                }
                state.is_some()
            });
            let held = self.node.held(mailbox, 0);
            let seqs: Vec<Seq> = held.iter().map(|(seq, _)| *seq).collect();
            for (seq, message) in &held {
                assert_eq!(model.history[seq].1, *message);
                assert!(*seq > model.floor_durable, "what had left for good is back");
            }
            for (seq, expires_ms) in &model.held {
                assert!(
                    *expires_ms <= now_ms || seqs.contains(seq),
                    "message {seq} is lost"
                );
            }
            for seq in seqs {
                model.held.insert(seq, model.expiries[&seq]);
            }
            let slowest = model.devices.values().map(|device| device.cursor).min();
            model.floor = model.floor_durable.max(slowest.unwrap_or(0));
            model.held = model.held.split_off(&(model.floor + 1));
            let cursors = model.devices.values().map(|device| device.cursor);
            model.first_cursor = cursors.max().unwrap_or(0).max(model.first_cursor_durable);
        }
        for ((at, with), known) in &mut self.receipts {
            let receipt = wait(
                self.node
                    .store
                    .receipt(&self.mailboxes[*at], &user(USERS[*with])),
            )
            .unwrap();
            let delivered = receipt.as_ref().and_then(|receipt| receipt.delivered);
            let history = &self.users[*with].history;
            let seq = delivered.map_or(0, |delivered| {
                let found = history.iter().find(|(_, (_, id))| *id == delivered);
                *found.expect("a receipt names a message").0
            });
            assert!(
                (known.durable..=known.delivered).contains(&seq),
                "receipt {seq}, durable {}, acknowledged {}",
                known.durable,
                known.delivered
            );
            known.put = seq;
            known.delivered = seq;
            let read = receipt.as_ref().and_then(|receipt| receipt.read);
            let options = [known.read_durable, known.read].map(|n| (n > 0).then(|| id(n)));
            assert!(
                options.contains(&read) || known.read_durable < known.read,
                "{read:?}"
            );
            known.read = read.map_or(0, |read| (read.to_u128() >> 80) as u64);
            assert!(known.read >= known.read_durable);
            if let Some(receipt) = receipt {
                self.rev_max[*at] = self.rev_max[*at].max(receipt.rev);
            }
        }
    }
}
