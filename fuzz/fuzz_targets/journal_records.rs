//! See `stonechat_mailbox::fuzzing::records`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stonechat_mailbox::fuzzing::records(data));
