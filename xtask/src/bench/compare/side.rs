//! A server and the users connected to it, whatever they speak.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use stonechat_swarm as swarm;

use super::node::Node;
use crate::load::{Hand, OnSwarm, Work};
use crate::xmpp;

/// Everybody is signed in within this, or the measure has failed.
pub(super) const CONNECTED_WITHIN: Duration = Duration::from_secs(120);

/// Simulated users of one server.
pub(super) enum Load {
    Swarm(Box<swarm::Engine>),
    Xmpp(Box<xmpp::Engine>),
}

impl Load {
    /// Users of a node. `acks` is for XMPP: our server always answers for messages.
    pub(super) fn new(node: &Node, users: usize, acks: bool) -> Result<Self> {
        let server = node.listen;
        Ok(match &node.roster {
            Some(roster) => {
                let options = swarm::Options::new(server);
                Self::Swarm(Box::new(swarm::Engine::new(roster.clone(), options)?))
            }
            None => {
                let options = xmpp::Options { server, acks };
                Self::Xmpp(Box::new(xmpp::Engine::new(users, options)?))
            }
        })
    }

    pub(super) fn connect<W: Work>(&mut self, users: Range<u32>, work: &mut W) -> Result<()> {
        match self {
            Self::Swarm(engine) => {
                engine.connect(users, &mut OnSwarm(work), CONNECTED_WITHIN)?;
            }
            Self::Xmpp(engine) => engine.connect(users, work, CONNECTED_WITHIN)?,
        }
        Ok(())
    }

    pub(super) fn each<W: Work>(
        &mut self,
        users: Range<u32>,
        work: &mut W,
        mut act: impl FnMut(&mut W, &mut dyn Hand) -> Result<(), String>,
    ) -> Result<()> {
        match self {
            Self::Swarm(engine) => {
                let act = |on: &mut OnSwarm<'_, W>, user: &mut swarm::User<'_>| act(on.0, user);
                engine.each(users, &mut OnSwarm(work), act)?;
            }
            Self::Xmpp(engine) => engine.each(users, work, act)?,
        }
        Ok(())
    }

    /// Runs until the work is finished (true) or the time is over (false).
    pub(super) fn run<W: Work>(&mut self, work: &mut W, time: Duration) -> Result<bool> {
        let until = Instant::now() + time;
        Ok(match self {
            Self::Swarm(engine) => engine.run(&mut OnSwarm(work), until)?,
            Self::Xmpp(engine) => engine.run(work, until)?,
        })
    }

    /// Runs until the work is finished. It fails when nothing has moved for `patience`, or after `within`.
    pub(super) fn finish<W: Work>(
        &mut self,
        work: &mut W,
        moved: impl Fn(&W) -> u64,
        (patience, within): (Duration, Duration),
    ) -> Result<()> {
        let until = Instant::now() + within;
        let mut last = moved(work);
        while !self.run(work, patience)? {
            let now = moved(work);
            if now == last {
                bail!("nothing has come for {} s, at {now}", patience.as_secs());
            }
            if Instant::now() > until {
                bail!("not finished after {} s, at {now}", within.as_secs());
            }
            last = now;
        }
        Ok(())
    }

    pub(super) fn drop_connections(&mut self, users: Range<u32>) {
        match self {
            Self::Swarm(engine) => engine.drop_connections(users),
            Self::Xmpp(engine) => engine.drop_connections(users),
        }
    }

    pub(super) fn now_us(&self) -> u64 {
        match self {
            Self::Swarm(engine) => engine.now_us(),
            Self::Xmpp(engine) => engine.now_us(),
        }
    }
}

/// A range of users.
pub(super) fn users(from: usize, count: usize) -> Result<Range<u32>> {
    let from = u32::try_from(from).context("fewer users")?;
    Ok(from..from + u32::try_from(count).context("fewer users")?)
}
