//! `cargo xtask setup`

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{
    command::{ask, step},
    debian, linker,
    toolchain::{self, Toolchain},
};

/// Find or install what the kernel side is built with
#[derive(clap::Args)]
pub struct Options {}

pub fn run(Options {}: Options) -> anyhow::Result<()> {
    kernel_side().map(drop)
}

/// What it takes to build the kernel side.
pub struct KernelSide {
    pub toolchain: Toolchain,
    pub linker: PathBuf,
}

/// Finds what builds the kernel side, and installs what is missing.
///
/// # Errors
/// Where something is missing and cannot be installed, the error says what to install.
pub fn kernel_side() -> anyhow::Result<KernelSide> {
    step("find the kernel side's compiler and linker", || {
        let toolchain = toolchain()?;
        eprintln!("  compiler: {}", toolchain.describe());
        let linker = linker::find_or_install()?;
        eprintln!("  linker: {}", linker.display());
        Ok(KernelSide { toolchain, linker })
    })
}

/// Installs those of `programs`, named by path and Debian package, that are missing.
///
/// # Errors
/// Where it cannot, the error says what to install.
pub fn programs(programs: &[(&str, &str)]) -> anyhow::Result<()> {
    let missing: Vec<_> = programs
        .iter()
        .filter(|(path, _)| !Path::new(path).exists())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    step("install the programs that run in the pods", || {
        debian::install(&missing)
    })
}

/// Installs the compiler for libFuzzer, unless there is one.
///
/// # Errors
/// Where it cannot, the error says what to install.
pub fn cpp_compiler() -> anyhow::Result<()> {
    if ask(Command::new("c++").arg("--version")).is_some() {
        return Ok(());
    }
    debian::install(&["g++"])
}

/// Adds clippy to Debian's toolchain, which has it in a package of its own.
pub fn clippy(toolchain: &Toolchain) -> anyhow::Result<()> {
    if toolchain.has("cargo-clippy") {
        return Ok(());
    }
    debian::install(&["rust-web-clippy"])
}

fn toolchain() -> anyhow::Result<Toolchain> {
    if let Some(toolchain) = Toolchain::find() {
        return Ok(toolchain);
    }
    if debian::can_install() {
        debian::install(&toolchain::PACKAGES)?;
    }
    Toolchain::find().with_context(|| {
        format!(
            "no Rust compiler from {} on (with LLVM {} or older) has the source of `core`: run \
             `rustup component add rust-src`, or on Debian, as root, `apt-get install {}`",
            env!("CARGO_PKG_RUST_VERSION"),
            linker::LLVM,
            toolchain::PACKAGES.join(" "),
        )
    })
}
