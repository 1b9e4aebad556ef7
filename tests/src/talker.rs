//! One simulated user who talks to a partner without pause, through every interruption.
//!
//! It behaves as the protocol asks of a client and no better: unanswered sends are sent again in
//! order after a reconnect, before anything new; what came before is recognised by its `seq`; acks
//! are cumulative and lag a little. Everything it sees goes into a [`Ledger`] for the checker, and
//! whatever contradicts the protocol at first sight is noted as a violation.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::ws::send;
use crate::{Connect, Endpoint, Incoming, WsClient, new_id};

/// Messages after which a talker acknowledges at once; fewer wait for the next tick.
const ACK_AFTER_MESSAGES: usize = 5;

/// Pause before another attempt to connect.
const RECONNECT_AFTER: Duration = Duration::from_millis(25);

/// What the other threads may know of a talker while it runs.
#[derive(Debug, Default)]
pub struct Progress {
    /// Sends accepted.
    pub accepted: AtomicU64,
    /// Messages handed to the application, each once.
    pub delivered: AtomicU64,
    /// It has sent its last message, and all were answered.
    pub done_sending: AtomicBool,
}

/// Orders to all talkers.
#[derive(Debug, Default)]
pub struct Orders {
    /// Send nothing new; end when everything has arrived.
    pub finish: AtomicBool,
    /// End at once.
    pub abort: AtomicBool,
    /// Devices that have been welcomed once. Nobody sends before all have been: a device that was
    /// never there when a message came and went has no claim to it.
    pub welcomed: AtomicUsize,
    /// Devices there are.
    pub devices: usize,
}

/// What a talker saw.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Ids accepted, in the order of the answers.
    pub accepted: Vec<String>,
    /// Ids refused, with the code.
    pub refused: Vec<(String, String)>,
    /// Ids handed to the application, in that order, with their seq.
    pub delivered: Vec<(u64, String)>,
    /// Ids of copies of what the user's other device sent, with their seq; listeners get these.
    pub copies: Vec<(u64, String)>,
    /// Answers marked as duplicates.
    pub duplicates: u64,
    /// Messages that came again and were dropped.
    pub dropped: u64,
    /// Sends without an answer at the end.
    pub unanswered: usize,
    /// How each connection but the last ended.
    pub disconnects: Vec<String>,
    /// What contradicted the protocol.
    pub violations: Vec<String>,
}

/// What a device of a user does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The phone: sends and receives.
    Talks,
    /// The tablet: receives, copies of what the phone sends included.
    Listens,
}

/// One device of a user in conversation.
#[derive(Debug)]
pub struct Talker {
    /// What it does.
    pub role: Role,
    /// The user's name.
    pub user: String,
    /// Its token.
    pub token: String,
    /// The partner's name.
    pub partner: String,
    /// Sends that may be unanswered at a time.
    pub window: usize,
    /// Pause between two sends.
    pub pace: Duration,
    /// Whether its session may panic and then send again, on the same connection, what was not
    /// acknowledged.
    pub panics: bool,
    /// Where the node is.
    pub endpoint: Arc<Mutex<Endpoint>>,
    /// What it is told.
    pub orders: Arc<Orders>,
    /// The progress of its user's phone.
    pub own: Arc<Progress>,
    /// The progress of the partner's phone.
    pub other: Arc<Progress>,
}

#[derive(Default)]
struct State {
    ledger: Ledger,
    unanswered: VecDeque<(String, Value)>,
    sent: HashMap<String, u64>,
    last_seq: u64,
    acked_seq: u64,
    last_rev: u64,
    welcomed: bool,
    /// Place among the sends of the one last told to be delivered.
    told_at: Option<u64>,
}

impl State {
    /// Place among the sends of the one accepted last.
    fn last_accepted(&self) -> Option<u64> {
        let id = self.ledger.accepted.last()?;
        self.sent.get(id).copied()
    }
}

enum End {
    Done,
    Lost(String),
}

impl Role {
    fn device(self) -> &'static str {
        match self {
            Self::Talks => "phone",
            Self::Listens => "tablet",
        }
    }
}

impl Talker {
    /// Talks until told to finish and everything has arrived, the receipt of the last message
    /// included; or told to abort.
    pub async fn run(self) -> Ledger {
        let mut state = State::default();
        while !self.orders.abort.load(Ordering::Relaxed) {
            let endpoint = self
                .endpoint
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .listen
                .clone();
            if let Ok(mut client) = Connect::address(endpoint).open().await {
                match self.converse(&mut client, &mut state).await {
                    End::Done => {
                        client.close().await;
                        break;
                    }
                    End::Lost(how) => state.ledger.disconnects.push(how),
                }
            }
            tokio::time::sleep(RECONNECT_AFTER).await;
        }
        state.ledger.unanswered = state.unanswered.len();
        state.ledger
    }

    async fn converse(&self, client: &mut WsClient, state: &mut State) -> End {
        let lost = |how: &str| End::Lost(how.to_owned());
        let hello = json!({"type": "hello", "token": self.token, "device": self.role.device(),
            "client": "talker/1", "ack": state.last_seq, "rev": state.last_rev});
        if !client.try_send_text(hello.to_string()).await {
            return lost("before the hello");
        }
        for (_, frame) in &state.unanswered {
            if !client.try_send_text(frame.to_string()).await {
                return lost("while sending again");
            }
        }
        let mut connection = Connection::default();
        let mut tick = tokio::time::interval(self.pace);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                incoming = client.incoming() => match incoming {
                    Incoming::Frame(frame) => self.take(&frame, state, &mut connection),
                    Incoming::Ping | Incoming::Pong(_) => {}
                    Incoming::Closed(code, reason) => {
                        connection.bye.get_or_insert(format!("close {code} {reason}"));
                    }
                    Incoming::Gone(how) => return End::Lost(connection.bye.unwrap_or(how)),
                },
                _ = tick.tick() => {
                    if self.orders.abort.load(Ordering::Relaxed) {
                        return End::Done;
                    }
                    if connection.welcomed && !self.on_tick(client, state).await {
                        return lost("while sending");
                    }
                    if self.is_complete(state) {
                        return End::Done;
                    }
                }
            }
            if connection.since_ack >= ACK_AFTER_MESSAGES {
                connection.since_ack = 0;
                if !self.acknowledge(client, state).await {
                    return lost("while acknowledging");
                }
            }
        }
    }

    async fn on_tick(&self, client: &mut WsClient, state: &mut State) -> bool {
        if self.role == Role::Listens {
            return self.acknowledge(client, state).await;
        }
        let finishing = self.orders.finish.load(Ordering::Relaxed);
        if finishing && state.unanswered.is_empty() {
            self.own.done_sending.store(true, Ordering::Release);
        }
        let all_here = self.orders.welcomed.load(Ordering::Relaxed) >= self.orders.devices;
        if !finishing && all_here && state.unanswered.len() < self.window {
            let id = new_id();
            let n = state.sent.len() as u64;
            let frame = send(&id, &self.partner, &json!({"n": n, "by": self.user}));
            state.sent.insert(id.clone(), n);
            let text = frame.to_string();
            state.unanswered.push_back((id, frame));
            if !client.try_send_text(text).await {
                return false;
            }
        }
        self.acknowledge(client, state).await
    }

    async fn acknowledge(&self, client: &mut WsClient, state: &mut State) -> bool {
        if state.acked_seq == state.last_seq {
            return true;
        }
        state.acked_seq = state.last_seq;
        let ack = json!({"type": "ack", "seq": state.last_seq, "rev": state.last_rev});
        client.try_send_text(ack.to_string()).await
    }

    fn is_complete(&self, state: &State) -> bool {
        let has_all = |got: usize, from: &Progress| {
            from.done_sending.load(Ordering::Acquire)
                && got as u64 >= from.accepted.load(Ordering::Acquire)
        };
        let own = match self.role {
            Role::Talks => {
                self.own.done_sending.load(Ordering::Acquire)
                    && state.told_at == state.last_accepted()
            }
            Role::Listens => has_all(state.ledger.copies.len(), &self.own),
        };
        own && has_all(state.ledger.delivered.len(), &self.other)
            && state.acked_seq == state.last_seq
    }

    fn take(&self, frame: &Value, state: &mut State, connection: &mut Connection) {
        let problem = match frame["type"].as_str().unwrap_or_default() {
            "welcome" => {
                connection.welcomed = true;
                if !std::mem::replace(&mut state.welcomed, true) {
                    self.orders.welcomed.fetch_add(1, Ordering::Relaxed);
                }
                // What was acknowledged on a lost connection may not have arrived: the hello did.
                state.acked_seq = state.last_seq;
                None
            }
            "accepted" => self.on_accepted(frame, state),
            "error" => on_error(frame, state),
            "message" => self.on_message(frame, state, connection),
            "receipt" => self.on_receipt(frame, state),
            "bye" => {
                connection.bye = Some(format!("bye {}", frame["reason"]));
                None
            }
            "pong" => None,
            other => Some(format!("unknown type {other}")),
        };
        if let Some(problem) = problem {
            let note = format!("{}: {problem}: {frame}", self.user);
            state.ledger.violations.push(note);
        }
    }

    fn on_accepted(&self, frame: &Value, state: &mut State) -> Option<String> {
        let answered = state.unanswered.pop_front();
        if answered.as_ref().map(|(id, _)| id.as_str()) != frame["id"].as_str() {
            return Some(format!(
                "answers come in the order of the sends, expected {answered:?}"
            ));
        }
        state.ledger.duplicates += u64::from(frame["duplicate"] == true);
        state.ledger.accepted.extend(answered.map(|(id, _)| id));
        self.own.accepted.fetch_add(1, Ordering::Release);
        None
    }

    fn on_message(
        &self,
        frame: &Value,
        state: &mut State,
        connection: &mut Connection,
    ) -> Option<String> {
        let (Some(seq), Some(id)) = (frame["seq"].as_u64(), frame["id"].as_str()) else {
            return Some("without seq or id".to_owned());
        };
        let copy = self.role == Role::Listens && frame["to"]["user"] == self.partner.as_str();
        let author = if copy { &self.user } else { &self.partner };
        let from = json!({"user": author, "device": Role::Talks.device()});
        if frame["from"] != from || copy != frame.get("to").is_some() {
            return Some("not from the partner, and no copy either".to_owned());
        }
        let repeated = self.panics && frame["redelivered"] == true;
        if seq <= connection.last_seq && !repeated {
            return Some(format!(
                "seq does not increase, last was {}",
                connection.last_seq
            ));
        }
        connection.last_seq = seq;
        connection.since_ack += 1;
        if seq <= state.last_seq {
            state.ledger.dropped += 1;
            // It does not know of the acknowledgement: say it again.
            state.acked_seq = 0;
            return (frame["redelivered"] != true).then(|| "again, but not marked so".to_owned());
        }
        state.last_seq = seq;
        if copy {
            state.ledger.copies.push((seq, id.to_owned()));
            return None;
        }
        state.ledger.delivered.push((seq, id.to_owned()));
        if self.role == Role::Talks {
            self.own.delivered.fetch_add(1, Ordering::Release);
        }
        None
    }

    fn on_receipt(&self, frame: &Value, state: &mut State) -> Option<String> {
        let rev = frame["rev"].as_u64().unwrap_or_default();
        if rev <= state.last_rev {
            let last = state.last_rev;
            return Some(format!("rev does not increase, last was {last}"));
        }
        state.last_rev = rev;
        if self.role == Role::Listens {
            return None;
        }
        let Some(id) = frame["delivered"].as_str() else {
            return Some("nothing was read, so something must be delivered".to_owned());
        };
        let Some(&at) = state.sent.get(id) else {
            return Some("about a message that was never sent".to_owned());
        };
        let before = state.told_at.replace(at);
        before
            .filter(|before| at < *before)
            .map(|before| format!("the watermark went back from {before} to {at}"))
    }
}

/// What belongs to one connection only.
#[derive(Default)]
struct Connection {
    welcomed: bool,
    last_seq: u64,
    since_ack: usize,
    bye: Option<String>,
}

/// A refusal may overtake the answers to earlier sends; it answers one of those waiting all the same.
fn on_error(frame: &Value, state: &mut State) -> Option<String> {
    let Some(id) = frame["ref"].as_str() else {
        return Some("an error that answers no send".to_owned());
    };
    let Some(at) = state.unanswered.iter().position(|(sent, _)| sent == id) else {
        return Some("an answer to nothing that waits for one".to_owned());
    };
    state.unanswered.remove(at);
    let code = frame["code"].as_str().unwrap_or_default().to_owned();
    state.ledger.refused.push((id.to_owned(), code));
    None
}
