//! libFuzzer on `fuzz_cases::framing::frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_cases::framing::frames(data));
