//! A backup at a random point, and going on from it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use stonechat_mailbox::{BackupProgress, JournalStore, Store, StoreAdmin};
use stonechat_protocol::{MessageId, Seq};

use crate::common::wait;
use crate::{ModelUser, World};

/// Rounds of housekeeping beside a backup at most.
const ROUNDS_MAX: usize = 20;

/// Moves messages and writes checkpoints without a pause until it is dropped: a backup must
/// stand what housekeeping does meanwhile.
struct Housekeeping {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Housekeeping {
    fn start(store: &Arc<JournalStore>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (store, stopped) = (Arc::clone(store), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for _ in 0..ROUNDS_MAX {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                store.migrate_now().expect("migrates");
                store.checkpoint_now().expect("writes a checkpoint");
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Housekeeping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("housekeeping did not fail");
        }
    }
}

impl World {
    /// What is thrown away is gone for good, and counted.
    pub(crate) fn purge(&mut self, at: usize, back: u64) {
        self.barrier();
        let model = &mut self.users[at];
        let upto = model.last_seq.saturating_sub(back);
        let left = model.held.split_off(&(upto + 1));
        let gone = std::mem::replace(&mut model.held, left).len() as u64;
        let before = self.node.store.stats().purged_total;
        let purged = wait(self.node.store.purge(&self.mailboxes[at], Some(upto))).expect("purges");
        assert_eq!((purged.messages, purged.upto), (gone, upto));
        assert_eq!(self.node.store.stats().purged_total, before + gone);
        if gone > 0 {
            model.floor = model.floor.max(upto);
            model.floor_durable = model.floor;
        }
    }

    /// What was accepted before the call of the backup is in it, whatever moves meanwhile;
    /// what is accepted while it is written may be.
    pub(crate) fn restore(&mut self, sends: usize) {
        self.report_all();
        self.barrier();
        let before = self.users.clone();
        let file = self.base.path().join("backup");
        let housekeeping = Housekeeping::start(&self.node.store);
        let progress = Arc::new(BackupProgress::default());
        let backup = self.node.store.backup(&file, Arc::clone(&progress));
        for n in 0..sends {
            self.send(n % 3, (n + 1) % 3, 100, 1_000_000);
        }
        let report = wait(backup).expect("the backup is written");
        drop(housekeeping);
        assert_eq!(progress.bytes(), report.bytes);
        let verified = stonechat_mailbox::verify_backup(&file).expect("the backup is whole");
        assert_eq!(verified, report);
        // The end of the store that is thrown away; what was on its way is heard of.
        self.barrier();
        self.node.close();
        self.generation += 1;
        self.take_up(&file, &before);
        std::fs::remove_file(&file).expect("the backup is there");
    }

    fn take_up(&mut self, file: &Path, before: &[ModelUser]) {
        stonechat_mailbox::restore(file, &self.dir()).expect("the backup is restored");
        self.open();
        for (model, mailbox) in self.users.iter().zip(&self.mailboxes) {
            assert!(
                mailbox.last_seq() > model.last_seq + 1000,
                "places go on far above what was ever given"
            );
            for (device, state) in mailbox.device_states() {
                let sent = state.sent;
                assert_eq!(sent, mailbox.last_seq(), "{device} may have been sent it");
            }
        }
        self.adopt_backup(before);
        self.check();
        self.expire();
        self.check();
    }

    /// A message sent while the backup was written is in it everywhere (all its mailboxes, its
    /// sender's window) or nowhere, and then so is what was sent after it.
    fn adopt_backup(&mut self, before: &[ModelUser]) {
        let now_ms = self.node.time.now();
        let mut kept: BTreeSet<MessageId> = BTreeSet::new();
        let mut gone: BTreeSet<MessageId> = BTreeSet::new();
        for (at, mailbox) in self.mailboxes.iter().enumerate() {
            let held: BTreeMap<Seq, MessageId> = self.node.held(mailbox, 0).into_iter().collect();
            let model = &mut self.users[at];
            for (seq, message) in &held {
                assert_eq!(model.history[seq].1, *message, "nothing changed its place");
                assert!(model.held.contains_key(seq), "what had left is back");
            }
            for (seq, expires_ms) in std::mem::take(&mut model.held) {
                let message = model.history[&seq].1;
                let there = held.contains_key(&seq);
                if seq <= before[at].last_seq {
                    assert!(
                        there || expires_ms <= now_ms,
                        "message {seq}, accepted before the backup, is lost"
                    );
                } else if there {
                    kept.insert(message);
                } else {
                    gone.insert(message);
                }
                if there || seq <= before[at].last_seq {
                    model.held.insert(seq, expires_ms);
                }
            }
            model.last_seq = mailbox.last_seq();
        }
        if let (Some(last), Some(first)) = (kept.last(), gone.first()) {
            assert!(last < first, "{first:?} is missing, {last:?} is there");
        }
        for (model, before) in self.users.iter_mut().zip(before) {
            for (index, known) in &mut model.devices {
                let old = before.devices.get(index).map_or(0, |old| old.window.len());
                let new = known.window.split_off(old);
                known
                    .window
                    .extend(new.iter().filter(|id| kept.contains(id)));
            }
        }
    }
}
