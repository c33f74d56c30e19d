//! `bpf-linker`, which makes one kernel object with type information out of what the compiler
//! wrote.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::{command::path_with, debian, tool::Tool};

/// The LLVM that it is built with. It reads the bitcode of compilers with this LLVM or an older
/// one.
pub const LLVM: u32 = 22;

/// The program itself.
pub const LINKER: Tool = Tool {
    name: "bpf-linker",
    version: "0.13.0",
};

/// Finds it, or builds it with Debian's LLVM.
///
/// # Errors
/// Where that cannot be, the error says what to install.
pub fn find_or_install() -> anyhow::Result<PathBuf> {
    if let Some(linker) = LINKER.find() {
        return Ok(linker);
    }
    install().with_context(|| {
        let Tool { name, version } = LINKER;
        format!("cannot install {name} {version}, for which LLVM {LLVM} has to be there")
    })
}

fn install() -> anyhow::Result<PathBuf> {
    let llvm = PathBuf::from(format!("/usr/lib/llvm-{LLVM}"));
    if !llvm.join("include").exists() {
        debian::install(&[&format!("llvm-{LLVM}-dev")])?;
    }
    LINKER.install(|command| {
        command
            .args([
                "--no-default-features",
                "--features",
                &format!("llvm-{LLVM}"),
            ])
            .env(format!("LLVM_SYS_{LLVM}1_PREFIX"), &llvm)
            .env("RUSTFLAGS", format!("-L{}", llvm.join("lib").display()))
            .env("PATH", path_with(&llvm.join("bin")));
    })
}
