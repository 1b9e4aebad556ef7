//! Which errors in the server's log a fault explains. Every other one counts against the server.

use super::ChaosKind;

/// Parts of log lines that are to be expected after such a fault.
fn parts(kind: ChaosKind) -> &'static [&'static str] {
    use ChaosKind as K;
    match kind {
        K::PanicSession
        | K::PanicRouter
        | K::PanicOfflineQueue
        | K::PanicDispatcher
        | K::PanicConnection
        | K::PanicMessages => &["panic", "crash rate too high"],
        K::DiskFull => &["the disk is nearly full", "cannot write to the journal"],
        // The store has failed: whoever asks it is told so, until the process ends.
        K::SyncFailure => &[
            "the journal failed",
            "the store failed",
            "the mailbox database failed",
            "accepting nothing more",
            "the store did not close in order",
            "closing the store failed",
            "could not be",
            // sled syncs once more when it is closed, and panics when that fails.
            "thread 'store-close'",
        ],
        K::Descriptors => &["Too many open files"],
        K::Kill
        | K::Pause
        | K::Terminate
        | K::Cut
        | K::HalfOpen
        | K::StuckReader
        | K::Dribble
        | K::Garbage
        | K::Oversized
        | K::ClockStep => &[],
    }
}

/// Whether one of the faults that were made explains a line.
pub(crate) fn explained(line: &str, made: &[ChaosKind]) -> bool {
    let mut parts = made.iter().flat_map(|kind| parts(*kind));
    parts.any(|part| line.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_explained_by_its_own_fault_only() {
        let line = r#"{"level":"ERROR","message":"the disk is nearly full; accepting nothing"}"#;
        assert!(explained(line, &[ChaosKind::Cut, ChaosKind::DiskFull]));
        assert!(!explained(line, &[ChaosKind::Kill, ChaosKind::PanicRouter]));
        assert!(!explained(line, &[]));
        let line =
            "thread 'store-close' (7) panicked at sled-0.34.7/src/pagecache/logger.rs:467:41:";
        assert!(explained(line, &[ChaosKind::SyncFailure]));
        assert!(!explained(line, &[ChaosKind::Terminate]));
    }
}
