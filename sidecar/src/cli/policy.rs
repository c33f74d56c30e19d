//! `sidecar policy`: what a settings file says of connections, without any of them.

mod answer;
mod explain;

use std::process::ExitCode;

use clap::Subcommand;

use self::explain::Explain;
use crate::config;

/// Options of `sidecar policy`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read settings as `sidecar run` does, and refuse them if anything is wrong
    Check(Check),
    /// Say which rule decides whether a client may reach the workload; exits with 0 if it may, 1 if
    /// it may not, 2 if that cannot be told
    Explain(Explain),
}

#[derive(clap::Args, Debug)]
struct Check {
    #[command(flatten)]
    config: config::Args,
}

impl Args {
    /// Does what was asked for.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Check(check) => {
                check.config.load()?;
                println!("the settings are valid");
                Ok(ExitCode::SUCCESS)
            }
            Command::Explain(explain) => Ok(explain.run()),
        }
    }
}
