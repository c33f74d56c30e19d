//! Feeds `sidecar::fuzzing::sock_diag`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sidecar::fuzzing::sock_diag(bytes));
