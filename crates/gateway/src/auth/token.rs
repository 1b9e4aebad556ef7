//! The form of a token: `st1.<key id>.<payload>.<signature>`.
//!
//! The payload is compact JSON, the signature HMAC-SHA-256 over everything
//! before it, both base64url without padding. Clients treat tokens as opaque.
//! Whether a token is good is not decided here, only whether it is well formed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use stonechat_protocol::{DeviceId, UserId};

use super::AccountError;

/// Longest token looked at, bytes. What is issued stays well below.
pub const TOKEN_BYTES_MAX: usize = 1024;
/// Version of the form.
const PREFIX: &str = "st1";
/// Random bytes that tell a user's tokens apart, as text.
const NONCE_CHARS: usize = 22;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claims {
    /// Whose it is.
    #[serde(rename = "u")]
    pub(super) user: UserId,
    /// The only device it is good for.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub(super) device: Option<DeviceId>,
    #[serde(rename = "iat_ms")]
    pub(super) issued_ms: u64,
    #[serde(rename = "exp_ms")]
    pub(super) expires_ms: u64,
    /// Random.
    #[serde(rename = "jti")]
    pub(super) nonce: String,
}

impl Claims {
    /// Names the token in the admin API. The user is part of it, so that revoking needs no more.
    pub(super) fn id(&self) -> String {
        format!("{}.{}", self.user, self.nonce)
    }
}

/// Whose token an id names, when it is one.
pub(super) fn user_of_id(id: &str) -> Option<UserId> {
    let (user, nonce) = id.rsplit_once('.')?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if nonce.len() != NONCE_CHARS || !nonce.bytes().all(plain) {
        return None;
    }
    UserId::new(user).ok()
}

/// A token taken apart; nothing in it is to be believed yet.
pub(super) struct Parts<'a> {
    pub(super) kid: &'a str,
    pub(super) signed: &'a str,
    pub(super) payload: &'a str,
    pub(super) signature: [u8; 32],
}

pub(super) fn split(token: &str) -> Option<Parts<'_>> {
    // Before any work: what comes from outside is bounded.
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let (signed, signature) = token.rsplit_once('.')?;
    let mut fields = signed.split('.');
    let (prefix, kid, payload) = (fields.next()?, fields.next()?, fields.next()?);
    if prefix != PREFIX || fields.next().is_some() {
        return None;
    }
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    Some(Parts {
        kid,
        signed,
        payload,
        signature: signature.try_into().ok()?,
    })
}

pub(super) fn decode_payload(payload: &str) -> Option<Claims> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// Everything before the signature.
pub(super) fn unsigned(kid: &str, claims: &Claims) -> String {
    let payload = serde_json::to_vec(claims).expect("claims are plain data");
    format!("{PREFIX}.{kid}.{}", URL_SAFE_NO_PAD.encode(payload))
}

pub(super) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], AccountError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| AccountError::Random(error.to_string()))?;
    Ok(bytes)
}

/// `N` random bytes as text.
pub(super) fn random_text<const N: usize>() -> Result<String, AccountError> {
    Ok(encode(&random::<N>()?))
}
