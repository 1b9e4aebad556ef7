//! Holds `docs/protocol.md` to the code: tables of codes, reasons, fields and
//! limits, and every example frame. What the page says in prose is beyond it.

mod page;

use std::collections::{BTreeMap, BTreeSet};

use page::{Direction, Page};
use serde_json::Value;
use stonechat_protocol::{
    ClientFrame, CloseReason, ErrorCode, Limits, NAME_BYTES_MAX, NONCE_BYTES_MAX, SUBPROTOCOL,
    ServerFrame, schema,
};

/// Strips the back-ticks around a table cell.
fn code(cell: &str) -> &str {
    cell.trim_matches('`')
}

#[test]
fn error_codes_are_those_of_the_enum() {
    let rows = Page::read().table("## 10. Error codes", "| Code |");
    let listed: Vec<(&str, &str)> = rows.iter().map(|r| (code(&r[0]), r[1].as_str())).collect();
    let wanted: Vec<(&str, &str)> = ErrorCode::ALL
        .iter()
        .map(|c| (c.as_str(), c.describe()))
        .collect();
    assert_eq!(listed, wanted);
    let same_id: BTreeSet<&str> = rows
        .iter()
        .filter(|r| r[3] == "yes")
        .map(|r| code(&r[0]))
        .collect();
    assert!(rows.iter().all(|r| r[3] == "yes" || r[3] == "no"));
    assert_eq!(
        same_id,
        BTreeSet::from(["internal", "rate_limited", "storage_unavailable"])
    );
}

#[test]
fn close_reasons_are_those_of_the_enum() {
    let rows = Page::read().table("## 11. Closing", "| Reason |");
    let listed: BTreeMap<&str, (String, &str, &str)> = rows
        .iter()
        .map(|r| (code(&r[0]), (r[1].clone(), r[2].as_str(), r[3].as_str())))
        .collect();
    assert_eq!(listed.len(), rows.len(), "a reason is listed twice");
    let wanted: BTreeMap<&str, (String, &str, &str)> = CloseReason::ALL
        .iter()
        .map(|r| {
            let reconnect = if r.may_retry() { "yes" } else { "no" };
            (
                r.as_str(),
                (r.websocket_code().to_string(), r.describe(), reconnect),
            )
        })
        .collect();
    assert_eq!(listed, wanted);
}

#[test]
fn limits_are_those_of_the_struct() {
    let rows = Page::read().table("## 13. Limits", "| Limit |");
    let listed: BTreeMap<String, Value> = rows
        .iter()
        .map(|r| {
            let number: u64 = r[1].parse().expect("a default is a plain number");
            (code(&r[0]).to_owned(), number.into())
        })
        .collect();
    let wanted: BTreeMap<String, Value> =
        serde_json::from_value(serde_json::to_value(Limits::default()).unwrap()).unwrap();
    assert_eq!(listed, wanted);
    let page = Page::read();
    let text = page.section("## 13. Limits");
    assert!(text.contains(&format!("name has at most {NAME_BYTES_MAX} bytes")));
    assert!(text.contains(&format!("`nonce` at most {NONCE_BYTES_MAX} bytes")));
    assert!(page.section("## 14. Versions").contains(SUBPROTOCOL));
}

/// Field tables name the fields of the schemas and say rightly which are required.
#[test]
fn field_tables_are_those_of_the_schemas() {
    let page = Page::read();
    for (direction, kind, _) in schema::all() {
        let schema = page::schema(direction, kind);
        let required: BTreeSet<&str> = schema["required"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let wanted: BTreeMap<&str, bool> = schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .filter(|name| {
                *name != "type" && !(direction == "client" && ["ack", "rev"].contains(name))
            })
            .map(|name| (name, required.contains(name)))
            .collect();
        let rows = page.table(&format!("### `{kind}` ({direction})"), "| Field |");
        let listed: BTreeMap<&str, bool> = rows
            .iter()
            .map(|r| {
                assert!(r[2] == "yes" || r[2] == "no", "{kind}.{}: {}", r[0], r[2]);
                (code(&r[0]), r[2] == "yes")
            })
            .collect();
        assert_eq!(listed, wanted, "{direction} {kind}");
    }
}

/// Every frame on the page is read by the decoder and fits its schema, and every kind has an example.
#[test]
fn examples_are_valid() {
    let mut seen = BTreeSet::new();
    for example in Page::read().examples() {
        let frame: Value = serde_json::from_str(&example.json).expect(&example.json);
        let kind = frame["type"].as_str().expect("an example has a type");
        let direction = match example.direction {
            Direction::Client => {
                ClientFrame::decode(&example.json, &Limits::default()).expect(&example.json);
                "client"
            }
            Direction::Server => {
                let decoded = ServerFrame::decode(&example.json).expect(&example.json);
                assert!(decoded.is_some(), "no such frame: {}", example.json);
                "server"
            }
        };
        let validator = jsonschema::validator_for(&page::schema(direction, kind)).unwrap();
        let problems: Vec<String> = validator
            .iter_errors(&frame)
            .map(|e| format!("{}: {e}", e.instance_path))
            .collect();
        assert!(problems.is_empty(), "{}: {problems:#?}", example.json);
        seen.insert((direction, kind.to_owned()));
    }
    for (direction, kind, _) in schema::all() {
        assert!(
            seen.contains(&(direction, kind.to_owned())),
            "no example of {direction} {kind}"
        );
    }
}

/// The validators do refuse: a schema that lets everything pass would make the test above empty.
#[test]
fn schemas_refuse_what_is_wrong() {
    let cases = [
        ("client", "hello", r#"{"type":"hello","device":"a b"}"#),
        ("client", "hello", r#"{"type":"hallo","device":"a"}"#),
        ("client", "hello", r#"{"device":"a"}"#),
        ("client", "ack", r#"{"type":"ack","seq":-1}"#),
        ("client", "ack", r#"{"type":"ack"}"#),
        (
            "client",
            "send",
            r#"{"type":"send","id":"0190163d-8694-439b-aea5-966c26f8ad91","to":{"user":"b"},"body":1}"#,
        ),
        (
            "server",
            "receipt",
            r#"{"type":"receipt","rev":1,"with":"b","ts_ms":1,"read":null}"#,
        ),
        ("server", "bye", r#"{"type":"bye","reason":"bored"}"#),
        (
            "server",
            "bye",
            r#"{"type":"bye","reason":"shutdown","retry_after_ms":null}"#,
        ),
        (
            "server",
            "error",
            r#"{"type":"error","code":"bad_frame","message":""}"#,
        ),
    ];
    for (direction, kind, json) in cases {
        let validator = jsonschema::validator_for(&page::schema(direction, kind)).unwrap();
        let frame: Value = serde_json::from_str(json).unwrap();
        assert!(!validator.is_valid(&frame), "{json}");
    }
}
