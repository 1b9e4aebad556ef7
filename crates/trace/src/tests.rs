use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use stonechat_protocol::TraceParent;

use crate::*;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn config() -> TracerConfig {
    TracerConfig {
        sampled_per_million: 0,
        sampled_per_s_max: 1_000_000,
        followed_per_s_max: 1_000_000,
        queue_spans_max: 64,
    }
}

fn taken(spans: &FinishedSpans) -> Vec<Finished> {
    let mut all = Vec::new();
    while let Next::Span(span) = spans.next(Duration::ZERO) {
        all.push(*span);
    }
    all
}

#[test]
fn the_clients_decision_is_heeded() {
    let (tracer, _spans) = Tracer::new(&config());
    let sampled = TraceParent::parse(PARENT).unwrap();
    let root = tracer.begin(Some(sampled)).unwrap();
    assert_eq!(root.trace().id(), sampled.trace);
    assert_ne!(root.id(), sampled.span);
    assert_eq!(root.trace().root(), root.id());
    let not = TraceParent {
        sampled: false,
        ..sampled
    };
    let (all, _spans) = Tracer::new(&TracerConfig {
        sampled_per_million: 1_000_000,
        ..config()
    });
    assert!(all.begin(Some(not)).is_none());
    assert!(all.begin(None).is_some());
    assert!(tracer.begin(None).is_none());
}

#[test]
fn clients_have_a_limit_of_their_own() {
    let (tracer, _spans) = Tracer::new(&TracerConfig {
        sampled_per_million: 1_000_000,
        sampled_per_s_max: 3,
        followed_per_s_max: 0,
        ..config()
    });
    assert!(tracer.begin(TraceParent::parse(PARENT)).is_none());
    assert!(tracer.begin(None).is_some());
}

#[test]
fn about_as_many_are_sampled_as_asked_for() {
    let (tracer, _spans) = Tracer::new(&TracerConfig {
        sampled_per_million: 250_000,
        queue_spans_max: 1,
        ..config()
    });
    let begun: HashSet<_> = (0..10_000)
        .filter_map(|_| tracer.begin(None))
        .map(|root| root.trace().id())
        .collect();
    // Of 10,000, 2,500 with a deviation of 43: this fails once in 10^30 runs.
    assert!((2_000..3_000).contains(&begun.len()), "{}", begun.len());
}

#[test]
fn spans_tell_their_place_and_time() {
    let (tracer, spans) = Tracer::new(&config());
    let client = TraceParent::parse(PARENT).unwrap();
    let root = tracer.begin(Some(client)).unwrap();
    let trace = Arc::clone(root.trace());
    let session = trace.open(Stage::Session, root.id()).with("n", 7_u64);
    trace.queue();
    session.end_at(trace.queued());
    trace.commit();
    trace
        .open_at(Stage::Commit, root.id(), trace.queued())
        .fail("disk_full");
    root.end();
    let all = taken(&spans);
    let [session, commit, root] = &all[..] else {
        panic!("{all:?}");
    };
    assert_eq!(root.parent, Some(client.span));
    assert!(root.parent_is_remote && !session.parent_is_remote);
    for child in [session, commit] {
        assert_eq!((child.parent, child.trace), (Some(root.id), client.trace));
        assert!(root.start_unix_ns <= child.start_unix_ns);
        assert!(child.end_unix_ns <= root.end_unix_ns);
        assert!(child.start_unix_ns <= child.end_unix_ns);
    }
    assert_eq!(session.attributes, [("n", Value::Number(7))]);
    assert_eq!(session.end_unix_ns, commit.start_unix_ns);
    assert_eq!((session.failure, commit.failure), (None, Some("disk_full")));
}

#[test]
fn a_span_that_is_dropped_says_so() {
    let (tracer, spans) = Tracer::new(&config());
    let root = tracer.begin(TraceParent::parse(PARENT)).unwrap();
    let session = root.trace().open(Stage::Session, root.id());
    let panic = catch_unwind(AssertUnwindSafe(move || {
        let _session = session;
        panic!("in a handler");
    }));
    assert!(panic.is_err());
    drop(root);
    let failures: Vec<_> = taken(&spans).iter().map(|span| span.failure).collect();
    assert_eq!(failures, [Some(PANICKED), Some(ABANDONED)]);
}

#[test]
fn a_full_queue_drops_and_never_waits() {
    let (tracer, spans) = Tracer::new(&TracerConfig {
        queue_spans_max: 2,
        ..config()
    });
    for _ in 0..5 {
        tracer.begin(TraceParent::parse(PARENT)).unwrap().end();
    }
    assert_eq!(taken(&spans).len(), 2);
}

#[test]
fn a_reference_is_one_pointer_and_no_part_of_the_message() {
    assert_eq!(size_of::<TraceRef>(), size_of::<usize>());
    let (tracer, _spans) = Tracer::new(&config());
    let root = tracer.begin(TraceParent::parse(PARENT)).unwrap();
    assert_eq!(TraceRef::of(Some(&root)), TraceRef::default());
    assert!(TraceRef::of(Some(&root)).get().is_some() && TraceRef::of(None).get().is_none());
}
