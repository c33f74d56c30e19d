//! Building for another processor: Debian's compiler, with the standard library that Debian has
//! compiled for that processor, and its linker.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{
    arch::Arch,
    command::{ask, cargo, step},
    packages::{self, Packages},
    setup, toolchain, workspace,
};

/// Debian's compiler, for which alone there is the library.
const COMPILER: &str = "/usr/bin/rustc";
/// The package of the library, without the processor.
const LIBRARY: &str = "libstd-rust-web-dev";

/// What builds for another processor.
pub struct Cross {
    arch: Arch,
    /// Where the compiler finds the library of that processor.
    sysroot: PathBuf,
}

impl Cross {
    /// Finds it, and installs what is missing.
    ///
    /// # Errors
    /// Where something is missing and cannot be installed, the error says what to install.
    pub fn find(arch: Arch) -> anyhow::Result<Self> {
        let name = format!("find what builds for {arch}");
        step(&name, || {
            let gcc = format!("/usr/bin/{}-gcc", arch.gnu());
            let [gcc_package, libc_package] = [
                format!("gcc-{}", arch.gnu()),
                format!("libc6-dev-{arch}-cross"),
            ];
            setup::programs(&[
                (COMPILER, toolchain::PACKAGES[0]),
                (&gcc, &gcc_package),
                (
                    &format!("/usr/{}/include/stdio.h", arch.gnu()),
                    &libc_package,
                ),
            ])?;
            let sysroot = sysroot(arch)?;
            Ok(Self { arch, sysroot })
        })
    }

    /// Cargo, that builds for the other processor, into a directory of its own.
    pub fn cargo(&self, command: &str) -> Command {
        let target = self.arch.rust();
        let mut cargo = cargo();
        cargo
            .arg(command)
            .args(["--target", target])
            .arg("--target-dir")
            .arg(self.directory())
            .env("RUSTC", COMPILER)
            .env("SIDECAR_EBPF_OBJECT", workspace::ebpf_object())
            .env(
                format!("CARGO_TARGET_{}_LINKER", variable(target)),
                format!("{}-gcc", self.arch.gnu()),
            )
            .env("RUSTFLAGS", self.rustflags());
        cargo
    }

    /// The compiler's flags.
    pub fn rustflags(&self) -> String {
        format!("--sysroot={}", self.sysroot.display())
    }

    /// Where the daemon is, once it was built.
    pub fn daemon(&self, release: bool) -> PathBuf {
        let profile = if release { "release" } else { "debug" };
        let built = self.directory().join(self.arch.rust());
        built.join(profile).join("sidecar")
    }

    fn directory(&self) -> PathBuf {
        workspace::target().join(self.arch.debian())
    }
}

/// Unpacks the library of the compiler's own version, unless it is there.
fn sysroot(arch: Arch) -> anyhow::Result<PathBuf> {
    let version = ask(Command::new("dpkg-query").args([
        "--show",
        "--showformat=${Version}",
        toolchain::PACKAGES[0],
    ]))
    .with_context(|| {
        format!(
            "{COMPILER} is not Debian's: install {}",
            toolchain::PACKAGES[0]
        )
    })?;
    let directory = workspace::target().join("tools");
    let sysroot = directory.join(format!("rust-{arch}-{version}"));
    let library = sysroot.join("usr/lib/rustlib").join(arch.rust());
    let place = sysroot.join("lib/rustlib").join(arch.rust());
    if !place.exists() {
        let packages = Packages::open(
            &directory.join(format!("apt-rust-{arch}")),
            arch,
            packages::BOOKWORM,
            true,
        )?;
        let _ = fs::remove_dir_all(&sysroot);
        packages.unpack(LIBRARY, Some(&version), &sysroot)?;
        let above = place.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(above).with_context(|| format!("cannot make {}", above.display()))?;
        symlink(&library, &place).with_context(|| format!("cannot make {}", place.display()))?;
    }
    Ok(sysroot)
}

/// A target's name as cargo has it in names of variables.
fn variable(target: &str) -> String {
    target.replace('-', "_").to_uppercase()
}
