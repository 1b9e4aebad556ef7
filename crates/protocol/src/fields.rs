//! Where the known fields of a client's frame stand in its text.
//!
//! There are two readers: `scan` takes plain frames, `serde_json` takes them all and says what is
//! wrong with the rest. What a field means, and whether its value fits, is `client_frame`'s business.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::scan;

/// Where each known field stands, as JSON text. `null` counts as absent except in `body` and `nonce`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Fields<'a> {
    #[serde(rename = "type", borrow, deserialize_with = "raw")]
    pub(crate) kind: Option<&'a str>,
    #[serde(borrow, deserialize_with = "raw")]
    pub(crate) token: Option<&'a str>,
    #[serde(borrow, deserialize_with = "raw")]
    pub(crate) device: Option<&'a str>,
    #[serde(borrow, deserialize_with = "raw")]
    pub(crate) client: Option<&'a str>,
    #[serde(borrow, deserialize_with = "raw")]
    pub(crate) id: Option<&'a str>,
    #[serde(borrow, deserialize_with = "raw")]
    pub(crate) to: Option<&'a str>,
    #[serde(borrow, deserialize_with = "present")]
    pub(crate) body: Option<&'a str>,
    #[serde(borrow, deserialize_with = "raw")]
    pub(crate) ttl_s: Option<&'a str>,
    #[serde(borrow, deserialize_with = "raw")]
    pub(crate) ephemeral: Option<&'a str>,
    #[serde(borrow, deserialize_with = "raw")]
    pub(crate) seq: Option<&'a str>,
    #[serde(borrow, deserialize_with = "raw")]
    pub(crate) ack: Option<&'a str>,
    #[serde(borrow, deserialize_with = "raw")]
    pub(crate) rev: Option<&'a str>,
    #[serde(borrow, deserialize_with = "raw")]
    pub(crate) from: Option<&'a str>,
    #[serde(borrow, deserialize_with = "raw")]
    pub(crate) traceparent: Option<&'a str>,
    /// Never found by the quick reader.
    #[serde(borrow, deserialize_with = "present_raw")]
    pub(crate) nonce: Option<&'a RawValue>,
}

fn raw<'de: 'a, 'a, D: Deserializer<'de>>(d: D) -> Result<Option<&'a str>, D::Error> {
    let raw = Option::<&RawValue>::deserialize(d)?;
    Ok(raw.map(RawValue::get))
}

/// Keeps a `null` that is there.
fn present_raw<'de: 'a, 'a, D: Deserializer<'de>>(d: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(d).map(Some)
}

/// Keeps a `null` that is there, as text.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(d: D) -> Result<Option<&'a str>, D::Error> {
    Ok(present_raw(d)?.map(RawValue::get))
}

impl<'a> Fields<'a> {
    /// Reads a plain frame; `None` for one that needs the general reader, and then what is here
    /// means nothing.
    pub(crate) fn scan(&mut self, json: &'a str) -> Option<()> {
        let fields = self;
        scan::members(json, |name, value| {
            let field = match name {
                "type" => &mut fields.kind,
                "id" => &mut fields.id,
                "to" => &mut fields.to,
                "body" => &mut fields.body,
                "ttl_s" => &mut fields.ttl_s,
                "ephemeral" => &mut fields.ephemeral,
                "seq" => &mut fields.seq,
                "ack" => &mut fields.ack,
                "rev" => &mut fields.rev,
                "from" => &mut fields.from,
                "traceparent" => &mut fields.traceparent,
                _ => return None,
            };
            // The general reader says what is wrong with two, and that `null` is none.
            let plain = field.is_none() && (value != "null" || name == "body");
            plain.then(|| *field = Some(value))
        })
    }

    /// Reads any frame.
    pub(crate) fn read(json: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}

/// What the quick reader takes, the general one reads in the same way.
///
/// # Panics
/// When it does not.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn same_by_both_readers(json: &str) {
    let mut quick = Fields::default();
    if quick.scan(json).is_some() {
        let general = Fields::read(json).unwrap_or_else(|error| panic!("{json}: {error}"));
        assert_eq!(format!("{quick:?}"), format!("{general:?}"), "{json}");
    }
}
