//! One device of the fleet: what of it survives, and how it behaves on a connection.
//!
//! It does what the protocol asks of a client: what is unanswered is sent again in order before
//! anything new, what came before is dropped by its place, acknowledgements are cumulative. What it
//! sees goes to the [`Truth`]. How eager it is to send, to acknowledge and to stay connected is
//! drawn anew for every round.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::facts::{Breach, Got};
use super::frame::Frame;
use super::manner::{Manner, Orders};
use super::truth::{Devices, Truth};
use crate::connect::{Connect, Socket};

/// What was refused for want of a disk goes again after about so many ticks.
const RETRY_TICKS: u32 = 10;
/// How often a device looks at what is due.
const TICK: Duration = Duration::from_millis(15);

/// A send without an answer.
#[derive(Debug)]
struct Pending {
    id: Uuid,
    frame: String,
    resent: bool,
    /// It was told `storage_unavailable`: it goes again under the same id unless something later
    /// of this device is accepted.
    refused: bool,
}

/// A device and what of it survives everything.
#[derive(Debug)]
pub struct Device {
    pub(super) number: usize,
    pub(super) user: usize,
    pub(super) users: Arc<Vec<String>>,
    pub(super) name: &'static str,
    pub(super) token: String,
    random: SmallRng,
    /// Place of the last message handed to the application.
    taken: u64,
    /// Place up to which it has acknowledged, as far as it knows.
    acked: u64,
    rev: u64,
    unanswered: VecDeque<Pending>,
}

/// What belongs to one connection.
#[derive(Default)]
struct Connection {
    welcomed: bool,
    last_seq: u64,
    unacked: usize,
    /// From whom the last message was, unless it was a copy.
    read: Option<(usize, Uuid, u64)>,
    fence: Option<u64>,
    fenced: bool,
    bye: bool,
}

/// Hash of a body, byte for byte.
fn hash(body: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}

fn lock(truth: &Mutex<Truth>) -> MutexGuard<'_, Truth> {
    truth.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    pub(super) fn new(
        number: usize,
        user: usize,
        users: Arc<Vec<String>>,
        name: &'static str,
        token: String,
        seed: u64,
    ) -> Self {
        Self {
            number,
            user,
            users,
            name,
            token,
            random: SmallRng::seed_from_u64(seed ^ (number as u64) << 32),
            taken: 0,
            acked: 0,
            rev: 0,
            unanswered: VecDeque::new(),
        }
    }

    /// Of the set it is in.
    pub(super) fn bit(&self) -> Devices {
        1 << self.number
    }

    /// Lives through one phase of a round and comes back.
    pub(super) async fn live(
        mut self,
        address: String,
        manner: Manner,
        truth: Arc<Mutex<Truth>>,
        orders: Arc<Orders>,
    ) -> Self {
        if manner.away {
            return self;
        }
        let mut sends_left = manner.sends_max;
        while !orders.stop.load(Ordering::Relaxed) {
            let pause = self.random.random_range(0..20);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let socket = Connect::address(address.clone()).socket().await;
            let again = match socket {
                Ok((mut socket, _)) => {
                    self.converse(&mut socket, manner, &mut sends_left, &truth, &orders)
                        .await
                }
                Err(_) => orders.come_back,
            };
            if !again {
                break;
            }
        }
        self
    }

    /// Until the connection ends; whether to come back.
    async fn converse(
        &mut self,
        socket: &mut Socket,
        manner: Manner,
        sends_left: &mut usize,
        truth: &Mutex<Truth>,
        orders: &Orders,
    ) -> bool {
        let lost = orders.come_back;
        if self.greet(socket, truth).await.is_none() {
            return lost;
        }
        let mut connection = Connection::default();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let on_tick = tokio::select! {
                biased;
                next = socket.next() => match next {
                    Some(Ok(Message::Text(text))) => {
                        self.take(&text, &mut connection, truth, orders);
                        false
                    }
                    Some(Ok(Message::Close(_)| Message::Ping(_) | Message::Pong(_))) => false,
                    Some(Ok(other)) => {
                        let said = format!("device {}: {other:?}", self.number);
                        lock(truth).breach(Breach::Other, || said);
                        false
                    }
                    None | Some(Err(_)) => return lost && !connection.bye,
                },
                _ = tick.tick() => true,
            };
            if orders.stop.load(Ordering::Relaxed) {
                return false;
            }
            if on_tick && manner.flaps_every > 0 && self.random.random_ratio(1, manner.flaps_every)
            {
                return true;
            }
            let said = self
                .speak(
                    socket,
                    on_tick,
                    manner,
                    sends_left,
                    &mut connection,
                    truth,
                    orders,
                )
                .await;
            if said.is_none() {
                return lost;
            }
            if connection.fenced {
                // A polite end, so that the server knows the device is away.
                let _ = socket.close(None).await;
                return false;
            }
        }
    }

    async fn greet(&mut self, socket: &mut Socket, truth: &Mutex<Truth>) -> Option<()> {
        // Some clients say at once how far they are, others let it come again.
        if self.random.random() {
            self.acked = self.taken;
        }
        lock(truth).acknowledges(self.number, self.acked);
        let hello = format!(
            r#"{{"type":"hello","token":"{}","device":"{}","client":"fleet/1","ack":{},"rev":{}}}"#,
            self.token, self.name, self.acked, self.rev
        );
        socket.feed(Message::text(hello)).await.ok()?;
        for pending in &mut self.unanswered {
            pending.resent = true;
            pending.refused = false;
            let frame = Message::text(pending.frame.clone());
            socket.feed(frame).await.ok()?;
        }
        socket.flush().await.ok()
    }

    /// Says what is due; `None`: the connection is gone.
    #[allow(clippy::too_many_arguments, reason = "one step of one loop")]
    async fn speak(
        &mut self,
        socket: &mut Socket,
        on_tick: bool,
        manner: Manner,
        sends_left: &mut usize,
        connection: &mut Connection,
        truth: &Mutex<Truth>,
        orders: &Orders,
    ) -> Option<()> {
        if !connection.welcomed {
            return Some(());
        }
        let mut said = false;
        let all_refused = self.unanswered.iter().all(|pending| pending.refused);
        if all_refused && self.random.random_ratio(1, RETRY_TICKS) {
            for pending in &mut self.unanswered {
                (pending.resent, pending.refused) = (true, false);
                let frame = Message::text(pending.frame.clone());
                socket.feed(frame).await.ok()?;
                said = true;
            }
        }
        while *sends_left > 0 && self.unanswered.len() < manner.window {
            *sends_left -= 1;
            let frame = self.compose(truth);
            socket.feed(Message::text(frame)).await.ok()?;
            said = true;
        }
        let done = orders.done.load(Ordering::Relaxed);
        let due = connection.unacked >= manner.ack_every || on_tick || done;
        if manner.ack_every > 0 && connection.unacked > 0 && due {
            let frames = self.acknowledge(connection, truth);
            for frame in frames {
                socket.feed(Message::text(frame)).await.ok()?;
            }
            said = true;
        }
        if done && connection.fence.is_none() {
            let nonce = self.random.random_range(0..1 << 53);
            connection.fence = Some(nonce);
            let ping = format!(r#"{{"type":"ping","nonce":{nonce},"rev":{}}}"#, self.rev);
            socket.feed(Message::text(ping)).await.ok()?;
            said = true;
        }
        if said {
            socket.flush().await.ok()?;
        }
        Some(())
    }

    /// Frames that acknowledge what was taken, and now and then say that it was read.
    fn acknowledge(&mut self, connection: &mut Connection, truth: &Mutex<Truth>) -> Vec<String> {
        connection.unacked = 0;
        self.acked = self.taken;
        let mut truth = lock(truth);
        truth.acknowledges(self.number, self.taken);
        let mut frames = vec![format!(
            r#"{{"type":"ack","seq":{},"rev":{}}}"#,
            self.taken, self.rev
        )];
        if let Some((from, id, seq)) = connection.read.take()
            && self.random.random_ratio(1, 4)
        {
            truth.reads(self.number, from, seq);
            let from = &self.users[from];
            frames.push(format!(r#"{{"type":"read","from":"{from}","id":"{id}"}}"#));
        }
        frames
    }

    /// A new message to somebody else.
    fn compose(&mut self, truth: &Mutex<Truth>) -> String {
        let to = loop {
            let to = self.random.random_range(0..self.users.len());
            if to != self.user {
                break to;
            }
        };
        let pad = match self.random.random_range(0..20) {
            0 => self.random.random_range(2_000..20_000),
            1..=5 => self.random.random_range(200..2_000),
            _ => self.random.random_range(0..200),
        };
        let id = Uuid::now_v7();
        let body = format!(r#"{{"of":"{id}","pad":"{:.>pad$}"}}"#, "");
        let frame = format!(
            r#"{{"type":"send","id":"{id}","to":{{"user":"{}"}},"body":{body}}}"#,
            self.users[to]
        );
        lock(truth).sends(self.number, id, to, hash(&body));
        self.unanswered.push_back(Pending {
            id,
            frame: frame.clone(),
            resent: false,
            refused: false,
        });
        frame
    }

    fn take(
        &mut self,
        text: &str,
        connection: &mut Connection,
        truth: &Mutex<Truth>,
        orders: &Orders,
    ) {
        let mut truth = lock(truth);
        let understood = serde_json::from_str::<Frame<'_>>(text)
            .map_err(|error| error.to_string())
            .and_then(|frame| self.frame(&frame, connection, &mut truth, orders));
        if let Err(what) = understood {
            let head = &text[..text.floor_char_boundary(300)];
            let who = truth.label(self.number);
            truth.breach(Breach::Other, || format!("{who}: {what}: {head}"));
        }
    }

    fn frame(
        &mut self,
        frame: &Frame<'_>,
        connection: &mut Connection,
        truth: &mut Truth,
        orders: &Orders,
    ) -> Result<(), String> {
        match frame.kind {
            "welcome" => connection.welcomed = true,
            "accepted" => self.accepted(frame, truth)?,
            "message" => self.message(frame, connection, truth)?,
            "receipt" => {
                let rev = frame.rev.ok_or("without rev")?;
                if rev <= self.rev {
                    let (last, who) = (self.rev, truth.label(self.number));
                    truth.breach(Breach::Receipt, || format!("{who}: rev {rev} after {last}"));
                }
                self.rev = rev;
                let with = frame.with.ok_or("without with")?;
                truth.told(self.number, with, frame.delivered, frame.read);
            }
            "error" => {
                let code = frame.code.unwrap_or_default();
                let id = frame.reference.ok_or("an error that answers nothing")?;
                match self.unanswered.iter().position(|send| send.id == id) {
                    Some(at) if orders.disk_fails && code == "storage_unavailable" => {
                        self.unanswered[at].refused = true;
                        truth.put_off();
                    }
                    Some(at) => {
                        self.unanswered.remove(at);
                        truth.refused(self.number, id);
                        // Something later was accepted, but this device did not hear of it.
                        let overtaken = orders.disk_fails && code == "id_too_old";
                        if !overtaken {
                            return Err("refused".to_owned());
                        }
                    }
                    // A `read` too many for a store that is behind: the next one says as much.
                    None if code == "storage_unavailable" && truth.has_got(self.number, id) => {}
                    None => return Err("an error that answers nothing".to_owned()),
                }
            }
            "pong" => connection.fenced = connection.fence == frame.nonce,
            // A sign-in that waited too long for the disk is tried again; otherwise the server ends.
            "bye" if orders.disk_fails => connection.bye = frame.reason != Some("overloaded"),
            "bye" => {
                connection.bye = true;
                return Err("nobody asked the server to say goodbye".to_owned());
            }
            _ => return Err("unknown type".to_owned()),
        }
        Ok(())
    }

    fn accepted(&mut self, frame: &Frame<'_>, truth: &mut Truth) -> Result<(), String> {
        let id = frame.id.ok_or("without an id")?;
        let at = self.unanswered.iter().position(|pending| !pending.refused);
        let awaited = at.and_then(|at| self.unanswered.get(at));
        let resent = awaited.is_some_and(|pending| pending.resent);
        let awaited = awaited.map(|pending| pending.id);
        truth.accepted(self.number, id, awaited, frame.duplicate, resent);
        if let (Some(at), true) = (at, awaited == Some(id)) {
            // What was refused before it cannot go again under its id.
            for refused in self.unanswered.drain(..at) {
                truth.refused(self.number, refused.id);
            }
            self.unanswered.pop_front();
        }
        Ok(())
    }

    fn message(
        &mut self,
        frame: &Frame<'_>,
        connection: &mut Connection,
        truth: &mut Truth,
    ) -> Result<(), String> {
        let seq = frame.seq.ok_or("without seq")?;
        let id = frame.id.ok_or("without id")?;
        let from = frame.from.as_ref().ok_or("without from")?;
        let body = frame.body.ok_or("without body")?;
        if seq <= connection.last_seq {
            let (last, who) = (connection.last_seq, truth.label(self.number));
            truth.breach(Breach::Disordered, || {
                format!("{who}: {id} at {seq} after {last} on one connection")
            });
        }
        connection.last_seq = seq;
        connection.unacked += 1;
        if seq <= self.taken {
            truth.dropped(self.number, seq, id, frame.redelivered);
            return Ok(());
        }
        self.taken = seq;
        let got = Got {
            seq,
            id,
            from: (from.user, from.device.unwrap_or_default()),
            to: frame.to.as_ref().map(|to| to.user),
            body_hash: hash(body.get()),
        };
        truth.delivered(self.number, &got);
        let author = self.users.iter().position(|user| user == from.user);
        connection.read = author
            .filter(|_| frame.to.is_none())
            .map(|author| (author, id, seq));
        Ok(())
    }
}
