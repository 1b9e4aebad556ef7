//! Every error code and every close reason is reached by some test: the table says by which.
//!
//! The codes come from the published schemas, so a code added to the protocol fails here until a
//! test reaches it; and a test that is renamed or no longer speaks of its code fails here too.

use std::collections::BTreeSet;

use serde_json::Value;
use stonechat_tests::binary::workspace;

/// Code, file, test.
const ERROR_CODES: &[(&str, &str, &str)] = &[
    (
        "bad_frame",
        "frames",
        "what_is_no_frame_is_bad_and_forgiven",
    ),
    (
        "unknown_type",
        "frames",
        "an_unknown_type_is_answered_and_forgiven",
    ),
    (
        "unexpected_frame",
        "sign_in",
        "a_second_hello_is_unexpected_and_harmless",
    ),
    ("unauthorized", "sign_in", "bad_tokens_are_refused"),
    (
        "unknown_user",
        "frames",
        "an_unknown_user_cannot_be_written_to",
    ),
    (
        "too_large",
        "frames",
        "bodies_up_to_the_limit_and_not_beyond",
    ),
    (
        "rate_limited",
        "limits",
        "too_many_messages_are_rate_limited_and_pass_later",
    ),
    (
        "mailbox_full",
        "limits",
        "a_full_mailbox_refuses_and_opens_again",
    ),
    (
        "storage_unavailable",
        "storage",
        "without_room_sends_are_refused_and_nothing_accepted_is_lost",
    ),
    (
        "id_too_old",
        "resend",
        "the_window_holds_64_ids_and_no_more",
    ),
    (
        "too_many_unanswered",
        "resend",
        "more_than_64_unanswered_are_refused",
    ),
    (
        "bad_ack",
        "resume",
        "an_ack_of_what_was_never_sent_changes_nothing",
    ),
    (
        "unknown_message",
        "receipts",
        "reading_what_was_never_delivered_is_an_error",
    ),
    (
        "too_many_devices",
        "devices",
        "too_many_devices_are_refused",
    ),
];

/// Codes that no outside event reaches for certain, and where they are tested.
const ERROR_CODES_ELSEWHERE: &[(&str, &str)] = &[(
    "internal",
    "a send caught in a panic: depends on the moment; crates/broker tests it from inside",
)];

/// Reason, file, test.
const CLOSE_REASONS: &[(&str, &str, &str)] = &[
    ("shutdown", "drain", "sigterm_says_goodbye_and_exits_with_0"),
    (
        "replaced",
        "sign_in",
        "the_newer_connection_of_a_device_stays",
    ),
    ("auth_timeout", "sign_in", "who_says_nothing_is_let_go"),
    (
        "unauthorized",
        "tokens",
        "a_bound_token_is_good_for_its_device_only",
    ),
    (
        "revoked",
        "tokens",
        "revoking_all_tokens_disconnects_and_new_ones_work",
    ),
    (
        "heartbeat_timeout",
        "heartbeat",
        "a_client_that_answers_nothing_is_given_up",
    ),
    (
        "slow_consumer",
        "slow_reader",
        "a_stuck_reader_is_closed_and_others_are_unharmed",
    ),
    (
        "protocol_error",
        "framing",
        "breaches_of_the_websocket_protocol_end_the_connection",
    ),
    ("invalid_utf8", "framing", "text_must_be_utf8"),
    ("unsupported_data", "framing", "binary_is_not_spoken_here"),
    (
        "too_large",
        "frames",
        "a_frame_beyond_the_limit_ends_the_connection",
    ),
    (
        "too_many_errors",
        "frames",
        "too_many_refused_frames_in_a_row_end_the_connection",
    ),
    (
        "too_many_devices",
        "devices",
        "too_many_devices_are_refused",
    ),
    (
        "overloaded",
        "limits",
        "beyond_the_session_limit_one_is_told_overloaded",
    ),
    (
        "internal",
        "chaos",
        "a_panicked_connection_says_internal_and_the_device_comes_back",
    ),
];

/// All strings that a field of a schema may take, wherever the schema keeps them.
fn published(schema: &str, field: &str) -> BTreeSet<String> {
    let path = workspace().join("docs/schema").join(schema);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let root: Value = serde_json::from_str(&text).expect("a schema is JSON");
    let mut found = BTreeSet::new();
    collect(&root, &root["properties"][field], &mut found);
    assert!(!found.is_empty(), "{schema} names no values for {field}");
    found
}

fn collect(root: &Value, schema: &Value, found: &mut BTreeSet<String>) {
    if let Some(target) = schema["$ref"].as_str() {
        let pointer = target.trim_start_matches('#');
        collect(
            root,
            root.pointer(pointer).expect("the reference resolves"),
            found,
        );
    }
    let values = schema["enum"]
        .as_array()
        .into_iter()
        .flatten()
        .chain(schema.get("const"));
    found.extend(values.filter_map(Value::as_str).map(str::to_owned));
    for list in ["oneOf", "anyOf", "allOf"] {
        for part in schema[list].as_array().into_iter().flatten() {
            collect(root, part, found);
        }
    }
}

fn assert_reached(table: &[(&str, &str, &str)]) {
    for (code, file, test) in table {
        let path = workspace().join(format!("tests/tests/blackbox/{file}.rs"));
        let source = std::fs::read_to_string(&path).expect("the suite's source");
        let after = source.split(&format!("fn {test}(")).nth(1);
        let body =
            after.unwrap_or_else(|| panic!("{file}.rs has no test {test}, named for {code}"));
        assert!(
            source.contains(&format!("\"{code}\"")),
            "{file}.rs does not speak of {code}"
        );
        assert!(body.len() > 100, "{test} is empty");
    }
}

#[test]
fn every_error_code_is_reached() {
    let known: BTreeSet<String> = ERROR_CODES
        .iter()
        .map(|(code, ..)| *code)
        .chain(ERROR_CODES_ELSEWHERE.iter().map(|(code, _)| *code))
        .map(str::to_owned)
        .collect();
    assert_eq!(known, published("server.error.schema.json", "code"));
    assert_reached(ERROR_CODES);
}

#[test]
fn every_close_reason_is_reached() {
    let known: BTreeSet<String> = CLOSE_REASONS
        .iter()
        .map(|(reason, ..)| (*reason).to_owned())
        .collect();
    assert_eq!(known, published("server.bye.schema.json", "reason"));
    assert_reached(CLOSE_REASONS);
}
