//! Crashes in mid-load, the short version: `cargo xtask powercut` and `cargo xtask kill` run as many
//! as there is time for.

use std::io::Write as _;
use std::sync::atomic::AtomicBool;

use stonechat_tests::crash::disk::DiskShelf;
use stonechat_tests::crash::{Crash, RunOptions, run};
use stonechat_tests::heavy;

fn rounds(rounds: u32, crash: Crash, seed: u64) {
    let _heavy = heavy();
    let options = RunOptions {
        crash,
        rounds,
        seed,
        users: 16,
        sends_max: 400,
        dir: None,
        at_database: false,
        keep: None,
    };
    let summary = run(&options, &AtomicBool::new(false), |round| {
        println!("{}", round.line(crash));
    });
    let summary = summary.expect("the rounds can be run");
    assert_eq!(summary.breaches_total, 0, "seed {seed}: {}", summary.text());
    assert_eq!(summary.rounds, rounds);
    // Idle rounds would prove nothing.
    let accepted = summary.counts.accepted;
    assert!(
        accepted > u64::from(rounds) * 50,
        "only {accepted} accepted"
    );
    assert!(summary.counts.receipts > 0);
}

#[test]
fn ten_kills_lose_double_and_reorder_nothing() {
    rounds(10, Crash::Kill, 1);
}

/// Skipped, with a word, where images cannot be mounted.
#[test]
fn ten_power_cuts_lose_double_and_reorder_nothing() {
    if let Err(missing) = DiskShelf::new(None) {
        // Past the capture of the test harness: tests/run.sh repeats it at its end.
        let _ = writeln!(std::io::stderr(), "NOT RUN: no power cuts here: {missing}");
        return;
    }
    rounds(10, Crash::PowerCut, 2);
}

/// Of a disk with a cache that loses, reorders and tears what was not flushed.
#[test]
fn five_lossy_power_cuts_lose_double_and_reorder_nothing() {
    if let Err(missing) = DiskShelf::lossy(None, 3) {
        let _ = writeln!(
            std::io::stderr(),
            "NOT RUN: no power cuts of a disk with a cache here: {missing}"
        );
        return;
    }
    rounds(5, Crash::LossyPowerCut, 3);
}
