//! Feeds `sidecar::fuzzing::trace_headers`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sidecar::fuzzing::trace_headers(bytes));
