//! See `stonechat_mailbox::fuzzing::segment`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stonechat_mailbox::fuzzing::segment(data));
