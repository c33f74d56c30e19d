//! `cargo xtask lint`

use crate::{
    build_ebpf::kernel_cargo,
    command::{cargo, run as run_command, step},
    setup,
};

/// Check format and lints as CI does
#[derive(clap::Args)]
pub struct Options {}

pub fn run(Options {}: Options) -> anyhow::Result<()> {
    step("check the format", || {
        run_command(cargo().args(["fmt", "--all", "--check"]))
    })?;
    step("lint the host's crates", || {
        run_command(
            cargo()
                .args(["clippy", "--locked", "--workspace", "--all-targets"])
                .args(["--exclude", "sidecar-ebpf", "--", "--deny", "warnings"]),
        )
    })?;
    let tools = setup::kernel_side()?;
    step("lint the kernel side", || {
        setup::clippy(&tools.toolchain)?;
        run_command(kernel_cargo(&tools, "clippy").args(["--", "--deny", "warnings"]))
    })
}
