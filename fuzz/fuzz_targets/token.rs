//! See `stonechat_gateway::fuzzing::token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stonechat_gateway::fuzzing::token(data));
