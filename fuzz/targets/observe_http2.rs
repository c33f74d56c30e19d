//! Feeds `sidecar::fuzzing::observe_http2`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sidecar::fuzzing::observe_http2(bytes));
