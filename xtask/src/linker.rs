//! `bpf-linker`, which makes one kernel object with type information out of what the compiler
//! wrote.

use std::{path::PathBuf, process::Command};

use crate::{
    command::{ask, cargo, path_with, run},
    debian, workspace,
};

/// The LLVM that it is built with. It reads the bitcode of compilers with this LLVM or an older
/// one.
pub const LLVM: u32 = 22;

/// The Debian package with that LLVM.
pub const PACKAGE: &str = "llvm-22-dev";

/// The version that the project is built with.
pub const VERSION: &str = "0.13.0";

/// The project's own, else the one on `PATH` if it is of the same version.
pub fn find() -> Option<PathBuf> {
    [
        directory().join("bin/bpf-linker"),
        PathBuf::from("bpf-linker"),
    ]
    .into_iter()
    .find(|program| {
        ask(Command::new(program).arg("--version"))
            .is_some_and(|version| version == format!("bpf-linker {VERSION}"))
    })
}

/// Builds it into the target directory.
pub fn install() -> anyhow::Result<()> {
    let llvm = PathBuf::from(format!("/usr/lib/llvm-{LLVM}"));
    if !llvm.join("include").exists() {
        debian::install(&[PACKAGE])?;
    }
    run(cargo()
        .args(["install", "bpf-linker", "--version", VERSION, "--locked"])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{LLVM}"),
        ])
        .arg("--root")
        .arg(directory())
        .env(format!("LLVM_SYS_{LLVM}1_PREFIX"), &llvm)
        .env("RUSTFLAGS", format!("-L{}", llvm.join("lib").display()))
        .env("PATH", path_with(&llvm.join("bin"))))
}

fn directory() -> PathBuf {
    workspace::target().join("tools")
}
