//! Rounds of crashes: load, a crash at a random moment, a restart, and the verdict.
//!
//! State is carried over: the next round goes on where the last one recovered, with the same
//! users, devices and truth.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use super::cache::Loss;
use super::facts::{Breach, Counts};
use super::fleet::{Fleet, FleetOptions};
use super::rig::{Moment, Rig};
use crate::NodeOptions;

/// Longest wait for a round's messages to arrive after the restart.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// What kind of crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process ends; what it wrote stays.
    Kill,
    /// The machine ends; only what reached the disk stays.
    PowerCut,
    /// The machine ends; only what the disk was told to flush is sure to stay.
    LossyPowerCut,
}

/// A run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// What kind of crash.
    pub crash: Crash,
    /// How many.
    pub rounds: u32,
    /// Where the randomness comes from.
    pub seed: u64,
    /// Users.
    pub users: usize,
    /// Sends of a device in a round, at most.
    pub sends_max: usize,
    /// Where images are kept, instead of the directory for temporary files.
    pub dir: Option<PathBuf>,
    /// Cut where the database has most to lose, instead of here and there.
    pub at_database: bool,
    /// Where the disks of a round are left for a look when a promise was broken in it.
    pub keep: Option<PathBuf>,
}

/// One round.
#[derive(Debug, Clone)]
pub struct Round {
    /// Its number, from 1.
    pub number: u32,
    /// Which settings the store had.
    pub store: &'static str,
    /// How long the load had run.
    pub loaded: Duration,
    /// Crashes in it: one in mid-load, and perhaps some during the starts that followed.
    pub crashes: u32,
    /// What happened in it.
    pub counts: Counts,
    /// Breaches in it.
    pub breaches: u64,
    /// What each crash lost that was not flushed, where something can be lost.
    pub cuts: Vec<String>,
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Rounds that were run.
    pub rounds: u32,
    /// Crashes, those during starts included.
    pub crashes: u32,
    /// Figures.
    pub counts: Counts,
    /// How often each promise was broken, by name.
    pub breaches: Value,
    /// All breaches.
    pub breaches_total: u64,
    /// The first of them in words.
    pub notes: Vec<String>,
    /// End of the server's log when there was a breach.
    pub log: String,
    /// Where the disks are that the last starts found, when there was a breach and they were to be kept.
    pub evidence: Option<PathBuf>,
}

/// Settings of the store, so that crashes hit all it does: by default little but the journal, then
/// moving house all the time, then segments that come and go; and moving house with so few commits of the
/// journal that the database has the disk to itself in between, with no flush but its own.
const STORES: [(&str, &[(&str, &str)]); 4] = [
    ("default", &[]),
    (
        "moving",
        &[
            ("storage.segment_bytes_max", "262144"),
            ("storage.prepare_from_bytes", "32768"),
            ("storage.segment_age_ms_max", "200"),
            ("storage.journal_bytes_max", "4194304"),
            ("storage.migrate_after_ms", "50"),
        ],
    ),
    (
        "small",
        &[
            ("storage.segment_bytes_max", "65536"),
            ("storage.prepare_from_bytes", "8192"),
            ("storage.segment_age_ms_max", "100"),
            ("storage.journal_bytes_max", "1048576"),
            ("storage.migrate_after_ms", "10"),
        ],
    ),
    (
        "seldom",
        &[
            ("storage.segment_bytes_max", "4194304"),
            ("storage.prepare_from_bytes", "0"),
            ("storage.journal_bytes_max", "33554432"),
            ("storage.migrate_after_ms", "10"),
            ("storage.commit_interval_ms", "500"),
            ("storage.lazy_flush_ms", "2000"),
        ],
    ),
];

/// The one that keeps the database busiest.
const MOVING: usize = 1;

fn node_options(store: usize) -> NodeOptions {
    let (_, settings) = STORES[store];
    let options = NodeOptions::new().set("storage.reserve_bytes", "1048576");
    let set = |options: NodeOptions, (key, value): &(&str, &str)| options.set(key, value);
    settings.iter().fold(options, set)
}

/// Runs the rounds. `each` hears of every round; setting `interrupted` ends the run after the round
/// under way.
///
/// # Errors
/// When it cannot be done here: what is missing. A broken promise is no error but in the summary.
pub fn run(
    options: &RunOptions,
    interrupted: &AtomicBool,
    mut each: impl FnMut(&Round),
) -> Result<Summary, String> {
    let mut rig = Rig::new(options, node_options(0))?;
    let early = first_starts(&mut rig, options.seed).map_err(|error| error.to_string())?;
    rig.node.try_launch()?;
    let mut fleet = Fleet::muster(
        &rig.node,
        FleetOptions {
            users: options.users,
            sends_max: options.sends_max,
            seed: options.seed,
            disk_fails: false,
        },
    );
    let mut done = 0;
    let mut crashes = early;
    for number in 1..=options.rounds {
        let last = number == options.rounds || interrupted.load(Ordering::Relaxed);
        let round = round(&mut rig, &mut fleet, options, number, last)?;
        done += 1;
        crashes += round.crashes;
        each(&round);
        if last || round.breaches > 0 {
            break;
        }
        rig.went_well().map_err(|error| error.to_string())?;
    }
    let truth = fleet.truth();
    let (log, evidence) = match truth.breaches_total() {
        0 => (String::new(), None),
        _ => {
            let evidence = rig.evidence().map_err(|error| error.to_string())?;
            (rig.node.log_tail(), evidence)
        }
    };
    Ok(Summary {
        rounds: done,
        crashes,
        counts: truth.counts(),
        breaches: truth.breaches_json(),
        breaches_total: truth.breaches_total(),
        notes: truth.notes().to_vec(),
        log,
        evidence,
    })
}

/// Crashes before the server was ever there: what it makes first must not stand in its own way. How
/// many there were.
fn first_starts(rig: &mut Rig, seed: u64) -> io::Result<u32> {
    let mut random = SmallRng::seed_from_u64(seed);
    let starts = random.random_range(0..4);
    for _ in 0..starts {
        rig.node.spawn();
        std::thread::sleep(Duration::from_millis(random.random_range(0..80)));
        rig.crash(Moment {
            bytes: 1 << random.random_range(0..22),
            patience: Duration::from_millis(80),
            loss: None,
        })?;
    }
    Ok(starts)
}

fn round(
    rig: &mut Rig,
    fleet: &mut Fleet,
    options: &RunOptions,
    number: u32,
    last: bool,
) -> Result<Round, String> {
    let failed = |error: io::Error| error.to_string();
    let before = fleet.truth().counts();
    let breaches_before = fleet.truth().breaches_total();
    let due = fleet.due(number, last);
    let span = fleet.moment(100, 900);
    let began = Instant::now();
    let load = fleet.load(&rig.node, due);
    // Not a wait for anything: the crash comes when it comes.
    std::thread::sleep(span);
    let loaded = began.elapsed();
    let mut cuts = Vec::new();
    let moment = a_moment(fleet, options.at_database, 3000);
    cuts.extend(rig.crash(moment).map_err(failed)?);
    fleet.unload(load);
    let mut crashes = 1;
    let aim = options.at_database;
    let store = match aim {
        true if !number.is_multiple_of(4) => MOVING,
        true => 0,
        false => fleet.below(STORES.len()),
    };
    rig.node.reconfigure(|_| node_options(store));
    // Crashes come in company: some while the server is on its way up again.
    while crashes < 4 && (fleet.one_in(3) || (aim && fleet.one_in(2))) {
        rig.node.spawn();
        std::thread::sleep(fleet.moment(0, 120));
        // And shortly after: the database takes over from the journal while nobody sends.
        let moment = a_moment(fleet, aim, 1000);
        cuts.extend(rig.crash(moment).map_err(failed)?);
        crashes += 1;
    }
    match rig.node.try_launch() {
        Ok(()) => {
            fleet.settle(&rig.node, due, SETTLE_MAX);
        }
        Err(why) => fleet.truth().breach(Breach::Other, || why),
    }
    for line in rig.node.take_unexpected_log() {
        fleet.truth().breach(Breach::Other, || line);
    }
    let truth = fleet.truth();
    Ok(Round {
        number,
        store: STORES[store].0,
        loaded,
        crashes,
        counts: truth.counts().since(before),
        breaches: truth.breaches_total() - breaches_before,
        cuts,
    })
}

/// What is to be lost, at least, if it comes to that: the megabytes come when the database is busy and
/// the journal is not.
const BYTES: [usize; 6] = [1, 1 << 20, 3 << 20, 5 << 20, 8 << 20, 12 << 20];

/// A moment for a crash.
fn a_moment(fleet: &mut Fleet, aim: bool, patience_ms_max: u64) -> Moment {
    let bytes = if aim { &BYTES[2..] } else { &BYTES };
    // What leaves a hole in a log: something is missing, and later things are not.
    let holes = [Loss::Earlier, Loss::One, Loss::Writes];
    Moment {
        bytes: bytes[fleet.below(bytes.len())],
        patience: fleet.moment(0, patience_ms_max),
        loss: aim.then(|| holes[fleet.below(holes.len())]),
    }
}

impl Round {
    /// For people.
    pub fn line(&self, crash: Crash) -> String {
        let what = match crash {
            Crash::Kill => "kill",
            Crash::PowerCut | Crash::LossyPowerCut => "cut",
        };
        let Counts {
            sent,
            accepted,
            duplicates,
            delivered,
            redelivered,
            receipts,
            ..
        } = self.counts;
        let verdict = match self.breaches {
            0 => "ok".to_owned(),
            n => format!("{n} BREACHES"),
        };
        let mut line = format!(
            "{what} {:>3}  store {:<7}  after {:>3} ms, {} in all  sent {sent:>5}  accepted {accepted:>5} \
             (again {duplicates:>3})  delivered {delivered:>5} (again {redelivered:>4})  receipts \
             {receipts:>4}  {verdict}",
            self.number,
            self.store,
            self.loaded.as_millis(),
            self.crashes,
        );
        for cut in &self.cuts {
            line.push_str("\n         lost ");
            line.push_str(cut);
        }
        line
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "round": self.number,
            "store": self.store,
            "loaded_ms": u64::try_from(self.loaded.as_millis()).unwrap_or(u64::MAX),
            "crashes": self.crashes,
            "counts": counts_json(self.counts),
            "breaches": self.breaches,
            "cuts": self.cuts,
        })
    }
}

fn counts_json(counts: Counts) -> Value {
    json!({
        "sent": counts.sent,
        "accepted": counts.accepted,
        "duplicates": counts.duplicates,
        "refused": counts.refused,
        "put_off": counts.put_off,
        "delivered": counts.delivered,
        "redelivered": counts.redelivered,
        "receipts": counts.receipts,
    })
}

impl Summary {
    /// For people.
    pub fn text(&self) -> String {
        let breaches = self.breaches.as_object().map(|by_name| {
            let said = by_name.iter().map(|(name, n)| format!("{name} {n}"));
            said.collect::<Vec<_>>().join(", ")
        });
        let mut text = format!(
            "{} rounds, {} crashes: accepted {}, delivered {}; {}",
            self.rounds,
            self.crashes,
            self.counts.accepted,
            self.counts.delivered,
            breaches.unwrap_or_default()
        );
        for note in &self.notes {
            text.push_str("\n  ");
            text.push_str(note);
        }
        if !self.log.is_empty() {
            text.push('\n');
            text.push_str(&self.log);
        }
        if let Some(dir) = &self.evidence {
            text.push_str(&format!(
                "\nthe disks, in order of the crashes, and the log: {}",
                dir.display()
            ));
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "rounds": self.rounds,
            "crashes": self.crashes,
            "counts": counts_json(self.counts),
            "breaches": self.breaches,
            "notes": self.notes,
            "evidence": self.evidence,
        })
    }
}
