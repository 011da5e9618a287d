//! libFuzzer on `fuzz_cases::framing::heads`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_cases::framing::heads(data));
