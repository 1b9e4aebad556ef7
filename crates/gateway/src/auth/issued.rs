//! What is remembered of tokens that were issued: never the token, but which it
//! was, for which device and from when to when, so that an operator finds the
//! one to revoke. In the store under `auth/issued/<user>/`, one value a token.
//!
//! Whether a token is good is not decided by this: a token that is not
//! remembered (issued by an older version, or long ago among many) is as good as
//! any other.

use serde::{Deserialize, Serialize};
use stonechat_mailbox::Store;
use stonechat_protocol::{DeviceId, UserId};

use super::token::Claims;
use super::{AccountError, Authenticator};

/// Where issued tokens are in the store.
const PREFIX: &str = "auth/issued/";
/// Tokens remembered of one user, the newest ones.
pub const ISSUED_MAX: usize = 64;

/// As stored, under the token's nonce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<DeviceId>,
    issued_ms: u64,
    expires_ms: u64,
    /// The key that signed it.
    kid: String,
}

/// What has become of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    /// It opens.
    Good,
    /// Somebody voided it: alone, with all of its user, or with its signing key.
    Revoked,
    /// Its time is over.
    Expired,
}

/// A token that was issued, as far as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedBefore {
    /// Names it when it is to be revoked.
    pub id: String,
    /// The only device it is good for; any when absent.
    pub device: Option<DeviceId>,
    /// When it was issued, milliseconds since the Unix epoch.
    pub issued_ms: u64,
    /// When it expires, milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// What has become of it.
    pub state: TokenState,
}

fn prefix(user: &UserId) -> String {
    // A name has no slash, so this is nobody else's prefix.
    format!("{PREFIX}{user}/")
}

/// The notes of a user by nonce, newest first.
async fn notes(store: &dyn Store, user: &UserId) -> Result<Vec<(String, Note)>, AccountError> {
    let prefix = prefix(user);
    let mut notes = Vec::new();
    for (key, bytes) in store.values(&prefix).await? {
        let note = serde_json::from_slice(&bytes).map_err(|error| AccountError::Damaged {
            key: key.clone(),
            what: error.to_string(),
        })?;
        notes.push((key[prefix.len()..].to_owned(), note));
    }
    notes.sort_by_key(|(_, note): &(String, Note)| std::cmp::Reverse(note.issued_ms));
    Ok(notes)
}

/// Remembers a token, and forgets what there is no room for.
pub(super) async fn remember(
    store: &dyn Store,
    claims: &Claims,
    kid: &str,
) -> Result<(), AccountError> {
    let prefix = prefix(&claims.user);
    let note = Note {
        device: claims.device.clone(),
        issued_ms: claims.issued_ms,
        expires_ms: claims.expires_ms,
        kid: kid.to_owned(),
    };
    let bytes = serde_json::to_vec(&note).expect("a note is plain data");
    let key = format!("{prefix}{}", claims.nonce);
    store.put_value(&key, Some(bytes.into())).await?;
    let known = notes(store, &claims.user).await?;
    for (nonce, _) in known.iter().skip(ISSUED_MAX) {
        store.put_value(&format!("{prefix}{nonce}"), None).await?;
    }
    Ok(())
}

impl Authenticator {
    /// The tokens that were issued to a user, the newest first; the latest [`ISSUED_MAX`] of them.
    ///
    /// # Errors
    /// [`AccountError`]
    pub async fn issued(&self, user: &UserId) -> Result<Vec<IssuedBefore>, AccountError> {
        let account = self.existing(user).await?;
        let known = notes(&*self.0.store, user).await?;
        let keys = self.0.keys.load();
        let now_ms = (self.0.clock)();
        let oldest_ms = now_ms.saturating_sub(self.0.config.ttl_ms_max());
        let revoked = self.0.revoked.lock();
        let told = known.into_iter().map(|(nonce, note)| {
            let id = format!("{user}.{nonce}");
            // In the order of `check`, but that a token that was voided stays so when it expires.
            let void = revoked.contains(&id)
                || note.issued_ms < account.tokens_valid_from_ms
                || !keys.has(&note.kid);
            let state = if void {
                TokenState::Revoked
            } else if note.expires_ms <= now_ms || note.issued_ms < oldest_ms {
                TokenState::Expired
            } else {
                TokenState::Good
            };
            IssuedBefore {
                id,
                device: note.device,
                issued_ms: note.issued_ms,
                expires_ms: note.expires_ms,
                state,
            }
        });
        Ok(told.collect())
    }

    /// Forgets which tokens were issued to a user who is removed.
    ///
    /// # Errors
    /// [`AccountError`]
    pub async fn forget_issued(&self, user: &UserId) -> Result<(), AccountError> {
        for (key, _) in self.0.store.values(&prefix(user)).await? {
            self.0.store.put_value(&key, None).await?;
        }
        Ok(())
    }
}
