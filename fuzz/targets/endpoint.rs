//! Feeds `sidecar::fuzzing::endpoint`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sidecar::fuzzing::endpoint(bytes));
