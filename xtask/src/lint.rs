//! `cargo xtask lint`

use std::process::Command;

use crate::{
    build_ebpf::kernel_cargo,
    command::{cargo, run as run_command, step},
    setup,
    tool::Tool,
    workspace,
};

/// Check format, lints and dependencies as CI does
#[derive(clap::Args)]
pub struct Options {}

const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
};

pub fn run(Options {}: Options) -> anyhow::Result<()> {
    step("check the format", || {
        run_command(cargo().args(["fmt", "--all", "--check"]))
    })?;
    step("lint the host's crates", || {
        setup::cpp_compiler()?;
        run_command(
            cargo()
                .args(["clippy", "--locked", "--workspace", "--all-targets"])
                .arg("--all-features")
                .args(["--exclude", "sidecar-ebpf", "--", "--deny", "warnings"]),
        )
    })?;
    let tools = setup::kernel_side()?;
    step("lint the kernel side", || {
        setup::clippy(&tools.toolchain)?;
        run_command(kernel_cargo(&tools, "clippy").args(["--", "--deny", "warnings"]))
    })?;
    step("check the dependencies", check_dependencies)
}

/// Its advisories are left out: CI has no way to the database.
fn check_dependencies() -> anyhow::Result<()> {
    let cargo_deny = match CARGO_DENY.find() {
        Some(program) => program,
        None => CARGO_DENY.install(|command| {
            command.arg("--no-default-features");
        })?,
    };
    run_command(
        Command::new(cargo_deny)
            .current_dir(workspace::root())
            .args(["--locked", "check", "--hide-inclusion-graph"])
            .args(["licenses", "bans", "sources"]),
    )
}
