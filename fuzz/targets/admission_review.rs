//! Feeds `sidecar::fuzzing::admission_review`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sidecar::fuzzing::admission_review(bytes));
