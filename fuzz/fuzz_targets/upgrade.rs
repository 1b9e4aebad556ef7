//! See `stonechat_gateway::fuzzing::upgrade`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stonechat_gateway::fuzzing::upgrade(data));
