//! The command line: one module for each command.

mod bpffs;
mod ca;
mod check;
mod cleanup;
mod connections;
mod edges;
mod endpoint;
mod exec;
mod explain;
#[cfg(test)]
pub(crate) mod golden;
mod init;
mod inject;
mod injection;
mod node;
mod output;
mod pods;
mod policy;
mod privileges;
mod report;
mod run;
mod status;
mod table;
mod tap;
mod top;
mod units;
mod validate;
mod webhook;

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
    /// Show the connections that are open
    Connections(connections::Connections),
    /// Show who has talked to whom since the sidecar began, and whether it was encrypted
    Edges(edges::Edges),
    /// Run one command with a sidecar of its own
    Exec(exec::Exec),
    /// Say what a word of the logs and metrics means, and what to do first
    Explain(explain::Explain),
    /// Attach everything for a pod and leave: its connections are refused until a sidecar runs
    Init(init::Init),
    /// Add a sidecar to the pods of Kubernetes manifests, and to nothing else of them
    Inject(inject::Inject),
    /// Capture the connections of all pods of this node that ask for it, and serve them
    Node(node::Node),
    /// Show the pods of a node that ask its agent to be captured, and how far each has got
    Pods(pods::Pods),
    /// Say what settings mean for a client, or whether they are valid; changes nothing
    Policy(policy::Args),
    /// Draw who talks to whom, how fast and how encrypted, as a page to open in a browser
    Report(report::Report),
    /// Capture a pod's connections and serve them until told to stop
    Run(run::Run),
    /// Show every program, map and link of ours, and what they have counted
    Status(status::Status),
    /// Show a line about each event as it happens
    Tap(tap::Tap),
    /// Show who talks to the workload or is talked to, how fast, and how encrypted, as it changes
    Top(top::Top),
    /// Prove inside a pod that its connections go through the sidecar; waits until they do
    Validate(validate::Validate),
    /// Serve the API server of a cluster: pods that ask for a sidecar get one when they are made
    Webhook(webhook::Webhook),
}

/// Exit code for a command line that cannot be understood, as shells use it.
const USAGE: u8 = 2;

/// Runs the command line and turns its outcome into an exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            eprintln!("sidecar: {}", usage_sentence(&error.to_string()));
            return ExitCode::from(USAGE);
        }
        // Help and version, which were asked for.
        Err(error) => error.exit(),
    };
    let outcome = match cli.command {
        Command::Ca(args) => args.run().map(|()| ExitCode::SUCCESS),
        Command::Check(args) => args.run(),
        Command::Cleanup(args) => args.run(),
        Command::Connections(args) => args.run().map(|()| ExitCode::SUCCESS),
        Command::Edges(args) => args.run().map(|()| ExitCode::SUCCESS),
        Command::Exec(args) => args.run(),
        Command::Explain(args) => args.run().map(|()| ExitCode::SUCCESS),
        Command::Init(args) => args.run().map(|()| ExitCode::SUCCESS),
        Command::Inject(args) => args.run().map(|()| ExitCode::SUCCESS),
        Command::Node(args) => args.run().map(|()| ExitCode::SUCCESS),
        Command::Pods(args) => args.run().map(|()| ExitCode::SUCCESS),
        Command::Policy(args) => args.run(),
        Command::Report(args) => args.run().map(|()| ExitCode::SUCCESS),
        Command::Run(args) => args.run().map(|()| ExitCode::SUCCESS),
        Command::Status(args) => args.run().map(|()| ExitCode::SUCCESS),
        Command::Tap(args) => args.run().map(|()| ExitCode::SUCCESS),
        Command::Top(args) => args.run().map(|()| ExitCode::SUCCESS),
        Command::Validate(args) => args.run(),
        Command::Webhook(args) => args.run().map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("sidecar: {}", sentence(&error));
        ExitCode::FAILURE
    })
}

/// What clap has to say, in one line: it tells the mistake, tips, and the usage, in paragraphs.
fn usage_sentence(error: &str) -> String {
    let (mistake, _) = error.split_once("\n\nUsage:").unwrap_or((error, ""));
    let mut lines = mistake
        .lines()
        .map(|line| line.trim().trim_start_matches("error: "))
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let mut sentence = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        let separator = if sentence.ends_with(':') { " " } else { "; " };
        sentence = format!("{sentence}{separator}{}", line.trim_start_matches("tip: "));
    }
    format!("{sentence}; `sidecar help` tells what there is")
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
    output::harmless(&sentence).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_mistyped_flag_is_one_line_with_the_likely_one() {
        let error = Cli::try_parse_from(["sidecar", "run", "--outbond", "strict"])
            .expect_err("no such flag");
        assert_eq!(
            usage_sentence(&error.to_string()),
            "unexpected argument '--outbond' found; a similar argument exists: '--outbound'; \
             `sidecar help` tells what there is"
        );
    }

    #[test]
    fn a_missing_argument_is_one_line_with_its_name() {
        let error = Cli::try_parse_from(["sidecar", "exec"]).expect_err("no command");
        assert_eq!(
            usage_sentence(&error.to_string()),
            "the following required arguments were not provided: <COMMAND>...; \
             `sidecar help` tells what there is"
        );
    }

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
    fn a_sentence_that_others_wrote_commands_no_terminal() {
        let error = anyhow::anyhow!("it answers \x1b[2J").context("cannot ask");
        assert_eq!(sentence(&error), "cannot ask: it answers \\u001b[2J");
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
