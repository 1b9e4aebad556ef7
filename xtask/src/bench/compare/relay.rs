//! Messages between connected users: pairs that answer each other.

use std::time::Duration;

use anyhow::Result;

use super::node::{Kind, Node, Tls};
use super::side::{Load, users};
use super::table::{Better, Table};
use super::works::PingPong;
use super::{BODY_BYTES, Setup, median, told};
use crate::load::Nothing;

const WINDOWS: [usize; 2] = [1, 16];
/// Something has to arrive within this, and a round has to end within that.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(60));
/// Acknowledgements that were put off are charged to the round that caused them.
const SETTLE: Duration = Duration::from_millis(1_100);

/// A server and its pairs, with or without acknowledgements.
struct Side {
    place: usize,
    acks: bool,
    load: Load,
    work: PingPong,
    first: usize,
    /// Messages a second, as of the last round.
    rate: f64,
    /// Of each window: seconds of CPU for a million messages, messages a second.
    found: [Vec<(f64, f64)>; 2],
    failed: Option<String>,
}

/// Measures all servers by turns.
pub(super) fn measure(setup: &Setup, tls: Option<&Tls>, table: &mut Table) -> Result<()> {
    let count = setup.plan.pairs * 2;
    let mut nodes = Vec::new();
    let mut sides = Vec::new();
    for kind in Kind::ALL {
        let started = Node::start(kind, &setup.common, setup.dir.path(), count * 2, tls);
        match told(kind, "starting", started) {
            Ok(node) => nodes.push(Ok(node)),
            Err(why) => {
                nodes.push(Err(why));
                continue;
            }
        }
        let modes: &[bool] = match (kind, tls) {
            (Kind::Ours, _) | (_, Some(_)) => &[true],
            _ => &[true, false],
        };
        for &acks in modes {
            let Some(Ok(node)) = nodes.last() else { break };
            let first = if acks { 0 } else { count };
            let side = side(nodes.len() - 1, node, (first, count), acks);
            match told(kind, "connecting", side) {
                Ok(side) => sides.push(side),
                Err(why) => {
                    let last = nodes.len() - 1;
                    nodes[last] = Err(why);
                }
            }
        }
    }
    for (at, window) in WINDOWS.into_iter().enumerate() {
        for round in 0..=setup.plan.rounds {
            for side in &mut sides {
                let (None, Ok(node)) = (&side.failed, &nodes[side.place]) else {
                    continue;
                };
                // The first is to warm up, and to find out how much a round should be.
                let messages = if round == 0 {
                    2.0 * count as f64
                } else {
                    side.rate * setup.plan.seconds
                };
                match told(node.kind, "relaying", side.round(node, window, messages)) {
                    Ok(found) if round > 0 => side.found[at].push(found),
                    Ok(_) => {}
                    Err(why) => side.failed = Some(why),
                }
            }
        }
    }
    for (kind, node) in Kind::ALL.into_iter().zip(&nodes) {
        if let Ok(node) = node {
            told(kind, "keeping its log clean", node.check()).ok();
        }
    }
    tell(&nodes, &sides, tls.is_some(), table);
    Ok(())
}

fn side(place: usize, node: &Node, (first, count): (usize, usize), acks: bool) -> Result<Side> {
    let mut load = Load::new(node, first + count, acks)?;
    load.connect(users(first, count)?, &mut Nothing)?;
    let range = users(first, count)?;
    Ok(Side {
        place,
        acks,
        load,
        work: PingPong::new(range.start, count, acks, BODY_BYTES),
        first,
        rate: 0.0,
        found: [Vec::new(), Vec::new()],
        failed: None,
    })
}

impl Side {
    fn round(&mut self, node: &Node, window: usize, messages: f64) -> Result<(f64, f64)> {
        let count = self.work.users();
        // Every pair has to have its window.
        let messages = (messages as u64).max((count * window) as u64);
        self.work.allow(messages);
        let before = node.usage()?;
        let all = users(self.first, count)?;
        self.load
            .each(all, &mut self.work, |work, user| work.kick(user, window))?;
        let began_us = self.load.now_us();
        self.load
            .finish(&mut self.work, |work| work.received, PATIENCE)?;
        let seconds = self.work.last_us.saturating_sub(began_us) as f64 / 1e6;
        self.load.run(&mut Nothing, SETTLE)?;
        let cpu_s = node.usage()?.since(before).cpu_s;
        self.rate = messages as f64 / seconds;
        Ok((cpu_s * 1e6 / messages as f64, self.rate))
    }
}

fn tell(nodes: &[Result<Node, String>], sides: &[Side], tls: bool, table: &mut Table) {
    for (at, window) in WINDOWS.into_iter().enumerate() {
        for acks in [true, false] {
            if tls && !acks {
                continue;
            }
            let mode = if acks {
                "all acknowledged"
            } else {
                "XMPP without acknowledgements"
            };
            let name = |what: &str| format!("relay, window {window}, {mode}: {what}");
            let (cpu, rate) = (name("server CPU for 1M messages"), name("throughput"));
            for (place, kind) in Kind::ALL.into_iter().enumerate() {
                // Ours is always acknowledged.
                let of_kind =
                    |side: &&Side| side.place == place && (side.acks == acks || kind == Kind::Ours);
                let value = |of: fn(&(f64, f64)) -> f64| match sides.iter().find(of_kind) {
                    Some(side) => match &side.failed {
                        None => Ok(median(side.found[at].iter().map(of).collect())),
                        Some(why) => Err(why.clone()),
                    },
                    None => Err(nodes[place].as_ref().err().cloned().unwrap_or_default()),
                };
                table.put((&cpu, "s", Better::Less), tls, kind, value(|found| found.0));
                table.put(
                    (&rate, "/s", Better::More),
                    tls,
                    kind,
                    value(|found| found.1),
                );
            }
            if acks {
                table.goal(&cpu, 10.0);
            }
        }
    }
}
