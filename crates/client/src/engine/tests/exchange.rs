//! Sends, messages, acknowledgements, receipts, read marks.

use super::*;

#[test]
fn unanswered_sends_go_first_after_a_break_and_in_order() {
    let mut engine = online();
    let ids: Vec<MessageId> = (0..3)
        .map(|n| submit(&mut engine, &n.to_string()))
        .collect();
    for id in &ids {
        assert!(text(&mut engine, 1).contains(&id.to_string()));
    }
    engine.received(&accepted(ids[0]), 2);
    assert!(matches!(engine.take_outcome(), Some((id, Ok(_))) if id == ids[0]));
    engine.closed(None, 3);
    let late = submit(&mut engine, "9");
    let Step::Wait { until_ms } = engine.step(3) else {
        panic!("no back-off");
    };
    sign_in(&mut engine, until_ms);
    for id in [ids[1], ids[2], late] {
        assert!(text(&mut engine, until_ms).contains(&id.to_string()));
    }
    assert_eq!(engine.transmit(until_ms), None);
}

#[test]
fn at_most_64_are_unanswered() {
    let mut engine = online();
    for n in 0..UNACCEPTED_MAX {
        submit(&mut engine, &n.to_string());
    }
    assert!(matches!(
        engine.submit(outgoing("1"), None, 1),
        Err(SendError::Full)
    ));
}

#[test]
fn a_lower_limit_of_the_server_is_kept() {
    let mut engine = fresh(setup());
    engine.step(0);
    engine.connected("t", 0);
    text(&mut engine, 0);
    let limits = Limits {
        unaccepted_max: 2,
        ..Limits::default()
    };
    engine.received(&welcome_with(&serde_json::to_string(&limits).unwrap()), 0);
    let first = submit(&mut engine, "1");
    submit(&mut engine, "2");
    submit(&mut engine, "3");
    text(&mut engine, 0);
    text(&mut engine, 0);
    assert_eq!(engine.transmit(0), None);
    engine.received(&accepted(first), 0);
    assert!(text(&mut engine, 0).contains(r#""body":3"#));
}

#[test]
fn messages_are_handed_out_once_and_acknowledged_when_handled() {
    let mut engine = online();
    engine.received(&message(1), 0);
    engine.received(&message(2), 0);
    engine.received(&message(1), 0);
    assert_eq!(take_seq(&mut engine), Some(1));
    assert_eq!(engine.ack(2, 0), Err(AckError { seq: 2, last: 1 }));
    engine.ack(1, 0).unwrap();
    engine.closed(None, 1);
    let Step::Wait { until_ms } = engine.step(1) else {
        panic!("no back-off");
    };
    let hello = sign_in(&mut engine, until_ms);
    assert!(hello.contains(r#""ack":1"#), "{hello}");
    // Sent again because not acknowledged: still waiting here, so not taken twice.
    engine.received(&message(2), until_ms);
    assert_eq!(take_seq(&mut engine), Some(2));
    assert!(matches!(
        engine.take_event(),
        Some(Event::Disconnected { .. })
    ));
    assert!(matches!(engine.take_event(), Some(Event::Connected(_))));
    assert_eq!(take_seq(&mut engine), None);
}

#[test]
fn acks_wait_for_company_ride_along_or_go_at_once_when_many() {
    let mut engine = online();
    for seq in 1..=40 {
        engine.received(&message(seq), 0);
        take_seq(&mut engine);
    }
    engine.ack(1, 0).unwrap();
    engine.ack(2, 10).unwrap();
    assert_eq!(engine.transmit(49), None);
    assert_eq!(engine.timeout_ms(), Some(50));
    assert_eq!(text(&mut engine, 50), r#"{"type":"ack","seq":2}"#);
    assert_eq!(engine.transmit(60), None);
    engine.ack(3, 60).unwrap();
    submit(&mut engine, "0");
    assert!(text(&mut engine, 61).contains(r#""ack":3"#));
    assert_eq!(engine.transmit(1_000), None, "told once");
    engine.ack(3 + 32, 70).unwrap();
    assert_eq!(text(&mut engine, 70), r#"{"type":"ack","seq":35}"#);
}

#[test]
fn what_the_server_forgot_to_note_is_acknowledged_again() {
    let mut engine = online();
    engine.received(&message(1), 0);
    take_seq(&mut engine);
    engine.ack(1, 0).unwrap();
    text(&mut engine, 50);
    engine.received(&message(1), 60);
    assert_eq!(take_seq(&mut engine), None);
    assert_eq!(text(&mut engine, 110), r#"{"type":"ack","seq":1}"#);
}

#[test]
fn receipts_collapse_and_are_confirmed_only_when_handled() {
    let mut engine = online();
    engine.received(&receipt(1, "bob"), 0);
    engine.received(&receipt(2, "carol"), 0);
    engine.received(&receipt(3, "bob"), 0);
    let Some(Event::Receipt(first)) = engine.take_event() else {
        panic!("no receipt");
    };
    assert_eq!(first.rev, 2, "a later one would confirm this unseen");
    assert_eq!(engine.resume_state().last_rev, 0);
    assert!(engine.confirm_receipts(0));
    assert_eq!(engine.resume_state().last_rev, 2);
    submit(&mut engine, "0");
    assert!(text(&mut engine, 1).contains(r#""rev":2"#));
    assert!(matches!(engine.take_event(), Some(Event::Receipt(r)) if r.rev == 3));
    assert!(engine.take_event().is_none());
    engine.confirm_receipts(10);
    assert_eq!(engine.timeout_ms(), Some(1_000), "the heartbeat is first");
    engine.heard(1_500);
    assert_eq!(
        text(&mut engine, 2_010),
        r#"{"type":"ack","seq":0,"rev":3}"#
    );
}

#[test]
fn ephemeral_sends_are_sent_once_or_not_at_all() {
    let ephemeral = || OutgoingSend {
        ephemeral: true,
        ..outgoing("1")
    };
    let mut offline = fresh(setup());
    assert!(matches!(
        offline.submit(ephemeral(), None, 1),
        Err(SendError::NotConnected)
    ));
    let mut engine = online();
    let id = engine.submit(ephemeral(), None, 1).unwrap();
    assert!(text(&mut engine, 1).contains(r#""ephemeral":true"#));
    engine.closed(None, 2);
    assert!(matches!(
        engine.take_outcome(),
        Some((got, Err(Refused::ConnectionLost))) if got == id
    ));
    assert!(engine.resume_state().unanswered.is_empty());
}

#[test]
fn a_rate_limit_makes_later_sends_wait() {
    let mut engine = online();
    let id = submit(&mut engine, "1");
    text(&mut engine, 0);
    engine.received(&error("rate_limited", id, 300), 0);
    let Some((_, Err(refused))) = engine.take_outcome() else {
        panic!("no refusal");
    };
    assert!(refused.may_retry());
    submit(&mut engine, "2");
    assert_eq!(engine.transmit(299), None);
    assert_eq!(engine.timeout_ms(), Some(300));
    engine.timeout(300);
    assert!(text(&mut engine, 300).contains(r#""body":2"#));
}

#[test]
fn too_large_is_refused_here_and_not_sent_for_ever() {
    let mut engine = fresh(setup());
    let body = format!("\"{}\"", "x".repeat(70_000));
    let id = submit(&mut engine, &body);
    sign_in(&mut engine, 0);
    assert!(matches!(
        engine.take_outcome(),
        Some((got, Err(Refused::TooLarge { .. }))) if got == id
    ));
    assert_eq!(engine.transmit(0), None);
    assert!(matches!(
        engine.submit(outgoing(&body), None, 1),
        Err(SendError::TooLarge { .. })
    ));
}

#[test]
fn answers_to_what_was_not_sent_are_not_believed() {
    let mut engine = online();
    let id = submit(&mut engine, "1");
    engine.received(&accepted(id), 0);
    assert!(engine.take_outcome().is_none());
    assert!(text(&mut engine, 0).contains(&id.to_string()));
}

#[test]
fn a_read_mark_is_repeated_until_something_later_was_answered() {
    let mut engine = online();
    let id = submit(&mut engine, "1");
    engine.read(bob(), id).unwrap();
    text(&mut engine, 0);
    assert!(text(&mut engine, 0).contains(r#""type":"read""#));
    // The send went out before the mark: its answer proves nothing.
    engine.received(&accepted(id), 0);
    engine.closed(None, 1);
    sign_in(&mut engine, 100_000);
    assert!(text(&mut engine, 100_000).contains(r#""type":"read""#));
    let id = submit(&mut engine, "2");
    text(&mut engine, 100_000);
    engine.received(&accepted(id), 100_000);
    engine.closed(None, 100_001);
    sign_in(&mut engine, 200_000);
    assert_eq!(engine.transmit(200_000), None);
}

#[test]
fn restored_sends_are_answered_by_events() {
    let mut first = online();
    let id = submit(&mut first, "1");
    let state = first.resume_state();
    let mut second = Engine::new(setup(), state, 8);
    sign_in(&mut second, 0);
    assert!(text(&mut second, 0).contains(&id.to_string()));
    second.received(&accepted(id), 0);
    assert!(matches!(second.take_event(), Some(Event::Connected(_))));
    assert!(
        matches!(second.take_event(), Some(Event::Settled { id: got, result: Ok(_) }) if got == id)
    );
    assert!(submit(&mut second, "2") > id);
}

#[test]
fn an_application_that_takes_nothing_loses_the_connection_and_no_message() {
    let mut setup = setup();
    setup.tuning.events_max = 3;
    let mut engine = fresh(setup);
    sign_in(&mut engine, 0);
    for seq in 1..=3 {
        engine.received(&message(seq), 0);
    }
    assert!(!engine.is_connected());
    assert!(matches!(engine.take_event(), Some(Event::Connected(_))));
    assert_eq!(take_seq(&mut engine), Some(1));
    assert_eq!(take_seq(&mut engine), Some(2));
    assert!(matches!(
        engine.take_event(),
        Some(Event::Lagged { dropped: 1 })
    ));
    sign_in(&mut engine, 100_000);
    engine.take_event();
    engine.received(&message(3), 100_000);
    assert_eq!(take_seq(&mut engine), Some(3));
}

#[test]
fn refused_codes_tell_whether_to_try_again() {
    for code in ErrorCode::ALL {
        let refused = Refused::Server {
            code: *code,
            message: String::new(),
            retry_after_ms: None,
        };
        let hopeless = matches!(
            code,
            ErrorCode::BadFrame
                | ErrorCode::UnknownType
                | ErrorCode::UnexpectedFrame
                | ErrorCode::Unauthorized
                | ErrorCode::UnknownUser
                | ErrorCode::TooLarge
                | ErrorCode::BadAck
                | ErrorCode::UnknownMessage
                | ErrorCode::TooManyDevices
        );
        assert_eq!(refused.may_retry(), !hopeless, "{code}");
    }
}
