//! See `stonechat::fuzzing::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stonechat::fuzzing::config(data));
