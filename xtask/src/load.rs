//! What simulated users do, whatever protocol they speak: one description of the work, done by the
//! `swarm` engine on our server and by the client in `xmpp` on others, so that what is compared is
//! the servers and not two versions of a benchmark.
//!
//! It knows no sockets and no protocol. It has less to say than the `swarm`'s own behaviours: no
//! receipts, no cursors, only what every messaging protocol has.

use stonechat_swarm::{self as swarm, Mark};

/// A message on its way, or just accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    /// To whom.
    pub(crate) to: u32,
    /// Which of the sender's messages.
    pub(crate) number: u64,
    /// When it was meant to be sent, microseconds on the engine's clock.
    pub(crate) at_us: u64,
}

/// A simulated user, for the length of a callback.
pub(crate) trait Hand {
    /// Place among the users.
    fn index(&self) -> u32;
    /// The engine's clock, microseconds since the Unix epoch.
    fn now_us(&self) -> u64;
    /// Whether the user is signed in and may have another message unanswered.
    fn may_send(&self) -> bool;
    /// Sends a marked body of `body_bytes` bytes.
    ///
    /// # Errors
    /// When [`Hand::may_send`] says no.
    fn send(&mut self, sent: Sent, body_bytes: usize) -> Result<(), String>;
    /// Calls [`Work::on_timer`] at that time.
    fn wake_at(&mut self, at_us: u64);
    /// Reads nothing before that time, so that the server has to wait.
    fn pause_until(&mut self, at_us: u64);
}

/// What simulated users do. An error ends the run.
pub(crate) trait Work {
    /// A message arrived.
    fn on_message(&mut self, _user: &mut dyn Hand, _mark: Mark) -> Result<(), String> {
        Ok(())
    }

    /// The server answers for a message. Not called where it gives no answers.
    fn on_accepted(&mut self, _user: &mut dyn Hand, _sent: Sent) -> Result<(), String> {
        Ok(())
    }

    /// The time asked for has come.
    fn on_timer(&mut self, _user: &mut dyn Hand) -> Result<(), String> {
        Ok(())
    }

    /// A message was refused after it was accepted, as XMPP servers do.
    fn on_refused(&mut self, _user: &mut dyn Hand, why: &str) -> Result<(), String> {
        Err(format!("refused: {why}"))
    }

    /// The connection ended without being asked to.
    fn on_end(&mut self, _user: &mut dyn Hand, why: &str) -> Result<(), String> {
        Err(format!("the connection ended: {why}"))
    }

    /// Asked after each turn of the loop.
    fn finished(&mut self) -> bool {
        false
    }
}

/// Users who do nothing.
#[derive(Debug)]
pub(crate) struct Nothing;

impl Work for Nothing {}

/// Work done by users of the `swarm` engine.
pub(crate) struct OnSwarm<'a, W: Work>(pub(crate) &'a mut W);

impl Hand for swarm::User<'_> {
    fn index(&self) -> u32 {
        swarm::User::index(self)
    }

    fn now_us(&self) -> u64 {
        swarm::User::now_us(self)
    }

    fn may_send(&self) -> bool {
        swarm::User::may_send(self)
    }

    fn send(&mut self, sent: Sent, body_bytes: usize) -> Result<(), String> {
        swarm::User::send(self, sent.to, sent.number, sent.at_us, body_bytes).map(drop)
    }

    fn wake_at(&mut self, at_us: u64) {
        swarm::User::wake_at(self, at_us);
    }

    fn pause_until(&mut self, at_us: u64) {
        swarm::User::pause_until(self, at_us);
    }
}

impl<W: Work> swarm::Behaviour for OnSwarm<'_, W> {
    fn on_message(
        &mut self,
        user: &mut swarm::User<'_>,
        message: &swarm::Incoming<'_>,
    ) -> Result<(), String> {
        let mark = Mark::read(message.body).ok_or("a message that nobody sent")?;
        self.0.on_message(user, mark)
    }

    fn on_accepted(
        &mut self,
        user: &mut swarm::User<'_>,
        sent: &swarm::Sent,
    ) -> Result<(), String> {
        let sent = Sent {
            to: sent.to,
            number: sent.number,
            at_us: sent.at_us,
        };
        self.0.on_accepted(user, sent)
    }

    fn on_timer(&mut self, user: &mut swarm::User<'_>) -> Result<(), String> {
        self.0.on_timer(user)
    }

    fn on_refused(
        &mut self,
        _user: &mut swarm::User<'_>,
        refused: &swarm::Refused<'_>,
    ) -> Result<(), String> {
        // Nothing that is measured here is more than our server takes.
        Err(format!("refused: {refused:?}"))
    }

    fn on_end(&mut self, user: &mut swarm::User<'_>, why: &str) -> Result<(), String> {
        self.0.on_end(user, why)
    }

    fn finished(&mut self) -> bool {
        self.0.finished()
    }
}
