//! The project's own commands: `cargo xtask COMMAND`.
//!
//! Each command does its own set-up first, so on a fresh machine it is the only one to type.

mod arch;
mod bench;
mod build;
mod build_ebpf;
mod command;
mod cross;
mod debian;
mod debug_information;
mod demo;
mod fuzz;
mod image;
mod instructions;
mod kube_apiserver;
mod linker;
mod lint;
mod nginx;
mod packages;
mod python;
mod remap;
mod setup;
mod test;
mod tool;
mod toolchain;
mod vm;
mod workspace;
mod wrk;

use std::process::ExitCode;

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
    Setup(setup::Options),
    BuildEbpf(build_ebpf::Options),
    Build(build::Options),
    Lint(lint::Options),
    Test(test::Options),
    Fuzz(fuzz::Options),
    Demo(demo::Options),
    Bench(bench::Options),
    Instructions(instructions::Options),
    #[command(hide = true)]
    PacedLoad(bench::paced::Options),
    Vm(vm::Options),
    Image(image::Options),
    KubeApiserver(kube_apiserver::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Setup(options) => setup::run(options),
        Command::BuildEbpf(options) => build_ebpf::run(options),
        Command::Build(options) => build::run(options),
        Command::Lint(options) => lint::run(options),
        Command::Test(options) => test::run(options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Demo(options) => demo::run(options),
        Command::Bench(options) => bench::run(&options),
        Command::Instructions(options) => instructions::run(&options),
        Command::PacedLoad(options) => bench::paced::run(&options),
        Command::Vm(options) => vm::run(&options),
        Command::Image(options) => image::run(options),
        Command::KubeApiserver(options) => kube_apiserver::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
