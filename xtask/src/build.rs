//! `cargo xtask build`

use crate::{
    arch::Arch,
    build_ebpf,
    command::{cargo, run as run_command, step},
    cross::Cross,
    remap,
};

/// Build the daemon with the kernel side inside
#[derive(clap::Args, Default)]
pub struct Options {
    /// Optimise it
    #[arg(long)]
    pub release: bool,

    /// Have it list the crates that are in it, for scanners to read; takes `cargo-auditable`
    #[arg(long, conflicts_with = "arch")]
    pub auditable: bool,

    /// Build it for another processor than this machine's, on Debian
    #[arg(long, default_value_t, hide_default_value = true)]
    pub arch: Arch,
}

pub fn run(
    Options {
        release,
        auditable,
        arch,
    }: Options,
) -> anyhow::Result<()> {
    build_ebpf::run(build_ebpf::Options {})?;
    if arch != Arch::OWN {
        return for_another(arch, release);
    }
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

fn for_another(arch: Arch, release: bool) -> anyhow::Result<()> {
    let cross = Cross::find(arch)?;
    step(&format!("build the daemon for {arch}"), || {
        let mut command = cross.cargo("build");
        command.args(["--package", "sidecar"]);
        if release {
            let flags = format!("{} {}", cross.rustflags(), remap::rustflags());
            command.arg("--release").env("RUSTFLAGS", flags);
        }
        run_command(&mut command)
    })
}
