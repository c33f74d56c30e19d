//! Feeds `sidecar::fuzzing::observe`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sidecar::fuzzing::observe(bytes));
