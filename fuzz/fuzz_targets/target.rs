//! libFuzzer on `fuzz_cases::request::target`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_cases::request::target(data));
