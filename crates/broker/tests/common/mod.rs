//! What the suites share: a broker on a real store in a directory of its own,
//! and devices that are outlets instead of sockets.
//!
//! It asserts nothing by itself except that what it waits for happens.

#![allow(dead_code, reason = "every suite uses a part of it")]

pub(crate) mod gate;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_rt::{Arbiter, ArbiterHandle, System};
use bytes::Bytes;
use stonechat_actors::{Tree, TreeConfig};
use stonechat_broker::{
    Attach, AttachError, Attached, Broker, BrokerConfig, Command, Drain, Event, Input,
    OutletLimits, RateConfig, SessionLink, Taken, commit_sink, outlet,
};
use stonechat_mailbox::{Account, JournalStore, Store, StoreConfig};
use stonechat_protocol::{
    Accepted, CloseReason, DeviceId, ErrorCode, ErrorFrame, MessageId, Receipt, Seq, UserId,
};

/// Longest wait for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).expect("a user name")
}

pub(crate) fn device(name: &str) -> DeviceId {
    DeviceId::new(name).expect("a device name")
}

/// The `n`th message id of a device.
pub(crate) fn id(n: u64) -> MessageId {
    // Version 7 and variant 2, as a client would make it.
    MessageId::from_u128((u128::from(n) << 80) | (0x7 << 76) | (0x2 << 62))
}

/// Which one it is, of those `id` makes.
pub(crate) fn number(id: MessageId) -> u64 {
    u64::try_from(id.to_u128() >> 80).expect("made by `id`")
}

/// Fails the test when the answer does not come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("never happened: {what}"),
    }
}

/// Waits for a condition that nobody announces.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Settings for tests: no limits of rate in the way, faults allowed.
pub(crate) fn config() -> BrokerConfig {
    BrokerConfig {
        rate: RateConfig {
            messages_per_s: 1_000_000,
            messages_burst: 1_000_000,
            ..RateConfig::default()
        },
        coalesce_ms: 5,
        fault_injection: true,
        ..BrokerConfig::default()
    }
}

/// A broker and everything under it.
pub(crate) struct Node {
    pub(crate) broker: Broker,
    pub(crate) store: Arc<JournalStore>,
    /// Threads of offline queues and router; sessions are started on them when asked.
    pub(crate) arbiters: Vec<ArbiterHandle>,
}

/// Runs a test on a node of its own.
pub(crate) fn run<F>(config: BrokerConfig, tune: impl FnOnce(&mut StoreConfig), test: F)
where
    F: AsyncFnOnce(&Node),
{
    System::new().block_on(async {
        let dir = tempfile::tempdir().expect("a directory");
        let mut settings = StoreConfig {
            lazy_flush: Duration::from_millis(5),
            sled_cache_bytes: 4 << 20,
            reserve_bytes: 64 << 10,
            ..StoreConfig::new(dir.path().join("data"))
        };
        tune(&mut settings);
        let (commits, sink) = commit_sink();
        let store = JournalStore::open(settings, commits).expect("the store opens");
        let tree = Tree::try_new(TreeConfig::default()).expect("a tree");
        let threads: Vec<Arbiter> = (0..2).map(|_| Arbiter::new()).collect();
        let arbiters: Vec<ArbiterHandle> = threads.iter().map(Arbiter::handle).collect();
        let held: Arc<dyn Store> = store.clone();
        let broker =
            Broker::start(config, held, &sink, tree.clone(), &arbiters).expect("the broker starts");
        let node = Node {
            broker,
            store,
            arbiters,
        };
        test(&node).await;
        tree.shutdown(DEADLINE).await;
        soon("the store closes", node.store.close())
            .await
            .expect("closes");
        for thread in threads {
            thread.stop();
            thread.join().expect("the thread ends");
        }
    });
}

fn account(name: &str) -> Account {
    Account {
        user: user(name),
        created_ms: 1,
        tokens_valid_from_ms: 0,
        disabled: false,
        limits: Default::default(),
    }
}

impl Node {
    pub(crate) async fn create(&self, names: &[&str]) {
        for name in names {
            let stored = self.store.put_account(account(name));
            soon("an account is stored", stored).await.expect("stores");
        }
    }

    /// Connects `user/device`; its session, if it has to be started, runs on this thread.
    pub(crate) async fn attach(&self, name: &str) -> Device {
        self.plug(name).attach(self).await.expect("attaches")
    }

    pub(crate) fn plug(&self, name: &str) -> Plug {
        let (user_name, device_name) = name.split_once('/').expect("user/device");
        Plug {
            user: user(user_name),
            device: device(device_name),
            limits: OutletLimits::default(),
            home: Arbiter::current(),
            ack: None,
            rev: None,
        }
    }

    /// Waits until all sessions have ended.
    pub(crate) async fn no_sessions(&self) {
        until("the sessions end", || self.broker.stats().sessions == 0).await;
    }
}

/// A connection about to sign in.
pub(crate) struct Plug {
    user: UserId,
    device: DeviceId,
    pub(crate) limits: OutletLimits,
    pub(crate) home: ArbiterHandle,
    pub(crate) ack: Option<Seq>,
    pub(crate) rev: Option<u64>,
}

impl Plug {
    pub(crate) async fn attach(self, node: &Node) -> Result<Device, AttachError> {
        let (outlet, drain) = outlet(self.limits);
        let attach = Attach {
            user: self.user,
            device: self.device,
            outlet,
            home: self.home,
            ack: self.ack,
            rev: self.rev,
            traffic: Arc::default(),
        };
        let attached = soon("a device is attached", node.broker.attach(attach)).await?;
        let Attached {
            link,
            session_id,
            pending,
        } = attached;
        Ok(Device {
            link,
            drain,
            events: VecDeque::new(),
            closed: None,
            session_id,
            pending,
        })
    }
}

/// A message as a device sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) seq: Seq,
    pub(crate) n: u64,
    pub(crate) copy: bool,
    pub(crate) redelivered: bool,
    pub(crate) ephemeral: bool,
}

/// A connected device.
pub(crate) struct Device {
    pub(crate) link: SessionLink,
    drain: Drain,
    events: VecDeque<Event>,
    closed: Option<CloseReason>,
    pub(crate) session_id: String,
    pub(crate) pending: u64,
}

impl Device {
    pub(crate) async fn input(&self, input: Input) {
        let taken = soon("the session takes a frame", self.link.input(input)).await;
        taken.expect("the session takes the frame");
    }

    /// Sends message `n`.
    pub(crate) async fn send(&self, n: u64, to: &str) {
        self.input(send(n, to, false)).await;
    }

    pub(crate) async fn ack(&self, seq: Seq) {
        let input = Input {
            ack: Some(seq),
            ..Input::default()
        };
        self.input(input).await;
    }

    pub(crate) async fn read(&self, from: &str, n: u64) {
        let command = Command::Read {
            from: user(from),
            id: id(n),
        };
        let input = Input {
            command: Some(command),
            ..Input::default()
        };
        self.input(input).await;
    }

    /// Takes in what has come; `false` when nothing more will.
    async fn fill(&mut self, what: &str) -> bool {
        if self.closed.is_some() {
            return false;
        }
        let mut events = Vec::new();
        let taken = soon(what, self.drain.take_some(&mut events, usize::MAX)).await;
        self.events.extend(events);
        if let Taken::Close { reason, .. } = taken {
            self.closed = Some(reason);
        }
        self.closed.is_none()
    }

    /// The first event that `pick` takes, or why the connection was closed before.
    pub(crate) async fn pick<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(&Event) -> Option<T>,
    ) -> Result<T, CloseReason> {
        loop {
            let found = self.events.iter().enumerate();
            let found = found.filter_map(|(at, event)| pick(event).map(|value| (at, value)));
            if let Some((at, value)) = { found }.next() {
                self.events.remove(at);
                return Ok(value);
            }
            if !self.fill(what).await {
                return Err(self.closed.expect("closed with a reason"));
            }
        }
    }

    pub(crate) async fn try_message(&mut self) -> Result<Message, CloseReason> {
        self.pick("a message", as_message).await
    }

    pub(crate) async fn message(&mut self) -> Message {
        self.try_message().await.expect("the connection is open")
    }

    /// The next messages' numbers.
    pub(crate) async fn messages(&mut self, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            numbers.push(self.message().await.n);
        }
        numbers
    }

    pub(crate) async fn accepted(&mut self) -> Accepted {
        let accepted = self.pick("accepted", |event| match event {
            Event::Accepted(accepted) => Some(accepted.clone()),
            _ => None,
        });
        accepted.await.expect("the connection is open")
    }

    pub(crate) async fn error(&mut self) -> ErrorFrame {
        let error = self.pick("an error", |event| match event {
            Event::Error(error) => Some((**error).clone()),
            _ => None,
        });
        error.await.expect("the connection is open")
    }

    /// The next refusal is of message `n`, for this reason.
    pub(crate) async fn refused(&mut self, n: u64, code: ErrorCode) -> ErrorFrame {
        let error = self.error().await;
        assert_eq!((error.code, error.reference), (code, Some(id(n))));
        error
    }

    /// Waits for a receipt that says this much.
    pub(crate) async fn receipt(
        &mut self,
        with: &str,
        delivered: Option<u64>,
        read: Option<u64>,
    ) -> Receipt {
        let with = user(with);
        let receipt = self.pick("a receipt", |event| match event {
            Event::Receipt(receipt)
                if receipt.with == with
                    && receipt.delivered == delivered.map(id)
                    && receipt.read == read.map(id) =>
            {
                Some((**receipt).clone())
            }
            _ => None,
        });
        receipt.await.expect("the connection is open")
    }

    /// Waits until the server closes the connection.
    pub(crate) async fn closed(&mut self) -> CloseReason {
        while self.fill("the connection is closed").await {}
        self.closed.expect("closed with a reason")
    }

    /// What came and was not asked for, up to now and up to the answer to an ephemeral send:
    /// by then everything the session had to say before has been said.
    pub(crate) async fn rest(&mut self, n: u64, to: &str) -> Vec<Event> {
        self.input(send(n, to, true)).await;
        let answered = self.pick("an ephemeral answer", |event| match event {
            Event::Accepted(accepted) if accepted.id == id(n) => Some(()),
            _ => None,
        });
        answered.await.expect("the connection is open");
        self.events.drain(..).collect()
    }
}

pub(crate) fn as_message(event: &Event) -> Option<Message> {
    match event {
        Event::Message {
            seq,
            envelope,
            copy,
            redelivered,
            ephemeral,
            ..
        } => Some(Message {
            seq: *seq,
            n: number(envelope.id),
            copy: *copy,
            redelivered: *redelivered,
            ephemeral: *ephemeral,
        }),
        _ => None,
    }
}

/// The frame that sends message `n`.
pub(crate) fn send(n: u64, to: &str, ephemeral: bool) -> Input {
    Input {
        command: Some(Command::Send {
            id: id(n),
            to: user(to),
            body: Bytes::from(format!("{{\"n\":{n}}}")),
            ttl_s: None,
            ephemeral,
            span: None,
        }),
        ..Input::default()
    }
}
