//! `cargo xtask build`

use crate::{
    build_ebpf,
    command::{cargo, run as run_command, step},
    remap,
};

/// Build the daemon with the kernel side inside
#[derive(clap::Args, Default)]
pub struct Options {
    /// Optimise it
    #[arg(long)]
    pub release: bool,

    /// Have it list the crates that are in it, for scanners to read; takes `cargo-auditable`
    #[arg(long)]
    pub auditable: bool,
}

pub fn run(Options { release, auditable }: Options) -> anyhow::Result<()> {
    build_ebpf::run(build_ebpf::Options {})?;
    step("build the daemon", || {
        let mut command = cargo();
        if auditable {
            command.arg("auditable");
        }
        command.args(["build", "--package", "sidecar"]);
        if release {
            command.arg("--release");
            command.env("RUSTFLAGS", remap::after_environment());
        }
        run_command(&mut command)
    })
}
