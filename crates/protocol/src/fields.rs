//! Where the known fields of a client's frame stand in its text.
//!
//! There are two readers: `scan` takes plain frames, `serde_json` takes them all and says what is
//! wrong with the rest. What a field means, and whether its value fits, is `client_frame`'s business.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::scan;

/// Where each known field stands, as JSON text.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a> {
    pub(crate) kind: Option<&'a str>,
    pub(crate) token: Option<&'a str>,
    pub(crate) device: Option<&'a str>,
    pub(crate) client: Option<&'a str>,
    pub(crate) id: Option<&'a str>,
    pub(crate) to: Option<&'a str>,
    pub(crate) body: Option<&'a str>,
    pub(crate) ttl_s: Option<&'a str>,
    pub(crate) ephemeral: Option<&'a str>,
    pub(crate) seq: Option<&'a str>,
    pub(crate) ack: Option<&'a str>,
    pub(crate) rev: Option<&'a str>,
    pub(crate) from: Option<&'a str>,
    /// Never found by the quick reader.
    pub(crate) nonce: Option<&'a RawValue>,
}

impl<'a> Fields<'a> {
    /// Reads a plain frame; `None` for one that needs the general reader.
    pub(crate) fn scan(json: &'a str) -> Option<Self> {
        let mut fields = Self::default();
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
                _ => return None,
            };
            // The general reader says what is wrong with two, and that `null` is none.
            let plain = field.is_none() && (value != "null" || name == "body");
            plain.then(|| *field = Some(value))
        })?;
        Some(fields)
    }

    /// Reads any frame.
    pub(crate) fn read(json: &'a str) -> Result<Self, serde_json::Error> {
        let found: Found<'a> = serde_json::from_str(json)?;
        let text = |raw: Option<&'a RawValue>| raw.map(RawValue::get);
        Ok(Self {
            kind: text(found.kind),
            token: text(found.token),
            device: text(found.device),
            client: text(found.client),
            id: text(found.id),
            to: text(found.to),
            body: text(found.body),
            ttl_s: text(found.ttl_s),
            ephemeral: text(found.ephemeral),
            seq: text(found.seq),
            ack: text(found.ack),
            rev: text(found.rev),
            from: text(found.from),
            nonce: found.nonce,
        })
    }
}

/// What the general reader finds. `null` counts as absent except in `body` and `nonce`.
#[derive(Deserialize)]
struct Found<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    token: Option<&'a RawValue>,
    #[serde(borrow)]
    device: Option<&'a RawValue>,
    #[serde(borrow)]
    client: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    to: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    ttl_s: Option<&'a RawValue>,
    #[serde(borrow)]
    ephemeral: Option<&'a RawValue>,
    #[serde(borrow)]
    seq: Option<&'a RawValue>,
    #[serde(borrow)]
    ack: Option<&'a RawValue>,
    #[serde(borrow)]
    rev: Option<&'a RawValue>,
    #[serde(borrow)]
    from: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    nonce: Option<&'a RawValue>,
}

/// Keeps a `null` that is there: `Option` alone would make it absent.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(d: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(d).map(Some)
}

/// What the quick reader takes, the general one reads in the same way.
///
/// # Panics
/// When it does not.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn same_by_both_readers(json: &str) {
    if let Some(quick) = Fields::scan(json) {
        let general = Fields::read(json).unwrap_or_else(|error| panic!("{json}: {error}"));
        assert_eq!(format!("{quick:?}"), format!("{general:?}"), "{json}");
    }
}
