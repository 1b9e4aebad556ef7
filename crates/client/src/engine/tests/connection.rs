//! Sign-in, heartbeat, loss, back-off, end.

use super::*;

#[test]
fn a_silent_server_is_asked_and_then_given_up() {
    let mut engine = online();
    assert_eq!(engine.timeout_ms(), Some(1_000));
    engine.timeout(999);
    assert_eq!(engine.transmit(999), None);
    engine.timeout(1_000);
    assert!(text(&mut engine, 1_000).contains(r#""type":"ping""#));
    assert_eq!(engine.timeout_ms(), Some(2_000));
    engine.heard(1_500);
    engine.timeout(2_000);
    assert!(engine.is_online(), "any sign of life counts");
    engine.timeout(2_500);
    text(&mut engine, 2_500);
    engine.timeout(3_500);
    assert!(!engine.is_connected());
    assert!(matches!(
        engine.take_event(),
        Some(Event::Disconnected {
            cause: DisconnectCause::HeartbeatLost,
            ..
        })
    ));
}

#[test]
fn sign_in_has_a_deadline() {
    let mut engine = fresh(setup());
    engine.step(0);
    engine.connected("t", 0);
    text(&mut engine, 0);
    assert_eq!(engine.timeout_ms(), Some(10_000));
    engine.timeout(10_000);
    assert!(!engine.is_connected());
}

#[test]
fn reasons_that_do_not_pass_end_the_client_and_answer_everybody() {
    for reason in CloseReason::ALL {
        let mut engine = online();
        let id = submit(&mut engine, "1");
        engine.received(&format!(r#"{{"type":"bye","reason":"{reason}"}}"#), 1);
        if reason.may_retry() {
            assert!(matches!(engine.step(1), Step::Wait { .. } | Step::Connect));
            assert!(engine.take_outcome().is_none());
        } else {
            let terminal = Terminal::Refused(*reason);
            assert_eq!(engine.step(1), Step::Ended);
            assert_eq!(engine.ended(), Some(&terminal));
            assert!(matches!(
                engine.take_outcome(),
                Some((got, Err(Refused::Ended(_)))) if got == id
            ));
            assert!(matches!(engine.take_event(), Some(Event::Terminal(got)) if got == terminal));
            assert_eq!(engine.resume_state().unanswered[0].id, id);
            assert!(engine.submit(outgoing("1"), None, 1).is_err());
        }
    }
}

#[test]
fn the_close_code_speaks_when_no_bye_came() {
    let mut engine = online();
    engine.closed(Some(4001), 1);
    assert_eq!(
        engine.ended(),
        Some(&Terminal::Refused(CloseReason::Replaced))
    );
}

#[test]
fn retry_after_is_a_floor_and_failures_are_counted() {
    let mut setup = setup();
    setup.tuning.attempts_max = Some(3);
    let mut engine = fresh(setup);
    sign_in(&mut engine, 0);
    engine.received(
        r#"{"type":"bye","reason":"shutdown","retry_after_ms":700}"#,
        0,
    );
    let Step::Wait { until_ms } = engine.step(0) else {
        panic!("no back-off");
    };
    assert!((700..=900).contains(&until_ms), "{until_ms}");
    for now_ms in [100_000, 200_000] {
        assert_eq!(engine.step(now_ms), Step::Connect);
        engine.lost(DisconnectCause::ConnectTimeout, None, now_ms);
    }
    assert_eq!(
        engine.ended(),
        Some(&Terminal::GaveUp {
            attempts: 3,
            last: DisconnectCause::ConnectTimeout
        })
    );
}

#[test]
fn a_stable_connection_makes_the_back_off_start_over() {
    let mut setup = setup();
    setup.tuning.attempts_max = Some(2);
    let mut engine = fresh(setup);
    for round in 0..5 {
        let now_ms = round * 1_000_000;
        sign_in(&mut engine, now_ms);
        engine.closed(None, now_ms + 10_000);
        assert!(engine.ended().is_none());
    }
}

#[test]
fn a_fresh_token_is_tried_once() {
    let mut setup = setup();
    setup.fresh_tokens = true;
    let mut engine = fresh(setup);
    let bye = r#"{"type":"bye","reason":"unauthorized"}"#;
    sign_in(&mut engine, 0);
    engine.received(bye, 0);
    assert!(engine.ended().is_none());
    assert_eq!(engine.step(10_000), Step::Connect);
    engine.connected("t2", 10_000);
    engine.received(bye, 10_000);
    assert!(engine.ended().is_some());
}

#[test]
fn closing_waits_for_answers_then_tells_what_was_handled() {
    let mut engine = online();
    engine.received(&message(1), 0);
    take_seq(&mut engine);
    let id = submit(&mut engine, "1");
    text(&mut engine, 0);
    engine.ack(1, 0).unwrap();
    engine.close(0);
    assert!(engine.submit(outgoing("2"), None, 1).is_err());
    assert_eq!(text(&mut engine, 0), r#"{"type":"ack","seq":1}"#);
    assert_eq!(engine.transmit(0), None, "an answer is outstanding");
    engine.received(&accepted(id), 1);
    assert_eq!(engine.transmit(1), Some(Transmit::Close));
    assert_eq!(engine.ended(), Some(&Terminal::Closed));
    assert!(matches!(engine.take_outcome(), Some((_, Ok(_)))));
}

#[test]
fn closing_has_a_deadline() {
    let mut engine = online();
    let id = submit(&mut engine, "1");
    text(&mut engine, 0);
    engine.close(0);
    for now_ms in [1_000, 2_000, 3_000, 4_000] {
        engine.heard(now_ms);
    }
    assert_eq!(engine.timeout_ms(), Some(5_000));
    assert_eq!(engine.transmit(5_000), Some(Transmit::Close));
    assert_eq!(engine.resume_state().unanswered[0].id, id);
}

#[test]
fn a_code_of_a_later_version_answers_as_well() {
    let mut engine = online();
    let id = submit(&mut engine, "1");
    text(&mut engine, 0);
    engine.received(&error("from_the_future", id, 1), 0);
    let Some((got, Err(Refused::Server { code, .. }))) = engine.take_outcome() else {
        panic!("not answered");
    };
    assert_eq!((got, code), (id, ErrorCode::Unknown));
    assert!(engine.is_online());
}

#[test]
fn a_frame_that_cannot_be_read_ends_the_connection_and_an_unknown_one_does_not() {
    let mut engine = online();
    engine.received(r#"{"type":"later","x":1}"#, 0);
    assert!(engine.is_online());
    engine.received("{", 0);
    assert!(!engine.is_connected());
}
