//! See `stonechat_gateway::fuzzing::frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stonechat_gateway::fuzzing::frames(data));
