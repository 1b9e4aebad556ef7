//! Random schedules against a small model of a server.
//!
//! The model keeps what a server must keep (the window of ids, the mailbox,
//! the cursor) and the network between them loses whatever is on its way when
//! the connection breaks. The application crashes too, and continues from the
//! state it kept. In the end everything must have arrived, once and in order.

use std::collections::VecDeque;

use proptest::prelude::*;
use stonechat_protocol::{ClientFrame, ClientFrameKind, IdWindow, Seen, ServerFrame};

use super::tests::{message, outgoing, setup, sign_in, welcome};
use super::*;

#[derive(Debug, Clone)]
enum Op {
    Send,
    /// A message for this client comes to its mailbox.
    Incoming,
    /// The client writes frames, up to so many.
    Write(u8),
    /// The server handles frames on their way, up to so many.
    Serve(u8),
    /// The client reads frames, up to so many.
    Read(u8),
    /// The application takes an event, and handles it.
    Take,
    Break,
    /// The application crashes and starts again from what it kept.
    Crash,
    Pass(u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Send),
        4 => Just(Op::Incoming),
        4 => (1..9u8).prop_map(Op::Write),
        4 => (1..9u8).prop_map(Op::Serve),
        4 => (1..9u8).prop_map(Op::Read),
        5 => Just(Op::Take),
        1 => Just(Op::Break),
        1 => Just(Op::Crash),
        2 => (0..400u16).prop_map(Op::Pass),
    ]
}

#[derive(Default)]
struct World {
    now_ms: u64,
    up: VecDeque<String>,
    down: VecDeque<String>,
    window: IdWindow,
    /// Bodies the server stored, in order.
    stored: Vec<u64>,
    mailbox_last: Seq,
    cursor: Seq,
    sent_upto: Seq,
    bodies: u64,
    /// What the application handled, in order.
    handled: Vec<Seq>,
    unhandled_max: usize,
}

impl World {
    fn engine(&mut self, state: ResumeState) -> Engine {
        let mut engine = Engine::new(setup(), state, self.bodies);
        self.connect(&mut engine);
        engine
    }

    fn connect(&mut self, engine: &mut Engine) {
        self.up.clear();
        self.down.clear();
        if let Step::Wait { until_ms } = engine.step(self.now_ms) {
            self.now_ms = until_ms;
        }
        let hello = sign_in(engine, self.now_ms);
        let hello = ClientFrame::decode(&hello, &Limits::default()).unwrap();
        self.sent_upto = hello.ack.unwrap_or(0).max(self.cursor);
        self.ack(hello.ack);
    }

    fn ack(&mut self, ack: Option<Seq>) {
        let ack = ack.unwrap_or(0);
        let handled = self.handled.last().copied().unwrap_or(0);
        assert!(ack <= handled, "{ack} acknowledged, {handled} handled");
        assert!(
            ack <= self.sent_upto,
            "{ack} acknowledged before it was sent"
        );
        self.cursor = self.cursor.max(ack);
    }

    fn serve(&mut self, frames: u8) {
        for _ in 0..frames {
            let Some(text) = self.up.pop_front() else {
                break;
            };
            let frame = ClientFrame::decode(&text, &Limits::default()).unwrap();
            self.ack(frame.ack);
            match frame.kind {
                ClientFrameKind::Send(send) => {
                    let id = send.id;
                    match self.window.classify(id) {
                        Seen::New => {
                            self.window.insert(id, 1);
                            self.stored.push(send.body.parse().unwrap());
                        }
                        Seen::Accepted { .. } => {}
                        Seen::Below => panic!("{id} is below the window"),
                    }
                    self.down
                        .push_back(format!(r#"{{"type":"accepted","id":"{id}","ts_ms":1}}"#));
                }
                ClientFrameKind::Ping { nonce } => self.down.push_back(format!(
                    r#"{{"type":"pong","nonce":{}}}"#,
                    nonce.unwrap().get()
                )),
                _ => {}
            }
        }
        while self.sent_upto < self.mailbox_last && self.sent_upto - self.cursor < 256 {
            self.sent_upto += 1;
            self.down.push_back(message(self.sent_upto));
        }
    }

    fn write(&mut self, engine: &mut Engine, frames: u8) {
        for _ in 0..frames {
            match engine.transmit(self.now_ms) {
                Some(Transmit::Text(text)) => self.up.push_back(text),
                _ => break,
            }
        }
        let sends = self.up.iter().filter(|f| f.contains("\"send\"")).count();
        self.unhandled_max = self.unhandled_max.max(sends);
    }

    fn read(&mut self, engine: &mut Engine, frames: u8) {
        for _ in 0..frames {
            let Some(text) = self.down.pop_front() else {
                break;
            };
            assert!(ServerFrame::decode(&text).unwrap().is_some());
            engine.received(&text, self.now_ms);
        }
        while let Some((id, outcome)) = engine.take_outcome() {
            outcome.unwrap_or_else(|refused| panic!("{id}: {refused}"));
        }
    }

    fn take(&mut self, engine: &mut Engine) -> bool {
        match engine.take_event() {
            Some(Event::Message(message)) => {
                self.handled.push(message.seq);
                engine.ack(message.seq, self.now_ms).unwrap();
                true
            }
            other => other.is_some(),
        }
    }

    fn pass(&mut self, engine: &mut Engine, ms: u64) {
        self.now_ms += ms;
        engine.timeout(self.now_ms);
        if !engine.is_connected() {
            self.connect(engine);
        }
    }

    fn apply(&mut self, engine: &mut Engine, op: &Op) {
        match *op {
            Op::Send => {
                let body = self.bodies.to_string();
                if engine.submit(outgoing(&body), None, self.now_ms).is_ok() {
                    self.bodies += 1;
                }
            }
            Op::Incoming => self.mailbox_last += 1,
            Op::Write(frames) => self.write(engine, frames),
            Op::Serve(frames) => self.serve(frames),
            Op::Read(frames) => self.read(engine, frames),
            Op::Take => {
                self.take(engine);
            }
            Op::Break => {
                engine.closed(None, self.now_ms);
                self.connect(engine);
            }
            Op::Crash => {
                let kept = serde_json::to_string(&engine.resume_state()).unwrap();
                *engine = self.engine(serde_json::from_str(&kept).unwrap());
            }
            Op::Pass(ms) => self.pass(engine, u64::from(ms)),
        }
    }

    fn settle(&mut self, engine: &mut Engine) {
        for _ in 0..10_000 {
            self.write(engine, 100);
            self.serve(100);
            self.read(engine, 100);
            while self.take(engine) {}
            self.pass(engine, 10);
            if self.stored.len() as u64 == self.bodies
                && self.cursor == self.mailbox_last
                && engine.resume_state().unanswered.is_empty()
            {
                return;
            }
        }
        panic!(
            "not settled: {}/{} stored, {}/{} acknowledged",
            self.stored.len(),
            self.bodies,
            self.cursor,
            self.mailbox_last
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn everything_arrives_once_and_in_order(ops in prop::collection::vec(op(), 1..400)) {
        prop_assert!(ServerFrame::decode(&welcome()).unwrap().is_some());
        let mut world = World::default();
        let mut engine = world.engine(ResumeState::default());
        for op in &ops {
            world.apply(&mut engine, op);
        }
        world.settle(&mut engine);
        let sent: Vec<u64> = (0..world.bodies).collect();
        prop_assert_eq!(&world.stored, &sent);
        let incoming: Vec<Seq> = (1..=world.mailbox_last).collect();
        prop_assert_eq!(&world.handled, &incoming);
        prop_assert!(world.unhandled_max <= UNACCEPTED_MAX);
    }
}
