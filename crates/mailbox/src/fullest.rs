//! Which mailboxes hold most, and which have held something for longest.
//!
//! Counters are read, not messages: those of mailboxes in memory there, those
//! of the others from their bookkeeping in one pass over the database, which
//! is kept for a while, so that asking often costs as much as asking once.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use stonechat_protocol::UserId;

use crate::admin::{Fullest, Fullness};
use crate::error::StoreError;
use crate::shared::Core;
use crate::sledstore::Database;
use crate::sledstore::values::{self, Meta};

/// How long a pass is good for.
const GOOD_FOR: Duration = Duration::from_secs(10);
/// Mailboxes kept of a pass in each order.
pub(crate) const KEPT: usize = 1000;
/// Entries of the expiry index looked at for each mailbox asked for.
const INDEX_ENTRIES: usize = 4;

/// The outcome of a pass.
pub(crate) struct Pass {
    at: Instant,
    by_messages: Vec<Fullness>,
    by_bytes: Vec<Fullness>,
}

/// The `max` first mailboxes in an order. Blocks.
pub(crate) fn list(core: &Core, by: Fullest, max: usize) -> Result<Vec<Fullness>, StoreError> {
    let database = core.database()?;
    let mut found = if by == Fullest::Oldest {
        oldest(core, &database, max)?
    } else {
        let mut kept = core.fullest.lock();
        let fresh = kept.as_ref().filter(|pass| pass.at.elapsed() < GOOD_FOR);
        let pass = match fresh {
            Some(_) => kept.as_ref(),
            None => {
                *kept = Some(pass(core, &database)?);
                kept.as_ref()
            }
        };
        let list = pass.map(|pass| match by {
            Fullest::Bytes => &pass.by_bytes,
            _ => &pass.by_messages,
        });
        list.map_or_else(Vec::new, |list| list.iter().take(max).cloned().collect())
    };
    for one in &mut found {
        one.oldest_ms = oldest_of(core, &database, &one.user)?;
    }
    if by == Fullest::Oldest {
        found.retain(|one| one.oldest_ms.is_some());
        found.sort_by_key(|one| one.oldest_ms);
        found.truncate(max);
    }
    Ok(found)
}

/// The greatest of what is offered, at most [`KEPT`].
#[derive(Default)]
struct Top(BTreeSet<(u64, Reverse<UserId>, u64)>);

impl Top {
    fn offer(&mut self, rank: u64, other: u64, user: &UserId) {
        let full = self.0.len() >= KEPT;
        if full && self.0.first().is_some_and(|least| rank <= least.0) {
            return;
        }
        self.0.insert((rank, Reverse(user.clone()), other));
        if full {
            self.0.pop_first();
        }
    }

    fn into_list(self, of: impl Fn(UserId, u64, u64) -> Fullness) -> Vec<Fullness> {
        let greatest_first = self.0.into_iter().rev();
        greatest_first
            .map(|(rank, Reverse(user), other)| of(user, rank, other))
            .collect()
    }
}

fn fullness(user: UserId, messages: u64, bytes: u64) -> Fullness {
    Fullness {
        user,
        messages,
        bytes,
        oldest_ms: None,
    }
}

fn pass(core: &Core, database: &Database) -> Result<Pass, StoreError> {
    let (mut by_messages, mut by_bytes) = (Top::default(), Top::default());
    let mut count = |user: &UserId, messages: u64, bytes: u64| {
        if messages > 0 {
            by_messages.offer(messages, bytes, user);
            by_bytes.offer(bytes, messages, user);
        }
    };
    for entry in &database.meta {
        let (key, value) = entry?;
        let damaged = |error| database.damaged("meta", &key, &error);
        let (messages, bytes, _) = Meta::decode_counters(&value).map_err(damaged)?;
        if messages == 0 {
            continue;
        }
        let name = std::str::from_utf8(&key).ok();
        if let Some(user) = name.and_then(|name| UserId::new(name).ok())
            && core.resident_untouched(&user).is_none()
        {
            count(&user, messages, bytes);
        }
    }
    core.each_resident(|mailbox| {
        let stats = mailbox.stats();
        count(mailbox.user(), stats.messages, stats.bytes);
    });
    Ok(Pass {
        at: Instant::now(),
        by_messages: by_messages.into_list(fullness),
        by_bytes: by_bytes.into_list(|user, bytes, messages| fullness(user, messages, bytes)),
    })
}

/// Candidates for the oldest: the first of the expiry index, and of those in memory the ones
/// with the oldest message. (Where lives differ, one with a long life may be missed.)
fn oldest(core: &Core, database: &Database, max: usize) -> Result<Vec<Fullness>, StoreError> {
    let mut users: HashSet<UserId> = HashSet::new();
    for key in database.expiry.iter().keys().take(max * INDEX_ENTRIES) {
        let key = key?;
        let (_, user) = values::parse_expiry_key(&key)
            .map_err(|error| database.damaged("expiry", &key, &error))?;
        users.insert(user);
    }
    let mut young = Top::default();
    core.each_resident(|mailbox| {
        if let Some(oldest_ms) = mailbox.oldest_ms() {
            young.offer(u64::MAX - oldest_ms, 0, mailbox.user());
        }
    });
    users.extend(young.into_list(fullness).into_iter().map(|one| one.user));
    let mut found = Vec::with_capacity(users.len());
    for user in users {
        let (messages, bytes) = match core.resident_untouched(&user) {
            Some(mailbox) => {
                let stats = mailbox.stats();
                (stats.messages, stats.bytes)
            }
            None => match database.get_meta(&user)? {
                Some(meta) => (meta.messages, meta.bytes),
                None => continue,
            },
        };
        if messages > 0 {
            found.push(fullness(user, messages, bytes));
        }
    }
    Ok(found)
}

fn oldest_of(core: &Core, database: &Database, user: &UserId) -> Result<Option<u64>, StoreError> {
    if let Some(mailbox) = core.resident_untouched(user) {
        return Ok(mailbox.oldest_ms());
    }
    database.oldest_ms(user)
}
