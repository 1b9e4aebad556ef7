//! The ways in which a node ends: told to, stopped where it is, killed.

use std::process::{Command, ExitStatus};

use super::{Node, kill, wait};
use crate::{DEADLINE, eventually};

impl Node {
    /// `kill -9`.
    pub fn kill9(&mut self) {
        self.kill9_with(|| ());
    }

    /// `kill -9`, with something done before waiting for the end: for a node that waits for a disk. None
    /// of its threads does anything after this, but what it is in the middle of in the kernel.
    pub fn kill9_with(&mut self, meanwhile: impl FnOnce()) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself in between: then there is nothing to kill.
            let _ = child.kill();
            meanwhile();
            kill(&mut child);
        }
    }

    /// Sends a signal by name.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status()
            .expect("kill can be started");
        assert!(status.success(), "signal {name} could not be sent");
    }

    /// Stops the process where it is; when this returns none of its threads runs any more.
    ///
    /// # Panics
    /// When it does not stop.
    pub fn freeze(&self) {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.pid());
        eventually("every thread of the node stands still", || {
            std::fs::read_dir(&tasks)
                .ok()?
                .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok())
                // The state follows the name, which is in parentheses.
                .all(|stat| {
                    let state = stat.rsplit(") ").next();
                    state.is_some_and(|state| state.starts_with(['T', 'Z']))
                })
                .then_some(())
        });
    }

    /// Waits for the process to end by itself.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("the node is running");
        let Some(status) = wait(child, DEADLINE) else {
            panic!("the node does not end\n{}", self.log_tail());
        };
        self.child = None;
        status
    }

    /// SIGTERM, and the exit code after the drain.
    pub fn sigterm(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait_exit().code()
    }

    /// Kills and starts again on the same data.
    pub fn crash_and_restart(&mut self) {
        self.kill9();
        self.launch();
    }
}
