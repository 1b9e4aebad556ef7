//! Traces of single messages, exported to an OpenTelemetry collector.
//!
//! What is followed, and where spans begin and end, is `stonechat_trace`'s and its
//! users'. Here their spans are taken off the queue and sent, by a thread of its own
//! that nobody waits for: a collector that is slow or gone costs spans, which are
//! counted, and nothing else. Without an endpoint there is no thread and no queue.

mod collector;
mod otlp;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use metrics::{Counter, counter, describe_counter};
use stonechat_trace::{Finished, FinishedSpans, Next, PANICKED, Tracer};
use tokio::sync::watch;

use crate::config::Settings;
use crate::exit::{Exit, Failure};
use collector::Collector;
use otlp::Resource;

pub(crate) use collector::{address, headers};

/// Spans in one request.
const BATCH_SPANS_MAX: usize = 512;
/// How often the thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);
/// Attempts to send one batch; between them spans wait in the queue.
const ATTEMPTS_MAX: u32 = 3;
/// Before the second attempt; twice as long before each further one.
const BACK_OFF: Duration = Duration::from_millis(250);

/// The running export.
pub(crate) struct Traces {
    tracer: Arc<Tracer>,
    stopping: Arc<AtomicBool>,
    ended: watch::Receiver<bool>,
}

impl Traces {
    /// Starts it, if the configuration has somewhere to export to.
    pub(crate) fn start(settings: &Settings) -> Result<Option<Self>, Failure> {
        let Some(config) = settings.tracer() else {
            return Ok(None);
        };
        let collector =
            Collector::new(&settings.traces).map_err(|why| Failure::new(Exit::Config, why))?;
        let collector_host = collector.host().to_owned();
        let (tracer, spans) = Tracer::new(&config);
        let stopping = Arc::new(AtomicBool::new(false));
        let (end, ended) = watch::channel(false);
        let exporter = Exporter {
            spans,
            collector,
            resource: Resource::of_this_process(),
            linger: Duration::from_millis(settings.traces.linger_ms),
            stopping: Arc::clone(&stopping),
            figures: Figures::new(),
            failing: false,
        };
        std::thread::Builder::new()
            .name("traces".to_owned())
            .spawn(move || {
                if catch_unwind(AssertUnwindSafe(|| exporter.run())).is_err() {
                    tracing::error!(
                        "the export of traces panicked: there are none until the next start; \
                         messages are not affected"
                    );
                }
                // Nobody may wait for it.
                let _ = end.send(true);
            })
            .map_err(|error| Failure::io("the thread that exports traces", &error))?;
        tracing::info!(collector = collector_host, "messages are traced");
        Ok(Some(Self {
            tracer,
            stopping,
            ended,
        }))
    }

    /// Follows messages.
    pub(crate) fn tracer(&self) -> Arc<Tracer> {
        Arc::clone(&self.tracer)
    }

    /// Exports what is finished, once, and ends.
    pub(crate) async fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // An error means the thread is gone, so it has ended all the same.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

struct Figures {
    exported: Counter,
    failed: Counter,
}

impl Figures {
    fn new() -> Self {
        describe_counter!(
            "stonechat_trace_spans_total",
            "Finished spans, by what became of them"
        );
        let spans =
            |outcome: &'static str| counter!("stonechat_trace_spans_total", "outcome" => outcome);
        Self {
            exported: spans("exported"),
            failed: spans("failed"),
        }
    }
}

struct Exporter {
    spans: FinishedSpans,
    collector: Collector,
    resource: Resource,
    linger: Duration,
    stopping: Arc<AtomicBool>,
    figures: Figures,
    /// The last batch could not be exported: told once, not for each.
    failing: bool,
}

impl Exporter {
    fn run(mut self) {
        loop {
            let (batch, ended) = self.gather();
            if !batch.is_empty() {
                self.export(&batch);
            } else if ended || self.is_stopping() {
                return;
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Spans that are there, or come within the linger of the first. `true`: no more will come.
    fn gather(&self) -> (Vec<Finished>, bool) {
        let mut batch = Vec::new();
        let mut until = None;
        while batch.len() < BATCH_SPANS_MAX {
            let left = until.map_or(LOOK, |until: Instant| {
                until.saturating_duration_since(Instant::now()).min(LOOK)
            });
            let stopping = self.is_stopping();
            match self
                .spans
                .next(if stopping { Duration::ZERO } else { left })
            {
                Next::Span(span) => {
                    until.get_or_insert_with(|| Instant::now() + self.linger);
                    tell_panic(&span);
                    batch.push(*span);
                }
                Next::Ended => return (batch, true),
                Next::Nothing if stopping || until.is_none_or(|until| until <= Instant::now()) => {
                    break;
                }
                Next::Nothing => {}
            }
        }
        (batch, false)
    }

    fn export(&mut self, batch: &[Finished]) {
        let request = otlp::request(&self.resource, batch);
        let spans = batch.len() as u64;
        let mut pause = BACK_OFF;
        for attempt in 1..=ATTEMPTS_MAX {
            match self.collector.send(&request) {
                Ok(rejected) => {
                    let rejected = rejected.min(spans);
                    self.figures.exported.increment(spans - rejected);
                    self.figures.failed.increment(rejected);
                    self.tell_success(rejected);
                    return;
                }
                Err(error) if !error.passes || attempt == ATTEMPTS_MAX || self.is_stopping() => {
                    // Whoever sees it counted finds it in the log.
                    self.tell_failure(&error.why);
                    self.figures.failed.increment(spans);
                    return;
                }
                Err(_) => self.wait(pause),
            }
            pause *= 2;
        }
    }

    fn wait(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.is_stopping() {
            std::thread::sleep(LOOK.min(pause));
        }
    }

    fn tell_success(&mut self, rejected: u64) {
        if rejected > 0 {
            tracing::debug!(rejected, "the trace collector rejected spans");
        }
        if std::mem::take(&mut self.failing) {
            tracing::info!("the trace collector takes spans again");
        }
    }

    fn tell_failure(&mut self, why: &str) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                why,
                "spans could not be exported; messages are not affected. Check traces.endpoint and \
                 the collector; this is told once until it works again"
            );
        }
    }
}

/// The panic itself is logged by whoever catches it, without knowing of a trace.
fn tell_panic(span: &Finished) {
    if span.failure == Some(PANICKED) {
        tracing::warn!(
            trace = %span.trace,
            span = span.stage.name(),
            "a message that is traced was being handled when its actor panicked"
        );
    }
}
