//! Limits of one mailbox: messages and bytes, those on their way to the disk
//! included.

use crate::api::{Append, AppendError, MailboxRef};
use crate::config::StoreConfig;

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
