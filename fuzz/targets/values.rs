//! Feeds `sidecar::fuzzing::values`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sidecar::fuzzing::values(bytes));
