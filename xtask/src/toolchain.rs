//! The compiler for the kernel side: any recent one that has the source of `core` at hand, since no
//! toolchain ships `core` compiled for the kernel's virtual machine.

use std::{path::PathBuf, process::Command};

use crate::{
    command::{ask, path_with},
    linker, workspace,
};

/// The kernel's virtual machine, as compilers name it.
pub const TARGET: &str = if cfg!(target_endian = "little") {
    "bpfel-unknown-none"
} else {
    "bpfeb-unknown-none"
};

/// The Debian packages that make a toolchain.
pub const PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// A Rust toolchain that can build the kernel side.
pub struct Toolchain {
    /// Where it is installed: programs in `bin`, the source of `core` in `lib/rustlib/src`.
    sysroot: PathBuf,
    /// As `rustc --version` prints it, for people.
    version: String,
}

impl Toolchain {
    /// The first that fits of: the compiler in use, rustup's nightly, Debian's.
    pub fn find() -> Option<Self> {
        let mut nightly = Command::new("rustup");
        nightly
            .args(["run", "nightly", "rustc"])
            .env("RUSTUP_AUTO_INSTALL", "0");
        [
            Command::new("rustc"),
            nightly,
            Command::new("/usr/bin/rustc"),
        ]
        .iter_mut()
        .find_map(Self::of_compiler)
    }

    fn of_compiler(rustc: &mut Command) -> Option<Self> {
        let sysroot = PathBuf::from(ask(rustc.args(["--print", "sysroot"]))?);
        let core = sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml");
        if !core.exists() {
            return None;
        }
        let version =
            ask(Command::new(sysroot.join("bin/rustc")).args(["--version", "--verbose"]))?;
        let first_line = version.lines().next()?.to_owned();
        fits(&version).then_some(Self {
            sysroot,
            version: first_line,
        })
    }

    /// This toolchain's cargo, allowed to build `core` although it may not be a nightly one.
    pub fn cargo(&self) -> Command {
        let bin = self.sysroot.join("bin");
        let mut command = Command::new(bin.join("cargo"));
        command
            .current_dir(workspace::root())
            .env("PATH", path_with(&bin))
            .env("RUSTC", bin.join("rustc"))
            .env("RUSTC_BOOTSTRAP", "1");
        command
    }

    /// Whether `program` came with the toolchain.
    pub fn has(&self, program: &str) -> bool {
        self.sysroot.join("bin").join(program).exists()
    }

    /// The toolchain in words.
    pub fn describe(&self) -> String {
        format!("{} in {}", self.version, self.sysroot.display())
    }
}

/// Whether the compiler that says `version` of itself is recent enough for the workspace, and
/// writes bitcode that the linker's LLVM can read.
fn fits(version: &str) -> bool {
    let field = |name: &str| version.lines().find_map(|line| line.strip_prefix(name));
    let release = field("release: ").and_then(minor_version);
    let floor = minor_version(env!("CARGO_PKG_RUST_VERSION"));
    let llvm =
        field("LLVM version: ").and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    release >= floor && llvm.is_some_and(|major| major <= linker::LLVM)
}

/// `(1, 95)` of `1.95.0-nightly`.
fn minor_version(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_below_the_workspace_floor_does_not_fit() {
        assert!(fits(
            "rustc 1.97.0-nightly\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4"
        ));
        assert!(fits("rustc 1.95.0\nrelease: 1.95.0\nLLVM version: 22.1.2"));
        assert!(!fits("rustc 1.85.0\nrelease: 1.85.0\nLLVM version: 19.1.7"));
    }

    #[test]
    fn a_compiler_whose_bitcode_the_linker_cannot_read_does_not_fit() {
        assert!(!fits("rustc 2.0.0\nrelease: 2.0.0\nLLVM version: 23.0.0"));
        assert!(!fits("rustc 1.99.0\nrelease: 1.99.0"));
    }
}
