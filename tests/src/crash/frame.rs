//! Frames of the server as the fleet reads them: all types in one, the body untouched.

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

/// A user, and in `from` a device.
#[derive(Deserialize)]
pub(super) struct Party<'a> {
    pub(super) user: &'a str,
    pub(super) device: Option<&'a str>,
}

/// Any frame of the server.
#[derive(Deserialize)]
pub(super) struct Frame<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'a str,
    pub(super) id: Option<Uuid>,
    pub(super) seq: Option<u64>,
    #[serde(borrow)]
    pub(super) from: Option<Party<'a>>,
    #[serde(borrow)]
    pub(super) to: Option<Party<'a>>,
    #[serde(borrow)]
    pub(super) body: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) redelivered: bool,
    #[serde(default)]
    pub(super) duplicate: bool,
    pub(super) code: Option<&'a str>,
    /// Why the server says goodbye.
    pub(super) reason: Option<&'a str>,
    #[serde(rename = "ref")]
    pub(super) reference: Option<Uuid>,
    pub(super) rev: Option<u64>,
    pub(super) with: Option<&'a str>,
    pub(super) delivered: Option<Uuid>,
    pub(super) read: Option<Uuid>,
    pub(super) nonce: Option<u64>,
}
