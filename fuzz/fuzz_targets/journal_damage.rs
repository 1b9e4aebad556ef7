//! See `stonechat_mailbox::fuzzing::damage`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stonechat_mailbox::fuzzing::damage(data));
