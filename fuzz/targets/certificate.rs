//! Feeds `sidecar::fuzzing::certificate`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sidecar::fuzzing::certificate(bytes));
