//! libFuzzer on `fuzz_cases::session::yamux`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_cases::session::yamux(data));
