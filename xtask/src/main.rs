//! The project's own commands: `cargo xtask COMMAND`.
//!
//! Each command does its own set-up first, so on a fresh machine it is the only one to type.

mod build;
mod build_ebpf;
mod command;
mod debian;
mod linker;
mod setup;
mod toolchain;
mod workspace;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install what the kernel side is built with
    Setup(setup::Options),
    /// Build the kernel side alone
    BuildEbpf(build_ebpf::Options),
    /// Build the daemon with the kernel side inside
    Build(build::Options),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Setup(options) => setup::run(options),
        Command::BuildEbpf(options) => build_ebpf::run(options),
        Command::Build(options) => build::run(options),
    }
}
