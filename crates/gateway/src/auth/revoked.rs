//! Tokens revoked one by one, remembered until they would have expired anyway.
//! In memory for look-ups, in the store under `auth/revoked/`.

use std::collections::HashMap;

use stonechat_mailbox::Store;

use super::AccountError;

/// Where revoked tokens are in the store.
const PREFIX: &str = "auth/revoked/";
/// Revoked tokens remembered at a time.
pub(super) const REVOKED_MAX: usize = 100_000;

/// Ids of revoked tokens, each with the time until which it has to be remembered.
#[derive(Default)]
pub(super) struct Revoked(HashMap<String, u64>);

impl Revoked {
    pub(super) async fn load(store: &dyn Store) -> Result<Self, AccountError> {
        let mut all = HashMap::new();
        for (name, bytes) in store.values(PREFIX).await? {
            let until_ms = std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| AccountError::Damaged {
                    key: name.clone(),
                    what: "not a time".to_owned(),
                })?;
            all.insert(name[PREFIX.len()..].to_owned(), until_ms);
        }
        Ok(Self(all))
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    /// Remembers one more; returns those that need not be remembered any longer.
    pub(super) fn insert(
        &mut self,
        id: &str,
        until_ms: u64,
        now_ms: u64,
    ) -> Result<Vec<String>, AccountError> {
        let outdated: Vec<String> = self
            .0
            .extract_if(|_, until| *until < now_ms)
            .map(|(id, _)| id)
            .collect();
        if self.0.len() >= REVOKED_MAX && !self.0.contains_key(id) {
            return Err(AccountError::TooManyRevoked(REVOKED_MAX));
        }
        self.0.insert(id.to_owned(), until_ms);
        Ok(outdated)
    }
}

pub(super) async fn store(
    store: &dyn Store,
    id: &str,
    until_ms: u64,
    outdated: &[String],
) -> Result<(), AccountError> {
    store
        .put_value(&format!("{PREFIX}{id}"), Some(until_ms.to_string().into()))
        .await?;
    for id in outdated {
        store.put_value(&format!("{PREFIX}{id}"), None).await?;
    }
    Ok(())
}
