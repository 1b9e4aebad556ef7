//! Accounts: stored at once, made durable by the journal, looked up in memory.
//!
//! The database is written first and the journal second: a checkpoint that
//! passes the journal record has then synced the database's copy.

use std::sync::Arc;

use stonechat_protocol::UserId;
use tokio::sync::oneshot;

use crate::api::Account;
use crate::error::{StoreError, Unavailable};
use crate::housekeeper::ask;
use crate::journal::Record;
use crate::queue::Job;
use crate::receipts::remove_receipts;
use crate::shared::Core;

/// An account, remembering the answer. Blocks.
pub(crate) fn get(core: &Core, user: &UserId) -> Result<Option<Account>, StoreError> {
    if let Some(account) = core.accounts.get(user) {
        return Ok(account.clone());
    }
    // Under the maintenance lock, so that a change under way is not overwritten by what was
    // read before it.
    let _maintenance = core.maintenance.lock();
    let account = core.database()?.get_account(user)?;
    if account.is_some() {
        remember(core, user, account.clone());
    }
    Ok(account)
}

fn remember(core: &Core, user: &UserId, account: Option<Account>) {
    if core.accounts.len() >= core.config.accounts_cached_max {
        core.accounts.clear();
    }
    core.accounts.insert(user.clone(), account);
}

/// Stores an account. Blocks; durable only with its record.
pub(crate) fn put(core: &Core, account: &Account) -> Result<(), StoreError> {
    let database = core.database()?;
    {
        let _maintenance = core.maintenance.lock();
        database.put_account(account)?;
        remember(core, &account.user, Some(account.clone()));
    }
    let (mailbox, _) = core.load(&account.user)?;
    let freed = core.update(&mailbox, |state| {
        mailbox.set_limits(state, &account.limits);
        if state.removed {
            core.mark_dirty(&mailbox, state);
        }
        state.revive()
    });
    core.freed(&mailbox, freed);
    Ok(())
}

/// Commits a record.
pub(crate) async fn durable(core: &Arc<Core>, record: Record) -> Result<(), StoreError> {
    if let Some(why) = core.unavailable() {
        return Err(why.into());
    }
    let (done, answer) = oneshot::channel();
    core.queue.push_job(Job::record(record, done));
    answer
        .await
        .unwrap_or(Err(StoreError::Unavailable(Unavailable::Closing)))
}

/// Accounts above `after` in order. Blocks.
pub(crate) fn list(
    core: &Core,
    after: Option<&UserId>,
    max: usize,
) -> Result<Vec<Account>, StoreError> {
    use std::ops::Bound;

    let database = core.database()?;
    let from = after.map_or(Bound::Unbounded, |user| {
        Bound::Excluded(user.as_str().as_bytes().to_vec())
    });
    database
        .accounts
        .range((from, Bound::Unbounded))
        .take(max)
        .map(|entry| {
            let (key, value) = entry?;
            database.account(&key, &value)
        })
        .collect()
}

/// Removes an account with everything in its mailbox. Blocks until it is durable.
pub(crate) fn remove(core: &Core, user: &UserId) -> Result<(), StoreError> {
    if get(core, user)?.is_none() {
        return Err(StoreError::UnknownUser(user.clone()));
    }
    let (mailbox, _) = core.load(user)?;
    let upto = mailbox.last_seq();
    ask(core, |done| {
        let record = Record::RemoveUser {
            user: user.clone(),
            upto,
        };
        Job::record(record, done)
    })?;
    let database = core.database()?;
    let _maintenance = core.maintenance.lock();
    database.accounts.remove(user.as_str())?;
    remove_receipts(&database, user)?;
    core.accounts.remove(user);
    Ok(())
}
