//! What a fuzzer does with what comes over the network: WebSocket frames,
//! upgrade requests, tokens. The tests of this module replay the committed
//! corpus; `cargo xtask fuzz` looks for more. Not part of the server.

pub use crate::auth::fuzzing::token;
pub use crate::edge::fuzzing::{frames, frames_written, upgrade};

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(target: &str, run: fn(&[u8])) {
        let dir = format!("{}/../../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
        let mut count = 0;
        for entry in std::fs::read_dir(dir).expect("the corpus is committed") {
            run(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 3, "{count} inputs only");
    }

    #[test]
    fn the_corpus_of_frames_holds() {
        replay("ws_frames", frames);
    }

    #[test]
    fn the_corpus_of_written_frames_holds() {
        replay("ws_written", frames_written);
    }

    #[test]
    fn the_corpus_of_upgrades_holds() {
        replay("upgrade", upgrade);
    }

    #[test]
    fn the_corpus_of_tokens_holds() {
        replay("token", token);
    }
}
