//! What the person at the terminal wants, from keys and signals.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::Wish;

/// Asked once, a run ends before its time and is judged; asked again, it stops.
#[derive(Debug, Clone, Default)]
pub struct Requests {
    asked: Arc<AtomicU8>,
    signalled: Arc<AtomicBool>,
}

impl Requests {
    /// SIGINT and SIGTERM ask too; the second of them ends the process, whatever it is doing.
    ///
    /// # Errors
    /// When the system does not let this process handle them.
    pub fn with_signals() -> io::Result<Self> {
        let requests = Self::default();
        for signal in [SIGINT, SIGTERM] {
            let code = 128 + signal;
            // In this order: the first signal finds the flag down, the second finds it up.
            flag::register_conditional_shutdown(signal, code, Arc::clone(&requests.signalled))?;
            flag::register(signal, Arc::clone(&requests.signalled))?;
        }
        Ok(requests)
    }

    /// Asks for the end.
    pub fn ask(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// What is wanted.
    pub fn wish(&self) -> Wish {
        let signalled = u8::from(self.signalled.load(Ordering::Relaxed));
        match self.asked.load(Ordering::Relaxed).saturating_add(signalled) {
            0 => Wish::GoOn,
            1 => Wish::End,
            _ => Wish::Stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asked_once_is_an_end_and_twice_a_stop() {
        let requests = Requests::default();
        assert_eq!(requests.wish(), Wish::GoOn);
        requests.clone().ask();
        assert_eq!(requests.wish(), Wish::End);
        requests.ask();
        assert_eq!(requests.wish(), Wish::Stop);
    }
}
