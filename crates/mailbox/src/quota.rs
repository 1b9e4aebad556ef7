//! Limits of one mailbox: messages and bytes, those on their way to the disk
//! included. How often its user may send is kept here for the broker, which
//! sees to it.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::api::{Append, MailboxRef, UserLimits};
use crate::config::StoreConfig;
use crate::error::AppendError;
use crate::mailbox::{Mailbox, State};

/// `messages_per_s` of a user's own limits, beside them; 0: as configured.
pub(crate) struct Rate(AtomicU32);

impl Rate {
    pub(crate) fn of(limits: Option<&UserLimits>) -> Self {
        let own = limits.and_then(|limits| limits.messages_per_s);
        Self(AtomicU32::new(own.unwrap_or(0)))
    }
}

impl Mailbox {
    /// Limits of this user's own; what is absent is as configured.
    pub fn limits(&self) -> UserLimits {
        let state = self.lock();
        state.limits.as_deref().copied().unwrap_or_default()
    }

    /// Messages the user may send a second, if there is a limit of the user's own. Asked for every
    /// send, so it takes no lock.
    pub fn messages_per_s(&self) -> Option<u32> {
        Some(self.rate.0.load(Ordering::Relaxed)).filter(|own| *own > 0)
    }

    pub(crate) fn set_limits(&self, state: &mut State, limits: &UserLimits) {
        let own = limits.messages_per_s.unwrap_or(0);
        self.rate.0.store(own, Ordering::Relaxed);
        state.limits = limits.boxed();
    }
}

/// Refuses what does not fit the mailboxes, and counts what does as queued.
pub(crate) fn reserve(config: &StoreConfig, append: &Append) -> Result<(), AppendError> {
    let body_bytes = append.envelope.body.len();
    for (index, mailbox) in append.recipients.iter().enumerate() {
        // The sender's own copy: its owner did not ask for it, so it may go to twice the
        // limit before it stops him from sending.
        let times = if index == 0 { 1 } else { 2 };
        let mut state = mailbox.lock();
        let own = state.limits.as_deref().copied().unwrap_or_default();
        let messages_max = own.mailbox_messages_max.unwrap_or(config.quota_messages);
        let bytes_max = own.mailbox_bytes_max.unwrap_or(config.quota_bytes);
        let messages = state.messages + state.queued_messages + 1;
        let bytes = state.bytes + state.queued_bytes + body_bytes as u64;
        if messages > messages_max.saturating_mul(times) || bytes > bytes_max.saturating_mul(times)
        {
            drop(state);
            release(&append.recipients[..index], body_bytes);
            return Err(AppendError::MailboxFull);
        }
        state.queued_messages += 1;
        state.queued_bytes += body_bytes as u64;
    }
    Ok(())
}

/// What was counted as queued is not, after all.
pub(crate) fn release(recipients: &[MailboxRef], body_bytes: usize) {
    for mailbox in recipients {
        mailbox.lock().unqueue(body_bytes as u64);
    }
}
