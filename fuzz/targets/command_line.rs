//! Feeds `sidecar::fuzzing::command_line`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sidecar::fuzzing::command_line(bytes));
