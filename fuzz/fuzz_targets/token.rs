//! libFuzzer on `fuzz_cases::token::token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_cases::token::token(data));
