//! Who carries the plan out, on a thread of its own: one fault after the other, each until its recovery is
//! seen, so that what is measured belongs to it. A plan that is behind time goes on without catching up.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::hands::Misconduct;
use super::plan::Planned;
use super::{ChaosKind, Hands, Order, Pulse};
use crate::spawn::Spawned;
use crate::{Event, SwarmError};

/// So long a sign of life is waited for.
const RECOVERY_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What the operator has to say.
#[derive(Debug)]
pub(crate) enum Word {
    /// A fault begins. What it explains in the log may come from now on.
    Begins(ChaosKind),
    /// A fault is over.
    Over(Event),
    /// The server is this process now.
    Runs(u32),
    /// The server did what it should not.
    Misconduct(String),
}

/// An operator at work. Dropped, it stops after the fault it is at.
#[derive(Debug)]
pub(crate) struct Operator {
    pub(crate) orders: Receiver<Order>,
    pub(crate) words: Receiver<Word>,
    pulse: Arc<Pulse>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<Hands>>,
}

struct Work {
    hands: Hands,
    began: Instant,
    /// Whether anything is sent that could be accepted.
    lively: bool,
    words: Sender<Word>,
    stop: Receiver<()>,
}

impl Operator {
    /// Begins. `orders` is the other end of what `hands` has.
    pub(crate) fn begin(
        hands: Hands,
        orders: Receiver<Order>,
        plan: Vec<Planned>,
        lively: bool,
        began: Instant,
    ) -> Result<Self, SwarmError> {
        let (words, heard) = channel();
        let (stop, stopped) = channel();
        let pulse = Arc::clone(&hands.pulse);
        let mut work = Work {
            hands,
            began,
            lively,
            words,
            stop: stopped,
        };
        let thread = std::thread::Builder::new()
            .name("chaos".to_owned())
            .spawn(move || {
                work.carry_out(&plan);
                work.hands
            });
        Ok(Self {
            orders,
            words: heard,
            pulse,
            stop: Some(stop),
            thread: Some(thread.map_err(SwarmError::io("starting a thread"))?),
        })
    }

    /// Nothing new is begun.
    pub(crate) fn stop(&mut self) {
        self.stop = None;
    }

    /// Whether it has put its hands down. Until then its orders must be carried out.
    pub(crate) fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// What it had its hands on; `None` when it panicked, which the swarm's own log shows.
    pub(crate) fn finish(mut self) -> Option<Hands> {
        self.thread.take()?.join().ok()
    }
}

impl Drop for Operator {
    /// The server ends with the operator's hands, so they must be down before the run ends.
    fn drop(&mut self) {
        self.stop();
        self.pulse.give_up();
        if let Some(thread) = self.thread.take() {
            // Orders are not carried out any more: whoever waits for an answer must not.
            drop(std::mem::replace(&mut self.orders, channel().1));
            let _ = thread.join();
        }
    }
}

impl Work {
    fn carry_out(&mut self, plan: &[Planned]) {
        for planned in plan {
            let wait = planned.at.saturating_sub(self.began.elapsed());
            // Whoever dropped the other end wants it to stop.
            if self.stop.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            if let Err(Misconduct(what)) = self.hands.see_that_it_runs() {
                self.say(Word::Misconduct(what));
            }
            self.say(Word::Begins(planned.kind));
            let at = Instant::now();
            self.hands.over_at = None;
            let done = self.hands.make(planned);
            let over_at = self.hands.over();
            let recovery = self.recovery(over_at);
            let detail = match done {
                Ok(detail) => detail,
                Err(Misconduct(what)) => {
                    self.say(Word::Misconduct(format!("{}: {what}", planned.kind)));
                    what
                }
            };
            if let Some(pid) = self.hands.spawned.as_ref().and_then(Spawned::pid) {
                self.say(Word::Runs(pid));
            }
            self.say(Word::Over(Event {
                kind: planned.kind.to_string(),
                at_ms: ms(at - self.began),
                for_ms: ms(over_at - at),
                recovery_ms: recovery.map(ms),
                detail,
            }));
        }
    }

    /// Waits for signs of life.
    fn recovery(&self, since: Instant) -> Option<Duration> {
        if !self.lively {
            return None;
        }
        let pulse = &self.hands.pulse;
        while since.elapsed() < RECOVERY_MAX && !pulse.is_gone() {
            if pulse.beats() {
                return Some(since.elapsed());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        None
    }

    fn say(&self, word: Word) {
        // A run that has failed does not listen.
        let _ = self.words.send(word);
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
