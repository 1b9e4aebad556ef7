//! What a fuzzer does with the configuration. The test of this module replays
//! the committed corpus; `cargo xtask fuzz` looks for more. Not part of the
//! server.

use crate::config::{Config, Override};

/// Text as a configuration file, its lines as `--set` too. What is accepted is printed and read
/// again, and has to be the same.
///
/// # Panics
/// When a property does not hold.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let flags: Vec<Override> = text
        .lines()
        .take(4)
        .filter_map(|line| Override::set(line).ok())
        .collect();
    for flags in [&flags[..], &[]] {
        match Config::from_text(text, flags) {
            Ok(config) => {
                let printed = config.to_toml();
                let again = Config::from_text(&printed, &[])
                    .unwrap_or_else(|error| panic!("{error} in what was printed:\n{printed}"));
                let mut shown = config.settings;
                // A secret.
                shown.traces.headers.clear();
                assert_eq!(again.settings, shown);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_holds() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/config");
        let mut count = 0;
        for entry in std::fs::read_dir(dir).expect("the corpus is committed") {
            config(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 3, "{count} inputs only");
    }
}
