//! A worker: runs its share of the users and says how it goes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::words::{Order, Task, Word};
use crate::run::{Finished, Target, Watch, Wish, watched};
use crate::{Ground, Roster, Second, SwarmError};

#[derive(Debug, Default)]
struct Told {
    begin: AtomicBool,
    end: AtomicBool,
    alone: AtomicBool,
}

struct Reporter<'a, W> {
    output: &'a mut W,
    told: Arc<Told>,
    ready: bool,
}

impl<W: Write> Reporter<'_, W> {
    fn say(&mut self, word: &Word) {
        if say(self.output, word).is_err() {
            // Whoever should hear it is gone.
            self.told.alone.store(true, Ordering::Relaxed);
        }
    }
}

fn say(output: &mut impl Write, word: &Word) -> io::Result<()> {
    let mut line = serde_json::to_vec(word).map_err(io::Error::other)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}

impl<W: Write> Watch for Reporter<'_, W> {
    fn second(&mut self, second: Second) {
        self.say(&Word::Second(Box::new(second)));
    }

    fn may_begin(&mut self) -> bool {
        if !self.ready {
            self.ready = true;
            self.say(&Word::Ready);
        }
        self.told.begin.load(Ordering::Relaxed)
    }

    fn wish(&mut self) -> Wish {
        if self.told.alone.load(Ordering::Relaxed) {
            Wish::Stop
        } else if self.told.end.load(Ordering::Relaxed) {
            Wish::End
        } else {
            Wish::GoOn
        }
    }
}

/// Does what the first line of `input` says, and says on `output` how it goes. `prepare` is asked
/// before, for what the process needs.
///
/// # Errors
/// When the pipes are not those of a coordinating process. What else goes wrong is said on `output`.
pub fn work<E: ToString>(
    input: impl Read + Send + 'static,
    mut output: impl Write,
    prepare: impl FnOnce(&Task) -> Result<(), E>,
) -> Result<(), SwarmError> {
    let mut input = BufReader::new(input);
    let mut line = String::new();
    input
        .read_line(&mut line)
        .map_err(SwarmError::io("reading the task"))?;
    let task: Task = serde_json::from_str(&line)
        .map_err(|error| SwarmError::io("reading the task")(io::Error::other(error)))?;
    let told = Arc::new(Told::default());
    let listening = Arc::clone(&told);
    // It ends with the process: nothing else can end the wait for a line.
    thread::spawn(move || listen(input, &listening));
    let done = prepare(&task).map_err(|error| error.to_string());
    let done = done.and_then(|()| {
        let mut reporter = Reporter {
            output: &mut output,
            told,
            ready: false,
        };
        let finished = task
            .roster()
            .and_then(|roster| task.run(roster, &mut reporter));
        finished.map_err(|error| error.to_string())
    });
    let last = match done {
        Ok(finished) => Word::Finished(Box::new(finished)),
        Err(what) => Word::Failed(what),
    };
    say(&mut output, &last).map_err(SwarmError::io("telling the end"))
}

fn listen(input: impl BufRead, told: &Told) {
    for line in input.lines() {
        match line.map(|line| serde_json::from_str(&line)) {
            Ok(Ok(Order::Begin)) => told.begin.store(true, Ordering::Relaxed),
            Ok(Ok(Order::End)) => told.end.store(true, Ordering::Relaxed),
            _ => break,
        }
    }
    told.alone.store(true, Ordering::Relaxed);
}

impl Task {
    /// Makes its users.
    ///
    /// # Errors
    /// When the admin API does not answer, or refuses.
    pub fn roster(&self) -> Result<Roster, SwarmError> {
        let users = self.scenario.users as usize;
        let names = (&*self.prefix, &*self.device);
        let roster = self.admin.create(names, users, users)?;
        Ok(roster.devices(self.scenario.devices))
    }

    /// Does it in this process.
    ///
    /// # Errors
    /// When the run cannot go on.
    pub fn run(&self, roster: Roster, watch: &mut dyn Watch) -> Result<Finished, SwarmError> {
        self.run_on(Ground::default(), roster, watch)
    }

    /// The same on a ground of its own: a server that ends with the run, faults.
    ///
    /// # Errors
    /// As [`Task::run`], and when the faults asked for cannot be had.
    pub fn run_on(
        &self,
        ground: Ground,
        roster: Roster,
        watch: &mut dyn Watch,
    ) -> Result<Finished, SwarmError> {
        let target = Target {
            sources: self.sources,
            ..Target::new(self.server)
        };
        watched(ground, &self.scenario, roster, target, watch)
    }
}
