//! Pairs that talk by the clock: every user sends at fixed times, whatever the server does.
//!
//! Open loop. A message is due at a time that was fixed beforehand, and its latency counts from
//! then, also when it could not be sent because the server was behind: coordinated omission, where a
//! stalled server is asked less and so looks better, cannot happen.

use crate::behaviour::{Behaviour, Incoming, Sent};
use crate::mark::Mark;
use crate::{Latency, User};

#[derive(Debug, Clone, Copy, Default)]
struct Clocked {
    due_us: u64,
    sent: u64,
    received: u64,
}

/// Users 2n and 2n+1 send to each other, each at its own times.
#[derive(Debug)]
pub struct Schedule {
    /// From due to `accepted`.
    pub accepted: Latency,
    /// From due to arrival.
    pub delivered: Latency,
    users: Vec<Clocked>,
    interval_us: u64,
    body_bytes: usize,
    /// What is due before this is not counted: warm-up. What would be due after `until_us` is not sent.
    count_from_us: u64,
    until_us: u64,
    ended: usize,
    sent: u64,
    received: u64,
    answered: u64,
    answers: bool,
}

impl Schedule {
    /// Each of `users` users sends every `interval_us`. With `answers` it waits for `accepted` too.
    pub fn new(users: usize, interval_us: u64, body_bytes: usize, answers: bool) -> Self {
        Self {
            accepted: Latency::default(),
            delivered: Latency::default(),
            users: vec![Clocked::default(); users],
            interval_us: interval_us.max(1),
            body_bytes,
            count_from_us: 0,
            until_us: 0,
            ended: 0,
            sent: 0,
            received: 0,
            answered: 0,
            answers,
        }
    }

    /// Counts what is due between two times of the engine's clock. To be called before the users start.
    pub fn span(&mut self, count_from_us: u64, until_us: u64) {
        (self.count_from_us, self.until_us) = (count_from_us, until_us);
    }

    /// Starts a user; the users' times are spread over the interval.
    pub fn start(&mut self, user: &mut User<'_>) {
        let index = user.index() as usize;
        let offset_us = self.interval_us * index as u64 / self.users.len() as u64;
        let due_us = user.now_us() + offset_us;
        self.users[index].due_us = due_us;
        user.wake_at(due_us);
    }

    /// Messages sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Messages that arrived.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Sends what is due, as far as the protocol allows.
    fn send_due(&mut self, user: &mut User<'_>) -> Result<(), String> {
        let index = user.index();
        let state = &mut self.users[index as usize];
        while state.due_us <= user.now_us() && state.due_us < self.until_us && user.may_send() {
            user.send(index ^ 1, state.sent, state.due_us, self.body_bytes)?;
            state.sent += 1;
            self.sent += 1;
            state.due_us += self.interval_us;
            if state.due_us >= self.until_us {
                self.ended += 1;
            }
        }
        Ok(())
    }
}

impl Behaviour for Schedule {
    fn on_timer(&mut self, user: &mut User<'_>) -> Result<(), String> {
        self.send_due(user)?;
        let due_us = self.users[user.index() as usize].due_us;
        // What is due already waits for an answer, not for the clock.
        if due_us < self.until_us && due_us > user.now_us() {
            user.wake_at(due_us);
        }
        Ok(())
    }

    fn on_accepted(&mut self, user: &mut User<'_>, sent: &Sent) -> Result<(), String> {
        self.answered += 1;
        let now_us = user.now_us();
        if sent.at_us >= self.count_from_us {
            self.accepted.record_us(now_us.saturating_sub(sent.at_us));
        }
        let late = self.users[user.index() as usize].due_us <= now_us;
        if late { self.on_timer(user) } else { Ok(()) }
    }

    fn on_message(&mut self, user: &mut User<'_>, message: &Incoming<'_>) -> Result<(), String> {
        let index = user.index();
        let state = &mut self.users[index as usize];
        let mark = Mark::read(message.body).ok_or("a message that nobody sent")?;
        if (mark.sender, mark.number) != (index ^ 1, state.received) {
            return Err(format!("{mark:?} instead of number {}", state.received));
        }
        state.received += 1;
        self.received += 1;
        if mark.at_us >= self.count_from_us {
            let now_us = user.now_us();
            self.delivered.record_us(now_us.saturating_sub(mark.at_us));
        }
        Ok(())
    }

    fn finished(&mut self) -> bool {
        self.ended == self.users.len()
            && self.received == self.sent
            && (!self.answers || self.answered == self.sent)
    }
}
