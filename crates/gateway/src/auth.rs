//! Who is it? Tokens and accounts.
//!
//! A token is signed, so checking one costs an HMAC and look-ups in memory:
//! signing key, list of revoked tokens, account. What is durable (keys, revoked
//! tokens, accounts, which tokens were issued) is in the store. This module closes no connection:
//! whoever revokes something also tells the broker.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod issued;
mod keys;
mod revoked;
#[cfg(test)]
mod tests;
mod token;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use stonechat_mailbox::{Account, Store, StoreError, UserLimits};
use stonechat_protocol::{DeviceId, UserId};

pub use issued::{ISSUED_MAX, IssuedBefore, TokenState};
use keys::KeyRing;
use revoked::Revoked;
use token::Claims;
pub use token::TOKEN_BYTES_MAX;

/// Why a sign-in is refused. Deliberately coarse towards the client; the log has the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Token missing, malformed, wrong, expired, revoked, of a disabled user or another device.
    #[error("unauthorized: {0}")]
    Unauthorized(&'static str),
    /// The store could not be asked.
    #[error("accounts cannot be read at the moment")]
    Unavailable,
}

/// Why accounts or tokens could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// There is no such user.
    #[error("there is no user {0}; create it first")]
    UnknownUser(UserId),
    /// The user may not sign in, so a token would be of no use.
    #[error("the user {0} is disabled; enable it first")]
    Disabled(UserId),
    /// Longer than allowed.
    #[error(
        "a token is good for 1 to {ttl_s_max} seconds; ask for less or raise auth.token_ttl_s_max"
    )]
    Ttl {
        /// The limit, seconds.
        ttl_s_max: u64,
    },
    /// Not the id of a token.
    #[error(
        "this is not the id of a token; ids look like alice.3vXk... and are told when a token is issued"
    )]
    TokenId,
    /// As many keys as may be kept.
    #[error(
        "{0} signing keys are in use, which is the limit; wait until old ones retire, or rotate with \"void_older\": true, which voids all tokens issued so far"
    )]
    TooManyKeys(usize),
    /// As many revoked tokens as may be kept.
    #[error(
        "{0} revoked tokens are remembered, which is the limit; revoke all tokens of the user instead"
    )]
    TooManyRevoked(usize),
    /// Stored keys or revocations cannot be read.
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

/// How long tokens live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// How long a token is good for when nothing else is asked for, seconds. At most `token_ttl_s_max`.
    pub token_ttl_s_default: u64,
    /// Longest a token may be good for, seconds. Keys that were rotated out and revocations
    /// are kept for this long.
    pub token_ttl_s_max: u64,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            token_ttl_s_default: 365 * 24 * 3600,
            token_ttl_s_max: 2 * 365 * 24 * 3600,
        }
    }
}

impl AuthConfig {
    fn ttl_ms_max(&self) -> u64 {
        self.token_ttl_s_max.saturating_mul(1000)
    }
}

/// A token that was just issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Issued {
    /// The token. To be shown once and not kept.
    pub token: String,
    /// Names the token when it is to be revoked; no secret.
    pub id: String,
    /// When it expires, milliseconds since the Unix epoch.
    pub expires_ms: u64,
}

/// The keys after a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rotated {
    /// The key that signs from now on.
    pub kid: String,
    /// Keys whose tokens are good, this one included.
    pub keys: usize,
}

/// Signed-in devices whose token is remembered; beyond it all are forgotten, which only makes
/// revoking one token close more of the user's connections than it had to.
const SIGNED_IN_MAX: usize = 1 << 20;

/// Checks tokens and accounts. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator(Arc<Inner>);

/// The token of a signed-in device.
#[derive(Clone, Copy)]
struct Used {
    /// Hash of its id.
    token: u64,
    issued_ms: u64,
}

struct Inner {
    store: Arc<dyn Store>,
    config: AuthConfig,
    keys: ArcSwap<KeyRing>,
    revoked: Mutex<Revoked>,
    /// What each device (hashed) last signed in with.
    signed_in: Mutex<HashMap<u64, Used>>,
    hasher: RandomState,
    /// Changes to keys, revocations and accounts are made one after the other.
    changes: tokio::sync::Mutex<()>,
    last_ms: AtomicU64,
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Authenticator {
    /// Loads keys and revocations; makes the first key when there is none.
    ///
    /// # Errors
    /// [`AccountError`] when the store fails or what it holds is damaged.
    pub async fn open(store: Arc<dyn Store>, config: AuthConfig) -> Result<Self, AccountError> {
        Self::open_at(store, config, || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| {
                    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
                })
        })
        .await
    }

    async fn open_at(
        store: Arc<dyn Store>,
        config: AuthConfig,
        clock: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<Self, AccountError> {
        let keys = KeyRing::load(&*store).await?;
        let revoked = Revoked::load(&*store).await?;
        let this = Self(Arc::new(Inner {
            store,
            config,
            keys: ArcSwap::from_pointee(keys),
            revoked: Mutex::new(revoked),
            signed_in: Mutex::default(),
            hasher: RandomState::new(),
            changes: tokio::sync::Mutex::new(()),
            last_ms: AtomicU64::new(0),
            clock: Box::new(clock),
        }));
        if this.0.keys.load().is_empty() {
            this.rotate(false).await?;
        }
        Ok(this)
    }

    /// The user a token names, when token, user and device fit together.
    ///
    /// # Errors
    /// [`AuthError`]
    pub async fn authenticate(&self, token: &str, device: &DeviceId) -> Result<UserId, AuthError> {
        let claims = self.check(token, device)?;
        let account = self.0.store.account(&claims.user).await.map_err(|error| {
            tracing::warn!(user = %claims.user, %error, "account not readable at sign-in");
            AuthError::Unavailable
        })?;
        let account = account.ok_or(AuthError::Unauthorized("there is no such user"))?;
        if account.disabled {
            return Err(AuthError::Unauthorized("the user is disabled"));
        }
        if claims.issued_ms < account.tokens_valid_from_ms {
            return Err(AuthError::Unauthorized("the token is revoked"));
        }
        let mut signed_in = self.0.signed_in.lock();
        if signed_in.len() >= SIGNED_IN_MAX {
            signed_in.clear();
        }
        let used = Used {
            token: self.hash(claims.id().as_str()),
            issued_ms: claims.issued_ms,
        };
        signed_in.insert(self.hash(&(&claims.user, device)), used);
        Ok(claims.user)
    }

    /// Everything that can be checked without the account.
    fn check(&self, token: &str, device: &DeviceId) -> Result<Claims, AuthError> {
        let claims = self
            .0
            .keys
            .load()
            .verify(token)
            .map_err(AuthError::Unauthorized)?;
        let now_ms = (self.0.clock)();
        // The second half holds when the longest time was lowered after the token was issued,
        // and lets keys and revocations be forgotten after that time.
        let oldest_ms = now_ms.saturating_sub(self.0.config.ttl_ms_max());
        if claims.expires_ms <= now_ms || claims.issued_ms < oldest_ms {
            return Err(AuthError::Unauthorized("the token has expired"));
        }
        if self.0.revoked.lock().contains(&claims.id()) {
            return Err(AuthError::Unauthorized("the token is revoked"));
        }
        if claims.device.as_ref().is_some_and(|bound| bound != device) {
            return Err(AuthError::Unauthorized("the token is for another device"));
        }
        Ok(claims)
    }

    /// Issues a token to a user, for one device or (`None`) for any. That it was issued is
    /// durable before it is told.
    ///
    /// # Errors
    /// [`AccountError`]
    pub async fn issue(
        &self,
        user: &UserId,
        device: Option<&DeviceId>,
        ttl_s: Option<u64>,
    ) -> Result<Issued, AccountError> {
        let ttl_s = ttl_s.unwrap_or(self.0.config.token_ttl_s_default);
        let ttl_s_max = self.0.config.token_ttl_s_max;
        if ttl_s == 0 || ttl_s > ttl_s_max {
            return Err(AccountError::Ttl { ttl_s_max });
        }
        let account = self.existing(user).await?;
        if account.disabled {
            return Err(AccountError::Disabled(user.clone()));
        }
        // Also when the clock was set back since the last revocation.
        let issued_ms = self.tick().max(account.tokens_valid_from_ms);
        let claims = Claims {
            user: user.clone(),
            device: device.cloned(),
            issued_ms,
            expires_ms: issued_ms.saturating_add(ttl_s.saturating_mul(1000)),
            nonce: token::random_text::<16>()?,
        };
        let keys = self.0.keys.load_full();
        issued::remember(&*self.0.store, &claims, keys.signing_kid()).await?;
        Ok(Issued {
            token: keys.sign(&claims),
            id: claims.id(),
            expires_ms: claims.expires_ms,
        })
    }

    /// Creates a user; `false` when it exists already, which changes nothing.
    ///
    /// # Errors
    /// [`AccountError::Store`]
    pub async fn create_user(&self, user: &UserId) -> Result<(Account, bool), AccountError> {
        let _one_at_a_time = self.0.changes.lock().await;
        if let Some(account) = self.0.store.account(user).await? {
            return Ok((account, false));
        }
        let now_ms = self.tick();
        let account = Account {
            user: user.clone(),
            created_ms: now_ms,
            // Tokens of an earlier user of this name stay void.
            tokens_valid_from_ms: now_ms,
            disabled: false,
            limits: UserLimits::default(),
        };
        self.0.store.put_account(account.clone()).await?;
        Ok((account, true))
    }

    /// Lets a user sign in or not.
    ///
    /// # Errors
    /// [`AccountError`]
    pub async fn set_disabled(
        &self,
        user: &UserId,
        disabled: bool,
    ) -> Result<Account, AccountError> {
        let _one_at_a_time = self.0.changes.lock().await;
        let mut account = self.existing(user).await?;
        if account.disabled != disabled {
            account.disabled = disabled;
            self.0.store.put_account(account.clone()).await?;
        }
        Ok(account)
    }

    /// Sets what holds for a user instead of what is configured for all.
    ///
    /// # Errors
    /// [`AccountError`]
    pub async fn set_limits(
        &self,
        user: &UserId,
        limits: UserLimits,
    ) -> Result<Account, AccountError> {
        let _one_at_a_time = self.0.changes.lock().await;
        let mut account = self.existing(user).await?;
        if account.limits != limits {
            account.limits = limits;
            self.0.store.put_account(account.clone()).await?;
        }
        Ok(account)
    }

    /// Voids all tokens issued to a user so far.
    ///
    /// # Errors
    /// [`AccountError`]
    pub async fn revoke_all(&self, user: &UserId) -> Result<(), AccountError> {
        let _one_at_a_time = self.0.changes.lock().await;
        let mut account = self.existing(user).await?;
        account.tokens_valid_from_ms = self.tick().max(account.tokens_valid_from_ms + 1);
        self.0.store.put_account(account).await?;
        Ok(())
    }

    /// Voids one token, by its id. Returns whose it is.
    ///
    /// # Errors
    /// [`AccountError`]
    pub async fn revoke(&self, id: &str) -> Result<UserId, AccountError> {
        let user = token::user_of_id(id).ok_or(AccountError::TokenId)?;
        let _one_at_a_time = self.0.changes.lock().await;
        let now_ms = (self.0.clock)();
        let keep_until_ms = now_ms.saturating_add(self.0.config.ttl_ms_max());
        let outdated = self.0.revoked.lock().insert(id, keep_until_ms, now_ms)?;
        revoked::store(&*self.0.store, id, keep_until_ms, &outdated).await?;
        Ok(user)
    }

    /// Whether a device may be signed in with this token. When that is not known any more: yes.
    pub fn may_have_used(&self, user: &UserId, device: &DeviceId, token_id: &str) -> bool {
        let used = self.used(user, device);
        used.is_none_or(|used| used.token == self.hash(token_id))
    }

    /// Whether a signed-in device could sign in still, as far as that is known: its user is
    /// there and not disabled, and its token is not void, nor the one named `revoked`.
    pub async fn still_stands(
        &self,
        user: &UserId,
        device: &DeviceId,
        revoked: Option<&str>,
    ) -> bool {
        let account = match self.0.store.account(user).await {
            Ok(Some(account)) => account,
            Ok(None) => return false,
            // Not known: closing connections because the disk fails would help nobody.
            Err(_) => return true,
        };
        let used = self.used(user, device);
        !account.disabled
            && used.is_none_or(|used| {
                used.issued_ms >= account.tokens_valid_from_ms
                    && revoked.is_none_or(|id| used.token != self.hash(id))
            })
    }

    fn used(&self, user: &UserId, device: &DeviceId) -> Option<Used> {
        let device = self.hash(&(user, device));
        self.0.signed_in.lock().get(&device).copied()
    }

    /// Makes a new signing key. Tokens signed with older ones stay good, unless `void_older`.
    ///
    /// # Errors
    /// [`AccountError`]
    pub async fn rotate(&self, void_older: bool) -> Result<Rotated, AccountError> {
        let _one_at_a_time = self.0.changes.lock().await;
        let current = self.0.keys.load_full();
        let change = current.rotated(self.tick(), self.0.config.ttl_ms_max(), void_older)?;
        keys::store(&*self.0.store, &change).await?;
        let rotated = Rotated {
            kid: change.ring.signing_kid().to_owned(),
            keys: change.ring.len(),
        };
        self.0.keys.store(Arc::new(change.ring));
        tracing::info!(
            kid = rotated.kid,
            keys = rotated.keys,
            void_older,
            "signing key rotated"
        );
        Ok(rotated)
    }

    async fn existing(&self, user: &UserId) -> Result<Account, AccountError> {
        let account = self.0.store.account(user).await?;
        account.ok_or_else(|| AccountError::UnknownUser(user.clone()))
    }

    /// The time, strictly increasing within this process: what comes first is older.
    fn tick(&self) -> u64 {
        let now_ms = (self.0.clock)();
        let last = self
            .0
            .last_ms
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                Some(now_ms.max(last + 1))
            });
        match last {
            Ok(last) | Err(last) => now_ms.max(last + 1),
        }
    }

    fn hash(&self, value: &(impl std::hash::Hash + ?Sized)) -> u64 {
        self.0.hasher.hash_one(value)
    }
}
