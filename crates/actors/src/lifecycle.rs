//! From one generation to the next: start, stop, crash, restart, end.
//!
//! The other half of the actor's task; `task` has its turns. Whatever concerns siblings is asked of the
//! keeper (see `group`) while the actor waits halted.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::{
    cell::unix_ms,
    group::Op,
    observe::Event,
    panics::{drop_guarded, guard},
    reason::ExitReason,
    signal::{Order, Phase, Signals},
    supervised::{StartInfo, Supervised},
    task::{ActorTask, Next, Step},
};

impl<A: Supervised> ActorTask<A> {
    /// Acts on what came past the queue.
    pub(crate) fn obey(&mut self) {
        let signals = self.cell().inbox.take_signals();
        if self.core().phase() == Phase::Ended {
            // Given up by a supervisor while this code was stuck: nobody waits for it any more.
            self.discard_generation();
            self.step = Step::Done;
            return;
        }
        let Some(signals) = signals else { return };
        let Signals {
            stop,
            order,
            inspections,
        } = *signals;
        if let Some(reason) = stop {
            self.told_to_stop(reason);
        }
        match order {
            Some(Order::Halt) => self.halt(),
            Some(Order::Resume { fresh }) if matches!(self.step, Step::Halted) => {
                if fresh {
                    self.failures = None;
                }
                self.step = Step::Start;
            }
            _ => {}
        }
        for inspection in inspections {
            // Between generations there is no state to show: the asker sees the channel close.
            let Some(value) = &self.value else { continue };
            match guard("snapshot", || value.snapshot()) {
                Ok(state) => {
                    let _ = inspection.send(state);
                }
                Err(crash) => self.crashed(crash),
            }
        }
    }

    fn told_to_stop(&mut self, reason: Arc<ExitReason>) {
        match self.step {
            Step::Run => self.exit(reason),
            Step::Start | Step::Backoff(_) => {
                if !self.core().policy.wants_restart(&reason) {
                    self.end(&reason);
                }
            }
            // Its supervisor decides; whatever it says ends the wait.
            Step::Halted => self.end(&reason),
            Step::Done => {}
        }
    }

    fn halt(&mut self) {
        match self.step {
            Step::Run => {
                let reason = Arc::new(ExitReason::Shutdown);
                self.say_goodbye(&reason);
                self.discard_generation();
            }
            Step::Start | Step::Backoff(_) | Step::Halted => {}
            Step::Done => return,
        }
        self.step = Step::Halted;
        self.core().set_phase(Phase::Halted);
    }

    /// Builds a generation.
    pub(crate) fn start(&mut self) -> Next {
        let core = self.core();
        let generation = core.generation.load(Ordering::Relaxed).saturating_add(1);
        let first = generation == 1;
        let info = StartInfo {
            id: core.id,
            generation,
            restarts: generation - 1,
            last_exit: core.last_exit(),
        };
        core.generation.store(generation, Ordering::Relaxed);
        core.restarts.store(info.restarts, Ordering::Relaxed);
        core.started_ms.store(unix_ms(), Ordering::Relaxed);
        let factory = &mut self.factory;
        let mut value = match guard("factory", || factory(&info)) {
            Ok(value) => value,
            Err(crash) => return self.crashed_yielding(crash),
        };
        let ctx = &mut self.ctx;
        let outcome = guard("started", || value.started(ctx));
        self.value = Some(value);
        if let Err(crash) = outcome {
            return self.crashed_yielding(crash);
        }
        let core = self.core();
        let tree = &core.sup.tree;
        let (id, name) = (core.id, &core.name);
        if first {
            tree.totals.started.fetch_add(1, Ordering::Relaxed);
            tree.emit(|| Event::Started {
                id,
                name: Arc::from(&**name),
                kind: A::KIND,
            });
        } else {
            tree.totals.restarts.fetch_add(1, Ordering::Relaxed);
            tree.emit(|| Event::Restarted {
                id,
                name: Arc::from(&**name),
                generation,
                reason: info.last_exit,
            });
        }
        self.step = Step::Run;
        self.core().set_phase(Phase::Running);
        Next::Again
    }

    /// The generation panicked: its value is suspect, so no `stopping` for it.
    pub(crate) fn crashed(&mut self, crash: Arc<ExitReason>) {
        self.record(&crash);
        self.discard_generation();
        self.leave(crash);
    }

    pub(crate) fn record(&self, crash: &Arc<ExitReason>) {
        let core = self.core();
        core.sup.tree.record_crash(core, A::KIND, crash);
    }

    /// The generation ends in order.
    pub(crate) fn exit(&mut self, reason: Arc<ExitReason>) {
        self.say_goodbye(&reason);
        self.discard_generation();
        self.leave(reason);
    }

    fn say_goodbye(&mut self, reason: &Arc<ExitReason>) {
        let (Some(value), ctx) = (self.value.as_mut(), &mut self.ctx) else {
            return;
        };
        if let Err(crash) = guard("stopping", || value.stopping(ctx, reason)) {
            self.record(&crash);
        }
    }

    /// Drops everything that belonged to the generation. Destructors may panic: each is on its own.
    fn discard_generation(&mut self) {
        let parts = (
            self.ctx.timers.take(),
            self.ctx.futures.take(),
            self.value.take(),
        );
        let outcomes = [
            drop_guarded(parts.0),
            drop_guarded(parts.1),
            drop_guarded(parts.2),
        ];
        for crash in outcomes.into_iter().filter_map(Result::err) {
            self.record(&crash);
        }
        self.ctx.stop = None;
        self.ctx.firing = None;
        self.ctx.unpolled = false;
    }

    /// What comes after a generation.
    fn leave(&mut self, reason: Arc<ExitReason>) {
        let core = self.core();
        core.set_last_exit(&reason);
        core.fire_links(&reason);
        if !core.policy.wants_restart(&reason) || core.sup.tree.is_closing() {
            return self.end(&reason);
        }
        if matches!(*reason, ExitReason::Restarted(_)) {
            return self.restart_after(Duration::ZERO);
        }
        let policy = core.policy;
        let delay = self
            .failures
            .get_or_insert_default()
            .next_delay(Instant::now(), &policy);
        match delay {
            Some(delay) => self.restart_after(delay),
            None => self.too_often(reason),
        }
    }

    fn restart_after(&mut self, delay: Duration) {
        let sup = Arc::clone(&self.core().sup);
        if sup.spec.strategy.is_group() {
            self.step = Step::Halted;
            self.core().set_phase(Phase::Halted);
            let generation = self.core().generation.load(Ordering::Relaxed);
            sup.tree.request(Op::Group {
                sup: Arc::clone(&sup),
                child: self.core().id,
                generation,
                delay,
            });
        } else if delay.is_zero() {
            self.step = Step::Start;
            self.core().set_phase(Phase::Starting);
        } else {
            self.step = Step::Backoff(Box::pin(sleep(delay)));
            self.core().set_phase(Phase::Backoff);
        }
    }

    fn too_often(&mut self, last: Arc<ExitReason>) {
        let core = self.core();
        let reason = Arc::new(ExitReason::IntensityExceeded {
            restarts_max: core.policy.restarts_max,
            within: core.policy.within(),
            last,
        });
        warn!(actor = &*core.name, id = core.id.0, kind = A::KIND, escalate = core.policy.escalate, %reason, "actor given up");
        if !core.policy.escalate {
            return self.end(&reason);
        }
        core.set_last_exit(&reason);
        let sup = Arc::clone(&core.sup);
        let (child, generation) = (core.id, core.generation.load(Ordering::Relaxed));
        self.step = Step::Halted;
        self.core().set_phase(Phase::Halted);
        sup.tree.request(Op::Escalate {
            sup: Arc::clone(&sup),
            child,
            generation,
            reason,
        });
    }

    pub(crate) fn end(&mut self, reason: &Arc<ExitReason>) {
        self.discard_generation();
        let discarded = self.discard_batch();
        self.step = Step::Done;
        let core = self.core();
        debug!(actor = &*core.name, id = core.id.0, kind = A::KIND, %reason, "actor ended");
        self.cell().finish(reason, discarded);
    }

    fn discard_batch(&mut self) -> u32 {
        let mut discarded = 0;
        while let Some(envelope) = self.batch.pop() {
            discarded += 1;
            if let Err(crash) = drop_guarded(envelope) {
                self.record(&crash);
            }
        }
        discarded
    }
}
