//! The journal store against a model, through clean and violent restarts.
//!
//! After a restart everything the sink heard of is there, in order; no place is
//! used twice; windows hold what was accepted; cursors lie between what was
//! durable and what was asked; receipts never fall behind durable
//! acknowledgements, and revisions never repeat.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../common/mod.rs"]
mod common;
mod compare;
mod restore;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use common::{Node, Time, body, device, id, user, wait};
use compare::settings;
use proptest::prelude::*;
use stonechat_mailbox::{MailboxRef, Store};
use stonechat_protocol::{MessageId, Seq, UserId};

const USERS: [&str; 3] = ["alice", "bob", "bob.2"];
const DEVICES: [&str; 2] = ["phone", "tablet"];

#[derive(Debug, Clone)]
enum Op {
    Send {
        from: usize,
        to: usize,
        size: usize,
        ttl_ms: u64,
    },
    Ack {
        user: usize,
        device: usize,
        back: u64,
        reported: bool,
    },
    Attach {
        user: usize,
        device: usize,
    },
    Detach {
        user: usize,
        device: usize,
    },
    RemoveDevice {
        user: usize,
        device: usize,
    },
    Read {
        user: usize,
        with: usize,
    },
    DeadLetter {
        user: usize,
        back: u64,
    },
    Purge {
        user: usize,
        back: u64,
    },
    Barrier,
    Expire {
        pass_ms: u64,
    },
    /// Before that, messages come one by one, each moved at once: their chunks are folded.
    Migrate {
        to: usize,
        trickle: usize,
    },
    Checkpoint,
    /// Everything is written to a backup while messages are on their way, the store is thrown
    /// away, and the backup restored.
    Restore {
        sends: usize,
    },
    Reopen,
    Crash {
        garbage: Vec<u8>,
        /// The database keeps what was written since the last checkpoint as well.
        synced: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0..USERS.len();
    let what = 0..DEVICES.len();
    prop_oneof![
        12 => (who.clone(), who.clone(), prop_oneof![4 => 8usize..200, 1 => 4000usize..40_000], prop_oneof![3 => Just(1_000_000u64), 1 => 1u64..3000])
            .prop_map(|(from, to, size, ttl_ms)| Op::Send { from, to, size, ttl_ms }),
        6 => (who.clone(), what.clone(), 0u64..5, any::<bool>())
            .prop_map(|(user, device, back, reported)| Op::Ack { user, device, back, reported }),
        3 => (who.clone(), what.clone()).prop_map(|(user, device)| Op::Attach { user, device }),
        2 => (who.clone(), what.clone()).prop_map(|(user, device)| Op::Detach { user, device }),
        1 => (who.clone(), what).prop_map(|(user, device)| Op::RemoveDevice { user, device }),
        2 => (who.clone(), who.clone()).prop_map(|(user, with)| Op::Read { user, with }),
        1 => (who.clone(), 0u64..4).prop_map(|(user, back)| Op::Purge { user, back }),
        1 => (who.clone(), 0u64..8).prop_map(|(user, back)| Op::DeadLetter { user, back }),
        3 => Just(Op::Barrier),
        2 => (0u64..2000).prop_map(|pass_ms| Op::Expire { pass_ms }),
        3 => (who, prop_oneof![3 => Just(0), 2 => 1usize..12])
            .prop_map(|(to, trickle)| Op::Migrate { to, trickle }),
        2 => Just(Op::Checkpoint),
        1 => (0usize..6).prop_map(|sends| Op::Restore { sends }),
        1 => Just(Op::Reopen),
        2 => (prop::collection::vec(any::<u8>(), 0..80), any::<bool>())
            .prop_map(|(garbage, synced)| Op::Crash { garbage, synced }),
    ]
}

/// What is known of a device.
#[derive(Debug, Clone, Default)]
struct ModelDevice {
    cursor: Seq,
    /// The cursor when everything was last known to be durable.
    durable: Seq,
    /// Whether its registration is known to be durable.
    registered: bool,
    window: Vec<MessageId>,
}

#[derive(Debug, Clone, Default)]
struct ModelUser {
    /// Everything ever placed: sender and id.
    history: BTreeMap<Seq, (UserId, MessageId)>,
    /// Until when each is worth delivering.
    expiries: BTreeMap<Seq, u64>,
    /// What is held, and until when.
    held: BTreeMap<Seq, u64>,
    last_seq: Seq,
    devices: BTreeMap<usize, ModelDevice>,
    /// Everything up to here has left; and so it is known to be durable.
    floor: Seq,
    floor_durable: Seq,
    first_cursor: Seq,
    first_cursor_durable: Seq,
}

/// A conversation's receipt, as places in the recipient's mailbox.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct ModelReceipt {
    /// Delivered at most up to here: the last acknowledgement.
    delivered: Seq,
    /// What was handed to `put_receipt`.
    put: Seq,
    /// Delivered at least up to here, whatever happens.
    durable: Seq,
    read: u64,
    read_durable: u64,
}

struct World {
    base: tempfile::TempDir,
    generation: u32,
    node: Node,
    mailboxes: Vec<MailboxRef>,
    users: Vec<ModelUser>,
    /// Sends not yet heard of: recipients of the `n`th.
    queued: Vec<(u64, usize, Vec<usize>, u64)>,
    heard: usize,
    next: u64,
    receipts: BTreeMap<(usize, usize), ModelReceipt>,
    rev_max: [u64; USERS.len()],
    dead: usize,
}

impl World {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let time = Time::default();
        let node = Node::with(settings(&base.path().join("0"), &time), time);
        let mailboxes = USERS.iter().map(|name| node.create(name)).collect();
        Self {
            base,
            generation: 0,
            node,
            mailboxes,
            users: vec![ModelUser::default(); USERS.len()],
            queued: Vec::new(),
            heard: 0,
            next: 1,
            receipts: BTreeMap::new(),
            rev_max: [0; USERS.len()],
            dead: 0,
        }
    }

    fn dir(&self) -> PathBuf {
        self.base.path().join(self.generation.to_string())
    }

    /// Takes what the sink heard into the model.
    fn hear(&mut self) {
        let heard = self.node.log.heard();
        for heard in &heard[self.heard..] {
            let (n, from, recipients, expires_ms) = self.queued.remove(0);
            assert_eq!(heard.id, id(n), "appends are heard of in order");
            let places = heard.result.clone().expect("nothing fails here");
            assert_eq!(places.len(), recipients.len());
            for (recipient, (name, prev, seq)) in recipients.into_iter().zip(places) {
                let model = &mut self.users[recipient];
                assert_eq!(name, user(USERS[recipient]));
                assert_eq!(prev, model.last_seq);
                assert!(seq > prev, "no place is used twice");
                model.last_seq = seq;
                model.history.insert(seq, (user(USERS[from]), id(n)));
                model.held.insert(seq, expires_ms);
                model.expiries.insert(seq, expires_ms);
            }
            if let Some(device) = self.users[from].devices.get_mut(&0) {
                device.window.push(id(n));
                device.registered = true;
            }
        }
        self.heard = heard.len();
    }

    fn barrier(&mut self) {
        wait(self.node.store.barrier()).unwrap();
        self.hear();
        assert!(
            self.queued.is_empty(),
            "everything before the barrier is heard of"
        );
        for model in &mut self.users {
            model.floor_durable = model.floor;
            model.first_cursor_durable = model.first_cursor;
            for device in model.devices.values_mut() {
                device.durable = device.cursor;
                device.registered = true;
            }
        }
        for receipt in self.receipts.values_mut() {
            receipt.durable = receipt.delivered;
            receipt.read_durable = receipt.read;
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Send {
                from,
                to,
                size,
                ttl_ms,
            } => self.send(from, to, size, ttl_ms),
            Op::Ack {
                user,
                device,
                back,
                reported,
            } => self.ack(user, device, back, reported),
            Op::Attach {
                user,
                device: index,
            } => {
                // Whether what is on its way counts for the new device would be chance.
                self.barrier();
                let state = self.node.attach(&self.mailboxes[user], DEVICES[index]);
                let known = self.users[user].devices.entry(index).or_default();
                assert_eq!(state.cursor, known.cursor);
            }
            Op::Detach {
                user,
                device: index,
            } => {
                let sent = self.users[user].last_seq;
                let now_ms = self.node.time.now();
                self.node.store.detach(
                    &self.mailboxes[user],
                    &device(DEVICES[index]),
                    sent,
                    now_ms,
                );
            }
            Op::RemoveDevice {
                user,
                device: index,
            } => {
                self.barrier();
                let known = self.users[user].devices.remove(&index).is_some();
                let removed = wait(
                    self.node
                        .store
                        .remove_device(&self.mailboxes[user], &device(DEVICES[index])),
                );
                assert_eq!(removed.is_ok(), known);
                self.advance_floor(user);
                self.barrier();
            }
            Op::Read { user, with } => self.read(user, with),
            Op::Purge { user, back } => self.purge(user, back),
            Op::DeadLetter { user, back } => self.dead_letter(user, back),
            Op::Barrier => {
                self.barrier();
                self.check();
            }
            Op::Expire { pass_ms } => {
                self.barrier();
                self.node.time.pass(pass_ms);
                self.expire();
                self.check();
            }
            Op::Migrate { to, trickle } => self.migrate(to, trickle),
            Op::Checkpoint => {
                self.report_all();
                self.node.store.checkpoint_now().unwrap();
            }
            Op::Reopen => {
                self.report_all();
                self.barrier();
                self.node.close();
                self.open();
                self.check();
            }
            Op::Restore { sends } => self.restore(sends),
            Op::Crash { garbage, synced } => self.crash(&garbage, synced),
        }
    }

    fn send(&mut self, from: usize, to: usize, size: usize, ttl_ms: u64) {
        let n = self.next;
        self.next += 1;
        let (sender, recipient) = (&self.mailboxes[from], &self.mailboxes[to]);
        let mut envelope =
            Arc::unwrap_or_clone(
                self.node
                    .envelope(sender, recipient.user(), n, &body(n, size)),
            );
        envelope.expires_ms = self.node.time.now() + ttl_ms;
        let expires_ms = envelope.expires_ms;
        let mut recipients = vec![to];
        if from != to && self.users[from].devices.contains_key(&1) {
            recipients.push(from);
        }
        let to: Vec<&MailboxRef> = recipients
            .iter()
            .map(|index| &self.mailboxes[*index])
            .collect();
        self.node
            .send_envelope(envelope.into(), sender, &to)
            .unwrap();
        self.queued.push((n, from, recipients, expires_ms));
    }

    fn ack(&mut self, at: usize, index: usize, back: u64, reported: bool) {
        self.barrier();
        let model = &mut self.users[at];
        let Some(known) = model.devices.get_mut(&index) else {
            assert!(
                wait(
                    self.node
                        .store
                        .ack(&self.mailboxes[at], &device(DEVICES[index]), 1)
                )
                .is_err()
            );
            return;
        };
        let upto = model.last_seq.saturating_sub(back);
        known.cursor = known.cursor.max(upto);
        let cursor = known.cursor;
        let mut want: BTreeMap<UserId, Seq> = BTreeMap::new();
        for (seq, _) in model.held.range(model.first_cursor.max(model.floor) + 1..) {
            let (from, _) = &model.history[seq];
            if *seq <= cursor && *from != user(USERS[at]) {
                want.insert(from.clone(), *seq);
            }
        }
        model.first_cursor = model.first_cursor.max(cursor);
        let outcome = self.node.ack(&self.mailboxes[at], DEVICES[index], upto);
        assert_eq!(outcome.cursor, cursor);
        // What has expired may or may not have been thrown away yet.
        let model = &self.users[at];
        for (from, message) in outcome.delivered {
            let seq = want
                .remove(&from)
                .expect("a sender whose message was acknowledged");
            assert_eq!(model.history[&seq].1, message);
            let sender = USERS.iter().position(|name| user(name) == from).unwrap();
            let receipt = self.receipts.entry((sender, at)).or_default();
            receipt.delivered = seq;
        }
        assert!(want.is_empty(), "not reported: {want:?}");
        self.advance_floor(at);
        if reported {
            self.report_all();
        }
    }

    /// Hands every watermark that moved to the store, as the broker does.
    fn report_all(&mut self) {
        let moved: Vec<((usize, usize), Seq)> = self
            .receipts
            .iter()
            .filter(|(_, receipt)| receipt.put < receipt.delivered)
            .map(|(key, receipt)| (*key, receipt.delivered))
            .collect();
        for ((sender, with), seq) in moved {
            let message = self.users[with].history[&seq].1;
            let now_ms = self.node.time.now();
            let put = self.node.store.put_receipt(
                &self.mailboxes[sender],
                &user(USERS[with]),
                Some(message),
                None,
                now_ms,
            );
            if let Some(receipt) = wait(put).unwrap() {
                assert!(receipt.rev > self.rev_max[sender], "revisions never repeat");
                self.rev_max[sender] = receipt.rev;
            }
            self.receipts.get_mut(&(sender, with)).unwrap().put = seq;
        }
    }

    fn read(&mut self, at: usize, with: usize) {
        // Any message will do; the store does not care which.
        let n = self.next;
        let now_ms = self.node.time.now();
        let put = self.node.store.put_receipt(
            &self.mailboxes[at],
            &user(USERS[with]),
            None,
            Some(id(n)),
            now_ms,
        );
        if let Some(receipt) = wait(put).unwrap() {
            assert!(receipt.rev > self.rev_max[at], "revisions never repeat");
            self.rev_max[at] = receipt.rev;
        }
        self.receipts.entry((at, with)).or_default().read = n;
    }

    fn dead_letter(&mut self, at: usize, back: u64) {
        self.barrier();
        let model = &mut self.users[at];
        let seq = model.last_seq.saturating_sub(back);
        let known = model.held.remove(&seq).is_some();
        let moved = wait(
            self.node
                .store
                .dead_letter(&self.mailboxes[at], seq, "test".into(), 1),
        );
        assert_eq!(moved.is_ok(), known, "{moved:?}");
        self.dead += usize::from(known);
    }

    fn expire(&mut self) {
        let now_ms = self.node.time.now();
        while wait(self.node.store.expire(now_ms, 3)).unwrap() > 0 {}
        for model in &mut self.users {
            model.held.retain(|_, expires_ms| *expires_ms > now_ms);
        }
        for (model, mailbox) in self.users.iter().zip(&self.mailboxes) {
            assert_eq!(mailbox.stats().messages, model.held.len() as u64);
        }
    }

    fn advance_floor(&mut self, at: usize) {
        let model = &mut self.users[at];
        if let Some(slowest) = model.devices.values().map(|device| device.cursor).min() {
            model.floor = model.floor.max(slowest);
        }
        model.held = model.held.split_off(&(model.floor + 1));
    }
}

/// `PROPTEST_CASES` or enough for every run of the tests.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|cases| cases.parse().ok()).unwrap_or(60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_says(ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
        }
        world.barrier();
        world.check();
        world.node.close();
        let report = stonechat_mailbox::check(&world.dir()).unwrap();
        prop_assert!(report.is_sound(), "{report}");
    }
}
