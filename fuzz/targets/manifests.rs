//! Feeds `sidecar::fuzzing::manifests`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sidecar::fuzzing::manifests(bytes));
