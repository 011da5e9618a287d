//! libFuzzer on `fuzz_cases::session::websocket`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_cases::session::websocket(data));
