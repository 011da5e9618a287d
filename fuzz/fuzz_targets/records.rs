//! libFuzzer on `fuzz_cases::records::records`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_cases::records::records(data));
