use proptest::prelude::*;

use super::*;

fn id(n: u128) -> MessageId {
    MessageId::from_u128(n)
}

fn accepted(n: u128, ts_ms: u64, duplicate: bool) -> Answer {
    Answer {
        id: id(n),
        outcome: Outcome::Accepted { ts_ms, duplicate },
    }
}

fn refused(n: u128, code: ErrorCode) -> Answer {
    Answer {
        id: id(n),
        outcome: Outcome::Refused {
            code,
            retry_after_ms: None,
        },
    }
}

#[test]
fn an_idle_device_is_small() {
    assert!(size_of::<Outbound>() <= 64);
}

#[test]
fn a_resend_is_recognised_while_in_flight_and_after() {
    let mut outbound = Outbound::default();
    assert_eq!(outbound.submit(id(1)), SendDecision::Fresh);
    outbound.disconnected();
    assert_eq!(outbound.submit(id(1)), SendDecision::InFlight);
    assert_eq!(outbound.in_flight(), 1);
    assert_eq!(outbound.committed(id(1), 7)[..], [accepted(1, 7, true)]);
    assert_eq!(outbound.submit(id(1)), SendDecision::Duplicate { ts_ms: 7 });
    assert_eq!(outbound.submit(id(0)), SendDecision::TooOld);
    assert!(outbound.is_idle());
}

#[test]
fn answers_keep_the_order_of_the_sends() {
    let mut outbound = Outbound::default();
    for n in 1..=3 {
        assert_eq!(outbound.submit(id(n)), SendDecision::Fresh);
    }
    // Decided early, answered in turn.
    let code = ErrorCode::MailboxFull;
    assert!(outbound.refused(id(2), code, None).is_empty());
    assert_eq!(outbound.submit(id(3)), SendDecision::InFlight);
    assert_eq!(
        outbound.committed(id(1), 5)[..],
        [accepted(1, 5, false), refused(2, code)]
    );
    assert_eq!(outbound.submit(id(1)), SendDecision::DuplicateLater);
    assert_eq!(
        outbound.committed(id(3), 6)[..],
        [
            accepted(3, 6, false),
            accepted(3, 6, true),
            accepted(1, 5, true)
        ]
    );
    // The refused id is below what was accepted since: only a new one will do.
    assert_eq!(outbound.submit(id(2)), SendDecision::TooOld);
}

#[test]
fn a_refused_id_may_be_sent_again_while_it_is_the_greatest() {
    let mut outbound = Outbound::default();
    assert_eq!(outbound.submit(id(5)), SendDecision::Fresh);
    let answers = outbound.abandoned(id(5), None);
    assert_eq!(answers[..], [refused(5, ErrorCode::StorageUnavailable)]);
    assert_eq!(outbound.submit(id(5)), SendDecision::Fresh);
    assert_eq!(outbound.submit(id(4)), SendDecision::TooOld);
}

#[test]
fn nobody_waits_for_answers_after_a_disconnect() {
    let mut outbound = Outbound::default();
    for n in 1..=3 {
        outbound.submit(id(n));
    }
    outbound.disconnected();
    assert!(outbound.committed(id(1), 1).is_empty());
    assert_eq!(outbound.submit(id(1)), SendDecision::Duplicate { ts_ms: 1 });
    assert!(outbound.abandoned(id(2), None).is_empty());
    assert_eq!(outbound.submit(id(4)), SendDecision::Fresh);
    // 3 is in flight and not owed: it does not hold 4 up.
    assert_eq!(outbound.committed(id(4), 4)[..], [accepted(4, 4, false)]);
}

#[test]
fn the_sixty_fifth_unanswered_send_is_refused() {
    let mut outbound = Outbound::default();
    for n in 1..=64 {
        assert_eq!(outbound.submit(id(n)), SendDecision::Fresh);
    }
    assert_eq!(outbound.submit(id(65)), SendDecision::TooMany);
    assert_eq!(outbound.submit(id(64)), SendDecision::TooMany);
    outbound.committed(id(1), 0);
    assert_eq!(outbound.submit(id(65)), SendDecision::Fresh);
    outbound.disconnected();
    for n in 2..=65 {
        assert_eq!(outbound.submit(id(n)), SendDecision::InFlight);
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A new send, or a resend of one this many sends back.
    Send(Option<usize>),
    /// The oldest in flight is committed, or given up.
    Decide(bool),
    Disconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Send(None)),
        3 => (0usize..80).prop_map(|back| Step::Send(Some(back))),
        4 => prop::bool::weighted(0.8).prop_map(Step::Decide),
        1 => Just(Step::Disconnect),
    ];
    prop::collection::vec(step, 0..300)
}

proptest! {
    /// Against a model that remembers everything: nothing is fresh twice, nothing accepted is
    /// ever called too old while it is among the last 64, every send on a connection has at
    /// most one answer and answers come in the order of the sends, and at most 64 wait.
    #[test]
    fn against_a_model(steps in steps()) {
        let mut outbound = Outbound::default();
        let mut next = 0u128;
        let mut in_flight: VecDeque<u128> = VecDeque::new();
        let mut done: Vec<u128> = Vec::new();
        // Sends of this connection whose answers were put off, in order.
        let mut waiting: VecDeque<u128> = VecDeque::new();
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                Step::Send(back) => {
                    let n = match back {
                        None => { next += 1; next }
                        Some(back) => next.saturating_sub(back as u128),
                    };
                    let decision = outbound.submit(id(n));
                    let newest = done.last().max(in_flight.back()).copied();
                    let rank = done.iter().rev().position(|known| *known == n);
                    match decision {
                        SendDecision::Fresh => {
                            prop_assert!(newest.is_none_or(|newest| n > newest));
                            in_flight.push_back(n);
                            waiting.push_back(n);
                        }
                        SendDecision::Duplicate { .. } => {
                            prop_assert!(rank.is_some());
                            prop_assert!(waiting.is_empty());
                        }
                        SendDecision::DuplicateLater => {
                            prop_assert!(rank.is_some());
                            waiting.push_back(n);
                        }
                        SendDecision::InFlight => {
                            prop_assert!(in_flight.contains(&n));
                            waiting.push_back(n);
                        }
                        SendDecision::TooOld => {
                            prop_assert!(!in_flight.contains(&n));
                            prop_assert!(newest.is_some_and(|newest| n <= newest));
                            prop_assert!(rank.is_none_or(|rank| rank >= UNACCEPTED_MAX));
                        }
                        SendDecision::TooMany => {
                            prop_assert!(waiting.len() + in_flight.len() >= UNACCEPTED_MAX);
                        }
                    }
                }
                Step::Decide(commit) => {
                    let Some(n) = in_flight.pop_front() else { continue };
                    let answers = if commit {
                        done.push(n);
                        outbound.committed(id(n), at as u64)
                    } else {
                        outbound.abandoned(id(n), None)
                    };
                    let answered: Vec<u128> = answers.iter().map(|answer| answer.id.to_u128()).collect();
                    // A resend after a reconnect takes the place of the original, so the order
                    // is checked as that of a client that resends in order: by multiset here,
                    // strictly below.
                    for n in answered {
                        let place = waiting.iter().position(|waits| *waits == n);
                        prop_assert!(place.is_some(), "{n} is answered but was not asked");
                        waiting.remove(place.unwrap());
                    }
                }
                Step::Disconnect => {
                    outbound.disconnected();
                    waiting.clear();
                }
            }
            prop_assert_eq!(outbound.in_flight(), in_flight.len());
            prop_assert!(outbound.slots.len() <= UNACCEPTED_MAX);
            prop_assert_eq!(outbound.window().last(), done.last().map(|n| id(*n)));
        }
        while let Some(n) = in_flight.pop_front() {
            for answer in outbound.committed(id(n), 0) {
                let place = waiting.iter().position(|waits| id(*waits) == answer.id);
                prop_assert!(place.is_some());
                waiting.remove(place.unwrap());
            }
        }
        prop_assert!(waiting.is_empty(), "no answer to {:?}", waiting);
        prop_assert!(outbound.is_idle());
    }

    /// A client as the protocol wants it: new sends and, after a reconnect, everything
    /// unanswered in order. Every answer is to its oldest unanswered send.
    #[test]
    fn a_good_client_is_answered_in_order(steps in steps()) {
        let mut outbound = Outbound::default();
        let mut next = 0u128;
        let mut in_flight: VecDeque<u128> = VecDeque::new();
        let mut unanswered: VecDeque<u128> = VecDeque::new();
        for step in steps {
            let mut answers = Answers::new();
            match step {
                Step::Send(_) if unanswered.len() == UNACCEPTED_MAX => {}
                Step::Send(_) => {
                    next += 1;
                    unanswered.push_back(next);
                    prop_assert_eq!(outbound.submit(id(next)), SendDecision::Fresh);
                    in_flight.push_back(next);
                }
                Step::Decide(commit) => {
                    let Some(n) = in_flight.pop_front() else { continue };
                    answers = if commit {
                        outbound.committed(id(n), 0)
                    } else {
                        outbound.refused(id(n), ErrorCode::MailboxFull, None)
                    };
                }
                Step::Disconnect => {
                    outbound.disconnected();
                    let again: Vec<u128> = unanswered.iter().copied().collect();
                    for n in again {
                        match outbound.submit(id(n)) {
                            SendDecision::Fresh => in_flight.push_back(n),
                            SendDecision::Duplicate { .. } | SendDecision::TooOld => {
                                prop_assert_eq!(unanswered.pop_front(), Some(n));
                            }
                            SendDecision::InFlight => {}
                            other => prop_assert!(false, "{n} is {other:?}"),
                        }
                    }
                }
            }
            for answer in answers {
                prop_assert_eq!(unanswered.pop_front().map(id), Some(answer.id));
            }
        }
    }
}
