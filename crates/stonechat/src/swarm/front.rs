//! What the person at the terminal sees of a run, and what they may ask: a live view, or plain lines.

use std::io::{IsTerminal as _, stderr, stdin};

use stonechat_swarm::{Event, Probe, Recorder, Requests, Second, Title, View, Watch, Wish};

use crate::exit::Failure;

/// Records a run and shows it.
pub(super) struct Front {
    recorder: Recorder,
    requests: Requests,
    view: Option<View>,
}

impl Front {
    /// A live view when there is a terminal for it and it is wanted.
    pub(super) fn new(
        plain: bool,
        requests: Requests,
        probe: Probe,
        title: Title,
    ) -> Result<Self, Failure> {
        let view = match plain || !is_capable() {
            true => None,
            false => {
                let view = View::start(title, requests.clone());
                Some(view.map_err(|error| Failure::io("the terminal (try --plain)", &error))?)
            }
        };
        Ok(Self {
            recorder: Recorder::new(Some(probe)),
            requests,
            view,
        })
    }

    /// Gives the terminal back; what was recorded.
    pub(super) fn close(self) -> Recorder {
        drop(self.view);
        self.recorder
    }
}

impl Watch for Front {
    fn second(&mut self, second: Second) {
        let (progress, point) = self.recorder.take(&second);
        match &self.view {
            Some(view) => view.second(progress, point),
            None => eprintln!("{progress}"),
        }
    }

    fn chaos(&mut self, event: &Event) {
        match &self.view {
            Some(view) => view.chaos(event.clone()),
            None => eprintln!("fault {event}"),
        }
    }

    fn server_started(&mut self, pid: u32) {
        if let Some(probe) = self.recorder.probe() {
            probe.watch_server(pid);
        }
    }

    fn wish(&mut self) -> Wish {
        self.requests.wish()
    }
}

/// The view is drawn on standard error, so that standard output is free for the summary.
fn is_capable() -> bool {
    let term = std::env::var_os("TERM").unwrap_or_default();
    stderr().is_terminal() && stdin().is_terminal() && !term.is_empty() && term != "dumb"
}
