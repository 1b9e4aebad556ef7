//! A whole run against a relay that breaks its word once, in a way of the test's choosing: the verdict
//! must name it. And one against a relay that keeps it, so that the others prove something.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use stonechat_swarm::{
    ACCEPT, Kind, Outcome, Roster, Scenario, Summary, Target, opcode, read_header, run,
    write_header,
};

/// What goes wrong with the sixth message to user 1, and only with that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Drop,
    DoubleUnderAnotherSeq,
    DoubleOnTheWire,
    Reorder,
    Corrupt,
    Invent,
    Misattribute,
    NoReceipts,
    ReceiptAhead,
    AcceptedTwice,
    /// Delivered again, and marked so: allowed.
    Redeliver,
    /// Comes after the next one, below it, and marked as if it had come before.
    HideAsRedelivered,
    DeliverRefused,
    NoAnswer,
    ReceiptBack,
    /// Refused for the moment, and accepted when it comes again under its id.
    RefuseOnce,
    /// Refused for the moment after the next was accepted, so that it has to come under a new id.
    RefuseLate,
}

const UNLUCKY: usize = 5;

/// Two users, one connection each.
struct Relay {
    fault: Fault,
    streams: [Option<TcpStream>; 2],
    seqs: [u64; 2],
    /// Of each mailbox the messages in it, and how many came for it.
    mailboxes: [Vec<(u64, String)>; 2],
    came: [usize; 2],
    held: Option<Value>,
    /// A send of user 0 that is to be refused later, and one that must not come again under its id.
    unanswered: Option<Value>,
    too_old: Option<Value>,
    /// The send that was refused for the moment: a server refuses what is behind it in line as well.
    awaited: Option<Value>,
    revs: [u64; 2],
}

impl Relay {
    fn say(&mut self, user: usize, frame: &Value) {
        let text = frame.to_string();
        let mut out = Vec::new();
        write_header(&mut out, opcode::TEXT, text.len());
        out.extend_from_slice(text.as_bytes());
        let stream = self.streams[user].as_mut().expect("signed in");
        // The run may be over already.
        let _ = stream.write_all(&out);
    }

    fn deliver(&mut self, to: usize, mut message: Value) {
        self.seqs[to] += 1;
        message["seq"] = json!(self.seqs[to]);
        let id = message["id"].as_str().expect("an id").to_owned();
        self.mailboxes[to].push((self.seqs[to], id));
        self.say(to, &message);
    }

    fn send(&mut self, by: usize, send: &Value) {
        let to = 1 - by;
        let accepted = json!({"type": "accepted", "id": send["id"], "ts_ms": 1});
        let refused = |id: &Value, code: &str| json!({"type": "error", "ref": id, "code": code, "message": "", "retry_after_ms": 10});
        if by == 0 && self.too_old.as_ref() == Some(&send["id"]) {
            self.say(by, &refused(&send["id"], "id_too_old"));
            return;
        }
        if by == 0
            && let Some(awaited) = self.awaited.take()
            && awaited != send["id"]
        {
            self.awaited = Some(awaited);
            self.say(by, &refused(&send["id"], "storage_unavailable"));
            return;
        }
        if by == 0
            && let Some(id) = self.unanswered.take()
        {
            self.say(by, &refused(&id, "internal"));
            self.too_old = Some(id);
        }
        let unlucky = to == 1 && self.came[to] == UNLUCKY;
        match self.fault {
            Fault::RefuseOnce if unlucky => {
                self.came[to] += 1;
                self.awaited = Some(send["id"].clone());
                self.say(by, &refused(&send["id"], "storage_unavailable"));
                return;
            }
            Fault::RefuseLate if unlucky => {
                self.came[to] += 1;
                self.unanswered = Some(send["id"].clone());
                return;
            }
            Fault::DeliverRefused if unlucky => {
                self.say(by, &refused(&send["id"], "mailbox_full"));
            }
            Fault::NoAnswer if unlucky => {}
            _ => self.say(by, &accepted),
        }
        let mut message = json!({
            "type": "message", "seq": 0, "id": send["id"], "ts_ms": 1, "body": send["body"],
            "from": {"user": format!("u{by}"), "device": "d"},
        });
        self.came[to] += 1;
        let fault = if unlucky { self.fault } else { Fault::None };
        match fault {
            Fault::Drop => return,
            Fault::HideAsRedelivered => {
                self.seqs[to] += 1;
                message["seq"] = json!(self.seqs[to]);
                message["redelivered"] = json!(true);
                self.held = Some(message);
                return;
            }
            Fault::Reorder => {
                self.held = Some(message);
                return;
            }
            Fault::Corrupt => {
                let body = message["body"]
                    .as_str()
                    .expect("text")
                    .replacen('.', ",", 1);
                message["body"] = json!(body);
            }
            Fault::Misattribute => message["from"]["user"] = json!("u1"),
            Fault::Invent => {
                let mut invented = message.clone();
                invented["body"] = json!("nobody wrote this");
                self.deliver(to, invented);
            }
            Fault::DoubleUnderAnotherSeq => self.deliver(to, message.clone()),
            Fault::AcceptedTwice => self.say(by, &accepted),
            _ => {}
        }
        self.deliver(to, message.clone());
        if matches!(fault, Fault::DoubleOnTheWire | Fault::Redeliver) {
            message["redelivered"] = json!(fault == Fault::Redeliver);
            message["seq"] = json!(self.seqs[to]);
            self.say(to, &message);
        }
        if to == 1
            && let Some(held) = self.held.take()
        {
            match self.fault {
                Fault::HideAsRedelivered => self.say(to, &held),
                _ => self.deliver(to, held),
            }
        }
    }

    fn ack(&mut self, by: usize, seq: u64) {
        let known = self.mailboxes[by].iter().rfind(|(at, _)| *at <= seq);
        let Some(id) = known.map(|(_, id)| id.clone()) else {
            return;
        };
        let sender = 1 - by;
        let id = match self.fault {
            Fault::NoReceipts if by == 1 => return,
            Fault::ReceiptAhead if by == 1 => format!("ffffffff{}", &id[8..]),
            // The first of the mailbox, when others were told of before.
            Fault::ReceiptBack if by == 1 && seq > UNLUCKY as u64 => {
                self.mailboxes[by][0].1.clone()
            }
            _ => id,
        };
        self.revs[sender] += 1;
        let receipt = json!({
            "type": "receipt", "rev": self.revs[sender], "with": format!("u{by}"),
            "delivered": id, "read": null, "ts_ms": 1,
        });
        self.say(sender, &receipt);
    }
}

/// One connection, until the engine closes it. The first bytes are the upgrade.
fn serve(relay: &Mutex<Relay>, mut stream: TcpStream) {
    let mut bytes = Vec::new();
    let mut user = None;
    let mut upgraded = false;
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..read]);
        if !upgraded {
            if !bytes.ends_with(b"\r\n\r\n") {
                continue;
            }
            bytes.clear();
            upgraded = true;
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).expect("open");
        }
        while let Some(header) = read_header(&bytes) {
            let end = header.head_bytes + header.payload_bytes;
            if bytes.len() < end {
                break;
            }
            let frame: Value =
                serde_json::from_slice(&bytes[header.head_bytes..end]).expect("JSON");
            bytes.drain(..end);
            let mut relay = relay.lock().expect("no panics");
            if frame["type"] == "hello" {
                let place = usize::from(frame["token"] == "1");
                user = Some(place);
                relay.streams[place] = Some(stream.try_clone().expect("a second handle"));
                relay.say(
                    place,
                    &json!({
                        "type": "welcome", "heartbeat_ms": 30000, "pending": 0,
                        "limits": {"unacked_max": 8},
                    }),
                );
                continue;
            }
            let place = user.expect("hello comes first");
            if let Some(seq) = frame["ack"].as_u64() {
                relay.ack(place, seq);
            }
            match frame["type"].as_str() {
                Some("ack") => relay.ack(place, frame["seq"].as_u64().expect("a seq")),
                Some("send") => relay.send(place, &frame),
                _ => {}
            }
        }
    }
}

fn relay(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let relay = Arc::new(Mutex::new(Relay {
        fault,
        streams: [None, None],
        seqs: [0; 2],
        mailboxes: [Vec::new(), Vec::new()],
        came: [0; 2],
        held: None,
        unanswered: None,
        too_old: None,
        awaited: None,
        revs: [0; 2],
    }));
    std::thread::spawn(move || {
        for _ in 0..2 {
            let (stream, _) = listener.accept().expect("the engine connects");
            let relay = Arc::clone(&relay);
            std::thread::spawn(move || serve(&relay, stream));
        }
    });
    address
}

fn judged(fault: Fault) -> Summary {
    let text = r#"
        about = "a test"
        users = 2
        duration_s = 2.0
        [traffic]
        rate_per_s = 50
        contacts = { kind = "pairs" }
        body_bytes = { kind = "fixed", bytes = 80 }
    "#;
    let scenario = Scenario::parse("test", text).expect("sound");
    let roster = Roster::new("u", "d", ["0".to_owned(), "1".to_owned()]);
    let target = Target {
        settle_still: Duration::from_secs(2),
        ..Target::new(relay(fault))
    };
    run(&scenario, roster, target, &mut |_| {}).expect("the run comes to its end")
}

#[test]
fn a_relay_that_keeps_its_word_is_clean() {
    let summary = judged(Fault::None);
    let verdict = &summary.verdict;
    assert_eq!(verdict.outcome, Outcome::Clean, "{summary}");
    assert!(verdict.totals.accepted > 2 * UNLUCKY as u64, "{summary}");
    assert_eq!(verdict.totals.delivered, verdict.totals.accepted);
}

#[test]
fn what_a_server_may_do_is_no_breach() {
    let cases = [Fault::Redeliver, Fault::RefuseOnce, Fault::RefuseLate];
    let runs = cases.map(|fault| (fault, std::thread::spawn(move || judged(fault))));
    for (fault, run) in runs {
        let summary = run.join().expect("the run comes to its end");
        let totals = summary.verdict.totals;
        assert_eq!(
            summary.verdict.outcome,
            Outcome::Clean,
            "{fault:?}: {summary}"
        );
        assert_eq!(totals.delivered, totals.accepted, "{fault:?}");
        let refusals = |code| summary.refusals.get(code).copied().unwrap_or(0);
        match fault {
            Fault::Redeliver => assert_eq!(totals.redelivered, 1),
            Fault::RefuseOnce => {
                assert!(refusals("storage_unavailable") >= 1);
                assert_eq!(totals.accepted, totals.sent, "it came again as what it was");
            }
            _ => {
                assert_eq!((refusals("internal"), refusals("id_too_old")), (1, 1));
                assert_eq!(
                    totals.accepted + 1,
                    totals.sent,
                    "it came again as a new one"
                );
                assert_eq!(totals.refused, 1);
            }
        }
    }
}

#[test]
fn each_breach_is_caught_and_named() {
    let cases = [
        (Fault::Drop, Kind::Lost),
        (Fault::DoubleUnderAnotherSeq, Kind::Doubled),
        (Fault::DoubleOnTheWire, Kind::Seq),
        (Fault::Reorder, Kind::OutOfOrder),
        (Fault::Corrupt, Kind::Damaged),
        (Fault::Misattribute, Kind::Damaged),
        (Fault::Invent, Kind::Phantom),
        (Fault::NoReceipts, Kind::ReceiptMissing),
        (Fault::ReceiptAhead, Kind::Receipt),
        (Fault::AcceptedTwice, Kind::Answer),
        (Fault::HideAsRedelivered, Kind::Seq),
        (Fault::DeliverRefused, Kind::Phantom),
        (Fault::NoAnswer, Kind::Unanswered),
        (Fault::ReceiptBack, Kind::Receipt),
    ];
    // They mostly wait, so they do it beside each other.
    let runs = cases.map(|(fault, kind)| (fault, kind, std::thread::spawn(move || judged(fault))));
    for (fault, kind, run) in runs {
        let summary = run.join().expect("the run comes to its end");
        let verdict = &summary.verdict;
        assert_eq!(verdict.outcome, Outcome::Broken, "{fault:?}: {summary}");
        let found = verdict.violations.first.iter().find(|v| v.kind == kind);
        let found = found.unwrap_or_else(|| panic!("{fault:?}: {summary}"));
        let (user, number) = match fault {
            Fault::NoReceipts
            | Fault::ReceiptAhead
            | Fault::ReceiptBack
            | Fault::NoAnswer
            | Fault::AcceptedTwice => ("u0", None),
            Fault::Drop | Fault::DoubleOnTheWire | Fault::Invent => ("u1", None),
            // It may come before its sender has read the refusal: then only the sums tell.
            Fault::DeliverRefused => ("u1", found.number),
            _ => ("u1", Some(UNLUCKY as u64)),
        };
        assert_eq!(
            (found.user.as_str(), found.number),
            (user, number),
            "{found}"
        );
        if fault == Fault::Drop {
            assert!(found.what.ends_with("numbers 5"), "{found}");
        }
    }
}
