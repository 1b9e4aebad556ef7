//! Notices that the certificate's files were replaced.
//!
//! By looking at what they hold, every now and then: that works for files that
//! are written over, renamed into place or reached through links that are
//! turned, on any file system, and two small files cost nothing to read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::{Certificate, Content, read};

/// How often the end of the certificate is looked at.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Looks every `every` whether the files changed, and every day whether the certificate ends
/// soon. Without `every` only the latter. Never completes.
pub(crate) async fn watch(certificate: Arc<Certificate>, every: Option<Duration>) {
    let mut ticks = tokio::time::interval(every.unwrap_or(DAY));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = None;
    let mut told = Instant::now();
    loop {
        ticks.tick().await;
        if every.is_some() {
            let held = Arc::clone(&certificate);
            let look = move || look(&held, seen.as_ref());
            // A panic in it would be a bug, and no reason to stop watching.
            seen = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        }
        if told.elapsed() >= DAY {
            told = Instant::now();
            certificate.tell_end();
        }
    }
}

/// One look. Returns content that is new and has to be found unchanged by the next look before
/// it is used: certificate and key are two files, and one of them is written first.
fn look(certificate: &Certificate, seen: Option<&Content>) -> Option<Content> {
    let found = read(&certificate.files).unwrap_or_default();
    if found == *certificate.read.lock() {
        return None;
    }
    if seen != Some(&found) {
        return Some(found);
    }
    // Told already; it is looked at again when it changes.
    let _ = certificate.reload_and_tell();
    None
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::edge::TlsFiles;

    fn pem() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn files_are_taken_when_they_have_stopped_changing() {
        let folder = tempfile::tempdir().unwrap();
        let files = TlsFiles {
            cert: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
        };
        let write = |(cert, key): (&str, &str)| {
            fs::write(&files.cert, cert).unwrap();
            fs::write(&files.key, key).unwrap();
        };
        let (old, new) = (pem(), pem());
        write((&old.0, &old.1));
        let certificate = Certificate::load(files.clone(), "clients").unwrap();
        let first = certificate.current.load_full();
        let same = || Arc::ptr_eq(&first, &certificate.current.load());

        assert_eq!(look(&certificate, None), None, "nothing changed");
        // The certificate is there, its key is not yet: not a moment to read them.
        write((&new.0, &old.1));
        let seen = look(&certificate, None);
        assert!(seen.is_some() && same());
        write((&new.0, &new.1));
        let seen = look(&certificate, seen.as_ref());
        assert!(seen.is_some() && same(), "they changed between the looks");
        assert_eq!(look(&certificate, seen.as_ref()), None);
        assert!(!same(), "they stood still, so they are used");

        // What is no good is read once, not at every look.
        let second = certificate.current.load_full();
        write((&old.0, "nonsense"));
        let seen = look(&certificate, None);
        assert_eq!(look(&certificate, seen.as_ref()), None);
        assert_eq!(look(&certificate, None), None);
        assert!(Arc::ptr_eq(&second, &certificate.current.load()));
        // Nor is a file that stays away.
        fs::remove_file(&files.key).unwrap();
        let seen = look(&certificate, None);
        assert_eq!(look(&certificate, seen.as_ref()), None);
        assert_eq!(look(&certificate, None), None);
        assert!(Arc::ptr_eq(&second, &certificate.current.load()));
        write((&old.0, &old.1));
        let seen = look(&certificate, None);
        look(&certificate, seen.as_ref());
        assert!(!Arc::ptr_eq(&second, &certificate.current.load()));
    }
}
