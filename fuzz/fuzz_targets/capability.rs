//! libFuzzer on `fuzz_cases::log::capability`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_cases::log::capability(data));
