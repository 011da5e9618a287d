//! libFuzzer on `fuzz_cases::figures::figures`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_cases::figures::figures(data));
