//! `cargo xtask build`

use crate::{
    build_ebpf,
    command::{cargo, run as run_command, step},
};

/// Build the daemon with the kernel side inside
#[derive(clap::Args, Default)]
pub struct Options {
    /// Optimise it
    #[arg(long)]
    pub release: bool,
}

pub fn run(Options { release }: Options) -> anyhow::Result<()> {
    build_ebpf::run(build_ebpf::Options {})?;
    step("build the daemon", || {
        let mut command = cargo();
        command.args(["build", "--package", "sidecar"]);
        if release {
            command.arg("--release");
        }
        run_command(&mut command)
    })
}
