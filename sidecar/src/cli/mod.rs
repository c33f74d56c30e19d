//! The command line: one module for each command.

mod ca;
mod check;
mod cleanup;
mod exec;
mod run;
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Mutual TLS and telemetry for a pod's TCP connections: no iptables, no change to the app
#[derive(Debug, Parser)]
#[command(name = "sidecar", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a development CA, or issue SVIDs from one
    Ca(ca::Args),
    /// Check what a sidecar needs of this machine, claim by claim; changes nothing
    Check(check::Check),
    /// Remove everything of ours from the kernel: pods are then no longer captured
    Cleanup(cleanup::Cleanup),
    /// Run one command with a sidecar of its own
    Exec(exec::Exec),
    /// Capture a pod's connections and serve them until told to stop
    Run(run::Run),
    /// Show every program, map and link of ours, and what they have counted
    Status(status::Status),
}

/// Runs the command line and turns its outcome into an exit code.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Ca(args) => args.run().map(|()| ExitCode::SUCCESS),
        Command::Check(args) => args.run(),
        Command::Cleanup(args) => args.run().map(|()| ExitCode::SUCCESS),
        Command::Exec(args) => args.run(),
        Command::Run(args) => args.run().map(|()| ExitCode::SUCCESS),
        Command::Status(args) => args.run().map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("sidecar: {}", sentence(&error));
        ExitCode::FAILURE
    })
}

/// What was tried, then why it failed, in one line. Many errors name their cause themselves.
fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if sentence.is_empty() {
            sentence = cause;
        } else if !sentence.contains(&cause) {
            sentence = format!("{sentence}: {cause}");
        }
    }
    sentence
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn no_cause_is_named_twice() {
        let cause = anyhow::anyhow!("no such file");
        let error = cause
            .context("cannot read key.pem: no such file")
            .context("cannot start");
        assert_eq!(
            sentence(&error),
            "cannot start: cannot read key.pem: no such file"
        );
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
