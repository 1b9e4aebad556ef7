//! The engine against a server made up for the test, which breaks its word on purpose.
//!
//! One thread speaks the server's side by a script, so that each breach is certain to happen; the
//! engine must see it. That a real server is understood is tested by the benchmarks of xtask.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use stonechat_protocol::MessageId;
use stonechat_swarm::{
    ACCEPT, Behaviour, Engine, Incoming, Mark, Options, Roster, SwarmError, User, opcode,
    read_header, write_header,
};

const WITHIN: Duration = Duration::from_secs(20);
const WELCOME: &str = r#"{"type":"welcome","user":"u0","device":"d","session":"s","server_time_ms":0,"heartbeat_ms":30000,"pending":0,"limits":{"unaccepted_max":64,"unacked_max":8,"body_bytes_max":65536,"frame_bytes_max":73728,"ttl_s_max":2592000,"devices_max":16}}"#;

/// The server's end of one connection.
struct Peer {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Peer {
    fn more(&mut self) {
        let mut buffer = [0; 4096];
        let read = self.stream.read(&mut buffer).expect("the engine writes");
        assert!(read > 0, "the engine has closed");
        self.bytes.extend_from_slice(&buffer[..read]);
    }

    fn upgrade(&mut self) {
        let end = loop {
            let text = String::from_utf8_lossy(&self.bytes).into_owned();
            if let Some(end) = text.find("\r\n\r\n") {
                break end + 4;
            }
            self.more();
        };
        self.bytes.drain(..end);
        let answer =
            format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n");
        self.stream.write_all(answer.as_bytes()).expect("open");
    }

    /// The next frame of the engine: opcode and payload.
    fn frame(&mut self) -> (u8, String) {
        loop {
            if let Some(header) = read_header(&self.bytes) {
                let end = header.head_bytes + header.payload_bytes;
                if self.bytes.len() >= end {
                    assert!(header.mask.is_some(), "clients mask");
                    let payload = self.bytes[header.head_bytes..end].to_vec();
                    self.bytes.drain(..end);
                    return (header.opcode, String::from_utf8(payload).expect("text"));
                }
            }
            self.more();
        }
    }

    /// Waits for the engine to close; what it has said before is not looked at.
    fn until_closed(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("closed in time");
    }

    fn say(&mut self, text: &str) {
        let mut out = Vec::new();
        write_header(&mut out, opcode::TEXT, text.len());
        out.extend_from_slice(text.as_bytes());
        self.stream.write_all(&out).expect("open");
    }
}

/// A server for one connection: upgrade, sign-in, then the script.
fn server(script: impl FnOnce(&mut Peer) + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let mut script = Some(script);
    server_of(1, move |_, peer| {
        script.take().expect("one connection")(peer);
    })
}

/// A server for several connections, one after the other.
fn server_of(
    connections: usize,
    mut script: impl FnMut(usize, &mut Peer) + Send + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let thread = std::thread::spawn(move || {
        for connection in 0..connections {
            let (stream, _) = listener.accept().expect("the engine connects");
            stream.set_read_timeout(Some(WITHIN)).expect("a socket");
            let mut peer = Peer {
                stream,
                bytes: Vec::new(),
            };
            peer.upgrade();
            let (_, hello) = peer.frame();
            assert!(
                hello.contains(r#""type":"hello","token":"secret","device":"d""#)
                    && hello.contains("\"ack\":5") == (connection == 1),
                "{hello}"
            );
            peer.say(WELCOME);
            script(connection, &mut peer);
        }
    });
    (address, thread)
}

fn message(seq: u64, number: u64, more: &str) -> String {
    let mark = Mark {
        sender: 1,
        number,
        at_us: 5,
    };
    let mut body = Vec::new();
    let id = MessageId::parse("0190163d-8694-739b-aea5-966c26f8ad91").expect("an id");
    mark.write(&mut body, 200, 0, id);
    let body = String::from_utf8(body).expect("text");
    format!(
        r#"{{"type":"message","seq":{seq},"id":"0190163d-8694-739b-aea5-966c26f8ad91","from":{{"user":"u1","device":"d"}},"ts_ms":1,"body":{body}{more}}}"#
    )
}

/// Notes what arrives and is over when it has enough.
#[derive(Default)]
struct Notes {
    numbers: Vec<u64>,
    enough: usize,
}

impl Behaviour for Notes {
    fn on_message(&mut self, _: &mut User<'_>, message: &Incoming<'_>) -> Result<(), String> {
        self.numbers
            .push(Mark::read(message.body).ok_or("no mark")?.number);
        Ok(())
    }

    fn finished(&mut self) -> bool {
        self.numbers.len() >= self.enough
    }
}

fn engine(server: SocketAddr) -> Engine {
    let roster = Roster::new("u", "d", ["secret".to_owned()]);
    Engine::new(roster, Options::new(server)).expect("a poller")
}

/// Connects, does something, and runs until the behaviour is done or something breaks.
fn run(
    engine: &mut Engine,
    notes: &mut Notes,
    act: impl FnMut(&mut Notes, &mut User<'_>) -> Result<(), String>,
) -> Result<bool, SwarmError> {
    engine.connect(0..1, notes, WITHIN)?;
    engine.each(0..1, notes, act)?;
    engine.run(notes, Instant::now() + WITHIN)
}

fn nothing(_: &mut Notes, _: &mut User<'_>) -> Result<(), String> {
    Ok(())
}

#[test]
fn messages_arrive_however_they_are_cut_and_redelivered_ones_are_dropped() {
    let (address, thread) = server(|peer| {
        peer.say(&message(3, 0, ""));
        peer.say(&message(3, 0, r#","redelivered":true"#));
        // In three WebSocket frames, a ping between them, and byte by byte.
        let text = message(9, 1, "");
        let (a, b) = text.split_at(100);
        let mut out = vec![0x01, 100];
        out.extend_from_slice(a.as_bytes());
        out.extend_from_slice(&[0x89, 2, b'h', b'i']);
        out.extend_from_slice(&[0x00, 126]);
        out.extend_from_slice(&u16::try_from(b.len()).expect("short").to_be_bytes());
        out.extend_from_slice(b.as_bytes());
        out.extend_from_slice(&[0x80, 0]);
        for byte in out {
            peer.stream.write_all(&[byte]).expect("open");
        }
        // What came twice is acknowledged twice, which makes a quarter of the window.
        let ack = r#"{"type":"ack","seq":3}"#.to_owned();
        assert_eq!(peer.frame(), (opcode::TEXT, ack));
        assert_eq!(peer.frame(), (opcode::PONG, "hi".to_owned()));
        let ack = r#"{"type":"ack","seq":9}"#.to_owned();
        assert_eq!(peer.frame(), (opcode::TEXT, ack));
    });
    let mut engine = engine(address);
    let mut notes = Notes {
        enough: 2,
        ..Notes::default()
    };
    assert!(run(&mut engine, &mut notes, nothing).expect("all is well"));
    assert_eq!(notes.numbers, [0, 1]);
    assert_eq!(engine.counts().redelivered, 1);
    notes.enough = 3;
    // Until the acknowledgement has gone out and the script is over, the server closes then.
    assert!(engine.run(&mut notes, Instant::now() + WITHIN).is_err());
    thread.join().expect("the script holds");
}

#[test]
fn acknowledgements_ride_on_sends_and_do_not_wait_beyond_a_quarter_of_the_window() {
    let (address, thread) = server(|peer| {
        // The window is 8: two messages make a quarter.
        peer.say(&message(1, 0, ""));
        peer.say(&message(2, 1, ""));
        let (_, ack) = peer.frame();
        assert_eq!(ack, r#"{"type":"ack","seq":2}"#);
        peer.say(&message(3, 2, ""));
        let (_, send) = peer.frame();
        assert!(
            send.contains(r#""to":{"user":"u7"},"ack":3,"body":"#),
            "{send}"
        );
    });
    let mut engine = engine(address);
    let mut notes = Notes {
        enough: 3,
        ..Notes::default()
    };
    assert!(run(&mut engine, &mut notes, nothing).expect("all is well"));
    engine
        .each(0..1, &mut notes, |_, user| {
            user.send(7, 0, 0, 100).map(|_| ())
        })
        .expect("sent");
    assert_eq!((engine.counts().acks, engine.unanswered()), (1, 1));
    thread.join().expect("the script holds");
}

#[test]
fn the_65th_unanswered_send_is_not_sent() {
    let (address, thread) = server(|peer| {
        for _ in 0..64 {
            assert!(peer.frame().1.contains(r#""type":"send""#));
        }
    });
    let mut engine = engine(address);
    let mut notes = Notes {
        enough: 1,
        ..Notes::default()
    };
    let result = run(&mut engine, &mut notes, |_, user| {
        for number in 0..64 {
            user.send(1, number, 0, 100)?;
        }
        assert!(!user.may_send() && user.send(1, 64, 0, 100).is_err());
        Ok(())
    });
    assert!(result.is_err(), "the server closed");
    assert_eq!(engine.counts().sent, 64);
    thread.join().expect("the script holds");
}

/// What the server says, and a part of what the engine must say about it.
#[test]
fn breaches_end_the_run_and_are_named() {
    let first = message(5, 0, "");
    let unasked = r#"{"type":"accepted","id":"0190163d-8694-739b-aea5-966c26f8ad91","ts_ms":1}"#;
    let cases: Vec<(Vec<String>, &str)> = vec![
        (vec![first.clone(), message(5, 0, "")], "after seq 5"),
        (vec![first.clone(), message(4, 1, "")], "after seq 5"),
        (vec![unasked.to_owned()], "not the next answer"),
        (vec![WELCOME.to_owned()], "welcome once more"),
        (vec!["{\"type\":\"message\"}".to_owned()], "not a frame"),
        (
            vec![r#"{"type":"error","code":"bad_frame","message":"","ref":null}"#.to_owned()],
            "bad_frame",
        ),
        (
            vec![r#"{"type":"bye","reason":"internal"}"#.to_owned()],
            "bye internal",
        ),
        (vec![], "closed"),
    ];
    for (said, named) in cases {
        let (address, thread) = server(move |peer| {
            for text in &said {
                peer.say(text);
            }
        });
        let mut engine = engine(address);
        let mut notes = Notes {
            enough: usize::MAX,
            ..Notes::default()
        };
        let told = match run(&mut engine, &mut notes, nothing) {
            Ok(_) => panic!("{named}: nothing was noticed"),
            Err(e) => e.to_string(),
        };
        assert!(told.contains(named), "{told}");
        thread.join().expect("the script holds");
    }
}

#[test]
fn answers_out_of_order_are_a_breach() {
    let (address, thread) = server(|peer| {
        let ids: Vec<String> = (0..2)
            .map(|_| {
                let send: serde_json::Value =
                    serde_json::from_str(&peer.frame().1).expect("a send");
                send["id"].as_str().expect("an id").to_owned()
            })
            .collect();
        assert!(ids[0] < ids[1], "ids increase: {ids:?}");
        peer.say(&format!(
            r#"{{"type":"accepted","id":"{}","ts_ms":1}}"#,
            ids[1]
        ));
    });
    let mut engine = engine(address);
    let mut notes = Notes {
        enough: 1,
        ..Notes::default()
    };
    let told = run(&mut engine, &mut notes, |_, user| {
        user.send(1, 0, 0, 100)?;
        user.send(1, 1, 0, 100).map(|_| ())
    });
    let told = told.expect_err("the second was answered first").to_string();
    assert!(told.contains("not the next answer"), "{told}");
    thread.join().expect("the script holds");
}

#[test]
fn after_a_reconnect_what_is_unanswered_comes_first_and_what_was_taken_over_is_told() {
    let (address, thread) = server_of(2, |connection, peer| {
        let sends = |peer: &mut Peer, count: usize| -> Vec<String> {
            (0..count)
                .map(|_| {
                    let send: serde_json::Value =
                        serde_json::from_str(&peer.frame().1).expect("a send");
                    let body = send["body"].as_str().expect("a body");
                    format!("{} {body}", send["id"].as_str().expect("an id"))
                })
                .collect()
        };
        if connection == 0 {
            peer.say(&message(4, 0, ""));
            let first = sends(peer, 3);
            let id = &first[0][..36];
            peer.say(&format!(r#"{{"type":"accepted","id":"{id}","ts_ms":1}}"#));
            peer.say(&message(5, 1, ""));
        } else {
            // The last two again, with the same ids and bodies, then the new one.
            let again = sends(peer, 3);
            assert!(again[0] < again[1] && again[1] < again[2], "{again:?}");
            assert!(again[0].len() > 100, "{again:?}");
            peer.say(&message(5, 1, r#","redelivered":true"#));
            for send in &again {
                let id = &send[..36];
                peer.say(&format!(r#"{{"type":"accepted","id":"{id}","ts_ms":1}}"#));
            }
            peer.say(&message(6, 2, ""));
        }
        peer.until_closed();
    });
    let mut engine = engine(address);
    let mut notes = Notes {
        enough: 2,
        ..Notes::default()
    };
    let three = |_: &mut Notes, user: &mut User<'_>| {
        (0..3).try_for_each(|number| user.send(1, number, 0, 100).map(|_| ()))
    };
    assert!(run(&mut engine, &mut notes, three).expect("all is well"));
    assert_eq!(engine.unanswered(), 2);
    engine.drop_connections(0..1);
    notes.enough = 3;
    let one_more = |_: &mut Notes, user: &mut User<'_>| user.send(1, 3, 0, 100).map(|_| ());
    assert!(run(&mut engine, &mut notes, one_more).expect("all is well"));
    assert_eq!(notes.numbers, [0, 1, 2]);
    let counts = engine.counts();
    assert_eq!(
        (counts.sent, counts.accepted, counts.redelivered),
        (6, 4, 1)
    );
    assert_eq!(engine.unanswered(), 0);
    drop(engine);
    thread.join().expect("the script holds");
}
