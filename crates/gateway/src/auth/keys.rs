//! The signing keys: one signs, older ones still verify until every token they
//! can have signed is past its time. Kept in the store under `auth/key/`.

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use stonechat_mailbox::Store;

use super::AccountError;
use super::token::{self, Claims};

/// Where keys are in the store.
const PREFIX: &str = "auth/key/";
/// Keys kept at a time.
pub(super) const KEYS_MAX: usize = 64;

#[derive(Clone)]
struct Key {
    kid: String,
    created_ms: u64,
    secret: [u8; 32],
}

/// A key as stored.
#[derive(Serialize, Deserialize)]
struct StoredKey {
    created_ms: u64,
    secret: String,
}

/// The keys, oldest first: the last one signs.
#[derive(Clone, Default)]
pub(super) struct KeyRing {
    keys: Vec<Key>,
}

/// A ring with a new key, and which keys it did away with.
pub(super) struct Change {
    pub(super) ring: KeyRing,
    removed: Vec<String>,
}

impl KeyRing {
    pub(super) async fn load(store: &dyn Store) -> Result<Self, AccountError> {
        let mut keys = Vec::new();
        for (name, bytes) in store.values(PREFIX).await? {
            let damaged = |what: &str| AccountError::Damaged {
                key: name.clone(),
                what: what.to_owned(),
            };
            let stored: StoredKey =
                serde_json::from_slice(&bytes).map_err(|error| damaged(&error.to_string()))?;
            let secret = token::decode(&stored.secret)
                .and_then(|secret| secret.try_into().ok())
                .ok_or_else(|| damaged("the secret is not 32 bytes"))?;
            keys.push(Key {
                kid: name[PREFIX.len()..].to_owned(),
                created_ms: stored.created_ms,
                secret,
            });
        }
        keys.sort_by(|a, b| (a.created_ms, &a.kid).cmp(&(b.created_ms, &b.kid)));
        Ok(Self { keys })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether tokens signed with this key may be good.
    pub(super) fn has(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid == kid)
    }

    pub(super) fn signing_kid(&self) -> &str {
        self.keys.last().map_or("", |key| &key.kid)
    }

    /// A ring with one key more, without those whose tokens have all expired (or, with
    /// `void_older`, without any other).
    pub(super) fn rotated(
        &self,
        now_ms: u64,
        ttl_ms_max: u64,
        void_older: bool,
    ) -> Result<Change, AccountError> {
        let mut keys = Vec::with_capacity(self.keys.len() + 1);
        let mut removed = Vec::new();
        for (at, key) in self.keys.iter().enumerate() {
            // A key signed until its successor came; the last one does until now.
            let signed_until_ms = self.keys.get(at + 1).map_or(now_ms, |next| next.created_ms);
            if void_older || signed_until_ms.saturating_add(ttl_ms_max) < now_ms {
                removed.push(key.kid.clone());
            } else {
                keys.push(key.clone());
            }
        }
        if keys.len() >= KEYS_MAX {
            return Err(AccountError::TooManyKeys(keys.len()));
        }
        // Later than every other, also when the clock was set back: the newest one signs.
        let newest_ms = self.keys.last().map_or(0, |key| key.created_ms + 1);
        keys.push(Key {
            kid: token::random_text::<6>()?,
            created_ms: now_ms.max(newest_ms),
            secret: token::random()?,
        });
        Ok(Change {
            ring: Self { keys },
            removed,
        })
    }

    /// The token that says this.
    pub(super) fn sign(&self, claims: &Claims) -> String {
        let key = self.keys.last().expect("a ring in use has a key");
        let mut text = token::unsigned(&key.kid, claims);
        let signature = key.mac(&text).finalize().into_bytes();
        text.push('.');
        text.push_str(&token::encode(&signature));
        text
    }

    /// What a token says, when one of the keys signed it. Compares in constant time.
    pub(super) fn verify(&self, token: &str) -> Result<Claims, &'static str> {
        let parts = token::split(token).ok_or("the token is malformed")?;
        let key = self
            .keys
            .iter()
            .rev()
            .find(|key| key.kid == parts.kid)
            .ok_or("the token's signing key is unknown or retired")?;
        key.mac(parts.signed)
            .verify_slice(&parts.signature)
            .map_err(|_| "the token's signature is wrong")?;
        token::decode_payload(parts.payload).ok_or("the token is malformed")
    }
}

impl Key {
    fn mac(&self, text: &str) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes keys of any length");
        mac.update(text.as_bytes());
        mac
    }
}

/// Makes a rotation durable: first the new key, so that there is always one.
pub(super) async fn store(store: &dyn Store, change: &Change) -> Result<(), AccountError> {
    if let Some(key) = change.ring.keys.last() {
        let stored = StoredKey {
            created_ms: key.created_ms,
            secret: token::encode(&key.secret),
        };
        let bytes = serde_json::to_vec(&stored).expect("a key is plain data");
        store
            .put_value(&format!("{PREFIX}{}", key.kid), Some(bytes.into()))
            .await?;
    }
    for kid in &change.removed {
        store.put_value(&format!("{PREFIX}{kid}"), None).await?;
    }
    Ok(())
}
