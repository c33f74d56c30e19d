//! Feeds `sidecar::fuzzing::settings_file`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sidecar::fuzzing::settings_file(bytes));
