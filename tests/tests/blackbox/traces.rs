//! Traces: one message is one trace, told to a collector that may be slow, sick or not there.

use std::collections::BTreeMap;
use std::net::TcpListener;

use serde_json::{Value, json};
use stonechat_tests::otlp::{Collector, Span};
use stonechat_tests::ws::send;
use stonechat_tests::{Connect, Node, NodeOptions, WsClient, eventually, new_id};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN: &str = "00f067aa0ba902b7";

/// A node that follows only what clients trace, and exports at once.
fn traced(endpoint: &str) -> NodeOptions {
    NodeOptions::new()
        .set("traces.endpoint", &format!("{endpoint:?}"))
        .set("traces.sampled_per_million", "0")
        .set("traces.linger_ms", "10")
}

/// A `send` that says it is part of a client's trace.
fn followed(id: &str, to: &str, body: &Value) -> Value {
    let mut frame = send(id, to, body);
    frame["traceparent"] = json!(format!("00-{TRACE}-{CLIENT_SPAN}-01"));
    frame
}

fn by_name(spans: &[Span]) -> BTreeMap<&str, &Span> {
    let named: BTreeMap<_, _> = spans.iter().map(|span| (&*span.name, span)).collect();
    assert_eq!(named.len(), spans.len(), "each step once: {spans:#?}");
    named
}

/// Every span lies under another one of its trace, or under the client's.
fn hang_together(spans: &[Span]) {
    for span in spans {
        assert_eq!(span.trace, TRACE, "{span:?}");
        let parent = spans.iter().find(|other| other.id == span.parent);
        match parent {
            Some(parent) => assert!(parent.start <= span.start, "{parent:?} {span:?}"),
            None => assert_eq!((&*span.name, &*span.parent), ("send", CLIENT_SPAN)),
        }
        assert!(span.start <= span.end, "{span:?}");
    }
}

#[tokio::test]
async fn one_message_is_one_trace() {
    let collector = Collector::start();
    let secret = "[\"authorization=Bearer hunter2\"]";
    let options = traced(&collector.endpoint()).set("traces.headers", secret);
    let node = Node::start(options.set("log.filter", "\"trace\""));
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "laptop").await;
    let id = new_id();
    let body = json!("never to be seen in a trace");
    alice.send_json(&followed(&id, "bob", &body)).await;
    alice.accepted(&id).await;
    let message = bob.message_acked().await;

    let spans = collector.trace(TRACE, 7);
    hang_together(&spans);
    let named = by_name(&spans);
    let parents = [
        ("session", "send"),
        ("commit", "send"),
        ("journal", "commit"),
        ("route", "send"),
        ("deliver", "send"),
        ("ack", "deliver"),
    ];
    for (child, parent) in parents {
        assert_eq!(named[child].parent, named[parent].id, "{child}");
    }
    let times = |name: &str| (named[name].start, named[name].end);
    assert_eq!(times("session").1, times("commit").0);
    assert_eq!(times("commit").1, times("route").0);
    assert!(times("route").1 <= times("deliver").0);
    assert!(
        times("commit").1 <= times("send").1,
        "durable before it is accepted"
    );
    assert!(times("deliver").0 <= times("ack").0);
    assert!(spans.iter().all(|span| span.error.is_none()), "{spans:#?}");
    // The parent of the root is elsewhere, that of the others is not.
    assert_eq!((named["send"].flags, named["commit"].flags), (0x301, 0x101));

    let sender = &named["send"].attributes;
    assert_eq!(sender["messaging.message.id"], json!(id));
    assert_eq!(
        sender["messaging.message.body.size"],
        body.to_string().len()
    );
    assert_eq!(sender["stonechat.sender"], "alice");
    assert_eq!(sender["stonechat.sender.device"], "phone");
    assert_eq!(sender["stonechat.recipient"], "bob");
    let commit = &named["commit"].attributes;
    assert_eq!(commit["messaging.batch.message_count"], 1);
    let deliver = &named["deliver"].attributes;
    assert_eq!(deliver["stonechat.seq"], message["seq"]);
    assert_eq!(deliver["stonechat.recipient.device"], "laptop");
    assert_eq!(deliver["stonechat.redelivered"], false);
    let told = format!("{spans:?}");
    assert!(!told.contains("never to be seen") && !told.contains("hunter2"));

    // The recipient goes on where the server's span is.
    let expected = format!("00-{TRACE}-{}-01", named["deliver"].id);
    assert_eq!(message["traceparent"], json!(expected));
    // A line of the log is found by the trace, and the trace by the session.
    let log = node.log();
    let followed = |line: &&str| line.contains(TRACE) && line.contains("is followed");
    let line = log.lines().find(followed);
    let line: Value = serde_json::from_str(line.expect("a line")).expect("JSON");
    assert_eq!(line["session"], sender["stonechat.session"]);

    assert_eq!(collector.services()[0], "stonechat");
    let head = collector.heads()[0].to_ascii_lowercase();
    assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
    assert!(
        head.contains("content-type: application/x-protobuf"),
        "{head}"
    );
    assert!(head.contains("authorization: bearer hunter2"), "{head}");
    assert!(!log.contains("hunter2"));
    // Of the bytes it writes it would log a dump.
    assert!(!log.contains("ureq_proto"));
    let config = node.admin().get("/admin/v1/node/config");
    assert!(
        !config.text.contains("hunter2") && config.status == 200,
        "{}",
        config.text
    );
    assert!(!node.run(&["config"]).stdout.contains("hunter2"));
}

#[tokio::test]
async fn every_device_has_its_delivery() {
    let collector = Collector::start();
    let node = Node::start(traced(&collector.endpoint()));
    let mut phone = WsClient::join(&node, "alice", "phone").await;
    let mut tablet = WsClient::join(&node, "alice", "tablet").await;
    let mut bobs = Vec::new();
    for device in ["laptop", "phone"] {
        bobs.push(WsClient::join(&node, "bob", device).await);
    }
    let id = new_id();
    phone.send_json(&followed(&id, "bob", &json!(1))).await;
    phone.accepted(&id).await;
    for device in bobs.iter_mut().chain([&mut tablet]) {
        device.message_acked().await;
    }
    // Four of the sender's side; two mailboxes, three devices.
    let spans = collector.trace(TRACE, 4 + 2 + 3 + 3);
    hang_together(&spans);
    let mut to: Vec<String> = spans
        .iter()
        .filter(|span| span.name == "deliver")
        .map(|span| {
            let device = &span.attributes["stonechat.recipient.device"];
            format!("{}/{device}", span.attributes["stonechat.recipient"])
        })
        .collect();
    to.sort();
    assert_eq!(
        to,
        [
            r#""alice"/"tablet""#,
            r#""bob"/"laptop""#,
            r#""bob"/"phone""#
        ]
    );
    let acks = spans.iter().filter(|span| span.name == "ack").count();
    assert_eq!(acks, 3);
}

#[tokio::test]
async fn a_message_that_waits_is_followed_as_long_as_it_is_in_memory() {
    let collector = Collector::start();
    let options = traced(&collector.endpoint()).set("storage.migrate_after_ms", "3600000");
    let mut node = Node::start(options);
    let token = node.user("bob");
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let id = new_id();
    alice.send_json(&followed(&id, "bob", &json!(1))).await;
    alice.accepted(&id).await;
    let away = collector.trace(TRACE, 5);
    assert_eq!(by_name(&away)["route"].attributes["stonechat.devices"], 0);
    let (mut bob, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let message = bob.message().await;
    assert!(message["traceparent"].is_string(), "{message}");
    let spans = collector.trace(TRACE, 6);
    hang_together(&spans);
    let named = by_name(&spans);
    assert!(named["route"].end <= named["deliver"].start);

    // Not acknowledged, so it comes again; but a trace is not on the disk.
    node.crash_and_restart();
    let (mut bob, _) = Connect::to(&node).sign_in(&token, "phone").await;
    let again = bob.message_acked().await;
    assert_eq!(
        (&again["id"], &again["redelivered"]),
        (&json!(id), &json!(true))
    );
    assert!(again.get("traceparent").is_none(), "{again}");
}

#[tokio::test]
async fn what_is_refused_says_so() {
    let collector = Collector::start();
    let node = Node::start(traced(&collector.endpoint()));
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let id = new_id();
    alice.send_json(&followed(&id, "nobody", &json!(1))).await;
    alice.error("unknown_user", &json!(id)).await;
    let spans = collector.trace(TRACE, 2);
    for span in by_name(&spans).values() {
        assert_eq!(span.error.as_deref(), Some("unknown_user"), "{span:?}");
    }
}

#[tokio::test]
async fn a_resend_says_so() {
    let collector = Collector::start();
    let node = Node::start(traced(&collector.endpoint()));
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    node.user("bob");
    let id = new_id();
    for _ in 0..2 {
        alice.send_json(&followed(&id, "bob", &json!(1))).await;
        alice.accepted(&id).await;
    }
    let spans = collector.trace(TRACE, 5 + 2);
    let duplicates = spans
        .iter()
        .filter(|span| span.attributes.get("stonechat.duplicate") == Some(&json!(true)));
    let names: Vec<&str> = duplicates.map(|span| &*span.name).collect();
    assert_eq!(names, ["send", "session"]);
    let commits = spans.iter().filter(|span| span.name == "commit").count();
    assert_eq!(commits, 1);
}

#[tokio::test]
async fn a_panic_ends_the_span_and_tells_the_trace() {
    let collector = Collector::start();
    let node = Node::start(traced(&collector.endpoint()).fault_injection());
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    bob.allow_repeats();
    let id = new_id();
    let fault = json!({"target": "session", "user": "bob", "on_id": id});
    node.admin().inject_panic(&fault).expect(200);
    alice.send_json(&followed(&id, "bob", &json!(1))).await;
    alice.accepted(&id).await;
    let found = eventually("the delivery that panicked", || {
        let mut spans = collector.spans().into_iter();
        spans.find(|span| span.name == "deliver" && span.error.is_some())
    });
    assert_eq!(found.error.as_deref(), Some("panicked"));
    eventually("the log tells the trace", || {
        let log = node.log();
        let mut lines = log.lines().filter(|line| line.contains(TRACE));
        lines.any(|line| line.contains("panicked")).then_some(())
    });
    // Messages go on, and so do traces.
    let next = alice.say("bob", &json!(2)).await;
    assert_eq!(bob.message_acked().await["id"], json!(next));
}

#[tokio::test]
async fn an_ephemeral_message_is_followed_without_the_journal() {
    let collector = Collector::start();
    let node = Node::start(traced(&collector.endpoint()));
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let id = new_id();
    let mut typing = followed(&id, "bob", &json!("typing"));
    typing["ephemeral"] = json!(true);
    alice.send_json(&typing).await;
    assert!(bob.message().await["traceparent"].is_string());
    let spans = collector.trace(TRACE, 3);
    hang_together(&spans);
    let named = by_name(&spans);
    assert_eq!(named["send"].attributes["stonechat.ephemeral"], true);
    assert_eq!(named["deliver"].parent, named["send"].id);
    assert!(named.contains_key("session"));
}

#[tokio::test]
async fn without_an_endpoint_there_is_nothing() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let id = new_id();
    alice.send_json(&followed(&id, "bob", &json!(1))).await;
    alice.accepted(&id).await;
    let message = bob.message_acked().await;
    assert!(message.get("traceparent").is_none(), "{message}");
    assert!(
        !node
            .admin()
            .get("/metrics")
            .text
            .contains("stonechat_trace")
    );
    let threads = std::fs::read_dir(format!("/proc/{}/task", node.pid())).expect("our own child");
    let names: Vec<String> = threads
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .collect();
    assert!(
        names.len() > 2 && !names.contains(&"traces\n".to_owned()),
        "{names:?}"
    );
}

#[tokio::test]
async fn a_collector_that_does_not_answer_costs_spans_and_nothing_else() {
    // Connections are completed by the kernel, and nobody ever reads from them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let node = Node::start(
        traced(&endpoint)
            .set("traces.sampled_per_million", "1000000")
            .set("traces.sampled_per_s_max", "100000")
            .set("traces.queue_spans_max", "64")
            .set("traces.timeout_ms", "100"),
    );
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let mut bob = WsClient::join(&node, "bob", "phone").await;
    let spans = |outcome: &str| {
        let outcome = format!("outcome=\"{outcome}\"");
        let metric = node.admin().metric("stonechat_trace_spans_total", &outcome);
        metric.expect("it is there from the start")
    };
    // Each more than there is room for, so that however slow the disk is, some find none.
    for _ in 0..4 {
        let ids: Vec<_> = (0..50).map(|_| new_id()).collect();
        let sends: Vec<_> = ids.iter().map(|id| send(id, "bob", &json!(1))).collect();
        alice.send_burst(&sends).await;
        for id in &ids {
            alice.accepted(id).await;
            assert_eq!(bob.message_acked().await["id"], json!(id));
        }
    }
    eventually("spans are given up", || {
        (spans("failed") > 0.0 && spans("dropped") > 0.0).then_some(())
    });
    assert_eq!(spans("exported"), 0.0);
    let started = node
        .admin()
        .metric("stonechat_traces_started_total", "origin=\"sampled\"");
    assert_eq!(started, Some(200.0));
    let warnings = node.log().matches("could not be exported").count();
    assert_eq!(warnings, 1, "told once");
}

#[tokio::test]
async fn a_collector_that_recovers_gets_spans_again() {
    let collector = Collector::start();
    collector.answer(400);
    let node = Node::start(traced(&collector.endpoint()));
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let _bob = WsClient::join(&node, "bob", "phone").await;
    let mut send_one = async || {
        let id = new_id();
        alice.send_json(&followed(&id, "bob", &json!(1))).await;
        alice.accepted(&id).await;
    };
    send_one().await;
    eventually("an export is refused", || {
        let failed = node
            .admin()
            .metric("stonechat_trace_spans_total", "outcome=\"failed\"");
        (failed > Some(0.0)).then_some(())
    });
    assert!(collector.requests() > 0 && collector.spans().is_empty());
    collector.answer(200);
    send_one().await;
    eventually("spans arrive", || {
        (!collector.spans().is_empty()).then_some(())
    });
    eventually("the log says so", || {
        node.log().contains("takes spans again").then_some(())
    });
}

#[tokio::test]
async fn clients_cannot_have_more_followed_than_allowed() {
    let collector = Collector::start();
    let mut node = Node::start(traced(&collector.endpoint()).set("traces.followed_per_s_max", "1"));
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    node.user("bob");
    let ids: Vec<String> = (0..40).map(|_| new_id()).collect();
    let sends: Vec<Value> = ids
        .iter()
        .map(|id| followed(id, "bob", &json!(1)))
        .collect();
    alice.send_burst(&sends).await;
    // Neither is followed: the client says it does not trace it; and what nobody can read.
    for odd in [
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
        "01-rubbish",
    ] {
        let id = new_id();
        let mut frame = send(&id, "bob", &json!(1));
        frame["traceparent"] = json!(odd);
        alice.send_json(&frame).await;
        alice.accepted(&id).await;
    }
    for id in &ids {
        alice.accepted(id).await;
    }
    let count = |name: &str| {
        node.admin()
            .metric(name, "origin=\"client\"")
            .expect("is there")
    };
    let (started, limited) = (
        count("stonechat_traces_started_total"),
        count("stonechat_traces_limited_total"),
    );
    assert_eq!(started + limited, 40.0);
    // At least two of forty came within a second.
    assert!(started >= 1.0 && limited >= 1.0, "{started} {limited}");
    let sampled = node
        .admin()
        .metric("stonechat_traces_started_total", "origin=\"sampled\"");
    assert_eq!(sampled, Some(0.0));
    assert_eq!(node.sigterm(), Some(0));
    let spans = collector.spans();
    let roots = spans.iter().filter(|span| span.name == "send").count();
    assert_eq!(roots as f64, started);
}

#[tokio::test]
async fn what_is_finished_is_exported_when_the_node_stops() {
    let collector = Collector::start();
    let mut node = Node::start(traced(&collector.endpoint()).set("traces.linger_ms", "60000"));
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    node.user("bob");
    let id = new_id();
    alice.send_json(&followed(&id, "bob", &json!(1))).await;
    alice.accepted(&id).await;
    assert_eq!(collector.requests(), 0);
    assert_eq!(node.sigterm(), Some(0));
    let spans = collector.trace(TRACE, 5);
    hang_together(&spans);
}
