//! libFuzzer on `fuzz_cases::fields::headers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_cases::fields::headers(data));
