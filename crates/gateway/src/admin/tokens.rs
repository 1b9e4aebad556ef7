//! Admin tokens: named, with a role, until a time. Shown once, kept as a hash.
//!
//! A token is `sa1.<id>.<secret>`; the id finds it, the hash of the secret is
//! compared in constant time. In memory for look-ups, in the store under
//! `admin/token/`, so that a revocation holds from the moment it is answered and
//! over restarts. A revoked token stays listed until it would have expired.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use stonechat_mailbox::{Store, StoreError};
use subtle::ConstantTimeEq;

use super::caller::{Caller, Role, Via};

/// Where tokens are in the store.
const PREFIX: &str = "admin/token/";
/// Version of the form.
const FORM: &str = "sa1";
/// Tokens that are good at a time.
pub(super) const TOKENS_MAX: usize = 256;
/// Tokens kept at a time, revoked ones included.
const KEPT_MAX: usize = 2 * TOKENS_MAX;
/// Longest token looked at, bytes.
const TOKEN_BYTES_MAX: usize = 128;

/// Why a token could not be issued, revoked or read.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    /// As many as may be.
    #[error("there are {0} admin tokens, which is the limit; revoke some first")]
    TooMany(usize),
    /// Two tokens of one name could not be told apart in the audit log.
    #[error("there is a token named {0} already; revoke it first or choose another name")]
    NameTaken(String),
    /// No such id.
    #[error("there is no admin token {0}")]
    Unknown(String),
    /// What is stored cannot be read.
    #[error("{key} in the store is damaged: {what}; see docs/operations.md#damaged-data")]
    Damaged {
        /// Which value.
        key: String,
        /// What does not fit.
        what: String,
    },
    /// The system gave no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is kept of a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) name: String,
    pub(super) role: Role,
    #[serde(default)]
    pub(super) scope: Option<Vec<String>>,
    pub(super) created_ms: u64,
    pub(super) expires_ms: u64,
    #[serde(default)]
    pub(super) revoked_ms: Option<u64>,
    /// SHA-256 of the secret. It has 256 random bits: no salt or slow hash would add anything.
    hash: String,
}

impl Kept {
    pub(super) fn is_good(&self, now_ms: u64) -> bool {
        self.revoked_ms.is_none() && self.expires_ms > now_ms
    }

    fn caller(&self, id: &str) -> Caller {
        let mut caller = Caller::new(&self.name, self.role, id, Via::Token);
        caller.expires_ms = Some(self.expires_ms);
        caller.scope = self.scope.as_deref().map(Into::into);
        caller
    }
}

/// What a new token is to be.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) scope: Option<Vec<String>>,
    pub(super) ttl_s: u64,
}

struct Inner {
    store: Arc<dyn Store>,
    all: RwLock<HashMap<String, Kept>>,
    /// Changes are made one after the other.
    changes: tokio::sync::Mutex<()>,
}

/// The admin tokens of a node. Cheap to clone.
#[derive(Clone)]
pub struct AdminTokens(Arc<Inner>);

impl AdminTokens {
    /// Loads them.
    ///
    /// # Errors
    /// [`AdminTokenError`] when the store fails or what it holds is damaged.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self, AdminTokenError> {
        let mut all = HashMap::new();
        for (key, bytes) in store.values(PREFIX).await? {
            let kept =
                serde_json::from_slice(&bytes).map_err(|error| AdminTokenError::Damaged {
                    key: key.clone(),
                    what: error.to_string(),
                })?;
            all.insert(key[PREFIX.len()..].to_owned(), kept);
        }
        Ok(Self(Arc::new(Inner {
            store,
            all: RwLock::new(all),
            changes: tokio::sync::Mutex::default(),
        })))
    }

    /// Makes one; its id, and the token itself, which is not kept.
    pub(super) async fn issue(
        &self,
        wanted: Wanted,
        now_ms: u64,
    ) -> Result<(String, Kept, String), AdminTokenError> {
        let _one_at_a_time = self.0.changes.lock().await;
        self.make_room(&wanted.name, now_ms).await?;
        let (id, secret) = (random::<9>()?, random::<32>()?);
        let kept = Kept {
            name: wanted.name,
            role: wanted.role,
            scope: wanted.scope,
            created_ms: now_ms,
            expires_ms: now_ms.saturating_add(wanted.ttl_s.saturating_mul(1_000)),
            revoked_ms: None,
            hash: hash(secret.as_bytes()),
        };
        self.put(&id, Some(&kept)).await?;
        self.0.all.write().insert(id.clone(), kept.clone());
        let token = format!("{FORM}.{id}.{secret}");
        Ok((id, kept, token))
    }

    /// Forgets what is past, and checks that one more of this name may be.
    async fn make_room(&self, name: &str, now_ms: u64) -> Result<(), AdminTokenError> {
        // When it ended, whether it would have by itself, and which.
        let mut past: Vec<(u64, bool, String)> = Vec::new();
        let mut good = 0;
        for (id, one) in self.0.all.read().iter() {
            if !one.is_good(now_ms) {
                let ended_ms = one.revoked_ms.unwrap_or(one.expires_ms);
                past.push((ended_ms, one.expires_ms <= now_ms, id.clone()));
            } else if one.name == name {
                return Err(AdminTokenError::NameTaken(name.to_owned()));
            } else {
                good += 1;
            }
        }
        if good >= TOKENS_MAX {
            return Err(AdminTokenError::TooMany(TOKENS_MAX));
        }
        // Revoked ones are of interest as long as there is room, the latest longest.
        past.sort_unstable();
        let over = (good + past.len() + 1).saturating_sub(KEPT_MAX);
        for (nth, (_, expired, id)) in past.into_iter().enumerate() {
            if expired || nth < over {
                self.put(&id, None).await?;
                self.0.all.write().remove(&id);
            }
        }
        Ok(())
    }

    /// Voids one from now on. Once more changes nothing.
    pub(super) async fn revoke(&self, id: &str, now_ms: u64) -> Result<Kept, AdminTokenError> {
        let _one_at_a_time = self.0.changes.lock().await;
        let found = self.0.all.read().get(id).cloned();
        let mut kept = found.ok_or_else(|| AdminTokenError::Unknown(id.to_owned()))?;
        kept.revoked_ms.get_or_insert(now_ms);
        // Void at once, also when the store is slow to say so or fails; written again each time,
        // for the last time may have failed.
        self.0.all.write().insert(id.to_owned(), kept.clone());
        self.put(id, Some(&kept)).await?;
        Ok(kept)
    }

    /// All of them by id, oldest first.
    pub(super) fn list(&self) -> Vec<(String, Kept)> {
        let all = self.0.all.read();
        let mut all: Vec<_> = all
            .iter()
            .map(|(id, one)| (id.clone(), one.clone()))
            .collect();
        all.sort_by(|(a_id, a), (b_id, b)| (a.created_ms, a_id).cmp(&(b.created_ms, b_id)));
        all
    }

    /// Who a token is, when it is good.
    pub(super) fn verify(&self, token: &[u8], now_ms: u64) -> Option<Caller> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let token = std::str::from_utf8(token).ok()?;
        let (id, secret) = token
            .strip_prefix(FORM)?
            .strip_prefix('.')?
            .split_once('.')?;
        let all = self.0.all.read();
        let kept = all.get(id)?;
        let same: bool = hash(secret.as_bytes())
            .as_bytes()
            .ct_eq(kept.hash.as_bytes())
            .into();
        if !same || !kept.is_good(now_ms) {
            return None;
        }
        Some(kept.caller(id))
    }

    /// Who the token with this id is, while it is good. For those who brought it before.
    pub(super) fn by_id(&self, id: &str, now_ms: u64) -> Option<Caller> {
        let all = self.0.all.read();
        let kept = all.get(id)?;
        kept.is_good(now_ms).then(|| kept.caller(id))
    }

    /// Whether the token with this id still opens anything.
    pub(super) fn is_good(&self, id: &str, now_ms: u64) -> bool {
        let all = self.0.all.read();
        all.get(id).is_some_and(|one| one.is_good(now_ms))
    }

    /// How many open anything.
    pub(super) fn good_count(&self, now_ms: u64) -> usize {
        let all = self.0.all.read();
        all.values().filter(|one| one.is_good(now_ms)).count()
    }

    async fn put(&self, id: &str, kept: Option<&Kept>) -> Result<(), StoreError> {
        let value = kept.map(|kept| {
            let bytes = serde_json::to_vec(kept).expect("a token is plain data");
            bytes.into()
        });
        self.0
            .store
            .put_value(&format!("{PREFIX}{id}"), value)
            .await
    }
}

fn hash(secret: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(secret))
}

fn random<const N: usize>() -> Result<String, AdminTokenError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| AdminTokenError::Random(error.to_string()))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
