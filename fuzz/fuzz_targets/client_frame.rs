//! See `stonechat_protocol::fuzzing::client_frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stonechat_protocol::fuzzing::client_frame(data));
