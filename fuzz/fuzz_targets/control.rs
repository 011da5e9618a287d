//! libFuzzer on `fuzz_cases::framing::control`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_cases::framing::control(data));
