//! Signing in: from the TCP connection to a session that others can reach.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::node::{Kind, Node};
use super::side::{Load, users};
use super::table::{Better, Table};
use super::{Setup, median, told};
use crate::load::Nothing;

type Side = (Node, Load);

/// Measures all servers by turns.
pub(super) fn measure(setup: &Setup, table: &mut Table) -> Result<()> {
    let mut sides: Vec<(Kind, Result<Side, String>)> = Kind::ALL
        .into_iter()
        .map(|kind| (kind, told(kind, "starting", start(setup, kind))))
        .collect();
    let mut rounds = vec![Vec::new(); sides.len()];
    for round in 0..=setup.plan.rounds {
        for (place, (kind, side)) in sides.iter_mut().enumerate() {
            let Ok((node, load)) = side else { continue };
            match told(*kind, "signing in", one(setup, node, load)) {
                // The first is to warm up.
                Ok(found) if round > 0 => rounds[place].push(found),
                Ok(_) => {}
                Err(why) => *side = Err(why),
            }
        }
    }
    for ((kind, side), found) in sides.into_iter().zip(rounds) {
        let of = |of: fn(&(f64, f64)) -> f64| match &side {
            Ok(_) => Ok(median(found.iter().map(of).collect())),
            Err(why) => Err(why.clone()),
        };
        let per_s = ("sign-ins, 128 at a time", "/s", Better::More);
        table.put(per_s, false, kind, of(|found| found.0));
        let cpu = ("server CPU of a sign-in", "µs", Better::Less);
        table.put(cpu, false, kind, of(|found| found.1));
    }
    Ok(())
}

fn start(setup: &Setup, kind: Kind) -> Result<Side> {
    let count = setup.plan.sign_ins;
    let node = Node::start(kind, &setup.common, setup.dir.path(), count, None)?;
    let load = Load::new(&node, count, true)?;
    Ok((node, load))
}

/// Signs everybody in and drops the connections. Returns sign-ins a second, and microseconds of CPU.
fn one(setup: &Setup, node: &Node, load: &mut Load) -> Result<(f64, f64)> {
    let count = setup.plan.sign_ins;
    let before = node.usage()?;
    let began = Instant::now();
    load.connect(users(0, count)?, &mut Nothing)?;
    let seconds = began.elapsed().as_secs_f64();
    // What belongs to it and comes a moment later.
    load.run(&mut Nothing, Duration::from_millis(300))?;
    let cpu_s = node.usage()?.since(before).cpu_s;
    load.drop_connections(users(0, count)?);
    node.calm()?;
    node.check()?;
    Ok((count as f64 / seconds, cpu_s * 1e6 / count as f64))
}
