//! The published schemas of the server's frames: every frame the suites receive is held to them.
//!
//! They are read from `docs/schema`, as a stranger who writes a client would, and not made from
//! the server's types.

use std::collections::HashMap;
use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::Value;

use crate::binary::workspace;

/// Types of frames a server of this version sends.
const SERVER_FRAMES: &[&str] = &[
    "welcome", "accepted", "message", "receipt", "error", "bye", "pong",
];

fn validators() -> &'static HashMap<&'static str, Validator> {
    static VALIDATORS: OnceLock<HashMap<&'static str, Validator>> = OnceLock::new();
    VALIDATORS.get_or_init(|| {
        SERVER_FRAMES
            .iter()
            .map(|kind| (*kind, load(kind)))
            .collect()
    })
}

fn load(kind: &str) -> Validator {
    let path = workspace().join(format!("docs/schema/server.{kind}.schema.json"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let schema = serde_json::from_str(&text).expect("a schema is JSON");
    jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What is wrong with a frame by the schema of its type; `None` when nothing is.
pub fn fault(frame: &Value) -> Option<String> {
    let kind = frame["type"].as_str()?;
    let Some(validator) = validators().get(kind) else {
        return Some(format!("no schema for type {kind:?}"));
    };
    validator
        .iter_errors(frame)
        .next()
        .map(|error| format!("{error} at {:?}", error.instance_path.to_string()))
}
