//! See `stonechat_gateway::fuzzing::frames_written`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stonechat_gateway::fuzzing::frames_written(data));
