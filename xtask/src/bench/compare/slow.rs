//! Many write to one who does not read: what it costs the server, and what others feel of it.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::node::{Kind, Node};
use super::side::{Load, users};
use super::table::{Better, Table};
use super::works::SlowReader;
use super::{Setup, told};
use crate::load::Nothing;

const SENDERS: usize = 50;
/// Of the pair, and of those who write to the slow reader.
const BODY_BYTES: (usize, usize) = (200, 2_000);
const PAIR_EVERY_US: u64 = 10_000;
/// A thousand messages a second in all: less than any of the servers can carry.
const SENDER_EVERY_US: u64 = 50_000;
const SLICE: Duration = Duration::from_millis(250);
/// The reader has everything when nothing has come for so long.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

struct Found {
    grown: f64,
    quiet_ms: f64,
    busy_ms: f64,
    work: SlowReader,
}

type Value = fn(&Found) -> f64;

/// Measures one server after the other.
pub(super) fn measure(setup: &Setup, table: &mut Table) -> Result<()> {
    for kind in Kind::ALL {
        let found = told(kind, "a slow reader", one(setup, kind));
        let of = |of: fn(&Found) -> f64| found.as_ref().map(of).map_err(Clone::clone);
        let rows: [(&str, &'static str, Value); 4] = [
            ("slow reader: memory the server grew by", "MiB", |found| {
                found.grown
            }),
            ("slow reader: others' latency before, p99", "ms", |found| {
                found.quiet_ms
            }),
            (
                "slow reader: others' latency meanwhile, p99",
                "ms",
                |found| found.busy_ms,
            ),
            (
                "slow reader: accepted for it and never delivered",
                "messages",
                |found| found.work.book.missing as f64,
            ),
        ];
        for (name, unit, value) in rows {
            table.put((name, unit, Better::Less), false, kind, of(value));
        }
        if let Ok(found) = &found {
            remark(kind, &found.work, table);
        }
    }
    Ok(())
}

fn remark(kind: Kind, work: &SlowReader, table: &mut Table) {
    let name = kind.name();
    let accepted = work.book.accepted_total;
    let mut text = format!("Slow reader: {name} accepted {accepted} messages for it");
    if work.late > 0 {
        text.push_str(&format!(
            "; {} more were due while 64 of their sender's were unanswered, and were not sent",
            work.late
        ));
    }
    if let Some(why) = &work.ended {
        text.push_str(&format!("; its connection ended ({why})"));
    }
    if let Some(why) = &work.refused {
        text.push_str(&format!("; some came back ({why})"));
    }
    text.push('.');
    table.remark(text);
}

fn one(setup: &Setup, kind: Kind) -> Result<Found> {
    let (before_s, during_s) = setup.plan.slow;
    let all = 3 + SENDERS;
    let node = Node::start(kind, &setup.common, setup.dir.path(), all, None)?;
    let mut load = Load::new(&node, all, true)?;
    load.connect(users(0, all)?, &mut Nothing)?;
    node.calm()?;
    let mut work = SlowReader::new(all, BODY_BYTES);
    let reader = SlowReader::READER..SlowReader::READER + 1;
    let reads_in = Duration::from_secs(before_s + during_s + 1);
    load.each(reader.clone(), &mut work, |_, user| {
        user.pause_until(user.now_us() + reads_in.as_micros() as u64);
        Ok(())
    })?;
    work.interval_us = (PAIR_EVERY_US, 0);
    load.each(0..1, &mut work, SlowReader::begin)?;
    load.run(&mut work, Duration::from_secs(before_s))?;
    let quiet = std::mem::take(&mut work.latency);

    let before = node.usage()?.rss_bytes;
    let mut most = before;
    work.interval_us = (PAIR_EVERY_US, SENDER_EVERY_US);
    load.each(users(3, SENDERS)?, &mut work, SlowReader::begin)?;
    let until = Instant::now() + Duration::from_secs(during_s);
    while Instant::now() < until {
        load.run(&mut work, SLICE)?;
        most = most.max(node.usage()?.rss_bytes);
    }
    let busy = std::mem::take(&mut work.latency);

    // Now it reads; when its connection has ended, it comes again.
    work.interval_us = (0, 0);
    load.run(&mut work, Duration::from_secs(2))?;
    let moved = |work: &SlowReader| work.book.arrived_total;
    let mut caught_up = load.finish(&mut work, moved, PATIENCE);
    if work.ended.is_some() {
        load.connect(reader, &mut work)?;
        caught_up = load.finish(&mut work, moved, PATIENCE);
    }
    if let Err(e) = caught_up {
        eprintln!("{}: the slow reader: {e:#}", kind.name());
    }
    node.check()?;
    let ms = |latency: &stonechat_swarm::Latency| latency.percentile(99.0).as_secs_f64() * 1e3;
    Ok(Found {
        grown: (most - before) as f64 / 1024.0 / 1024.0,
        quiet_ms: ms(&quiet),
        busy_ms: ms(&busy),
        work,
    })
}
