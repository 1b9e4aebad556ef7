//! Pairs that talk to each other: whoever gets a message answers it, `window` messages under way a pair.
//!
//! Closed loop: it finds out what a server can do, not how long things take at a given load.

use stonechat_protocol::MessageId;

use crate::behaviour::{Behaviour, Incoming, Receipt, Sent};
use crate::mark::Mark;
use crate::{Latency, User};

/// What is kept of one user.
#[derive(Debug, Clone, Copy, Default)]
pub struct PairUser {
    /// Messages sent.
    pub sent: u64,
    /// Messages accepted.
    pub accepted: u64,
    /// Messages got from the other.
    pub received: u64,
    last_sent: Option<MessageId>,
    delivered: Option<MessageId>,
}

/// Users 2n and 2n+1 talk to each other.
#[derive(Debug)]
pub struct Pairs {
    /// Time from send to arrival; in a closed loop it tells about the load chosen, not the server.
    pub delivered: Latency,
    users: Vec<PairUser>,
    budget: u64,
    body_bytes: usize,
    sent: u64,
    received: u64,
    receipts: bool,
    all_received_at_us: Option<u64>,
}

impl Pairs {
    /// `messages` messages in all, among `users` users. With `receipts` it is over when every last
    /// message is also known to be delivered.
    pub fn new(users: usize, messages: u64, body_bytes: usize, receipts: bool) -> Self {
        Self {
            delivered: Latency::default(),
            users: vec![PairUser::default(); users],
            budget: messages,
            body_bytes,
            sent: 0,
            received: 0,
            receipts,
            all_received_at_us: None,
        }
    }

    /// Starts `window` messages of this pair; to be called for each user.
    ///
    /// # Errors
    /// When the user cannot send.
    pub fn kick(&mut self, user: &mut User<'_>, window: usize) -> Result<(), String> {
        // Both sides start, so that both have something in hand.
        let first = user.index().is_multiple_of(2);
        let own = if first {
            window.div_ceil(2)
        } else {
            window / 2
        };
        for _ in 0..own {
            self.send(user)?;
        }
        Ok(())
    }

    /// Lets the same users exchange `messages` more.
    pub fn again(&mut self, messages: u64) {
        self.budget += messages;
        self.all_received_at_us = None;
    }

    /// What is known of the users.
    pub fn users(&self) -> &[PairUser] {
        &self.users
    }

    /// Messages received by all.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// When the last message arrived, on the engine's clock.
    pub fn all_received_at_us(&self) -> Option<u64> {
        self.all_received_at_us
    }

    fn send(&mut self, user: &mut User<'_>) -> Result<(), String> {
        if self.sent >= self.budget {
            return Ok(());
        }
        let index = user.index();
        let state = &mut self.users[index as usize];
        let at_us = user.now_us();
        state.last_sent = Some(user.send(index ^ 1, state.sent, at_us, self.body_bytes)?);
        state.sent += 1;
        self.sent += 1;
        Ok(())
    }
}

impl Behaviour for Pairs {
    fn on_message(&mut self, user: &mut User<'_>, message: &Incoming<'_>) -> Result<(), String> {
        let index = user.index();
        let state = &mut self.users[index as usize];
        let mark = Mark::read(message.body).ok_or("a message that nobody sent")?;
        let expected = (index ^ 1, state.received);
        if (mark.sender, mark.number) != expected {
            return Err(format!(
                "message {} of user {} instead of {} of {} (seq {}, id {})",
                mark.number, mark.sender, expected.1, expected.0, message.seq, message.id
            ));
        }
        state.received += 1;
        self.received += 1;
        let now_us = user.now_us();
        self.delivered.record_us(now_us.saturating_sub(mark.at_us));
        if self.received == self.budget {
            self.all_received_at_us = Some(now_us);
        }
        self.send(user)?;
        if self.sent >= self.budget {
            // Nothing more to ride on.
            user.ack_now();
        }
        Ok(())
    }

    fn on_accepted(&mut self, user: &mut User<'_>, _sent: &Sent) -> Result<(), String> {
        self.users[user.index() as usize].accepted += 1;
        Ok(())
    }

    fn on_receipt(&mut self, user: &mut User<'_>, receipt: &Receipt) -> Result<(), String> {
        let index = user.index();
        if receipt.with != Some(index ^ 1) {
            return Err(format!(
                "a receipt of a conversation it does not have: {receipt:?}"
            ));
        }
        let state = &mut self.users[index as usize];
        if receipt.delivered < state.delivered || receipt.delivered > state.last_sent {
            return Err(format!(
                "a receipt went back or ahead: {:?} after {:?}, last sent {:?}",
                receipt.delivered, state.delivered, state.last_sent
            ));
        }
        state.delivered = receipt.delivered;
        Ok(())
    }

    fn finished(&mut self) -> bool {
        self.received == self.budget
            && (!self.receipts
                || self
                    .users
                    .iter()
                    .all(|user| user.accepted == user.sent && user.delivered == user.last_sent))
    }
}
