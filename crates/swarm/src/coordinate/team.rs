//! The coordinating side: starts the workers, adds up what they say, ends them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use super::merge::merged;
use super::words::{Order, Task, Word};
use crate::run::{Finished, Watch, Wish};
use crate::{Second, SwarmError};

/// How often the person at the terminal is asked.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// A worker that is so many seconds behind is not waited for any more: its figures come later.
const BEHIND_MAX: usize = 15;

/// A process that runs a share of the users; it ends with this.
struct Worker {
    name: String,
    child: Child,
    orders: Option<ChildStdin>,
    ready: bool,
    seconds: u64,
    finished: Option<Finished>,
}

impl Worker {
    fn start(
        mut command: Command,
        task: &Task,
        name: &str,
    ) -> Result<(Self, ChildStdout), SwarmError> {
        // Ctrl-C is for the coordinating process alone.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(SwarmError::io("starting a process of the swarm"))?;
        let (orders, words) = (child.stdin.take(), child.stdout.take());
        let name = format!("{name} (pid {})", child.id());
        let mut worker = Self {
            name,
            child,
            orders,
            ready: false,
            seconds: 0,
            finished: None,
        };
        worker.tell(task);
        match words {
            Some(words) => Ok((worker, words)),
            None => Err(worker.error("it has no standard output")),
        }
    }

    /// A worker that hears nothing has ended; what it said last tells why.
    fn tell(&mut self, what: &impl serde::Serialize) {
        if let (Some(orders), Ok(mut line)) = (&mut self.orders, serde_json::to_vec(what)) {
            line.push(b'\n');
            let _ = orders.write_all(&line).and_then(|()| orders.flush());
        }
    }

    fn error(&self, what: impl Into<String>) -> SwarmError {
        SwarmError::Process {
            name: self.name.clone(),
            what: what.into(),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a worker said, or that it will say nothing more.
enum Heard {
    Word(Word),
    Nonsense(String),
    Silence,
}

fn listen(place: usize, words: ChildStdout, heard: &Sender<(usize, Heard)>) {
    for line in BufReader::new(words).lines() {
        let Ok(line) = line else { break };
        let said = match serde_json::from_str(&line) {
            Ok(word) => Heard::Word(word),
            Err(error) => Heard::Nonsense(error.to_string()),
        };
        if heard.send((place, said)).is_err() {
            return;
        }
    }
    let _ = heard.send((place, Heard::Silence));
}

struct Team<'a> {
    workers: Vec<Worker>,
    /// Seconds that not all have told of yet, by their number.
    seconds: BTreeMap<u64, Second>,
    told_end: bool,
    watch: &'a mut dyn Watch,
}

/// Runs each task in a process of its own, started by `command`, and makes one run of them all.
///
/// # Errors
/// When one of them cannot go on, or ends without having come to its end: it is named. The others are
/// ended then.
pub fn coordinate(
    tasks: &[Task],
    command: impl Fn() -> Command,
    watch: &mut dyn Watch,
) -> Result<Finished, SwarmError> {
    let (sender, heard) = channel();
    let mut workers = Vec::new();
    for (place, task) in tasks.iter().enumerate() {
        let name = format!("process {} of {}", place + 1, tasks.len());
        let (worker, words) = Worker::start(command(), task, &name)?;
        let sender = sender.clone();
        thread::spawn(move || listen(place, words, &sender));
        workers.push(worker);
    }
    drop(sender);
    let team = Team {
        workers,
        seconds: BTreeMap::new(),
        told_end: false,
        watch,
    };
    team.run(&heard)
}

impl Team<'_> {
    fn run(mut self, heard: &Receiver<(usize, Heard)>) -> Result<Finished, SwarmError> {
        while self.workers.iter().any(|worker| worker.finished.is_none()) {
            match self.watch.wish() {
                Wish::GoOn => {}
                Wish::End if self.told_end => {}
                Wish::End => {
                    self.told_end = true;
                    self.tell_all(Order::End);
                }
                Wish::Stop => return Err(SwarmError::Stopped),
            }
            match heard.recv_timeout(ASK_EVERY) {
                Ok((place, said)) => self.hear(place, said)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.pass_on(false);
        }
        self.pass_on(true);
        let parts = self.workers.iter_mut().filter_map(|w| w.finished.take());
        merged(parts.collect()).ok_or(SwarmError::Stopped)
    }

    fn tell_all(&mut self, order: Order) {
        for worker in &mut self.workers {
            worker.tell(&order);
        }
    }

    fn hear(&mut self, place: usize, said: Heard) -> Result<(), SwarmError> {
        let worker = &mut self.workers[place];
        match said {
            Heard::Word(Word::Ready) => {
                worker.ready = true;
                if self.workers.iter().all(|worker| worker.ready) {
                    self.tell_all(Order::Begin);
                }
            }
            Heard::Word(Word::Second(second)) => {
                let number = worker.seconds;
                worker.seconds += 1;
                self.seconds.entry(number).or_default().add(&second);
            }
            Heard::Word(Word::Finished(finished)) => worker.finished = Some(*finished),
            Heard::Word(Word::Failed(what)) | Heard::Nonsense(what) => {
                return Err(worker.error(what));
            }
            Heard::Silence if worker.finished.is_some() => {}
            Heard::Silence => {
                let how = worker.child.wait();
                let how = how.map_or_else(|error| error.to_string(), |status| status.to_string());
                return Err(worker.error(format!("it ended in the middle of the run: {how}")));
            }
        }
        Ok(())
    }

    /// Shows what all that still run have told of, in order.
    fn pass_on(&mut self, all: bool) {
        while let Some(first) = self.seconds.first_entry() {
            let number = *first.key();
            let complete = self
                .workers
                .iter()
                .all(|worker| worker.finished.is_some() || worker.seconds > number);
            if !complete && !all && self.seconds.len() <= BEHIND_MAX {
                return;
            }
            if let Some((_, second)) = self.seconds.pop_first() {
                self.watch.second(second);
            }
        }
    }
}
