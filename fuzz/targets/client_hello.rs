//! Feeds `sidecar::fuzzing::client_hello`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sidecar::fuzzing::client_hello(bytes));
