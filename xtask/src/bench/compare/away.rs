//! Messages to users who are away: how fast they are taken, and how fast they are fetched.

use std::time::Duration;

use anyhow::Result;

use super::node::{Kind, Node};
use super::side::{Load, users};
use super::table::{Better, Head, Table};
use super::works::Away;
use super::{BODY_BYTES, Setup, median, told};
use crate::load::Nothing;

const SENDERS: usize = 200;
const RECIPIENTS: usize = 1_000;
/// Messages each sender has unanswered.
const WINDOW: usize = 16;
const PATIENCE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(90));

const ACCEPTED: &str = "offline messages: accepted";
const ACCEPTED_CPU: &str = "offline messages: server CPU for 1M accepted";
const FETCHED: &str = "offline messages: fetched";
const FETCHED_CPU: &str = "offline messages: server CPU for 1M fetched";

struct Side {
    node: Node,
    load: Load,
    work: Away,
    rounds: Vec<Found>,
}

/// What a round found.
#[derive(Debug, Clone, Copy)]
struct Found {
    accepted_per_s: f64,
    accepted_cpu_s: f64,
    drained_per_s: f64,
    drained_cpu_s: f64,
}

type Value = fn(&Found) -> f64;

/// Measures all servers by turns.
pub(super) fn measure(setup: &Setup, table: &mut Table) -> Result<()> {
    let mut sides: Vec<(Kind, Result<Side, String>)> = Kind::ALL
        .into_iter()
        .map(|kind| (kind, told(kind, "starting", Side::start(setup, kind))))
        .collect();
    for _ in 0..setup.plan.rounds {
        for (kind, side) in &mut sides {
            if let Ok(found) = side
                && let Err(why) = told(*kind, "offline messages", found.round(setup))
            {
                *side = Err(why);
            }
        }
    }
    for (kind, side) in sides {
        let of = |of: fn(&Found) -> f64| match &side {
            Ok(side) => Ok(median(side.rounds.iter().map(of).collect())),
            Err(why) => Err(why.clone()),
        };
        let rows: [(Head<'_>, Value); 4] = [
            ((ACCEPTED, "/s", Better::More), |found| found.accepted_per_s),
            ((ACCEPTED_CPU, "s", Better::Less), |found| {
                found.accepted_cpu_s
            }),
            ((FETCHED, "/s", Better::More), |found| found.drained_per_s),
            ((FETCHED_CPU, "s", Better::Less), |found| {
                found.drained_cpu_s
            }),
        ];
        for (head, value) in rows {
            table.put(head, false, kind, of(value));
        }
        if let Ok(side) = &side {
            if let Some(why) = &side.work.refused {
                table.remark(format!("{} refused offline messages: {why}", kind.name()));
            }
            if side.work.book.doubled > 0 {
                table.remark(format!(
                    "{} delivered {} offline messages twice.",
                    kind.name(),
                    side.work.book.doubled
                ));
            }
        }
    }
    table.goal(ACCEPTED, 5.0);
    Ok(())
}

impl Side {
    fn start(setup: &Setup, kind: Kind) -> Result<Self> {
        let all = SENDERS + RECIPIENTS;
        let node = Node::start(kind, &setup.common, setup.dir.path(), all, None)?;
        let mut load = Load::new(&node, all, true)?;
        load.connect(users(0, SENDERS)?, &mut Nothing)?;
        Ok(Self {
            node,
            load,
            work: Away::new(SENDERS, users(SENDERS, RECIPIENTS)?, BODY_BYTES),
            rounds: Vec::new(),
        })
    }

    fn round(&mut self, setup: &Setup) -> Result<()> {
        let (before, accepted) = (self.node.usage()?, self.work.book.accepted_total);
        // The engine's clock stands still between its turns.
        self.load.run(&mut Nothing, Duration::from_millis(1))?;
        let began_us = self.load.now_us();
        self.work.until_us = began_us + (setup.plan.seconds * 1e6) as u64;
        self.load
            .each(users(0, SENDERS)?, &mut self.work, |work, user| {
                (0..WINDOW).try_for_each(|_| work.send(user))
            })?;
        self.load
            .finish(&mut self.work, |work| work.book.accepted_total, PATIENCE)?;
        let seconds = (self.work.last_us - began_us) as f64 / 1e6;
        let accepted = (self.work.book.accepted_total - accepted) as f64;
        // What was accepted and is not yet stored is charged to those who accepted it.
        self.node.calm()?;
        let stored = self.node.usage()?;

        let arrived = self.work.book.arrived_total;
        self.work.until_us = 0;
        self.load.run(&mut Nothing, Duration::from_millis(1))?;
        let began_us = self.load.now_us();
        let back = users(SENDERS, RECIPIENTS)?;
        self.load.connect(back.clone(), &mut self.work)?;
        self.load
            .finish(&mut self.work, |work| work.book.arrived_total, PATIENCE)?;
        let drained = (self.work.book.arrived_total - arrived) as f64;
        let drain_s = (self.work.last_us - began_us) as f64 / 1e6;
        self.load.run(&mut Nothing, Duration::from_millis(1_100))?;
        let cpu_s = self.node.usage()?.since(stored).cpu_s;
        self.load.drop_connections(back);
        self.node.calm()?;
        self.node.check()?;
        self.rounds.push(Found {
            accepted_per_s: accepted / seconds,
            accepted_cpu_s: stored.since(before).cpu_s * 1e6 / accepted,
            drained_per_s: drained / drain_s,
            drained_cpu_s: cpu_s * 1e6 / drained,
        });
        Ok(())
    }
}
