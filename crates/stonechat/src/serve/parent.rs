//! `--exit-with-parent`: a server that somebody's program started ends with that program, also
//! when it was killed and could say nothing.
//!
//! A pipe tells: its other end is closed with the process that held it, however that ended. It
//! does not read what is in the pipe.

use std::io;
use std::thread;

use signal_hook::consts::SIGTERM;
use signal_hook::low_level::raise;

use crate::exit::{Exit, Failure};

/// From now on the end of standard input counts as a SIGTERM.
pub(super) fn watch() -> Result<(), Failure> {
    let watch = || {
        // It has ended, however; and so has whoever held the other end.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        tracing::warn!("standard input was closed: whoever started this server is gone");
        if let Err(error) = raise(SIGTERM) {
            tracing::error!(%error, "the server cannot end itself; stop it by hand");
        }
    };
    let thread = thread::Builder::new().name("parent".to_owned());
    thread.spawn(watch).map(|_| ()).map_err(|error| {
        let text = format!("standard input cannot be watched: {error}");
        Failure::new(Exit::Software, text)
    })
}
