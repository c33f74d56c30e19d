//! Feeds `sidecar::fuzzing::identity_files`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sidecar::fuzzing::identity_files(bytes));
