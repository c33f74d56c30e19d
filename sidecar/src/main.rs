//! The command `sidecar`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sidecar::cli::main()
}
