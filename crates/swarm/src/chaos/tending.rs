//! The run's side of chaos: carries out what the operator asks of the users' connections, and keeps what
//! it says.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::explained::explained;
use super::operator::{Operator, Word};
use super::plan::{kinds, plan};
use super::{ChaosKind, ChaosOptions, Hands, LeftOut, Order, Pulse};
use crate::people::People;
use crate::spawn::Spawned;
use crate::{Admin, Engine, Event, Roster, Scenario, SwarmError, Target};

/// A back-off beyond this would keep users away from the next faults.
const BACKOFF_US_MAX: u64 = 4_000_000;

/// What a run has beside its users: nothing, unless the server is the run's own or is to be hurt.
#[derive(Debug, Default)]
pub struct Ground {
    /// A server that is to end with the run.
    pub spawned: Option<Spawned>,
    /// Faults, and the admin API that some of them take.
    pub chaos: Option<(ChaosOptions, Admin)>,
    /// Of a user who takes no part, for connections that misbehave while signed in.
    pub strangers: Option<Roster>,
}

/// What came of chaos.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) events: Vec<Event>,
    pub(crate) left_out: Vec<LeftOut>,
    pub(crate) seed: Option<u64>,
    /// Where the server's log is, when it is worth a look.
    pub(crate) log: Option<PathBuf>,
    /// The server's process, when it is another than before.
    pub(crate) server_pid: Option<u32>,
}

/// The ground while a run is on it.
#[derive(Debug)]
pub(crate) struct Tending {
    pub(crate) told: Told,
    spawned: Option<Spawned>,
    operator: Option<Operator>,
    /// Until the users begin.
    ready: Option<(ChaosOptions, Hands, Receiver<Order>)>,
    made: Vec<ChaosKind>,
    misconduct: Vec<String>,
    pulse: Arc<Pulse>,
}

impl Tending {
    /// Prepares what `ground` asks for. Nothing is hurt yet.
    pub(crate) fn new(ground: Ground, target: Target, roster: &Roster, users: u32) -> Self {
        let mut this = Self {
            told: Told::default(),
            spawned: ground.spawned,
            operator: None,
            ready: None,
            made: Vec::new(),
            misconduct: Vec::new(),
            pulse: Arc::default(),
        };
        if let Some((options, admin)) = ground.chaos {
            let (orders, ordered) = channel();
            this.told.seed = Some(options.seed);
            let hands = Hands {
                server: target.server,
                admin,
                spawned: this.spawned.take(),
                strangers: ground.strangers,
                names: roster.names().clone(),
                users,
                orders,
                pulse: Arc::clone(&this.pulse),
                over_at: None,
            };
            this.ready = Some((options, hands, ordered));
        }
        this
    }

    /// Whether the run has to come back often.
    pub(crate) fn is_busy(&self) -> bool {
        self.operator.is_some()
    }

    /// The users begin, and so do the faults.
    pub(crate) fn begin(
        &mut self,
        scenario: &Scenario,
        people: &mut People,
        began: Instant,
    ) -> Result<(), SwarmError> {
        let Some((options, hands, orders)) = self.ready.take() else {
            return Ok(());
        };
        let (possible, left_out) = kinds(&options.only, |need| hands.missing(need));
        if possible.is_empty() {
            let why = left_out.first().map_or("none was named", |out| &out.why);
            return Err(SwarmError::Chaos(format!(
                "no fault can be had here: {why}"
            )));
        }
        self.told.left_out = left_out;
        people.pulse = Some(Arc::clone(&self.pulse));
        people.backoff_us_max = BACKOFF_US_MAX;
        let duration = Duration::from_secs_f64(scenario.duration_s);
        let plan = plan(&options, &possible, duration);
        let lively = scenario.traffic.is_some();
        self.operator = Some(Operator::begin(hands, orders, plan, lively, began)?);
        Ok(())
    }

    /// Does what was asked, hears what was said.
    pub(crate) fn tend(
        &mut self,
        engine: &mut Engine,
        people: &mut People,
        devices: u32,
    ) -> Result<(), SwarmError> {
        let Some(operator) = &self.operator else {
            return Ok(());
        };
        while let Ok(order) = operator.orders.try_recv() {
            let mut hit = 0;
            engine.each(0..devices, people, |people, user| {
                hit += u32::from(people.disturb(user, &order));
                Ok(())
            })?;
            // The operator waits for nothing else.
            let _ = order.answer.send(hit);
        }
        let words: Vec<_> = operator.words.try_iter().collect();
        self.hear(words);
        Ok(())
    }

    /// Begins no more faults. Whether the last one is over.
    pub(crate) fn calm(&mut self) -> bool {
        let Some(mut operator) = self.operator.take() else {
            return true;
        };
        operator.stop();
        if !operator.is_done() {
            self.operator = Some(operator);
            return false;
        }
        let words: Vec<_> = operator.words.try_iter().collect();
        self.hear(words);
        match operator.finish() {
            Some(hands) => self.spawned = hands.spawned,
            None => self.misconduct.push("the operator panicked".to_owned()),
        }
        true
    }

    fn hear(&mut self, words: Vec<Word>) {
        for word in words {
            match word {
                Word::Begins(kind) if self.made.contains(&kind) => {}
                Word::Begins(kind) => self.made.push(kind),
                Word::Over(event) => self.told.events.push(event),
                Word::Runs(pid) => self.told.server_pid = Some(pid),
                Word::Misconduct(what) => self.misconduct.push(what),
            }
        }
    }

    /// Ends the server, if it is the run's own, and tells what it did that nothing explains.
    pub(crate) fn end(&mut self) -> Vec<String> {
        let Some(spawned) = &mut self.spawned else {
            return std::mem::take(&mut self.misconduct);
        };
        match spawned.terminate() {
            Ok(status) if status.success() => {}
            Ok(status) => self
                .misconduct
                .push(format!("at the end it ended with {status}")),
            Err(error) => self.misconduct.push(format!("at the end: {error}")),
        }
        let (lines, count) = spawned.errors(|line| explained(line, &self.made));
        let more = count - lines.len() as u64;
        self.misconduct.extend(lines);
        if more > 0 {
            let what = format!("and {more} more lines with errors, see the log");
            self.misconduct.push(what);
        }
        self.told.log = Some(spawned.log().to_owned());
        std::mem::take(&mut self.misconduct)
    }

    /// Nobody needs what the server left.
    pub(crate) fn discard(&mut self) {
        if let Some(spawned) = self.spawned.take() {
            self.told.log = None;
            spawned.discard();
        }
    }
}
