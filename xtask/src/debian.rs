//! Debian packages: which are missing, and their installation.

use std::{path::Path, process::Command};

use anyhow::{Context as _, bail};

use crate::command::run;

/// Whether [`ensure`] can install what is missing.
pub fn can_install() -> bool {
    Path::new("/etc/debian_version").exists() && nix::unistd::geteuid().is_root()
}

/// Installs those of `packages` that are missing.
///
/// # Errors
/// Where it cannot (no Debian, no root, no network), the error says what to install.
pub fn ensure(packages: &[&str]) -> anyhow::Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    let wanted = missing.join(" ");
    if !can_install() {
        bail!(
            "Debian packages are missing: run `apt-get install {wanted}` as root, then try again"
        );
    }
    install(&missing).with_context(|| format!("cannot install the Debian packages {wanted}"))
}

fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    // It fails as soon as one package is unknown, and prints the known ones all the same.
    let known = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Status} ${Package}\n"])
        .args(packages)
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    let installed = |package: &str| {
        known
            .lines()
            .any(|line| line == format!("installed {package}"))
    };
    packages
        .iter()
        .copied()
        .filter(|package| !installed(package))
        .collect()
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    run(apt_get().arg("update").arg("--quiet=2"))?;
    run(apt_get()
        .args(["install", "--yes", "--no-install-recommends", "--quiet=2"])
        .args(packages))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Packages of servers start them at once, except in single-user mode.
        .env("RUNLEVEL", "1");
    command
}
