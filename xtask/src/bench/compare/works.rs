//! What users do in each measure, and the book that is kept of it.

use stonechat_swarm::{Latency, Mark};

use crate::load::{Hand, Sent, Work};

/// Messages of each sender, a bit each.
#[derive(Debug, Default, Clone)]
struct Bits(Vec<u64>);

impl Bits {
    /// Sets a bit; tells whether it was set before.
    fn set(&mut self, at: u64) -> bool {
        let (word, bit) = ((at / 64) as usize, 1 << (at % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let before = self.0[word] & bit != 0;
        self.0[word] |= bit;
        before
    }

    fn has(&self, at: u64) -> bool {
        let word = self.0.get((at / 64) as usize);
        word.is_some_and(|word| word & (1 << (at % 64)) != 0)
    }
}

/// What was accepted and what has arrived, message by message.
#[derive(Debug, Default)]
pub(super) struct Book {
    accepted: Vec<Bits>,
    arrived: Vec<Bits>,
    pub(super) accepted_total: u64,
    /// Without those that came twice.
    pub(super) arrived_total: u64,
    pub(super) doubled: u64,
    /// Accepted and not arrived.
    pub(super) missing: u64,
}

impl Book {
    pub(super) fn new(senders: usize) -> Self {
        Self {
            accepted: vec![Bits::default(); senders],
            arrived: vec![Bits::default(); senders],
            ..Self::default()
        }
    }

    fn accepted(&mut self, sender: u32, number: u64) {
        let place = sender as usize;
        if !self.accepted[place].set(number) {
            self.accepted_total += 1;
            self.missing += u64::from(!self.arrived[place].has(number));
        }
    }

    fn arrived(&mut self, mark: Mark) -> Result<(), String> {
        let place = mark.sender as usize;
        let arrived = self.arrived.get_mut(place);
        let arrived = arrived.ok_or("a message of nobody")?;
        if arrived.set(mark.number) {
            self.doubled += 1;
        } else {
            self.arrived_total += 1;
            self.missing -= u64::from(self.accepted[place].has(mark.number));
        }
        Ok(())
    }
}

/// Pairs that answer each other: users 2n and 2n+1.
#[derive(Debug, Default)]
pub(super) struct PingPong {
    /// The first user that takes part.
    first: u32,
    users: Vec<(u64, u64)>,
    budget: u64,
    sent: u64,
    pub(super) received: u64,
    accepted: u64,
    acks: bool,
    body_bytes: usize,
    pub(super) last_us: u64,
}

impl PingPong {
    pub(super) fn new(first: u32, users: usize, acks: bool, body_bytes: usize) -> Self {
        Self {
            first,
            users: vec![(0, 0); users],
            acks,
            body_bytes,
            ..Self::default()
        }
    }

    /// How many take part.
    pub(super) fn users(&self) -> usize {
        self.users.len()
    }

    /// Allows so many messages more.
    pub(super) fn allow(&mut self, messages: u64) {
        self.budget += messages;
    }

    /// Puts a user's half of the pair's window on its way.
    pub(super) fn kick(&mut self, user: &mut dyn Hand, window: usize) -> Result<(), String> {
        let own = if user.index().is_multiple_of(2) {
            window.div_ceil(2)
        } else {
            window / 2
        };
        (0..own).try_for_each(|_| self.send(user))
    }

    fn send(&mut self, user: &mut dyn Hand) -> Result<(), String> {
        if self.sent >= self.budget {
            return Ok(());
        }
        self.sent += 1;
        let (to, at_us) = (user.index() ^ 1, user.now_us());
        let state = &mut self.users[(user.index() - self.first) as usize];
        let number = state.0;
        state.0 += 1;
        user.send(Sent { to, number, at_us }, self.body_bytes)
    }
}

impl Work for PingPong {
    fn on_message(&mut self, user: &mut dyn Hand, mark: Mark) -> Result<(), String> {
        let state = &mut self.users[(user.index() - self.first) as usize];
        let expected = (user.index() ^ 1, state.1);
        if (mark.sender, mark.number) != expected {
            return Err(format!("{mark:?} came, expected was {expected:?}"));
        }
        state.1 += 1;
        self.received += 1;
        self.last_us = user.now_us();
        self.send(user)
    }

    fn on_accepted(&mut self, _user: &mut dyn Hand, _sent: Sent) -> Result<(), String> {
        self.accepted += 1;
        Ok(())
    }

    fn finished(&mut self) -> bool {
        self.received == self.budget && (!self.acks || self.accepted == self.sent)
    }
}

/// Senders, users 0 and following, that fill the mailboxes of users who are away, so many messages
/// unanswered each; and those users, when they come for their messages.
#[derive(Debug)]
pub(super) struct Away {
    pub(super) book: Book,
    numbers: Vec<u64>,
    recipients: std::ops::Range<u32>,
    body_bytes: usize,
    /// Nothing is sent after this.
    pub(super) until_us: u64,
    under_way: u64,
    /// The server is going to be killed.
    pub(super) may_end: bool,
    /// What happened that should not have.
    pub(super) refused: Option<String>,
    pub(super) last_us: u64,
}

/// Coprime to the numbers of recipients used here, so that all get the same.
const STRIDE: u64 = 7919;

impl Away {
    pub(super) fn new(senders: usize, recipients: std::ops::Range<u32>, body_bytes: usize) -> Self {
        Self {
            book: Book::new(senders),
            numbers: vec![0; senders],
            recipients,
            body_bytes,
            until_us: 0,
            under_way: 0,
            may_end: false,
            refused: None,
            last_us: 0,
        }
    }

    /// Forgets what was under way to a server that is gone.
    pub(super) fn give_up(&mut self) {
        self.under_way = 0;
        self.until_us = 0;
    }

    pub(super) fn send(&mut self, user: &mut dyn Hand) -> Result<(), String> {
        let at_us = user.now_us();
        if at_us >= self.until_us {
            return Ok(());
        }
        let number = &mut self.numbers[user.index() as usize];
        let turn = u64::from(user.index()) * 31 + *number * STRIDE;
        let place = turn % self.recipients.len() as u64;
        let to = self.recipients.start + u32::try_from(place).unwrap_or(0);
        let number = std::mem::replace(number, *number + 1);
        self.under_way += 1;
        user.send(Sent { to, number, at_us }, self.body_bytes)
    }
}

impl Work for Away {
    fn on_accepted(&mut self, user: &mut dyn Hand, sent: Sent) -> Result<(), String> {
        self.under_way = self.under_way.saturating_sub(1);
        self.book.accepted(user.index(), sent.number);
        self.last_us = user.now_us();
        self.send(user)
    }

    fn on_message(&mut self, user: &mut dyn Hand, mark: Mark) -> Result<(), String> {
        self.last_us = user.now_us();
        self.book.arrived(mark)
    }

    fn on_refused(&mut self, _user: &mut dyn Hand, why: &str) -> Result<(), String> {
        self.refused.get_or_insert_with(|| why.to_owned());
        Ok(())
    }

    fn on_end(&mut self, _user: &mut dyn Hand, why: &str) -> Result<(), String> {
        if self.may_end {
            return Ok(());
        }
        Err(format!("the connection ended: {why}"))
    }

    /// All that was sent is answered; nothing that was accepted is missing.
    fn finished(&mut self) -> bool {
        self.under_way == 0 && (self.until_us != 0 || self.book.missing == 0)
    }
}

/// Users 0 and 1 exchange messages by the clock. User 2 does not read what users 3 and following send
/// by the clock.
#[derive(Debug)]
pub(super) struct SlowReader {
    /// From due to arrival at user 1.
    pub(super) latency: Latency,
    pub(super) book: Book,
    due_us: Vec<u64>,
    numbers: Vec<u64>,
    /// Between messages of the pair, and of each sender; zero is silence.
    pub(super) interval_us: (u64, u64),
    body_bytes: (usize, usize),
    /// Due messages that had to wait for answers.
    pub(super) late: u64,
    /// How the reader's connection ended.
    pub(super) ended: Option<String>,
    pub(super) refused: Option<String>,
}

impl SlowReader {
    pub(super) const READER: u32 = 2;

    pub(super) fn new(users: usize, body_bytes: (usize, usize)) -> Self {
        Self {
            latency: Latency::default(),
            book: Book::new(users),
            due_us: vec![0; users],
            numbers: vec![0; users],
            interval_us: (0, 0),
            body_bytes,
            late: 0,
            ended: None,
            refused: None,
        }
    }

    /// Sets a sender's clock going.
    pub(super) fn begin(&mut self, user: &mut dyn Hand) -> Result<(), String> {
        let index = u64::from(user.index());
        let spread_us = self.interval_us.1 * index / self.due_us.len() as u64;
        self.due_us[index as usize] = user.now_us() + spread_us;
        user.wake_at(user.now_us() + spread_us);
        Ok(())
    }
}

impl Work for SlowReader {
    fn on_timer(&mut self, user: &mut dyn Hand) -> Result<(), String> {
        let index = user.index();
        let (to, interval_us, body_bytes) = if index == 0 {
            (1, self.interval_us.0, self.body_bytes.0)
        } else {
            (Self::READER, self.interval_us.1, self.body_bytes.1)
        };
        if interval_us == 0 {
            return Ok(());
        }
        let place = index as usize;
        let at_us = self.due_us[place];
        self.due_us[place] += interval_us;
        user.wake_at(self.due_us[place]);
        if !user.may_send() {
            self.late += 1;
            return Ok(());
        }
        let number = self.numbers[place];
        self.numbers[place] += 1;
        user.send(Sent { to, number, at_us }, body_bytes)
    }

    fn on_message(&mut self, user: &mut dyn Hand, mark: Mark) -> Result<(), String> {
        if user.index() == Self::READER {
            return self.book.arrived(mark);
        }
        let now_us = user.now_us();
        self.latency.record_us(now_us.saturating_sub(mark.at_us));
        Ok(())
    }

    fn on_accepted(&mut self, user: &mut dyn Hand, sent: Sent) -> Result<(), String> {
        if sent.to == Self::READER {
            self.book.accepted(user.index(), sent.number);
        }
        Ok(())
    }

    fn on_refused(&mut self, _user: &mut dyn Hand, why: &str) -> Result<(), String> {
        self.refused.get_or_insert_with(|| why.to_owned());
        Ok(())
    }

    fn on_end(&mut self, user: &mut dyn Hand, why: &str) -> Result<(), String> {
        if user.index() != Self::READER {
            return Err(format!(
                "the connection of user {} ended: {why}",
                user.index()
            ));
        }
        self.ended = Some(why.to_owned());
        Ok(())
    }

    fn finished(&mut self) -> bool {
        self.interval_us == (0, 0) && self.book.missing == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_book_tells_what_is_missing_in_any_order() {
        let mut book = Book::new(2);
        let mark = |sender, number| Mark {
            sender,
            number,
            at_us: 0,
        };
        book.accepted(0, 0);
        book.accepted(1, 70);
        book.accepted(1, 70);
        assert_eq!((book.accepted_total, book.missing), (2, 2));
        book.arrived(mark(1, 70)).unwrap();
        book.arrived(mark(1, 70)).unwrap();
        // Never accepted, arrived all the same: allowed.
        book.arrived(mark(0, 5)).unwrap();
        assert_eq!((book.missing, book.doubled, book.arrived_total), (1, 1, 2));
        // Accepted after it had arrived.
        book.accepted(0, 5);
        assert_eq!(book.missing, 1);
        book.arrived(mark(0, 0)).unwrap();
        assert_eq!(book.missing, 0);
        assert!(book.arrived(mark(2, 0)).is_err());
    }
}
