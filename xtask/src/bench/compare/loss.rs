//! `kill -9` in the middle of messages to users who are away: what was accepted and is gone.

use std::time::Duration;

use anyhow::Result;

use super::node::{Kind, Node};
use super::side::{Load, users};
use super::table::{Better, Table};
use super::works::{Away, Book};
use super::{BODY_BYTES, Setup, told};
use crate::load::Nothing;

const SENDERS: usize = 20;
const RECIPIENTS: usize = 100;
const WINDOW: usize = 16;
/// Answers that the server had sent before its end are read within this.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// What has not come when nothing has come for so long is lost.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(60));

#[derive(Debug, Default)]
struct Found {
    accepted: u64,
    lost: u64,
    doubled: u64,
}

/// Measures one server after the other.
pub(super) fn measure(setup: &Setup, table: &mut Table) -> Result<()> {
    for (kind, rounds) in Kind::ALL.into_iter().zip(setup.plan.kills) {
        let found = told(kind, "kill -9", one(setup, kind, rounds));
        let lost = found.as_ref().map(|found| found.lost as f64);
        let lost_per_mille = found
            .as_ref()
            .map(|found| found.lost as f64 * 1e3 / found.accepted.max(1) as f64);
        let name = "kill -9: accepted messages lost";
        table.put(
            (name, "messages", Better::Less),
            false,
            kind,
            lost.map_err(Clone::clone),
        );
        table.put(
            ("kill -9: lost of 1,000 accepted", "", Better::Less),
            false,
            kind,
            lost_per_mille.map_err(Clone::clone),
        );
        if let Ok(found) = &found {
            let mut text = format!(
                "kill -9: {}, {rounds} kills in mid-load: {} of {} accepted messages lost",
                kind.name(),
                found.lost,
                found.accepted
            );
            if found.doubled > 0 {
                text.push_str(&format!(", {} delivered twice", found.doubled));
            }
            if kind == Kind::Ours {
                let verdict = match (found.lost, rounds >= 50) {
                    (0, true) => "target 0 lost in 50 kills: met",
                    (0, false) => "target 0 lost in 50 kills: too few kills to say",
                    _ => "target 0 lost in 50 kills: MISSED",
                };
                text.push_str(&format!(" ({verdict})"));
            }
            text.push('.');
            table.remark(text);
        }
    }
    Ok(())
}

fn one(setup: &Setup, kind: Kind, rounds: usize) -> Result<Found> {
    let all = SENDERS + RECIPIENTS;
    let mut node = Node::start(kind, &setup.common, setup.dir.path(), all, None)?;
    let mut work = Away::new(SENDERS, users(SENDERS, RECIPIENTS)?, BODY_BYTES);
    let mut found = Found::default();
    for round in 0..rounds {
        let mut load = Load::new(&node, all, true)?;
        load.connect(users(0, SENDERS)?, &mut Nothing)?;
        work.may_end = true;
        work.until_us = u64::MAX;
        load.each(users(0, SENDERS)?, &mut work, |work, user| {
            (0..WINDOW).try_for_each(|_| work.send(user))
        })?;
        // Another moment each time.
        let after = Duration::from_millis(500 + round as u64 * 389 % 1_000);
        load.run(&mut work, after)?;
        node.kill();
        // What it had answered counts as accepted; nothing more is sent.
        work.until_us = 1;
        load.run(&mut work, LAST_WORDS)?;
        drop(load);
        work.give_up();
        work.may_end = false;

        node.again(&setup.common)?;
        let mut load = Load::new(&node, all, true)?;
        load.connect(users(SENDERS, RECIPIENTS)?, &mut work)?;
        // What does not come is what is to be found out.
        let _ = load.finish(&mut work, |work| work.book.arrived_total, PATIENCE);
        // Acknowledgements that were put off.
        load.run(&mut Nothing, Duration::from_millis(1_100))?;
        found.accepted += work.book.accepted_total;
        found.lost += work.book.missing;
        found.doubled += work.book.doubled;
        work.book = Book::new(SENDERS);
    }
    node.check()?;
    Ok(found)
}
