//! Memory of connections that are signed in, present, under stream management, and silent.

use std::time::Duration;

use anyhow::Result;

use super::node::{Kind, Node, Tls};
use super::side::{Load, users};
use super::table::{Better, Table};
use super::{Setup, told};
use crate::load::Nothing;

/// Opened before the baseline: what the first connections cost once is not charged to the rest.
const WARM_UP: usize = 200;

/// Bytes a connection: the first few, all, and by the slope between the two.
struct Found {
    few: f64,
    many: f64,
    slope: f64,
}

/// Measures one server after the other; each alone on the machine.
pub(super) fn measure(setup: &Setup, tls: Option<&Tls>, table: &mut Table) -> Result<()> {
    let plan = &setup.plan;
    let (few, many, seconds) = if tls.is_some() {
        plan.idle_tls
    } else {
        plan.idle
    };
    let of = |what: &str| format!("memory of an idle connection, {what}");
    let names = [
        of(&format!("first {few}")),
        of(&format!("{many}")),
        of(&format!("slope from {few} to {many}")),
    ];
    for kind in Kind::ALL {
        let found = told(kind, "idling", one(setup, kind, tls, (few, many, seconds)));
        let values = match found {
            Ok(found) => [Ok(found.few), Ok(found.many), Ok(found.slope)],
            Err(why) => [Err(why.clone()), Err(why.clone()), Err(why)],
        };
        for (name, value) in names.iter().zip(values) {
            table.put((name, "bytes", Better::Less), tls.is_some(), kind, value);
        }
    }
    if tls.is_none() {
        table.goal(&names[1], 12.0);
    }
    Ok(())
}

fn one(
    setup: &Setup,
    kind: Kind,
    tls: Option<&Tls>,
    (few, many, seconds): (usize, usize, u64),
) -> Result<Found> {
    let all = many + WARM_UP;
    let node = Node::start(kind, &setup.common, setup.dir.path(), all, tls)?;
    let mut load = Load::new(&node, all, true)?;
    load.connect(users(0, WARM_UP)?, &mut Nothing)?;
    let base = rest(&node, &mut load, seconds.min(5))?;
    load.connect(users(WARM_UP, few)?, &mut Nothing)?;
    let first = rest(&node, &mut load, seconds / 2)?;
    load.connect(users(WARM_UP + few, many - few)?, &mut Nothing)?;
    let last = rest(&node, &mut load, seconds)?;
    node.check()?;
    Ok(Found {
        few: (first - base) / few as f64,
        many: (last - base) / many as f64,
        slope: (last - first) / (many - few) as f64,
    })
}

/// Idles, so that collectors of garbage can collect it; returns the least memory in that time, which
/// favours servers that collect.
fn rest(node: &Node, load: &mut Load, seconds: u64) -> Result<f64> {
    let mut least = u64::MAX;
    for _ in 0..=seconds {
        load.run(&mut Nothing, Duration::from_secs(1))?;
        least = least.min(node.usage()?.rss_bytes);
    }
    Ok(least as f64)
}
