//! libFuzzer on `fuzz_cases::settings::policy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_cases::settings::policy(data));
