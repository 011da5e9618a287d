//! libFuzzer on `fuzz_cases::request::credential`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_cases::request::credential(data));
